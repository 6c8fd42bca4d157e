"""Backups of the warehouse, Meltano's state and Airflow's metadata, from which a run can resume without a gap."""
