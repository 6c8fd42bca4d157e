"""Backups of the warehouse, of Meltano's state and of Airflow's metadata, that a run can go on from without a gap."""
