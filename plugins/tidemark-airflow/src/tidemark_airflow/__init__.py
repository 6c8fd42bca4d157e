"""Runs a Tidemark project in Airflow."""
