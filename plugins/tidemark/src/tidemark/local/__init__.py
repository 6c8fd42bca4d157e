"""What runs on this machine alone: embedded servers, their passwords, the demo shop, Airflow, documentation pages."""
