"""Code that tap, target, dbt's wrapper and `tidemark` share. It needs no Singer SDK, and either PostgreSQL driver."""
