"""`tidemark metrics`: what the warehouse, Meltano's state, the schedules and the backups say, for Prometheus."""
