"""dbt, one run at a time in a warehouse."""
