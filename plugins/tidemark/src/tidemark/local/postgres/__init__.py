"""PostgreSQL servers of our own: found, made, started and stopped without root and without Docker."""
