"""A Singer tap and target for PostgreSQL that hand each other COPY data instead of records."""
