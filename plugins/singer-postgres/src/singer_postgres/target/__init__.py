"""target-postgres: loads chunks of COPY data, and the RECORD messages of any tap, into PostgreSQL."""
