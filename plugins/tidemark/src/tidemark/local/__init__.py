"""Services of this machine: embedded servers, their passwords, the demo shop, Airflow, documentation pages."""
