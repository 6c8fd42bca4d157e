{#- What happens before a run's first build. -#}

{#- on-run-start: creates the tables of builds and their logs in each schema that has in-place tables. -#}
{% macro prepare_run() %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot', 'seed', 'run-operation'] -%}{{ return('') }}{%- endif -%}
    {%- if in_place.is_sampled() and not env_var('DBT_SCHEMA_PREFIX', '') -%}
        {%- do exceptions.raise_compiler_error(
            '--empty and --sample would leave in-place tables without most of their rows. Set DBT_SCHEMA_PREFIX, for schemas of your own, '
            ~ 'as in DBT_SCHEMA_PREFIX=ana_. The next build there without them computes all rows. Nothing was changed.'
        ) -%}
    {%- endif -%}
    {{ in_place.refuse_hidden_rows() }}
    {%- set names_by_schema, ids, schemas = {}, [], [] -%}
    {%- for id, node in graph.nodes.items() -%}
        {%- if node.config.materialized in in_place.materializations_with_rows() + ['in_place_materialized_view'] -%}
            {%- do names_by_schema.setdefault(node.schema, []).append(node.alias) -%}
            {%- do ids.append(id) -%}
            {%- do schemas.append(node.schema) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for node in in_place.nodes_below(ids) if node.config.materialized in in_place.recorded_materializations() -%}
        {%- do schemas.append(node.schema) -%}
    {%- endfor -%}
    {%- for schema in schemas | unique | sort -%}
        {%- set quoted = adapter.quote(schema) -%}
        do $tidemark$
        declare reader record;
        begin
            if to_regnamespace('{{ quoted }}') is null then create schema {{ quoted }}; end if;
            if to_regclass('{{ quoted }}._tidemark_models') is null then
                -- One row per in-place table, materialized view, snapshot, seed, and table that dbt itself writes.
                -- Written by: dbt, in the transaction that writes the model's rows.
                -- Read by: dbt's next build of the model and of the models above it.
                create table {{ quoted }}._tidemark_models (
                    model text primary key, -- the table's name in this schema
                    horizon xid8 not null, -- the loading transaction up to which the table has all rows of what it reads
                    next_horizon xid8, -- the horizon of a build of dbt's own table that has not ended yet
                    cluster text not null, -- the identifier of the cluster that numbers these transactions
                    built_at timestamptz not null, -- when it was last built
                    changed_at timestamptz not null, -- when a build last changed a row
                    rows_total bigint not null default 0, -- rows in the table
                    rows_since_analyze bigint not null default 0, -- rows that were written since its last ANALYZE
                    inserted bigint, -- rows that the last build inserted
                    updated bigint, -- rows that it updated
                    deleted bigint, -- rows that it deleted
                    definition text, -- a hash of the SELECT of a model that is built by key, and of the columns that a snapshot compares
                    invocation_id text -- dbt's id of that build
                );
                comment on table {{ quoted }}._tidemark_models is 'Kept by Tidemark: version 1';
            end if;
            if coalesce(obj_description(to_regclass('{{ quoted }}._tidemark_models'), 'pg_class'), ': version 1')
                like '%: version 1'
            then
                alter table {{ quoted }}._tidemark_models
                    add column if not exists changed_xid xid8, -- the transaction that last changed a row
                    add column if not exists remade_xid xid8, -- the one that last wrote all rows of a seed or dbt table
                    add column if not exists read_snapshot pg_snapshot; -- what the last build saw when it began to read
                comment on table {{ quoted }}._tidemark_models is 'Kept by Tidemark: version 2';
            end if;
            if obj_description(to_regclass('{{ quoted }}._tidemark_models'), 'pg_class') like '%: version 2' then
                alter table {{ quoted }}._tidemark_models
                    add column if not exists keys_total bigint, -- keys by which a model is built incrementally, after its last full build
                    add column if not exists seconds_per_key double precision, -- what a key cost in the last such build that took long enough to say
                    add column if not exists seconds_full double precision; -- how long the last full build took
                comment on table {{ quoted }}._tidemark_models is 'Kept by Tidemark: version 3';
            end if;
            if obj_description(to_regclass('{{ quoted }}._tidemark_models'), 'pg_class') like '%: version 3' then
                alter table {{ quoted }}._tidemark_models
                    add column if not exists preparation jsonb; -- what a build by key found out about its inputs, and what that follows from
                comment on table {{ quoted }}._tidemark_models is 'Kept by Tidemark: version 4';
            end if;
            if to_regclass('{{ quoted }}._tidemark_changes') is null then
                -- One row per changed row of a table that models are built by, until all models have read it, and for a week at most.
                -- Written by: dbt, in the transaction that writes the model's rows; triggers on snapshots and raw tables.
                -- Read by: dbt's next build of the models whose `changed_by` names the table or a view on it.
                create table {{ quoted }}._tidemark_changes (
                    model text not null, -- the table's name in this schema
                    xid xid8 not null default pg_current_xact_id(), -- the transaction that wrote the change
                    logged_at timestamptz not null default now(), -- when it began
                    old jsonb, -- the tracked columns before; null if the row is new
                    new jsonb -- the tracked columns after; null if the row is gone. Both are null if any row may have changed
                );
                create index on {{ quoted }}._tidemark_changes (model, xid);
                comment on table {{ quoted }}._tidemark_changes is 'Kept by Tidemark: version 1';
            end if;
            if to_regclass('{{ quoted }}._tidemark_tracked') is null then
                -- One row per table whose changes are logged in `_tidemark_changes`.
                -- Written by: dbt, with the model's rows, or when it creates the triggers of a snapshot or a raw table.
                -- Read by: dbt's next build of the models whose `changed_by` names the table or a view on it.
                create table {{ quoted }}._tidemark_tracked (
                    model text primary key, -- the table's name in this schema
                    relation oid, -- its identity: a table that was created again has no log
                    cluster text not null, -- the identifier of the cluster that numbers these transactions
                    columns jsonb not null, -- the columns that the log has, each with the transaction that began to log it
                    trimmed xid8 -- the last transaction whose changes were deleted
                );
                comment on table {{ quoted }}._tidemark_tracked is 'Kept by Tidemark: version 1';
            end if;
            -- the values of rows that may have been deleted since, which default privileges show to those who read marts
            for reader in select rolname from pg_roles where rolname in ('tidemark_monitor', 'tidemark_reporter') loop
                if has_table_privilege(reader.rolname, '{{ quoted }}._tidemark_changes', 'select') then
                    execute format('revoke select on {{ quoted }}._tidemark_changes from %I', reader.rolname);
                end if;
            end loop;
            if exists (select from pg_roles where rolname = 'tidemark_monitor') then
                grant select on {{ quoted }}._tidemark_models, {{ quoted }}._tidemark_tracked to tidemark_monitor;
                grant select (model, xid, logged_at) on {{ quoted }}._tidemark_changes to tidemark_monitor;
            end if;
        end
        $tidemark$;
    {%- endfor -%}
    {{ in_place.trim_changes() }}
{% endmacro %}


{#- If a policy hides source rows from dbt's role, the marts would drop them as if they had been deleted. -#}
{% macro refuse_hidden_rows() %}
    {%- set sources = [] -%}
    {%- for node in graph.sources.values() -%}
        {%- set relation = api.Relation.create(schema=node.schema, identifier=node.identifier) -%}
        {%- do sources.append(in_place.text_literal(relation)) -%}
    {%- endfor -%}
    {%- if not sources -%}{{ return('') }}{%- endif -%}
    {%- set query -%}
        select string_agg(name, ', ' order by name), current_user::text
        from unnest(array[{{ sources | unique | join(', ') }}]) as name
        where row_security_active(to_regclass(name)::oid)
    {%- endset -%}
    {%- set hidden = run_query(query)[0] -%}
    {%- if hidden[0] -%}
        {%- do exceptions.raise_compiler_error(
            'Row-level security applies to ' ~ hidden[1] ~ ' in ' ~ hidden[0] ~ ': the marts would drop the hidden rows. '
            ~ 'Run ALTER TABLE … DISABLE ROW LEVEL SECURITY, or ALTER ROLE ' ~ adapter.quote(hidden[1]) ~ ' BYPASSRLS. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}
