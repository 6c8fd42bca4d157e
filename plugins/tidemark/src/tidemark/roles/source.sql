-- The tap's role in the source. Run this in the source database, as its owner or a superuser. Then give the role a
-- password: ALTER ROLE tidemark_reader LOGIN PASSWORD '...';
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidemark_reader') THEN
        CREATE ROLE tidemark_reader LOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO tidemark_reader', current_database());
END
$$;

-- a second safeguard: its sessions are read-only
ALTER ROLE tidemark_reader SET default_transaction_read_only = on;
-- This covers all present and future tables. If that is too much, GRANT SELECT on the tables to read, or on the
-- selected columns (GRANT SELECT (id, name) ON ...). The tap reads a table with column grants in one piece.
GRANT pg_read_all_data TO tidemark_reader;
-- The tap looks at when other sessions' transactions began: they may still commit older rows.
GRANT pg_read_all_stats TO tidemark_reader;
