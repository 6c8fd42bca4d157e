{#-
  How far each kept table goes, noted in `_tidemark_models` beside it, in the transaction that writes its rows.

  Rows in raw bear the transaction that loaded them. A build reads those of the noted horizon and later, and notes the
  oldest transaction that was still open when it began: whatever that or a later one commits, even while the build goes
  on, the next build reads. A model on other kept tables goes no further than they do.
-#}

{#- The horizon of the model at hand, as SQL. Only under is_incremental(). -#}
{% macro horizon() -%}
    '{{ kept_own_horizon() }}'::xid8
{%- endmacro %}


{#-
  Whether the model at hand may build on what is there. Not if the warehouse was restored into another cluster, whose
  transactions are numbered anew; nor if nothing says how far what it reads goes, or rows without a transaction of
  their own, such as a seed's, changed since.
-#}
{% macro is_incremental() %}
    {%- if not execute or should_full_refresh() -%}
        {{ return(false) }}
    {%- endif -%}
    {%- if model.config.materialized in ['kept_incremental', 'partitioned_incremental'] or model.resource_type == 'snapshot' -%}
        {{ return(kept_own_horizon() is not none) }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{% endmacro %}


{#- Asked for once a model and run: the SQL that it was compiled to and the merge are to go by the same answer. -#}
{% macro kept_own_horizon() %}
    {%- if not execute -%}{{ return(none) }}{%- endif -%}
    {%- set asked = 'horizon of ' ~ model.unique_id ~ ' in ' ~ invocation_id -%}
    {%- if asked not in graph -%}
        {%- do graph.update({asked: kept_noted_horizon()}) -%}
    {%- endif -%}
    {{ return(graph[asked]) }}
{% endmacro %}


{% macro kept_noted_horizon() %}
    {%- set found = kept_horizon(this) -%}
    {%- if found in (none, '0') -%}{{ return(none) }}{%- endif -%}
    {%- set snapshot = run_query(
        "select to_jsonb(noted) ->> 'read_snapshot' from " ~ kept_control(this) ~ " as noted where model = '"
        ~ this.identifier ~ "'"
    ).columns[0].values()[0] -%}
    {{ return(none if kept_is_remade_below(snapshot) else found) }}
{% endmacro %}


{#- How far a kept table goes; none if that isn't known in this cluster. -#}
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


{#-
  Whether rows changed below the model, since it read with that snapshot, that have no transaction of their own by which
  to find them: those of a seed, or of an incremental model that was built whole.
-#}
{% macro kept_is_remade_below(snapshot) %}
    {%- set nodes = kept_nodes_below(model.depends_on.nodes)
        | selectattr('config.materialized', 'in', kept_noted_kinds()) | list -%}
    {#- what was noted before there were snapshots took such tables for raw -#}
    {%- if nodes and snapshot is none -%}{{ return(true) }}{%- endif -%}
    {%- for node in nodes if node.config.materialized in ['seed', 'incremental'] -%}
        {%- set is_seed = node.resource_type == 'seed' -%}
        {%- set relation = run_query(
            "select quote_ident(nspname), relname::text, to_regclass(quote_ident(nspname) || '._tidemark_models') is not null "
            ~ "from pg_catalog.pg_class inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace "
            ~ "where pg_class.oid = " ~ kept_node_oid(node)
        ) -%}
        {%- set remade = [] -%}
        {%- if relation | length and relation[0][2] -%}
            {%- set remade = run_query(
                "select not pg_visible_in_snapshot((to_jsonb(noted) ->> 'remade_xid')::xid8, '" ~ snapshot
                ~ "') from " ~ relation[0][0] ~ "._tidemark_models as noted where model = '" ~ relation[0][1] ~ "'"
            ).columns[0].values() | list -%}
        {%- endif -%}
        {%- if (remade[0] if remade and remade[0] is not none else is_seed) -%}{{ return(true) }}{%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{% macro kept_control(relation) -%}
    {{ adapter.quote(relation.schema) }}._tidemark_models
{%- endmacro %}


{#- What numbers transactions: the cluster, by its identity. -#}
{% macro kept_cluster() -%}
    (select system_identifier::text from pg_control_system())
{%- endmacro %}


{#-
  The horizon of the build at hand: how far all goes that it reads. To be asked for before the model's rows are computed;
  staged_keys, which reads before that, takes the notes that it rests on.
-#}
{% macro kept_new_horizon() %}
    {%- set taken = run_query("select to_regclass('pg_temp." ~ kept_temp('notes') ~ "') is not null").columns[0].values()[0] -%}
    {%- if not taken -%}
        {{ kept_take_notes() }}
    {%- endif -%}
    {%- if model.resource_type != 'seed' -%}
        {{ kept_add_read(model.compiled_code) }}
    {%- endif -%}
    {{ return(kept_reach()) }}
{% endmacro %}


{#- What is beside the model at hand for the time of its build, and is to go before the next. -#}
{% macro kept_clear() %}
    {% call statement('clear') %}
        drop table if exists
            pg_temp.{{ kept_temp('notes') }}, pg_temp.{{ kept_temp('read') }}, pg_temp.{{ kept_temp('stage') }},
            pg_temp.{{ kept_temp('gone') }}, pg_temp.{{ kept_temp('plan') }}, pg_temp.{{ kept_temp('shape') }},
            pg_temp.{{ kept_temp('changed') }}
    {% endcall %}
{% endmacro %}


{#- Notes what a build did, and how far the table now goes. -#}
{% macro kept_note(relation, horizon, written) %}
    {%- set rows = written.inserted + written.updated + written.deleted -%}
    {% call statement('note') %}
        insert into {{ kept_control(relation) }} as noted
        (
            model, horizon, cluster, built_at, changed_at, changed_xid, read_snapshot, rows_total, rows_since_analyze,
            inserted, updated, deleted, invocation_id
        )
        values (
            '{{ relation.identifier }}', '{{ horizon }}', {{ kept_cluster() }}, clock_timestamp(), clock_timestamp(),
            pg_current_xact_id(), {{ kept_read_snapshot() }}, {{ written.inserted }}, {{ rows }},
            {{ written.inserted }}, {{ written.updated }}, {{ written.deleted }}, '{{ invocation_id }}'
        )
        on conflict (model) do update set
            horizon = excluded.horizon,
            cluster = excluded.cluster,
            built_at = excluded.built_at,
            changed_at = case when {{ rows }} > 0 then excluded.changed_at else noted.changed_at end,
            -- a number of another cluster's says nothing in this one
            changed_xid = case
                when {{ rows }} > 0 or noted.cluster <> excluded.cluster then excluded.changed_xid
                else coalesce(noted.changed_xid, excluded.changed_xid)
            end,
            read_snapshot = excluded.read_snapshot,
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


{#- The snapshot in which the notes were taken that the build at hand rests on. -#}
{% macro kept_read_snapshot() -%}
    (select snapshot from pg_temp.{{ kept_temp('notes') }} where snapshot is not null)
{%- endmacro %}


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


{#- Rows of a source that a policy hides from dbt's role would leave the marts as if they had been deleted. -#}
{% macro kept_refuse_hidden_rows() %}
    {%- set sources = [] -%}
    {%- for node in graph.sources.values() -%}
        {%- set relation = api.Relation.create(schema=node.schema, identifier=node.identifier) -%}
        {%- do sources.append("('" ~ relation | replace("'", "''") ~ "')") -%}
    {%- endfor -%}
    {%- if not sources -%}{{ return('') }}{%- endif -%}
    {%- set hidden = run_query(
        "select string_agg(name, ', ' order by name), current_user::text from (values " ~ sources | unique | join(', ')
        ~ ") as sources (name) where row_security_active(to_regclass(name)::oid)"
    )[0] -%}
    {%- if hidden[0] -%}
        {%- do exceptions.raise_compiler_error(
            'Row-level security applies to ' ~ hidden[1] ~ ' in ' ~ hidden[0] ~ ': rows that it hides would leave the marts. '
            ~ 'ALTER TABLE … DISABLE ROW LEVEL SECURITY, or ALTER ROLE ' ~ adapter.quote(hidden[1]) ~ ' BYPASSRLS; nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- on-run-start: the tables that hold the above, in each schema that has kept tables. -#}
{% macro kept_prepare() %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot', 'seed', 'run-operation'] -%}{{ return('') }}{%- endif -%}
    {%- if flags.EMPTY -%}
        {%- do exceptions.raise_compiler_error(
            '--empty would have kept tables built of no rows, and noted as built: those loaded until now would be missed, '
            ~ 'or deleted by a full refresh. Use dbt compile, or a DBT_SCHEMA_PREFIX and a small --select, to try models.'
        ) -%}
    {%- endif -%}
    {{ kept_refuse_hidden_rows() }}
    {%- set kept, ids, schemas = {}, [], [] -%}
    {%- for id, node in graph.nodes.items() -%}
        {%- if node.config.materialized in ['kept_table', 'kept_incremental', 'partitioned_incremental', 'kept_materialized_view', 'snapshot'] -%}
            {%- do kept.setdefault(node.schema, []).append(node.alias) -%}
            {%- do ids.append(id) -%}
            {%- do schemas.append(node.schema) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for node in kept_nodes_below(ids) if node.config.materialized in kept_noted_kinds() -%}
        {%- do schemas.append(node.schema) -%}
    {%- endfor -%}
    {%- for schema in schemas | unique | sort -%}
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
            if obj_description(to_regclass('{{ quoted }}._tidemark_models'), 'pg_class') like '%: version 1' then
                alter table {{ quoted }}._tidemark_models
                    -- the transaction that last wrote a row, and that which last computed rows anew that bear no stamp
                    add column if not exists changed_xid xid8,
                    add column if not exists remade_xid xid8,
                    -- what the last build could see when it began to read
                    add column if not exists read_snapshot pg_snapshot;
                comment on table {{ quoted }}._tidemark_models is 'Kept by Tidemark: version 2';
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
            -- a model of which it is 0 reads all, and no keys
            where horizon > '0'
            order by horizon limit 1
        );
    {%- endfor -%}
{% endmacro %}
