{#-
  Change tracking of tables that this package does not write: raw tables and snapshots. Triggers log in `_tidemark_changes`,
  in the transaction that changes the rows, what the rows themselves can't tell: rows that go, tracked values that are
  replaced, rows that somebody changes by hand. New rows of a raw table have their transaction in a column, so they are
  not logged, and a load pays nothing for them.

  The trigger on updates is a row trigger with a condition on the tracked columns, which PostgreSQL checks without a call. A
  trigger with transition tables would copy each updated row: it made merges of 100,000 rows a third slower.
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
                where model = {{ dbt.string_literal(table.identifier) }}
                    and logged_at < now() - interval '{{ in_place.days_of_changes() }} days'
            )
            or not exists (
                select from {{ tracked }}
                where
                    model = {{ dbt.string_literal(table.identifier) }}
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
            or (
                select count(*) filter (where tgenabled in ('O', 'A')) from pg_catalog.pg_trigger
                where tgrelid = {{ table.oid }} and tgname like '\_tidemark\_logs\_%'
            ) < 4
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
    array[{% for value in values %}{{ dbt.string_literal(value | replace("'", "''")) }}{{ ', ' if not loop.last }}{% endfor %}]::text[]
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
{% endmacro %}


{#-
  Part of on-run-start: deletes the changes that every model of the project has read, and those that are too old. A reader
  elsewhere, such as a developer's model that defers to this project, then finds that the log does not reach back to its
  last build, and computes all rows.
-#}
{% macro trim_changes() %}
    {%- set readers, written = {}, [] -%}
    {%- for node in graph.nodes.values() -%}
        {%- if node.config.get('changed_by') -%}
            {%- do readers.setdefault(node.schema, []).append(node.alias) -%}
        {%- endif -%}
        {%- if node.config.materialized in in_place.materializations_with_rows() -%}{%- do written.append(node.schema) -%}{%- endif -%}
    {%- endfor -%}
    {%- for schema in written | unique | sort %}
        {{ in_place.forget_other_clusters(schema) }}
        with unread as (
            -- the oldest transaction that the last build of some model may not have seen
            select min(pg_snapshot_xmin(read_snapshot)::text::numeric)::text::xid8 as xid
            from (
                {%- for reader, names in readers.items() %}
                    select read_snapshot from {{ adapter.quote(reader) }}._tidemark_models
                    where model in ('{{ names | join("', '") }}') and cluster = {{ in_place.cluster_id() }}
                    {{- ' union all' if not loop.last }}
                {%- else %}
                    select null::pg_snapshot as read_snapshot where false
                {%- endfor %}
            ) as builds
        ),

        deleted as (
            delete from {{ adapter.quote(schema) }}._tidemark_changes
            where
                xid < (select xid from unread)
                or logged_at < now() - interval '{{ in_place.days_of_changes() }} days'
            returning model, xid
        )

        update {{ adapter.quote(schema) }}._tidemark_tracked as tracked
        set trimmed = greatest(trimmed, last.xid)
        from (select model, max(xid::text::numeric)::text::xid8 as xid from deleted group by model) as last
        where tracked.model = last.model;
    {%- endfor -%}
{% endmacro %}


{#-
  Deletes what a schema's log has of another cluster, from which the warehouse was restored. That cluster's transaction
  numbers mean nothing here: a high one in `trimmed` would make the models above compute all rows in each build, until this
  cluster's numbers pass it. The changes themselves do not name their cluster, so a table's newer ones go with them; the models
  above compute all rows once anyway.
-#}
{% macro forget_other_clusters(schema) %}
        delete from {{ adapter.quote(schema) }}._tidemark_changes
        where model in (select model from {{ adapter.quote(schema) }}._tidemark_tracked where cluster <> {{ in_place.cluster_id() }});
        delete from {{ adapter.quote(schema) }}._tidemark_tracked where cluster <> {{ in_place.cluster_id() }};
{%- endmacro %}
