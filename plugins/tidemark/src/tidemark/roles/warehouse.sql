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
-- later.
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
    old_row text;
    new_row text;
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
        execute format(
            'grant select on %1$I._tidemark_changes, %1$I._tidemark_tracked to tidemark_monitor', named.schema
        );
    end if;
    execute format(
        $function$
            create or replace function %1$I._tidemark_log_change() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp
            -- a value is written in one form, whatever the session's settings
            set extra_float_digits = 1 set intervalstyle = postgres set datestyle = iso as $trigger$
            declare
                kept text;
                old_values jsonb;
                new_values jsonb;
            begin
                if tg_op = 'TRUNCATE' then
                    insert into %1$I._tidemark_changes (model) values (tg_table_name);
                elsif tg_level = 'ROW' then
                    -- both are null if a column was renamed or dropped, or if a value of the row is too long for jsonb: then nobody
                    -- can say which rows changed
                    begin
                        old_values := to_jsonb(old);
                        new_values := to_jsonb(new);
                    exception when program_limit_exceeded then
                        old_values := null;
                        new_values := null;
                    end;
                    insert into %1$I._tidemark_changes (model, old, new) values (
                        tg_table_name,
                        case when old_values ?& tg_argv then (select jsonb_object_agg(name, old_values -> name) from unnest(tg_argv) as name) end,
                        case when new_values ?& tg_argv then (select jsonb_object_agg(name, new_values -> name) from unnest(tg_argv) as name) end
                    );
                elsif exists (
                    select from unnest(tg_argv) as name
                    where not exists (select from pg_attribute where attrelid = tg_relid and attname = name and not attisdropped)
                ) then
                    insert into %1$I._tidemark_changes (model) values (tg_table_name);
                else
                    select string_agg(format('%%L, changed.%%I', name, name), ', ') into kept from unnest(tg_argv) as name;
                    if tg_op in ('UPDATE', 'DELETE') then
                        execute format(
                            'insert into %%I._tidemark_changes (model, old) '
                            'select $1, jsonb_build_object(%%s) from old_rows as changed', %1$L, kept
                        ) using tg_table_name;
                    end if;
                    if tg_op in ('UPDATE', 'INSERT') then
                        execute format(
                            'insert into %%I._tidemark_changes (model, new) '
                            'select $1, jsonb_build_object(%%s) from new_rows as changed', %1$L, kept
                        ) using tg_table_name;
                    end if;
                end if;
                return null;
            end
            $trigger$;
            -- others could put it on a table of theirs, and log what never changed
            revoke all on function %1$I._tidemark_log_change() from public;
            grant execute on function %1$I._tidemark_log_change() to %2$I
        $function$,
        named.schema, pg_get_userbyid(named.owner)
    );

    execute format('select columns from %I._tidemark_tracked where model = $1 and relation = $2 and cluster = $3', named.schema)
    into known using named.name, relation::oid, this_cluster;
    known := coalesce(known, '{}');
    -- the columns of other models stay tracked, if they are still there
    select array_agg(name order by name) into columns
    from (select unnest(columns) as name union select jsonb_object_keys(known)) as wanted
    where exists (select from pg_catalog.pg_attribute where attrelid = relation and attname = name and attnum > 0 and not attisdropped);
    has_triggers := has_triggers
        and array(select name from jsonb_object_keys(known) as name where name = any(columns)) <@ watched is not false;
    is_current := has_triggers and known ?& columns and (select count(*) from jsonb_object_keys(known)) = cardinality(columns);
    -- only if necessary: a trigger needs a lock that waits for all who write
    if not is_current then
        select
            string_agg(format('old.%I', name), ', '),
            string_agg(format('new.%I', name), ', ')
        into old_row, new_row
        from unnest(columns) as name;
        execute format(
            'create or replace trigger _tidemark_logs_delete after delete on %1$s referencing old table as old_rows'
            '   for each statement execute function %2$I._tidemark_log_change(%3$s);'
            'create or replace trigger _tidemark_logs_truncate after truncate on %1$s'
            '   for each statement execute function %2$I._tidemark_log_change();',
            relation, named.schema, (select string_agg(quote_literal(name), ', ') from unnest(columns) as name)
        );
        if stamp is null then
            execute format(
                'create or replace trigger _tidemark_logs_update after update on %1$s'
                '   referencing old table as old_rows new table as new_rows'
                '   for each statement execute function %2$I._tidemark_log_change(%3$s);'
                'create or replace trigger _tidemark_logs_insert after insert on %1$s referencing new table as new_rows'
                '   for each statement execute function %2$I._tidemark_log_change(%3$s);',
                relation, named.schema, (select string_agg(quote_literal(name), ', ') from unnest(columns) as name)
            );
        else
            -- a row without this transaction's stamp was written by hand
            execute format(
                'create or replace trigger _tidemark_logs_update after update on %1$s for each row'
                '   when (pg_catalog.record_image_ne(row(%4$s), row(%5$s)) or new.%6$I is distinct from pg_catalog.pg_current_xact_id())'
                '   execute function %2$I._tidemark_log_change(%3$s);'
                'create or replace trigger _tidemark_logs_insert after insert on %1$s for each row'
                '   when (new.%6$I is distinct from pg_catalog.pg_current_xact_id())'
                '   execute function %2$I._tidemark_log_change(%3$s);',
                relation, named.schema, (select string_agg(quote_literal(name), ', ') from unnest(columns) as name),
                old_row, new_row, stamp
            );
        end if;
    end if;

    execute format(
        'with old_changes as ('
        '   delete from %1$I._tidemark_changes'
        '   where model = $1 and (logged_at < pg_catalog.now() - $5 or not exists ('
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
    ), keep;
end
$body$;
-- as above: SECURITY DEFINER comes last. An owner needs CREATE on the schema
GRANT CREATE ON SCHEMA tidemark TO tidemark_loader;
ALTER FUNCTION tidemark.track_changes(regclass, text[], interval) OWNER TO tidemark_loader;
REVOKE CREATE ON SCHEMA tidemark FROM tidemark_loader;
REVOKE ALL ON FUNCTION tidemark.track_changes(regclass, text[], interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidemark.track_changes(regclass, text[], interval) TO tidemark_transformer;
ALTER FUNCTION tidemark.track_changes(regclass, text[], interval) SECURITY DEFINER;
