{#- on-run-end: records each model's and snapshot's result in `_tidemark_model_runs` beside the marts, for 90 days. -#}
{% macro note_model_runs(results) %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot'] -%}{{ return('') }}{%- endif -%}
    {%- set table = adapter.quote(target.schema) ~ '._tidemark_model_runs' -%}
    {%- set run_id = env_var('TIDEMARK_RUN_ID', '') or invocation_id -%}
    create schema if not exists {{ adapter.quote(target.schema) }};
    -- One row per model or snapshot and build. Rows older than 90 days, and those of removed models, are deleted.
    -- Written by: dbt, at the end of each build.
    -- Read by: `tidemark run`, `tidemark metrics`, Airflow's page of streams.
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
        -- a release before had no index
        if to_regclass('{{ adapter.quote(target.schema) }}._tidemark_model_runs_latest') is null then
            create index _tidemark_model_runs_latest on {{ table }} (model, started_at desc);
        end if;
        if exists (select from pg_roles where rolname = 'tidemark_monitor') then
            grant select on {{ table }} to tidemark_monitor;
        end if;
    end
    $tidemark$;
    {%- set known = graph.nodes.values() | selectattr('resource_type', 'in', ['model', 'snapshot']) | map(attribute='name') -%}
    delete from {{ table }}
    where started_at < now() - interval '90 days'
        -- the project has it no longer, so it is neither late nor broken
        or not model = any(array[{% for name in known %}'{{ name }}', {% endfor %}'']);
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
