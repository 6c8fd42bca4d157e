-- The role with which `tidemark metrics` reads Meltano's state.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidemark_watcher') THEN
        CREATE ROLE tidemark_watcher LOGIN;
    END IF;
END
$$;
ALTER ROLE tidemark_watcher SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE meltano TO tidemark_watcher;
\connect meltano
GRANT SELECT ON ALL TABLES IN SCHEMA public TO tidemark_watcher;
-- Meltano creates its tables at its first run
ALTER DEFAULT PRIVILEGES FOR ROLE meltano IN SCHEMA public GRANT SELECT ON TABLES TO tidemark_watcher;
