-- Meltano's state has a database of its own beside Airflow's: it must outlive a warehouse that is restored.
CREATE ROLE meltano LOGIN;
CREATE DATABASE meltano OWNER meltano;
REVOKE CONNECT ON DATABASE meltano, airflow FROM PUBLIC;
GRANT CONNECT ON DATABASE airflow TO airflow;
