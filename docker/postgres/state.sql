-- Meltano's state has a separate database beside Airflow's, so that it outlives a restore of the warehouse.
CREATE ROLE meltano LOGIN;
CREATE DATABASE meltano OWNER meltano;
REVOKE CONNECT ON DATABASE meltano, airflow FROM PUBLIC;
GRANT CONNECT ON DATABASE airflow TO airflow;
