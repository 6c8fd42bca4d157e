{#-
  How far each kept table goes, noted in `_tidemark_models` beside it, in the transaction that writes its rows.

  Rows in raw bear the transaction that loaded them. A build reads those of the noted horizon and later, and notes the
  oldest transaction that was still open when it began: whatever that or a later one commits, even while the build goes
  on, the next build reads. A model on other kept tables goes no further than they do.
-#}

{#- The horizon of the model at hand, as SQL. Only under is_incremental(). -#}
{% macro horizon() -%}
    '{{ kept_horizon(this) }}'::xid8
{%- endmacro %}


{#-
  Whether the model at hand may build on what is there. Not if the warehouse was restored into another cluster: its
  transactions are numbered anew.
-#}
{% macro is_incremental() %}
    {%- if not execute or should_full_refresh() -%}
        {{ return(false) }}
    {%- endif -%}
    {%- if model.config.materialized in ['kept_incremental', 'partitioned_incremental'] or model.resource_type == 'snapshot' -%}
        {{ return(kept_horizon(this) is not none) }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{% endmacro %}


{% macro kept_horizon(relation) %}
    {%- if not execute -%}{{ return(none) }}{%- endif -%}
    {%- set there = run_query(
        "select to_regclass('" ~ kept_control(relation) ~ "') is not null and to_regclass('" ~ relation ~ "') is not null"
    ).columns[0].values()[0] -%}
    {%- if not there -%}{{ return(none) }}{%- endif -%}
    {%- set found = run_query(
        "select horizon::text from " ~ kept_control(relation) ~ " where model = '" ~ relation.identifier
        ~ "' and cluster = " ~ kept_cluster() ~ " and horizon <= pg_snapshot_xmax(pg_current_snapshot())"
    ).columns[0].values() -%}
    {{ return(found[0] if found else none) }}
{% endmacro %}


{% macro kept_control(relation) -%}
    {{ adapter.quote(relation.schema) }}._tidemark_models
{%- endmacro %}


{#- What numbers transactions: the cluster, by its identity. -#}
{% macro kept_cluster() -%}
    (select system_identifier::text from pg_control_system())
{%- endmacro %}


{#- The horizon of a build that begins now. -#}
{% macro kept_new_horizon() %}
    {%- set horizons = ['pg_snapshot_xmin(pg_current_snapshot())'] -%}
    {%- for relation in kept_above(model.depends_on.nodes) -%}
        {%- do horizons.append("'" ~ (kept_horizon(relation) or 0) ~ "'::xid8") -%}
    {%- endfor -%}
    {{ return(run_query('select least(' ~ horizons | join(', ') ~ ')::text').columns[0].values()[0]) }}
{% endmacro %}


{#- The kept tables and snapshots that these nodes are, or that stand behind them. -#}
{% macro kept_above(ids) %}
    {%- set found = {} -%}
    {%- for id in ids if id in graph.nodes -%}
        {%- set node = graph.nodes[id] -%}
        {%- if node.config.materialized in ['kept_table', 'kept_incremental', 'partitioned_incremental', 'snapshot'] -%}
            {%- do found.update({
                id: api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias)
            }) -%}
        {%- elif node.resource_type == 'model' -%}
            {%- for relation in kept_above(node.depends_on.nodes) -%}
                {%- do found.update({relation | string: relation}) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found.values() | list) }}
{% endmacro %}


{#- Notes what a build did, and how far the table now goes. -#}
{% macro kept_note(relation, horizon, written) %}
    {%- set rows = written.inserted + written.updated + written.deleted -%}
    {% call statement('note') %}
        insert into {{ kept_control(relation) }} as noted
        (model, horizon, cluster, built_at, changed_at, rows_total, rows_since_analyze, inserted, updated, deleted, invocation_id)
        values (
            '{{ relation.identifier }}', '{{ horizon }}', {{ kept_cluster() }}, clock_timestamp(), clock_timestamp(),
            {{ written.inserted }}, {{ rows }}, {{ written.inserted }}, {{ written.updated }}, {{ written.deleted }},
            '{{ invocation_id }}'
        )
        on conflict (model) do update set
            horizon = excluded.horizon,
            cluster = excluded.cluster,
            built_at = excluded.built_at,
            changed_at = case when {{ rows }} > 0 then excluded.changed_at else noted.changed_at end,
            rows_total = {{
                written.total if written.total is defined else 'noted.rows_total + excluded.inserted - excluded.deleted'
            }},
            rows_since_analyze = noted.rows_since_analyze + excluded.rows_since_analyze,
            inserted = excluded.inserted,
            updated = excluded.updated,
            deleted = excluded.deleted,
            invocation_id = excluded.invocation_id
    {% endcall %}
{% endmacro %}


{#-
  Part of a WITH: notes the keys by which other models sum this one up, of rows that go. An order line that goes, or moves
  to another order, changes the order it leaves, and nothing in raw says for certain which that was.
-#}
{% macro kept_note_moved_keys(model_, moved_keys, deleted) -%}
    {%- for column in moved_keys -%}
        , noted_{{ loop.index }} as (
            insert into {{ adapter.quote(model_.relation.schema) }}._tidemark_moved_keys (model, column_name, key, xid)
            select distinct
                '{{ model_.relation.identifier }}', '{{ column }}', {{ adapter.quote(column) }}::text, pg_current_xact_id()
            from {{ deleted }}
            where {{ adapter.quote(column) }} is not null
        )
    {%- endfor -%}
{%- endmacro %}


{#- The values of `column` that rows of a kept model had and have no more, since the horizon of the model at hand. -#}
{% macro moved_keys(relation, column, type='bigint') -%}
    select key::{{ type }} from {{ adapter.quote(relation.schema) }}._tidemark_moved_keys
    where model = '{{ relation.identifier }}' and column_name = '{{ column }}' and xid >= {{ horizon() }}
{%- endmacro %}


{#- on-run-start: the tables that hold the above, in each schema that has kept tables. -#}
{% macro kept_prepare() %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot', 'run-operation'] -%}{{ return('') }}{%- endif -%}
    {%- if flags.EMPTY -%}
        {%- do exceptions.raise_compiler_error(
            '--empty would have kept tables built of no rows, and noted as built: those loaded until now would be missed, '
            ~ 'or deleted by a full refresh. Use dbt compile, or a DBT_SCHEMA_PREFIX and a small --select, to try models.'
        ) -%}
    {%- endif -%}
    {%- set kept = {} -%}
    {%- for node in graph.nodes.values() -%}
        {%- if node.config.materialized in ['kept_table', 'kept_incremental', 'partitioned_incremental', 'kept_materialized_view', 'snapshot'] -%}
            {%- do kept.setdefault(node.schema, []).append(node.alias) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for schema in kept.keys() | sort -%}
        {%- set quoted = adapter.quote(schema) -%}
        do $tidemark$
        begin
            if to_regnamespace('{{ quoted }}') is null then create schema {{ quoted }}; end if;
            if to_regclass('{{ quoted }}._tidemark_models') is null then
                create table {{ quoted }}._tidemark_models (
                    model text primary key,
                    horizon xid8 not null,
                    next_horizon xid8,
                    cluster text not null,
                    built_at timestamptz not null,
                    changed_at timestamptz not null,
                    rows_total bigint not null default 0,
                    rows_since_analyze bigint not null default 0,
                    inserted bigint,
                    updated bigint,
                    deleted bigint,
                    definition text,
                    invocation_id text
                );
                comment on table {{ quoted }}._tidemark_models is 'Kept by Tidemark: version 1';
                create table {{ quoted }}._tidemark_moved_keys (
                    model text not null, column_name text not null, key text not null, xid xid8 not null
                );
                create index on {{ quoted }}._tidemark_moved_keys (model, column_name, xid);
                comment on table {{ quoted }}._tidemark_moved_keys is 'Kept by Tidemark: version 1';
            end if;
            if exists (select from pg_roles where rolname = 'tidemark_monitor') then
                grant select on {{ quoted }}._tidemark_models, {{ quoted }}._tidemark_moved_keys to tidemark_monitor;
            end if;
        end
        $tidemark$;
    {%- endfor -%}
    {#- keys that every model has read by now; one that was removed, or has another name, reads no more of them -#}
    {%- for schema in kept.keys() | sort %}
        delete from {{ adapter.quote(schema) }}._tidemark_moved_keys
        where xid < (
            select horizon from (
                {%- for other, names in kept.items() %}
                    select horizon from {{ adapter.quote(other) }}._tidemark_models
                    where model in ('{{ names | join("', '") }}')
                    {{- ' union all' if not loop.last }}
                {%- endfor %}
            ) as horizons
            order by horizon limit 1
        );
    {%- endfor -%}
{% endmacro %}
