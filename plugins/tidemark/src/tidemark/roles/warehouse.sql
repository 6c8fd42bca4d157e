-- The roles of the warehouse. Run this in its database, as the owner or a superuser. Then give a password to
-- each role that logs in (tidemark_loader, tidemark_transformer, tidemark_watcher, tidemark_grafana):
-- ALTER ROLE tidemark_loader LOGIN PASSWORD '...'; Make people members of tidemark_reporter, and monitoring tools members
-- of tidemark_monitor.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['tidemark_loader', 'tidemark_transformer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
        -- CREATE, because each source and each developer gets a schema
        EXECUTE format('GRANT CONNECT, TEMPORARY, CREATE ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    FOREACH role IN ARRAY ARRAY['tidemark_reporter', 'tidemark_monitor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    FOREACH role IN ARRAY ARRAY['tidemark_watcher', 'tidemark_grafana'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
    END LOOP;
    -- only members of a role, and superusers, can create schemas and default privileges for it
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT tidemark_loader, tidemark_transformer TO %I', current_user);
    END IF;
END
$$;

-- The login of Airflow's page of streams, and of what watches runs. It only has the monitor's rights, and a password of
-- its own. Grafana shows marts with the other login, which only has the reporter's rights.
GRANT tidemark_monitor TO tidemark_watcher;
GRANT tidemark_reporter TO tidemark_grafana;
-- a second safeguard: their sessions are read-only
ALTER ROLE tidemark_watcher SET default_transaction_read_only = on;
ALTER ROLE tidemark_grafana SET default_transaction_read_only = on;
-- a panel over too long a time must not keep the warehouse busy
ALTER ROLE tidemark_grafana SET statement_timeout = '30s';

-- The loader owns raw, and each schema that it creates for another source.
CREATE SCHEMA IF NOT EXISTS raw AUTHORIZATION tidemark_loader;
GRANT USAGE ON SCHEMA raw TO tidemark_transformer, tidemark_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_loader GRANT USAGE ON SCHEMAS TO tidemark_transformer, tidemark_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_loader GRANT SELECT ON TABLES TO tidemark_transformer;
GRANT SELECT ON ALL TABLES IN SCHEMA raw TO tidemark_transformer;

-- The transformer reads raw, and owns everything that dbt builds.
CREATE SCHEMA IF NOT EXISTS staging AUTHORIZATION tidemark_transformer;
CREATE SCHEMA IF NOT EXISTS intermediate AUTHORIZATION tidemark_transformer;
CREATE SCHEMA IF NOT EXISTS marts AUTHORIZATION tidemark_transformer;

-- People read marts, including those that dbt creates later.
GRANT USAGE ON SCHEMA marts TO tidemark_reporter, tidemark_monitor;
GRANT USAGE ON SCHEMA intermediate TO tidemark_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA marts TO tidemark_reporter;
ALTER DEFAULT PRIVILEGES FOR ROLE tidemark_transformer IN SCHEMA marts GRANT SELECT ON TABLES TO tidemark_reporter;

-- Members of tidemark_monitor read the tables of run records. The loader and dbt grant this on tables that they create
-- later. Of a log of changes they see how long and how old it is, and not its values, which are those of raw and of marts.
DO $$
DECLARE
    own record;
BEGIN
    FOR own IN
        SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relname LIKE '\_tidemark\_%' AND relkind = 'r'
            AND (nspname IN ('raw', 'marts', 'intermediate') OR relname = '_tidemark_changes')
            AND pg_has_role(current_user, relowner, 'usage')
    LOOP
        IF own.relname = '_tidemark_changes' THEN
            EXECUTE format('REVOKE SELECT ON %I.%I FROM tidemark_monitor', own.nspname, own.relname);
            EXECUTE format('GRANT SELECT (model, xid, logged_at) ON %I.%I TO tidemark_monitor', own.nspname, own.relname);
        ELSE
            EXECUTE format('GRANT SELECT ON %I.%I TO tidemark_monitor', own.nspname, own.relname);
        END IF;
    END LOOP;
END
$$;

-- PostgreSQL can't widen a column that a view reads. The transformer owns the views on raw, and gives the loader two
-- functions: one saves a view's definition and drops the view, the other creates the view again. They take no SQL from
-- the loader and show it no rows. A transaction that does not create every view again can't commit.
CREATE SCHEMA IF NOT EXISTS tidemark AUTHORIZATION tidemark_transformer;
GRANT USAGE ON SCHEMA tidemark TO tidemark_loader;
CREATE TABLE IF NOT EXISTS tidemark.views_set_aside (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    name text NOT NULL,
    statements text[] NOT NULL,
    grants text[] NOT NULL
);
DO $$
BEGIN
    -- only if necessary: the ALTER would wait for a load that has set views aside
    IF (SELECT relowner::regrole::text FROM pg_class WHERE oid = 'tidemark.views_set_aside'::regclass)
        <> 'tidemark_transformer'
    THEN
        ALTER TABLE tidemark.views_set_aside OWNER TO tidemark_transformer;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION tidemark.set_view_aside(view oid) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- the saved SQL must mean the same later, whatever the caller sets in between
SET standard_conforming_strings = on SET datestyle = iso SET intervalstyle = postgres SET extra_float_digits = 1
-- raise an error if one of the caller's policies would run with this function's rights
SET row_security = off
AS $$
DECLARE
    found record;
    aside bigint;
BEGIN
    SELECT relkind, CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind, relowner,
        format('%I.%I', nspname, relname) AS name,
        CASE relkind WHEN 'm' THEN CASE WHEN relispopulated THEN ' WITH DATA' ELSE ' WITH NO DATA' END ELSE '' END AS filled
    INTO STRICT found
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = view;
    IF found.relkind NOT IN ('v', 'm') OR NOT pg_has_role(current_user, found.relowner, 'usage')
        OR EXISTS (SELECT FROM pg_trigger WHERE tgrelid = view AND NOT tgisinternal)
        OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = view AND rulename <> '_RETURN')
        OR EXISTS (SELECT FROM pg_attrdef WHERE adrelid = view)
        OR EXISTS (SELECT FROM pg_seclabel WHERE classoid = 'pg_class'::regclass AND objoid = view)
    THEN
        RAISE EXCEPTION '% can''t be created again as it is', found.name USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- only allow this for views on the caller's own tables
    IF NOT EXISTS (
        WITH RECURSIVE below (oid) AS (
            SELECT view
            UNION
            SELECT refobjid FROM below JOIN pg_rewrite ON ev_class = below.oid
            JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
                AND refclassid = 'pg_class'::regclass
        )
        SELECT FROM below JOIN pg_class USING (oid)
        WHERE relkind IN ('r', 'p') AND pg_has_role(session_user, relowner, 'usage')
    ) THEN
        RAISE EXCEPTION '% reads no table of %', found.name, session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- lock the view, so that nobody replaces it after its definition is read and before it is dropped
    EXECUTE format('EXPLAIN SELECT FROM %s', found.name);
    IF to_regclass(found.name) IS DISTINCT FROM view THEN
        RAISE EXCEPTION '% was replaced just now', found.name USING ERRCODE = 'lock_not_available';
    END IF;
    INSERT INTO tidemark.views_set_aside (name, statements, grants)
    SELECT found.name,
        ARRAY[format(
            'CREATE %s %s%s%s%s AS %s%s', found.kind, found.name,
            (SELECT ' USING ' || quote_ident(amname) FROM pg_class c JOIN pg_am ON pg_am.oid = relam WHERE c.oid = view),
            (SELECT ' WITH (' || array_to_string(reloptions, ', ') || ')' FROM pg_class WHERE oid = view),
            (
                SELECT ' TABLESPACE ' || quote_ident(spcname)
                FROM pg_class c JOIN pg_tablespace t ON t.oid = reltablespace WHERE c.oid = view
            ),
            rtrim(pg_get_viewdef(view), '; '), found.filled
        )]
        || ARRAY(SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = view ORDER BY indexrelid)
        || ARRAY(
            SELECT format('COMMENT ON %s IS %L', coalesce(
                'COLUMN ' || found.name || '.' || quote_ident(attname), found.kind || ' ' || found.name
            ), description)
            FROM pg_description LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid AND objsubid > 0
            WHERE classoid = 'pg_class'::regclass AND objoid = view
        )
        -- the properties of a materialized view, its columns and its indexes that CREATE doesn't set
        || ARRAY(
            with this as (
                select c.oid, reltoastrelid, format('%I.%I', nspname, relname) as name
                from pg_class c join pg_namespace n on n.oid = relnamespace
                where c.oid = view and relkind = 'm'
            ), indexes as (
                select i.oid, format('%I.%I', nspname, relname) as name, relname, reltablespace, indisclustered
                from this join pg_index on indrelid = this.oid join pg_class i on i.oid = indexrelid
                join pg_namespace n on n.oid = i.relnamespace
            ), statistics as (
                select s.oid, stxowner, stxstattarget, format('%I.%I', nspname, stxname) as name
                from this join pg_statistic_ext s on stxrelid = this.oid
                join pg_namespace n on n.oid = stxnamespace
            )
            select format('ALTER MATERIALIZED VIEW %s SET (toast.%s)', name,
                array_to_string(reloptions, ', toast.'))
            from this join pg_class toast on toast.oid = this.reltoastrelid where reloptions is not null
            union all
            select format('ALTER MATERIALIZED VIEW %s ALTER COLUMN %I %s', name, attname, change)
            from this join pg_attribute on attrelid = this.oid and attnum > 0
            join pg_type t on t.oid = atttypid
            cross join lateral (values
                (case when attstattarget >= 0 then 'SET STATISTICS ' || attstattarget end),
                ('SET (' || array_to_string(attoptions, ', ') || ')'),
                (case when attstorage <> typstorage then 'SET STORAGE ' || case attstorage
                    when 'p' then 'PLAIN' when 'e' then 'EXTERNAL' when 'm' then 'MAIN' else 'EXTENDED' end end),
                (case attcompression when 'p' then 'SET COMPRESSION pglz' when 'l' then 'SET COMPRESSION lz4' end)
            ) as changes (change)
            where change is not null
            union all
            select format('ALTER INDEX %s SET TABLESPACE %I', name, spcname)
            from indexes join pg_tablespace t on t.oid = reltablespace
            union all
            select format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', name, attnum, attstattarget)
            from indexes join pg_attribute on attrelid = indexes.oid where attstattarget >= 0
            union all
            select format('COMMENT ON INDEX %s IS %L', name, description)
            from indexes join pg_description on classoid = 'pg_class'::regclass and objoid = indexes.oid
            union all
            select format('ALTER MATERIALIZED VIEW %s CLUSTER ON %I', this.name, relname)
            from this, indexes where indisclustered
            union all
            select statement from statistics cross join lateral (values
                (pg_get_statisticsobjdef(oid)),
                (case when stxstattarget >= 0
                    then format('ALTER STATISTICS %s SET STATISTICS %s', name, stxstattarget) end),
                (format('COMMENT ON STATISTICS %s IS %L', name,
                    nullif(obj_description(oid, 'pg_statistic_ext'), ''))),
                (format('ALTER STATISTICS %s OWNER TO %I', name, pg_get_userbyid(stxowner)))
            ) as statements (statement) where statement is not null
        )
        || format('ALTER %s %s OWNER TO %I', found.kind, found.name, pg_get_userbyid(found.relowner)),
        ARRAY(
            SELECT format(
                'GRANT %s%s ON %s TO %s%s', privilege_type, ' (' || quote_ident(attname) || ')', found.name,
                CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
            )
            FROM (
                SELECT acl.*, NULL AS attname FROM pg_class, aclexplode(relacl) AS acl WHERE oid = view
                UNION ALL
                SELECT acl.*, attname FROM pg_attribute, aclexplode(attacl) AS acl WHERE attrelid = view
            ) AS granted
            WHERE grantee <> found.relowner
        )
    RETURNING id INTO aside;
    EXECUTE format('DROP %s %s', found.kind, found.name);
    RETURN aside;
END
$$;

CREATE OR REPLACE FUNCTION tidemark.put_view_back(aside bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on SET datestyle = iso SET intervalstyle = postgres SET extra_float_digits = 1
SET row_security = off
AS $$
DECLARE
    saved record;
    statement text;
BEGIN
    DELETE FROM tidemark.views_set_aside WHERE id = aside AND xid = pg_current_xact_id() RETURNING * INTO STRICT saved;
    FOREACH statement IN ARRAY saved.statements LOOP
        EXECUTE statement;
    END LOOP;
    -- revoke grants that come from default privileges: the old view did not have them
    FOR statement IN
        SELECT DISTINCT format(
            'REVOKE ALL ON %s FROM %s', saved.name,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        )
        FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = saved.name::regclass AND grantee <> relowner
    LOOP
        EXECUTE statement;
    END LOOP;
    FOREACH statement IN ARRAY saved.grants LOOP
        EXECUTE statement;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION tidemark.refuse_lost_view() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM tidemark.views_set_aside WHERE id = NEW.id) THEN
        RAISE EXCEPTION '% was set aside and not put back', NEW.name USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

-- the order matters: SECURITY DEFINER comes last, after the owner and the right to call them are set
ALTER FUNCTION tidemark.set_view_aside(oid) OWNER TO tidemark_transformer;
ALTER FUNCTION tidemark.put_view_back(bigint) OWNER TO tidemark_transformer;
ALTER FUNCTION tidemark.refuse_lost_view() OWNER TO tidemark_transformer;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tidemark FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidemark.set_view_aside(oid), tidemark.put_view_back(bigint) TO tidemark_loader;
ALTER FUNCTION tidemark.set_view_aside(oid) SECURITY DEFINER;
ALTER FUNCTION tidemark.put_view_back(bigint) SECURITY DEFINER;
ALTER FUNCTION tidemark.refuse_lost_view() SECURITY DEFINER;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'tidemark.views_set_aside'::regclass AND NOT tgisinternal) THEN
        CREATE CONSTRAINT TRIGGER every_view_is_put_back AFTER INSERT ON tidemark.views_set_aside
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tidemark.refuse_lost_view();
    END IF;
END
$$;

-- dbt's models that are built by key need triggers on raw tables, which log the rows that go and the values that are
-- replaced. Only the owner of a table can create triggers. So the loader gives the transformer this function. It creates
-- the same triggers whoever calls it, on the loader's tables alone, and shows no rows. The transformer can make loads slower
-- with it, and delete what was logged, after which its builds compute all rows. tests/project holds the body equal to that of
-- dbt's package in_place.
CREATE OR REPLACE FUNCTION tidemark.track_changes(relation regclass, columns text[], keep interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
declare
    named record;
    -- the column with the transaction that wrote the row, as in in_place.stamp_column()
    stamp text := (
        select min(attname) from pg_catalog.pg_attribute
        left join pg_catalog.pg_attrdef on adrelid = attrelid and adnum = attnum
        where attrelid = relation and atttypid = 'pg_catalog.xid8'::regtype and attnum > 0 and not attisdropped
            and (
                pg_get_expr(adbin, adrelid) like '%pg_current_xact_id()'
                or attname = '_tidemark_loaded_xid' and exists (
                    select from pg_catalog.pg_class as beside
                    where beside.relname = '_tidemark_state'
                        and beside.relnamespace = (select relnamespace from pg_catalog.pg_class where oid = relation)
                )
            )
    );
    this_cluster text := (select system_identifier::text from pg_catalog.pg_control_system());
    has_triggers boolean;
    watched text[];
    known jsonb;
    is_current boolean;
    -- of the trigger's function
    logger text;
    body text;
    settings text;
    -- the tracked columns as JSON, of rows of the three names that they have in it
    old_json text;
    new_json text;
    changed_json text;
    -- an update changes one of them
    differs text;
    types text;
begin
    select nspname as schema, relname as name, relowner as owner, relnamespace as namespace into strict named
    from pg_catalog.pg_class
    inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
    where pg_class.oid = relation and relkind in ('r', 'p');
    if not pg_has_role(current_user, named.owner, 'usage') or starts_with(named.name, '_tidemark_') then
        raise exception '% does not own %, or it is no table of rows', current_user, relation
        using errcode = 'insufficient_privilege';
    end if;

    -- builds of several models may get here at once
    perform pg_advisory_xact_lock(hashtext('in_place'), hashtext(named.schema));
    -- only now, because another build may have created them while this one waited. Without all of its triggers, the log has missed changes
    has_triggers := (
        select count(*) from pg_catalog.pg_trigger
        where tgrelid = relation and tgname like '\_tidemark\_logs\_%' and tgenabled in ('O', 'A')
    ) >= 4;
    -- the columns in the condition of the trigger on updates, by the names that they have now
    watched := (
        select array_agg(attname::text)
        from pg_catalog.pg_trigger
        inner join pg_catalog.pg_depend
            on classid = 'pg_catalog.pg_trigger'::regclass and objid = pg_trigger.oid
            and refclassid = 'pg_catalog.pg_class'::regclass and refobjid = tgrelid
        inner join pg_catalog.pg_attribute on attrelid = refobjid and attnum = refobjsubid
        where tgrelid = relation and tgname = '_tidemark_logs_update'
    );
    -- a trigger or rule of another role on these tables would run with this role's rights
    if exists (
        select from pg_catalog.pg_class
        where relnamespace = named.namespace and relname in ('_tidemark_changes', '_tidemark_tracked')
            and not (relkind = 'r' and pg_has_role(current_user, relowner, 'usage'))
    ) then
        raise exception '_tidemark_changes or _tidemark_tracked in % does not belong to %', named.schema, current_user
        using errcode = 'insufficient_privilege';
    end if;
    -- to_regclass() may remember that a table was missing before the lock
    if not exists (select from pg_catalog.pg_class where relnamespace = named.namespace and relname = '_tidemark_changes') then
        execute format(
            'create table %1$I._tidemark_changes ('
            '   model text not null, xid xid8 not null default pg_catalog.pg_current_xact_id(),'
            '   logged_at timestamptz not null default pg_catalog.now(), old jsonb, new jsonb'
            ');'
            'create index on %1$I._tidemark_changes (model, xid);'
            'comment on table %1$I._tidemark_changes is ''Kept by Tidemark: version 1''',
            named.schema
        );
    end if;
    if not exists (select from pg_catalog.pg_class where relnamespace = named.namespace and relname = '_tidemark_tracked') then
        execute format(
            'create table %1$I._tidemark_tracked ('
            '   model text primary key, relation oid, cluster text not null, columns jsonb not null, trimmed xid8'
            ');'
            'comment on table %1$I._tidemark_tracked is ''Kept by Tidemark: version 1''',
            named.schema
        );
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'tidemark_monitor') then
        -- not the values, which are those of raw
        execute format(
            'revoke select on %1$I._tidemark_changes from tidemark_monitor;'
            'grant select (model, xid, logged_at) on %1$I._tidemark_changes to tidemark_monitor;'
            'grant select on %1$I._tidemark_tracked to tidemark_monitor', named.schema
        );
    end if;
    execute format('select columns from %I._tidemark_tracked where model = $1 and relation = $2 and cluster = $3', named.schema)
    into known using named.name, relation::oid, this_cluster;
    known := coalesce(known, '{}');
    -- the columns of other models stay tracked, if they are still there
    select array_agg(name order by name) into columns
    from (select unnest(columns) as name union select jsonb_object_keys(known)) as wanted
    where exists (select from pg_catalog.pg_attribute where attrelid = relation and attname = name and attnum > 0 and not attisdropped);
    has_triggers := has_triggers
        and array(select name from jsonb_object_keys(known) as name where name = any(columns)) <@ watched is not false;
    -- What runs for each row is fixed here, and names all that it calls: a setting of search_path for the function would cost more
    -- than the rest of it, and a session's own must not choose what runs with the owner's rights. Values of other types are
    -- written by their output functions, because jsonb would call a user's own cast.
    select
        string_agg(type_oid::text, ' ' order by name),
        string_agg(
            case when has_exact_equality then format('old.%1$I is distinct from new.%1$I', name)
            else format('pg_catalog.record_image_ne(row(old.%1$I), row(new.%1$I))', name) end,
            ' or ' order by name
        ),
        -- a value of a type that a setting changes is written in one form, whatever the session's settings
        case when not bool_and(is_plain) then 'set extra_float_digits = 1 set intervalstyle = postgres set datestyle = iso set bytea_output = hex' else '' end
    into types, differs, settings
    from (
        select
            attname::text as name, atttypid as type_oid,
            atttypid = any('{bool,int2,int4,int8,numeric,uuid,date,timestamp,timestamptz,text,varchar,bpchar,json,jsonb}'::regtype[]) as is_plain,
            -- equal values are the same bits: not so for 1.0 and 1.00
            atttypid = any('{bool,int2,int4,int8,uuid,date,timestamp,timestamptz}'::regtype[])
                or atttypid = 'text'::regtype and collisdeterministic as has_exact_equality
        from pg_catalog.pg_attribute
        left join pg_catalog.pg_collation on pg_collation.oid = attcollation
        where attrelid = relation and attname = any(columns) and attnum > 0 and not attisdropped
    ) as tracked;
    select
        -- a function takes 100 arguments
        string_agg(format('pg_catalog.jsonb_build_object(%s)', part), ' operator(pg_catalog.||) ') filter (where row_name = 'old'),
        string_agg(format('pg_catalog.jsonb_build_object(%s)', part), ' operator(pg_catalog.||) ') filter (where row_name = 'new'),
        string_agg(format('pg_catalog.jsonb_build_object(%s)', part), ' operator(pg_catalog.||) ') filter (where row_name = 'changed')
    into old_json, new_json, changed_json
    from (
        select row_name, string_agg(
            format(
                case when atttypid = any('{bool,int2,int4,int8,numeric,uuid,date,timestamp,timestamptz,text,varchar,bpchar,json,jsonb}'::regtype[])
                then '%2$L, %1$s.%3$s'
                else '%2$L, case when %1$s.%3$s is distinct from null then pg_catalog.format(''%%s'', %1$s.%3$s) end' end,
                -- always quoted: PL/pgSQL reserves words, such as by, that SQL does not
                row_name, attname, '"' || replace(attname, '"', '""') || '"'
            ), ', ' order by attname
        ) as part
        from (
            select *, (row_number() over (order by attname) - 1) / 45 as number from pg_catalog.pg_attribute
            where attrelid = relation and attname = any(columns) and attnum > 0 and not attisdropped
        ) as tracked
        cross join unnest(array['old', 'new', 'changed']) as row_name
        group by row_name, number
    ) as parts;
    body := format(
        $function$
            -- the types of its columns: %6$s
            declare
                old_values pg_catalog.jsonb;
                new_values pg_catalog.jsonb;
            begin
                if pg_catalog.texteq(tg_op, 'TRUNCATE') then
                    insert into %1$I._tidemark_changes (model) values (tg_table_name);
                    return null;
                end if;
                -- A row without values says that any row may have changed. So it is if a column was renamed or dropped, or if
                -- a value is too long for jsonb: no load fails because of its log.
                if pg_catalog.texteq(tg_level, 'ROW') then
                    begin
                        if pg_catalog.texteq(tg_op, 'UPDATE') then
                            old_values := %2$s;
                        end if;
                        -- a row with this transaction's stamp shows its new values itself
                        if pg_catalog.xid8eq(new.%5$I, pg_catalog.pg_current_xact_id()) is not true then
                            new_values := %3$s;
                        end if;
                    exception when others then
                        old_values := null;
                        new_values := null;
                    end;
                    insert into %1$I._tidemark_changes (model, old, new) values (tg_table_name, old_values, new_values);
                    return null;
                end if;
                begin
                    if pg_catalog.texteq(tg_op, 'INSERT') is not true then
                        insert into %1$I._tidemark_changes (model, old) select tg_table_name, %4$s from old_rows as changed;
                    end if;
                    if pg_catalog.texteq(tg_op, 'DELETE') is not true then
                        insert into %1$I._tidemark_changes (model, new) select tg_table_name, %4$s from new_rows as changed;
                    end if;
                exception when others then
                    insert into %1$I._tidemark_changes (model) values (tg_table_name);
                end;
                return null;
            end
        $function$,
        named.schema, old_json, new_json, changed_json, coalesce(stamp, 'no stamp'), types
    );
    logger := '_tidemark_log_' || case when octet_length(named.name) > 40 then md5(named.name) else named.name end;
    is_current := has_triggers and known ?& columns and (select count(*) from jsonb_object_keys(known)) = cardinality(columns)
        and 4 = (
            select count(*) from pg_catalog.pg_trigger
            inner join pg_catalog.pg_proc on pg_proc.oid = tgfoid
            where tgrelid = relation and tgname like '\_tidemark\_logs\_%' and tgenabled = 'A' and proname = logger and prosrc = body
        );
    -- only if necessary: a trigger needs a lock that waits for all who write
    if not is_current then
        execute format(
            'create or replace function %1$I.%2$I() returns trigger language plpgsql security definer %3$s as %4$L;'
            -- others could put it on a table of theirs, and log what never changed
            'revoke all on function %1$I.%2$I() from public;'
            'grant execute on function %1$I.%2$I() to %5$I',
            named.schema, logger, settings, body, pg_get_userbyid(named.owner)
        );
        execute format(
            'create or replace trigger _tidemark_logs_delete after delete on %1$s referencing old table as old_rows'
            '   for each statement execute function %2$I.%4$I(%3$s);'
            'create or replace trigger _tidemark_logs_truncate after truncate on %1$s'
            '   for each statement execute function %2$I.%4$I();',
            relation, named.schema, (select string_agg(quote_literal(name), ', ') from unnest(columns) as name), logger
        );
        if stamp is null then
            execute format(
                'create or replace trigger _tidemark_logs_update after update on %1$s'
                '   referencing old table as old_rows new table as new_rows'
                '   for each statement execute function %2$I.%4$I(%3$s);'
                'create or replace trigger _tidemark_logs_insert after insert on %1$s referencing new table as new_rows'
                '   for each statement execute function %2$I.%4$I(%3$s);',
                relation, named.schema, (select string_agg(quote_literal(name), ', ') from unnest(columns) as name), logger
            );
        else
            -- a row without this transaction's stamp was written by hand
            execute format(
                'create or replace trigger _tidemark_logs_update after update on %1$s for each row'
                '   when (%4$s or new.%5$I is distinct from pg_catalog.pg_current_xact_id())'
                '   execute function %2$I.%6$I(%3$s);'
                'create or replace trigger _tidemark_logs_insert after insert on %1$s for each row'
                '   when (new.%5$I is distinct from pg_catalog.pg_current_xact_id())'
                '   execute function %2$I.%6$I(%3$s);',
                relation, named.schema, (select string_agg(quote_literal(name), ', ') from unnest(columns) as name),
                differs, stamp, logger
            );
        end if;
        -- a session with session_replication_role = replica changes rows as well
        execute format(
            'alter table %1$s'
            '   enable always trigger _tidemark_logs_delete, enable always trigger _tidemark_logs_truncate,'
            '   enable always trigger _tidemark_logs_update, enable always trigger _tidemark_logs_insert', relation
        );
        -- the function of all tables in earlier releases
        if to_regprocedure(format('%I._tidemark_log_change()', named.schema)) is not null and not exists (
            select from pg_catalog.pg_trigger where tgfoid = to_regprocedure(format('%I._tidemark_log_change()', named.schema))
        ) then
            execute format('drop function %I._tidemark_log_change()', named.schema);
        end if;
    end if;

    execute format(
        'with old_changes as ('
        '   delete from %1$I._tidemark_changes'
        '   where model = $1 and ($6 and logged_at < pg_catalog.now() - $5 or not exists ('
        '       select from %1$I._tidemark_tracked where model = $1 and relation = $2 and cluster = $3'
        '   )) returning xid'
        ') '
        'insert into %1$I._tidemark_tracked as known (model, relation, cluster, columns) values ($1, $2, $3, $4) '
        'on conflict (model) do update set '
        '   relation = $2, cluster = $3, columns = $4,'
        '   trimmed = case when known.cluster = $3 then greatest(known.trimmed, (select max(xid::text::numeric)::text::xid8 from old_changes)) end',
        named.schema
    )
    using named.name, relation::oid, this_cluster, (
        -- a column that is new here, or that was not watched for a while, is known from now on
        select jsonb_object_agg(name, coalesce(case when has_triggers then known -> name end, to_jsonb(pg_current_xact_id()::text)))
        from unnest(columns) as name
    ), keep,
    -- not while a build that found them in the log reads it
    pg_try_advisory_xact_lock(hashtext('in_place changes'), hashtext(named.schema));
end
$body$;
-- as above: SECURITY DEFINER comes last. An owner needs CREATE on the schema
GRANT CREATE ON SCHEMA tidemark TO tidemark_loader;
ALTER FUNCTION tidemark.track_changes(regclass, text[], interval) OWNER TO tidemark_loader;
REVOKE CREATE ON SCHEMA tidemark FROM tidemark_loader;
REVOKE ALL ON FUNCTION tidemark.track_changes(regclass, text[], interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidemark.track_changes(regclass, text[], interval) TO tidemark_transformer;
ALTER FUNCTION tidemark.track_changes(regclass, text[], interval) SECURITY DEFINER;

-- Its counterpart: it deletes what the log of a schema of the loader has too much of. After that, builds that have not read it compute
-- all rows. tests/project holds this body equal to that of the package, too.
CREATE OR REPLACE FUNCTION tidemark.trim_changes(schema name, read_before xid8, keep interval, max_bytes bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
declare
    namespace oid := (select oid from pg_catalog.pg_namespace where nspname = schema);
    this_cluster text := (select system_identifier::text from pg_catalog.pg_control_system());
    log text := format('%I._tidemark_changes', schema);
    tracked text := format('%I._tidemark_tracked', schema);
    -- the last transaction whose changes are too many
    surplus xid8;
    goes text;
    is_kept boolean;
begin
    if 2 <> (
        select count(*) from pg_catalog.pg_class
        where relnamespace = namespace and relname in ('_tidemark_changes', '_tidemark_tracked')
            and relkind = 'r' and pg_has_role(current_user, relowner, 'usage')
    ) then
        raise exception '% has no log of changes that belongs to %', schema, current_user using errcode = 'insufficient_privilege';
    end if;
    -- a build that has found that the log reaches back far enough may be about to read it: next time
    if not pg_try_advisory_xact_lock(hashtext('in_place changes'), hashtext(schema)) then
        return;
    end if;
    -- the changes do not name their cluster, so a table's newer ones go with them. The models above compute all rows anyway
    execute format('delete from %s where model in (select model from %s where cluster <> $1)', log, tracked) using this_cluster;
    execute format('delete from %s where cluster <> $1', tracked) using this_cluster;

    if pg_table_size(log::regclass) > max_bytes then
        execute format(
            'select xid from ('
            '   select xid, sum(pg_column_size(changes)) over (order by xid desc) as bytes, sum(pg_column_size(changes)) over () as all_bytes'
            '   from %s as changes'
            ') as sized where all_bytes > $1 and bytes > $1 / 2 order by xid desc limit 1', log
        ) into surplus using max_bytes;
    end if;
    goes := '(xid < $1) is true or logged_at < pg_catalog.now() - $2 or (xid <= $3) is true';

    if read_before is not null and pg_table_size(log::regclass) > 1024 * 1024 then
        begin
            -- no wait, so no load and no build waits behind this
            execute format('lock table %s in access exclusive mode nowait', log);
            execute format('select exists (select from %s where not (%s))', log, goes) into is_kept using read_before, keep, surplus;
            if not is_kept then
                execute format(
                    'update %s as tracked set trimmed = greatest(trimmed, (select xid from %s where model = tracked.model order by xid desc limit 1))'
                    'where exists (select from %2$s where model = tracked.model)', tracked, log
                );
                execute format('truncate %s', log);
                return;
            end if;
            -- gives the lock back
            raise lock_not_available;
        exception when lock_not_available then
            null;
        end;
    end if;
    execute format(
        'with deleted as (delete from %s where %s returning model, xid) '
        'update %s as tracked set trimmed = greatest(trimmed, last.xid) '
        'from (select model, max(xid::text::numeric)::text::xid8 as xid from deleted group by model) as last '
        'where tracked.model = last.model', log, goes, tracked
    ) using read_before, keep, surplus;
end
$body$;
GRANT CREATE ON SCHEMA tidemark TO tidemark_loader;
ALTER FUNCTION tidemark.trim_changes(name, xid8, interval, bigint) OWNER TO tidemark_loader;
REVOKE CREATE ON SCHEMA tidemark FROM tidemark_loader;
REVOKE ALL ON FUNCTION tidemark.trim_changes(name, xid8, interval, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidemark.trim_changes(name, xid8, interval, bigint) TO tidemark_transformer;
ALTER FUNCTION tidemark.trim_changes(name, xid8, interval, bigint) SECURITY DEFINER;
