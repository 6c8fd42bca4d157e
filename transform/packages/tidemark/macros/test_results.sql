{#- on-run-end: records the latest result of each data test in `_tidemark_test_results` beside the marts. -#}
{% macro note_test_results(results) %}
    {%- if not execute or flags.WHICH not in ['test', 'build'] -%}{{ return('') }}{%- endif -%}
    {%- set table = adapter.quote(target.schema) ~ '._tidemark_test_results' -%}
    {%- set known = graph.nodes.values() | selectattr('resource_type', 'equalto', 'test') | map(attribute='unique_id') -%}
    create schema if not exists {{ adapter.quote(target.schema) }};
    -- One row per data test: its latest result. Tests that the project has no longer are deleted.
    -- Written by: dbt, at the end of each `dbt test` and `dbt build`.
    -- Read by: `tidemark metrics`.
    create table if not exists {{ table }} (
        test text primary key, -- dbt's unique id of the test
        name text not null, -- the test's name
        model text not null, -- the model or source that it is about; empty if it is about none
        result text not null, -- as dbt reports it: pass, warn, fail or error
        failures bigint, -- rows that it found; null if it could not run
        seconds numeric(12, 3) not null, -- how long it took
        ran_at timestamptz not null, -- when that run of dbt began
        run_id text not null, -- the run, as in `_tidemark_runs`; dbt's own id if dbt was started by hand
        message text -- dbt's message about it; at most 2,000 characters
    );
    do $tidemark$
    begin
        if obj_description('{{ table }}'::regclass, 'pg_class') is null then
            comment on table {{ table }} is 'Kept by Tidemark: version 1';
        end if;
        if exists (select from pg_roles where rolname = 'tidemark_monitor') then
            grant select on {{ table }} to tidemark_monitor;
        end if;
    end
    $tidemark$;
    delete from {{ table }} where not test = any(array[{% for id in known %}'{{ id }}', {% endfor %}'']);
    {%- set rows = [] -%}
    {#- a skipped test says nothing about what it found last -#}
    {%- for result in results if result.node.resource_type == 'test' and result.status != 'skipped' -%}
        {%- set about = [result.node.attached_node or ''] + result.node.depends_on.nodes -%}
        {%- set message = dbt.string_literal(dbt.escape_single_quotes((result.message or '')[:2000])) -%}
        {%- do rows.append(
            "('" ~ result.node.unique_id ~ "', '" ~ result.node.name ~ "', '"
            ~ (about | select | first | default('', true)).split('.') | last ~ "', '" ~ result.status ~ "', "
            ~ (result.failures if result.failures is not none else 'null') ~ ', ' ~ result.execution_time ~ ", '"
            ~ run_started_at ~ "', " ~ dbt.string_literal(env_var('TIDEMARK_RUN_ID', '') or invocation_id) ~ ', '
            ~ message ~ ')'
        ) -%}
    {%- endfor -%}
    {%- if rows %}
        insert into {{ table }} (test, name, model, result, failures, seconds, ran_at, run_id, message)
        values {{ rows | join(', ') }}
        on conflict (test) do update set
            name = excluded.name, model = excluded.model, result = excluded.result, failures = excluded.failures,
            seconds = excluded.seconds, ran_at = excluded.ran_at, run_id = excluded.run_id, message = excluded.message;
    {%- endif -%}
{% endmacro %}


{#-
  on-run-end: keeps the rows that a failing data test found, in the schema test_failures, until the test passes, or for
  30 days. Drops the empty tables that dbt leaves for tests that pass.
-#}
{% macro clear_test_failures(results) %}
    {%- if not execute or flags.WHICH not in ['test', 'build'] -%}{{ return('') }}{%- endif -%}
    {%- set passed = [] -%}
    {%- for result in results if result.node.resource_type == 'test' and result.node.relation_name -%}
        {%- if result.status == 'pass' -%}
            {%- do passed.append(result.node.relation_name) -%}
        {%- elif result.status in ['fail', 'warn'] -%}
            comment on table {{ result.node.relation_name }} is 'failed at {{ run_started_at }}';
        {%- endif -%}
    {%- endfor -%}
    {%- set schema = env_var('DBT_SCHEMA_PREFIX', '') ~ 'test_failures' -%}
    do $tidemark$
    declare
        old record;
    begin
        -- a table with a reader, such as a dump, stays until the next run, so that no run waits for the reader
        perform set_config('lock_timeout', '{{ var("in_place_lock_timeout", "500ms") }}', true);
        for old in
            select format('%I.%I', nspname, relname) as name
            from pg_catalog.pg_class inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
            where nspname = '{{ schema }}' and relkind = 'r' and pg_has_role(relowner, 'usage')
                and obj_description(pg_class.oid, 'pg_class') ~ '^failed at '
                and substr(obj_description(pg_class.oid, 'pg_class'), 11)::timestamptz < now() - interval '30 days'
            union
            select format('%I.%I', nspname, relname)
            from pg_catalog.pg_class inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
            where pg_class.oid in (
                {%- for name in passed %}
                to_regclass('{{ name | replace("'", "''") }}'),
                {%- endfor %}
                null
            )
        loop
            begin
                execute 'drop table ' || old.name;
            exception when lock_not_available then null;
            end;
        end loop;
    end
    $tidemark$;
{% endmacro %}
