-- The role of Airflow in its own database, which it owns. Run this there, as a superuser. Then set its password:
-- ALTER ROLE airflow LOGIN PASSWORD '...';
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'airflow') THEN
        CREATE ROLE airflow LOGIN;
    END IF;
    EXECUTE format('ALTER DATABASE %I OWNER TO airflow', current_database());
END
$$;
