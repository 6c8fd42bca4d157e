{#- on-run-end: records each model's and snapshot's result in `_tidemark_model_runs` beside the marts, for 90 days. -#}
{% macro note_model_runs(results) %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot'] -%}{{ return('') }}{%- endif -%}
    {%- set table = adapter.quote(target.schema) ~ '._tidemark_model_runs' -%}
    {%- set run_id = env_var('TIDEMARK_RUN_ID', '') or invocation_id -%}
    create schema if not exists {{ adapter.quote(target.schema) }};
    -- One row per model or snapshot and build. Rows older than 90 days are deleted.
    -- Written by: dbt, at the end of each build.
    -- Read by: `tidemark run`, Airflow's page of streams.
    create table if not exists {{ table }} (
        run_id text not null, -- the run, as in `_tidemark_runs`; dbt's own id if dbt was started by hand
        invocation_id text not null, -- dbt's id of the build
        model text not null, -- the model's name
        outcome text not null, -- as dbt reports it: success, error or skipped
        started_at timestamptz not null, -- when the model's SQL began to run
        seconds numeric(12, 3) not null, -- how long it took
        rows_written bigint, -- rows that it wrote; null if PostgreSQL does not count them
        message text, -- dbt's message about it; at most 2,000 characters
        primary key (invocation_id, model)
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
    delete from {{ table }} where started_at < now() - interval '90 days';
    {%- for result in results if result.node.resource_type in ['model', 'snapshot'] -%}
        {%- set began = result.timing | selectattr('name', 'equalto', 'execute') | map(attribute='started_at') | first -%}
        {%- set rows = (result.adapter_response or {}).get('rows_affected') -%}
        insert into {{ table }} (run_id, invocation_id, model, outcome, started_at, seconds, rows_written, message)
        values (
            {{ dbt.string_literal(run_id) }}, '{{ invocation_id }}', '{{ result.node.name }}', '{{ result.status }}',
            {# a skipped model has no start #}
            '{{ began ~ 'Z' if began else run_started_at }}', {{ result.execution_time }},
            {{ rows if rows is not none and rows | int >= 0 else 'null' }},
            {{ dbt.string_literal(dbt.escape_single_quotes((result.message or '')[:2000])) }}
        )
        on conflict do nothing;
    {%- endfor -%}
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
        perform set_config('lock_timeout', '{{ var("kept_lock_timeout", "500ms") }}', true);
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
