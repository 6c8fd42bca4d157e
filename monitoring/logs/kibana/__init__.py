"""Kibana's saved objects for Tidemark's logs."""
