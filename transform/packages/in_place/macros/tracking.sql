{#-
  Change tracking of tables that this package does not write: raw tables and snapshots. Triggers log in `_tidemark_changes`,
  in the transaction that changes the rows, what the rows themselves can't tell: rows that go, tracked values that are
  replaced, rows that somebody changes by hand. New rows of a raw table have their transaction in a column, so they are
  not logged, and a load pays nothing for them.

  The trigger on updates is a row trigger with a condition on the tracked columns, which PostgreSQL checks without a call. A
  trigger with transition tables would copy each updated row: it made merges of 100,000 rows a third slower. The trigger's function is
  generated for its table, because SQL that is put together for each row took twice as long as the merge itself.
-#}

{#-
  Makes sure that the changes of these tables are logged, and commits. Call it before the build's snapshot is taken.

  Arguments:
    tables: a list of {oid, relation, schema, identifier, columns, is_own, has_log}; see in_place.base_tables().
-#}
{% macro track_changes(tables) %}
    {%- for table in tables -%}
        {%- if in_place.is_due_for_tracking(table) -%}
            {%- if table.is_own -%}
                {%- set function = 'pg_temp.in_place_track_changes' -%}
                {%- set body = in_place.track_changes_body() -%}
                {% call statement('tracking') %}
                    create or replace function {{ function }}(relation regclass, columns text[], keep interval) returns void
                    language plpgsql as {{ in_place.dollar_tag(body) }}{{ body }}{{ in_place.dollar_tag(body) }}
                {% endcall %}
            {%- else -%}
                {%- set function = var('in_place_track_function', 'tidemark.track_changes') -%}
                {{ in_place.refuse_missing_function(table, function) }}
            {%- endif -%}
            {%- set ddl -%}
                perform {{ function }}(
                    {{ table.oid }}::regclass, {{ in_place.text_array(table.columns) }}, interval '{{ in_place.days_of_changes() }} days'
                );
            {%- endset -%}
            {{ in_place.run_ddl('track changes', ddl, relation=table.relation) }}
            {{ in_place.commit_and_begin() }}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- How many days of changes are kept for models that were not built. -#}
{% macro days_of_changes() %}
    {{ return(var('in_place_changes_keep_days', 7)) }}
{% endmacro %}


{#- Whether a table's triggers are missing or lack a column, or its log has changes that are too old. -#}
{% macro is_due_for_tracking(table) %}
    {%- set changes = table.schema ~ '._tidemark_changes' -%}
    {%- set tracked = table.schema ~ '._tidemark_tracked' -%}
    {%- if not table.has_log -%}{{ return(true) }}{%- endif -%}
    {%- set query -%}
        select
            exists (
                select from {{ changes }}
                where model = {{ in_place.text_literal(table.identifier) }}
                    and logged_at < now() - interval '{{ in_place.days_of_changes() }} days'
            )
            or not exists (
                select from {{ tracked }}
                where
                    model = {{ in_place.text_literal(table.identifier) }}
                    and relation = {{ table.oid }}
                    and cluster = {{ in_place.cluster_id() }}
                    and columns ?& {{ in_place.text_array(table.columns) }}
                    -- a column that was dropped or renamed
                    and not exists (
                        select from jsonb_object_keys(columns) as name
                        where not exists (select from pg_catalog.pg_attribute where attrelid = relation and attname = name and not attisdropped)
                    )
            )
            -- a column that has the name of a tracked one, which was renamed
            or {{ in_place.text_array(table.columns) }} <@ ({{ in_place.watched_columns(table.oid) }}) is false
            -- a function of an earlier release, or for other types
            or 4 > (
                select count(*) from pg_catalog.pg_trigger
                inner join pg_catalog.pg_proc on pg_proc.oid = tgfoid
                where
                    tgrelid = {{ table.oid }} and tgname like '\_tidemark\_logs\_%' and tgenabled = 'A'
                    and position(concat('-- the types of its columns: ', (
                        select string_agg(atttypid::text, ' ' order by attname::text) from pg_catalog.pg_attribute
                        where attrelid = {{ table.oid }} and attnum > 0 and attname in (
                            select jsonb_object_keys(columns) from {{ tracked }}
                            where model = {{ in_place.text_literal(table.identifier) }} and relation = {{ table.oid }}
                        )
                    ), e'\n') in prosrc) > 0
            )
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- A query for the columns in the condition of a table's trigger on updates; null if it has none. -#}
{% macro watched_columns(oid) -%}
    select array_agg(attname::text)
    from pg_catalog.pg_trigger
    inner join pg_catalog.pg_depend
        on classid = 'pg_catalog.pg_trigger'::regclass and objid = pg_trigger.oid
        and refclassid = 'pg_catalog.pg_class'::regclass and refobjid = tgrelid
    inner join pg_catalog.pg_attribute on attrelid = refobjid and attnum = refobjsubid
    where tgrelid = {{ oid }} and tgname = '_tidemark_logs_update'
{%- endmacro %}


{% macro text_array(values) -%}
    array[{% for value in values %}{{ in_place.text_literal(value) }}{{ ', ' if not loop.last }}{% endfor %}]::text[]
{%- endmacro %}


{#- Refuses to build by key on a table of another role if that role gave no function for its triggers. -#}
{% macro refuse_missing_function(table, function) %}
    {%- set query -%}
        select
            pg_get_userbyid(relowner)::text,
            current_user::text,
            exists (
                select where to_regprocedure('{{ function }}(regclass, text[], interval)') is not null
                    and has_function_privilege(to_regprocedure('{{ function }}(regclass, text[], interval)'), 'execute')
            )
        from pg_catalog.pg_class where oid = {{ table.oid }}
    {%- endset -%}
    {%- set found = run_query(query)[0] -%}
    {%- if not found[2] -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' is built by the changes of ' ~ table.relation ~ ', which triggers log. Only its owner ' ~ found[0] ~ ' can create them, and '
            ~ found[1] ~ ' may not call ' ~ function ~ '. Run the script that creates the roles of the warehouse again '
            ~ '(tidemark roles warehouse), or build as the owner. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


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
                then '%2$L, %1$s.%2$I'
                else '%2$L, case when %1$s.%2$I is distinct from null then pg_catalog.format(''%%s'', %1$s.%2$I) end' end,
                row_name, attname
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
