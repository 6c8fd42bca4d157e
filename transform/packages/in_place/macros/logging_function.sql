{#-
  The body of a function (relation regclass, columns text[], keep interval) that logs the changes of a table from now on. The
  caller must own the table. It adds to the columns that are tracked already, for other projects' models, and deletes
  changes older than `keep`.

  `_tidemark_tracked.columns` has for each column the transaction that created its triggers: a build whose snapshot sees that
  transaction finds each later change in the log, because the lock for the triggers waits for all who write the table.
-#}
{% macro track_changes_body() %}
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
{% endmacro %}
