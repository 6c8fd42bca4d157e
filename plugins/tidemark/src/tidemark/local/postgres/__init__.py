"""Embedded PostgreSQL servers. They need neither root nor Docker."""
