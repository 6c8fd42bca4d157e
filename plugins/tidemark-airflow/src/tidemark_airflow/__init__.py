"""Airflow, running a Tidemark project."""
