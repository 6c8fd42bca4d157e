-- The role that the tap reads the source with. Run it in the source database, as its owner or a superuser; then give the
-- role a password: ALTER ROLE tidemark_reader LOGIN PASSWORD '...';
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidemark_reader') THEN
        CREATE ROLE tidemark_reader LOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO tidemark_reader', current_database());
END
$$;

-- it reads, whatever it is asked
ALTER ROLE tidemark_reader SET default_transaction_read_only = on;
-- every table there is and will be; where that is too much, GRANT SELECT on those that are to be read, or
-- on the columns that are selected (GRANT SELECT (id, name) ON ...): such a table is read in one go
GRANT pg_read_all_data TO tidemark_reader;
-- sees since when other sessions have been open, by which the tap knows what may yet be committed
GRANT pg_read_all_stats TO tidemark_reader;
