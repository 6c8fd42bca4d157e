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
            {{ in_place.run_ddl('track changes', ddl, relation=table.relation, blocks_readers=false) }}
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
