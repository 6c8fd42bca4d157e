"""tap-postgres: reads PostgreSQL tables in chunks of COPY data."""
