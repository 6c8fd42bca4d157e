"""What tap, target, dbt's wrapper and the `tidemark` utility share: no Singer, no SDK, either driver of PostgreSQL."""
