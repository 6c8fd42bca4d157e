-- The role of postgres_exporter in this server: it reads statistics and settings, and no table.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidemark_exporter') THEN
        CREATE ROLE tidemark_exporter LOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO tidemark_exporter', current_database());
END
$$;
GRANT pg_monitor TO tidemark_exporter;
-- a second safeguard: its sessions are read-only
ALTER ROLE tidemark_exporter SET default_transaction_read_only = on;
