"""The page of streams: the warehouse's run records of each stream, read with the monitor's role, shown in Airflow."""
