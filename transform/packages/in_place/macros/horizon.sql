{#-
  Records each in-place table's horizon in `_tidemark_models` beside it, in the transaction that writes its rows.

  Each row in raw carries the transaction that loaded it. A build reads the rows of the recorded horizon and later, and
  records the oldest transaction that was still open when the build began. The next build therefore reads whatever that
  transaction or a later one commits, even during this build. A model on other in-place tables has at most their horizon.
-#}

{#- The horizon of the current model, as SQL. Use it only under in_place.is_incremental(). -#}
{% macro horizon() -%}
    '{{ in_place.own_horizon() }}'::xid8
{%- endmacro %}


{#-
  Whether the current model may build on the existing table. It may not if the warehouse was restored into another
  cluster, which numbers transactions anew. It also may not if an input has no known horizon, or if rows that carry no
  transaction, such as a seed's, changed since the last build.
-#}
{% macro is_incremental() %}
    {%- if not execute or should_full_refresh() -%}
        {{ return(false) }}
    {%- endif -%}
    {%- if model.config.materialized == 'in_place_incremental' or model.resource_type == 'snapshot' -%}
        {{ return(in_place.own_horizon() is not none) }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{% endmacro %}


{#- Read once per model and run: the compiled SQL and the merge must use the same answer. -#}
{% macro own_horizon() %}
    {%- if not execute -%}{{ return(none) }}{%- endif -%}
    {%- set asked = 'horizon of ' ~ model.unique_id ~ ' in ' ~ invocation_id -%}
    {%- if asked not in graph -%}
        {%- do graph.update({asked: in_place.recorded_horizon()}) -%}
    {%- endif -%}
    {{ return(graph[asked]) }}
{% endmacro %}


{% macro recorded_horizon() %}
    {%- set found = in_place.horizon_of(this) -%}
    {%- if found in (none, '0') -%}{{ return(none) }}{%- endif -%}
    {%- set query -%}
        -- as JSON: a table of an earlier version lacks this column until the next build
        select to_jsonb(noted) ->> 'read_snapshot' from {{ in_place.models_table(this) }} as noted
        where model = '{{ this.identifier }}'
    {%- endset -%}
    {{ return(none if in_place.is_remade_below(in_place.single_value(query)) else found) }}
{% endmacro %}


{#- The horizon of an in-place table; none if it is unknown in this cluster. -#}
{% macro horizon_of(relation) %}
    {%- if not execute -%}{{ return(none) }}{%- endif -%}
    {%- if not (in_place.exists(in_place.models_table(relation)) and in_place.exists(relation)) -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set query -%}
        select horizon::text from {{ in_place.models_table(relation) }}
        where
            model = '{{ relation.identifier }}'
            and cluster = {{ in_place.cluster_id() }}
            and horizon <= pg_snapshot_xmax(pg_current_snapshot())
    {%- endset -%}
    {%- set found = in_place.first_column(query) -%}
    {{ return(found[0] if found else none) }}
{% endmacro %}


{#-
  Whether rows without their own transaction changed below the model since it read with that snapshot. Such rows are
  those of a seed, and those of an incremental model that was built in full.
-#}
{% macro is_remade_below(snapshot) %}
    {%- set nodes = in_place.nodes_below(model.depends_on.nodes)
        | selectattr('config.materialized', 'in', in_place.recorded_materializations()) | list -%}
    {#- notes that are older than the snapshot column treated such tables as raw -#}
    {%- if nodes and snapshot is none -%}{{ return(true) }}{%- endif -%}
    {%- for node in nodes if node.config.materialized in ['seed', 'incremental'] -%}
        {%- set is_seed = node.resource_type == 'seed' -%}
        {%- set relation_query -%}
            select
                quote_ident(nspname),
                relname::text,
                to_regclass(quote_ident(nspname) || '._tidemark_models') is not null
            from pg_catalog.pg_class
            inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
            where pg_class.oid = {{ in_place.node_oid(node) }}
        {%- endset -%}
        {%- set relation = run_query(relation_query) -%}
        {%- set remade = [] -%}
        {%- if relation | length and relation[0][2] -%}
            {%- set remade_query -%}
                select not pg_visible_in_snapshot((to_jsonb(noted) ->> 'remade_xid')::xid8, '{{ snapshot }}')
                from {{ relation[0][0] }}._tidemark_models as noted
                where model = '{{ relation[0][1] }}'
            {%- endset -%}
            {%- set remade = in_place.first_column(remade_query) -%}
        {%- endif -%}
        {%- if (remade[0] if remade and remade[0] is not none else is_seed) -%}{{ return(true) }}{%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#- Materializations that record the horizon of their own rows. -#}
{% macro materializations_with_rows() %}
    {{ return(['in_place_table', 'in_place_incremental', 'incremental_by_key', 'snapshot']) }}
{% endmacro %}


{% macro models_table(relation) -%}
    {{ adapter.quote(relation.schema) }}._tidemark_models
{%- endmacro %}


{#- The identity of the cluster, which numbers the transactions. -#}
{% macro cluster_id() -%}
    (select system_identifier::text from pg_control_system())
{%- endmacro %}


{#-
  The horizon of the current build: the least horizon of everything that it reads. Call it before the model's rows are
  computed. staged_keys reads even earlier, and takes the notes that this relies on.
-#}
{% macro new_horizon() %}
    {%- set notes -%}
        {% if not in_place.memory().has_notes -%}
            {{ in_place.note_horizons() }}
        {%- endif %}
        {% if model.resource_type != 'seed' -%}
            {{ in_place.note_inputs(model.compiled_code) }}
        {%- endif %}
    {%- endset -%}
    {%- do in_place.memory().update({'has_notes': true}) -%}
    {{ return(in_place.input_horizon(notes)) }}
{% endmacro %}


{#- Drops the temporary relations of the current build, so that the next build starts without them. -#}
{% macro drop_temp_relations() %}
    {% call statement('clear') %}
        {{ in_place.drop_temp_relations_sql() }}
    {% endcall %}
{% endmacro %}


{% macro drop_temp_relations_sql() -%}
    {%- do in_place.memory().update({'has_notes': false}) -%}
    drop table if exists
    {%- for name in ['notes', 'read', 'stage', 'gone', 'plan', 'shape', 'changed', 'versions'] %}
        pg_temp.{{ in_place.temp_name(name) }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#-
  Records what a build did, and the table's new horizon.

  Arguments:
    complete: whether the build computed all rows.
    keys: how many keys it computed, or how many the table has after a complete build; none if it was not built by key.
    seconds: how long computing and writing them took; none if the table is new.
    definition: a hash of the SELECT; none if it was not built by key.

  Returns:
    Whether the table is due for new statistics.
-#}
{% macro record_build(relation, horizon, written, complete=true, keys=none, seconds=none, definition=none) %}
    {%- set rows = written.inserted + written.updated + written.deleted -%}
    {%- set tracked = in_place.tracked_columns() -%}
    {#- a short build of a few keys says little about the next one's cost: most of it is the same for one key -#}
    {%- set is_telling = keys is not none and not complete and seconds is not none and keys and (keys >= 1000 or seconds >= 2) -%}
    {%- set per_key = seconds / keys if is_telling else none -%}
    {%- set is_sampled = in_place.is_sampled() -%}
    {%- set query -%}
        insert into {{ in_place.models_table(relation) }} as noted
        (
            model, horizon, cluster, built_at, changed_at, changed_xid, read_snapshot, rows_total, rows_since_analyze,
            inserted, updated, deleted, invocation_id, keys_total, seconds_per_key, seconds_full, definition,
            preparation
        )
        values (
            '{{ relation.identifier }}', '{{ 0 if is_sampled else horizon }}', {{ in_place.cluster_id() }}, clock_timestamp(), clock_timestamp(),
            pg_current_xact_id(), {{ 'null' if is_sampled else in_place.read_snapshot() }}, {{ written.inserted }}, {{ rows }},
            {{ written.inserted }}, {{ written.updated }}, {{ written.deleted }}, '{{ invocation_id }}',
            {{ keys if complete and keys is not none else 'null' }}, {{ per_key if per_key is not none else 'null' }},
            {{ seconds if complete and seconds is not none else 'null' }}, {{ in_place.text_literal(definition) if definition else 'null' }},
            {{ in_place.preparation_as_json() }}
        )
        on conflict (model) do update set
            horizon = excluded.horizon,
            cluster = excluded.cluster,
            built_at = excluded.built_at,
            changed_at = case when {{ rows }} > 0 then excluded.changed_at else noted.changed_at end,
            -- a transaction number of another cluster means nothing here
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
            invocation_id = excluded.invocation_id,
            definition = excluded.definition,
            preparation = excluded.preparation,
            keys_total = coalesce(excluded.keys_total, noted.keys_total),
            seconds_per_key = coalesce(excluded.seconds_per_key, noted.seconds_per_key),
            seconds_full = coalesce(excluded.seconds_full, noted.seconds_full);
        {% if tracked -%}
            insert into {{ adapter.quote(relation.schema) }}._tidemark_tracked as known (model, relation, cluster, columns)
            select
                '{{ relation.identifier }}', '{{ relation }}'::regclass, {{ in_place.cluster_id() }},
                jsonb_object_agg(name, pg_current_xact_id()::text)
            from unnest({{ in_place.text_array(tracked) }}) as name
            on conflict (model) do update set
                relation = excluded.relation,
                cluster = excluded.cluster,
                trimmed = case when known.cluster = excluded.cluster then known.trimmed end,
                -- the log has a column from the build on that logged it first
                columns = (
                    select jsonb_object_agg(name, coalesce(
                        case when known.cluster = excluded.cluster and known.relation = excluded.relation then known.columns -> name end,
                        excluded.columns -> name
                    ))
                    from jsonb_object_keys(excluded.columns) as name
                );
        {%- else -%}
            delete from {{ adapter.quote(relation.schema) }}._tidemark_tracked where model = '{{ relation.identifier }}';
        {%- endif %}
        {{ in_place.drop_temp_relations_sql() }};
        {{ in_place.set_back('random_page_cost') }};
        {{ in_place.writes_end() }};
        select rows_since_analyze > 0.1 * rows_total from {{ in_place.models_table(relation) }} where model = '{{ relation.identifier }}'
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- Whether the build reads a part of its inputs only (--empty, --sample), so that it must record no horizon. -#}
{% macro is_sampled() %}
    {{ return(flags.EMPTY or (invocation_args_dict.get('sample') is not none)) }}
{% endmacro %}


{#- The snapshot of the notes that the current build relies on. -#}
{% macro read_snapshot() -%}
    (select snapshot from pg_temp.{{ in_place.temp_name('notes') }} where snapshot is not null)
{%- endmacro %}
