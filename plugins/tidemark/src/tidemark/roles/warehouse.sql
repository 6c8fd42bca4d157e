-- The roles of the warehouse. Run it in the warehouse's database, as its owner or a superuser; then give passwords to those
-- that log in: ALTER ROLE tidemark_loader LOGIN PASSWORD '...'; and so tidemark_transformer and tidemark_watcher. Make
-- people members of tidemark_reporter, and what else watches the pipeline a member of tidemark_monitor.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['tidemark_loader', 'tidemark_transformer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
        -- a schema for each source, and for each developer
        EXECUTE format('GRANT CONNECT, TEMPORARY, CREATE ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    FOREACH role IN ARRAY ARRAY['tidemark_reporter', 'tidemark_monitor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidemark_watcher') THEN
        CREATE ROLE tidemark_watcher LOGIN;
    END IF;
    -- to make schemas and default privileges for them, one must be a member; a superuser is one anyway
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT tidemark_loader, tidemark_transformer TO %I', current_user);
    END IF;
END
$$;

-- the login of Airflow's page of streams: a monitor and nothing else, so that its password can change alone
GRANT tidemark_monitor TO tidemark_watcher;
-- it reads, whatever it is asked
ALTER ROLE tidemark_watcher SET default_transaction_read_only = on;

-- the loader owns raw, and each schema that it makes for another source
CREATE SCHEMA IF NOT EXISTS raw AUTHORIZATION tidemark_loader;
GRANT USAGE ON SCHEMA raw TO tidemark_transformer, tidemark_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_loader GRANT USAGE ON SCHEMAS TO tidemark_transformer, tidemark_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_loader GRANT SELECT ON TABLES TO tidemark_transformer;
GRANT SELECT ON ALL TABLES IN SCHEMA raw TO tidemark_transformer;

-- the transformer reads raw, and owns what dbt builds
CREATE SCHEMA IF NOT EXISTS staging AUTHORIZATION tidemark_transformer;
CREATE SCHEMA IF NOT EXISTS intermediate AUTHORIZATION tidemark_transformer;
CREATE SCHEMA IF NOT EXISTS marts AUTHORIZATION tidemark_transformer;

-- people read marts, those that dbt will yet make too
GRANT USAGE ON SCHEMA marts TO tidemark_reporter, tidemark_monitor;
GRANT USAGE ON SCHEMA intermediate TO tidemark_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA marts TO tidemark_reporter;
ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_transformer IN SCHEMA marts GRANT SELECT ON TABLES TO tidemark_reporter;

-- what Tidemark keeps of its runs is for whoever watches them; loader and dbt grant it on those that they make later
DO $$
DECLARE
    own record;
BEGIN
    FOR own IN
        SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relname LIKE '\_tidemark\_%' AND relkind = 'r' AND nspname IN ('raw', 'marts', 'intermediate')
    LOOP
        EXECUTE format('GRANT SELECT ON %I.%I TO tidemark_monitor', own.nspname, own.relname);
    END LOOP;
END
$$;
