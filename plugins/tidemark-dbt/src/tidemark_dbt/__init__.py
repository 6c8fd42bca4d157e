"""dbt, with one run at a time per warehouse."""
