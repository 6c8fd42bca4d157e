"""Brings a database on board: proposes how its tables are read, and writes the project's files for them."""
