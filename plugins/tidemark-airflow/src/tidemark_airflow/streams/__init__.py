"""The page of streams: what the warehouse's history says of each, read with the monitor's role and shown in Airflow."""
