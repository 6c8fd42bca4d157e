{#-
  incremental_by_key: the model is one plain SELECT, as for a table. A build finds the keys whose inputs changed since the last
  build, evaluates the SELECT for these keys alone, writes the rows that differ, and deletes the keys that no longer come out.

  PostgreSQL pushes the condition on the key down into the SELECT, through CTEs, outer joins and aggregates. So the cost
  follows the number of changed keys. A model for which it can't do that is refused, because a row of such a model may also
  change when no input of its key does.
-#}
{% materialization incremental_by_key, adapter='postgres' %}
    {{ return(in_place.build_table(complete=false, by_key=true)) }}
{% endmaterialization %}


{#-
  Before the build's snapshot is taken: resolves `changed_by`, refuses what can't be built by key, and has the changes of
  the inputs logged.

  Returns:
    {inputs, columns, definition, share, difference}: the resolved inputs, the names of the model's columns, a hash of its SELECT and
    of the views below it, what the planner expects of one key as a share of all rows, and in_place.difference_settings() of a
    model that is built by difference.
-#}
{% macro prepare_by_key(model_, there) %}
    {#- what --empty and --sample add to the SELECT can't be built by key, and is built as a whole -#}
    {%- if in_place.is_sampled() -%}{{ return({'inputs': [], 'columns': [], 'definition': none, 'share': none, 'difference': none}) }}{%- endif -%}
    {%- set trial = in_place.create_trial_view(model.compiled_code) -%}
    {%- set columns = in_place.table_columns(trial) | map(attribute='name') | list -%}
    {{ in_place.refuse_missing_columns(model_, columns) }}
    {%- set inputs = in_place.changed_by(model_, columns) -%}
    {%- set definition = in_place.definition_of(trial) -%}
    {{ in_place.create_keys_table(model_, trial, there) }}
    {%- set difference = in_place.difference_settings(model_, trial, columns, inputs) if config.get('by_difference') else none -%}
    {%- set share = in_place.refuse_by_key(model_, trial, columns, inputs) -%}
    {% call statement('trial') %}
        drop view {{ trial }};
        reset max_parallel_workers_per_gather;
        reset random_page_cost
    {% endcall %}
    {%- for input in inputs if input.kind == 'tracked' -%}
        {{ in_place.track_changes(input.tables) }}
    {%- endfor -%}
    {{ return({'inputs': inputs, 'columns': columns, 'definition': definition, 'share': share, 'difference': difference}) }}
{% endmacro %}


{#- Refuses settings that name columns which the model does not have. -#}
{% macro refuse_missing_columns(model_, columns) %}
    {%- for setting, names in {'unique_key': model_.key, 'build_by': model_.build_by, 'null_keys': model_.null_keys}.items() -%}
        {%- set missing = names | reject('in', columns) | list -%}
        {%- if missing -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': ' ~ setting ~ ' names ' ~ missing | join(', ') ~ ', which the model does not have. Its columns: ' ~ columns | join(', ') ~ '.'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- Creates the temporary table of the changed keys, with the types and collations of the model's own columns. -#}
{% macro create_keys_table(model_, trial, there) %}
    {%- set keys = in_place.temp_name('changed') -%}
    {% call statement('keys') %}
        drop table if exists pg_temp.{{ keys }};
        create temporary table {{ keys }} as
        select {{ in_place.column_list(model_.build_by) }} from {{ model_.relation if there else trial }} limit 0;
        create unique index on {{ keys }} ({{ in_place.column_list(model_.build_by) }}) nulls not distinct
    {% endcall %}
{% endmacro %}


{#-
  Stages the keys whose inputs changed.

  Returns:
    Why all rows must be computed; none if the staged keys are enough.
-#}
{% macro stage_changed_keys(model_, prepared, there) %}
    {%- set inputs = prepared.inputs -%}
    {%- if not there -%}{{ return('the table is new') }}{%- endif -%}
    {%- if should_full_refresh() -%}{{ return('--full-refresh') }}{%- endif -%}
    {%- if config.get('time_dependent') -%}{{ return('it is time_dependent') }}{%- endif -%}
    {%- if in_place.is_sampled() -%}{{ return('it is a sample') }}{%- endif -%}
    {%- set functions = in_place.opaque_functions() -%}
    {%- if functions -%}{{ return('it calls ' ~ functions ~ ', which may read anything') }}{%- endif -%}
    {%- set snapshot = in_place.last_snapshot() -%}
    {%- if snapshot is none -%}{{ return('the last build did not note what it read: it was a sample, was of another kind, or ran in another cluster') }}{%- endif -%}
    {%- if not in_place.has_last_definition(prepared.definition) -%}{{ return('its SELECT, or a view or a function that it uses, changed') }}{%- endif -%}
    {%- if in_place.is_remade_below(snapshot) -%}{{ return('an input without changes of its own was written again') }}{%- endif -%}
    {%- for input in inputs -%}
        {%- set why = in_place.why_unknown(input, snapshot) -%}
        {%- if why -%}{{ return(why) }}{%- endif -%}
    {%- endfor -%}
    {%- set keys = in_place.temp_name('changed') -%}
    {% call statement('changed keys') %}
        -- a few rows are looked up by their keys
        set local random_page_cost = 1.1;
        {% for input in inputs if input.tables -%}
            insert into {{ keys }} {{ in_place.keys_changed_by(model_, input, snapshot) }}
            on conflict do nothing;
        {% endfor -%}
        reset random_page_cost;
        analyze {{ keys }}
    {% endcall %}
    {%- if prepared.difference is not none -%}{{ return(none) }}{%- endif -%}
    {{ return(in_place.why_full_is_cheaper(in_place.single_value('select count(*) from ' ~ keys))) }}
{% endmacro %}


{#- How many keys a build computed, or how many the table has after a complete build. -#}
{% macro key_count(model_, complete) %}
    {%- if not complete -%}
        {{ return(in_place.single_value('select count(*) from ' ~ in_place.temp_name('changed'))) }}
    {%- elif model_.build_by == model_.key -%}
        {{ return(in_place.single_value('select count(*) from ' ~ model_.stage)) }}
    {%- endif -%}
    {%- set query -%}
        select count(*) from (select distinct {{ in_place.column_list(model_.build_by) }} from {{ model_.stage }}) as keys
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- What earlier builds of the current model cost: {keys_total, seconds_per_key, seconds_full}, each none if unknown. -#}
{% macro build_costs() %}
    {%- set query -%}
        select
            coalesce((to_jsonb(noted) ->> 'keys_total')::float8, rows_total),
            (to_jsonb(noted) ->> 'seconds_per_key')::float8,
            (to_jsonb(noted) ->> 'seconds_full')::float8
        from {{ in_place.models_table(this) }} as noted
        where model = '{{ this.identifier }}'
    {%- endset -%}
    {%- set rows = run_query(query) -%}
    {%- if not rows | length -%}{{ return({}) }}{%- endif -%}
    {%- set known = {} -%}
    {%- for name in ['keys_total', 'seconds_per_key', 'seconds_full'] -%}
        {%- do known.update({name: rows[0][loop.index0] | float if rows[0][loop.index0] is not none else none}) -%}
    {%- endfor -%}
    {{ return(known) }}
{% endmacro %}


{#- Why all rows are computed instead of so many keys; none if the keys are cheaper, by what was measured or, at first, by their share. -#}
{% macro why_full_is_cheaper(count) %}
    {%- set known = in_place.build_costs() -%}
    {%- if known.seconds_per_key is not none and known.seconds_full is not none -%}
        {%- if count * known.seconds_per_key > known.seconds_full -%}
            {{ return(
                count ~ ' keys changed, which would take ' ~ (count * known.seconds_per_key) | round(1) ~ ' s by key, and all rows took '
                ~ known.seconds_full | round(1) ~ ' s'
            ) }}
        {%- endif -%}
    {%- elif known.keys_total and count > 1000 and count > 0.05 * known.keys_total -%}
        {{ return(count ~ ' of ' ~ known.keys_total | int ~ ' keys changed') }}
    {%- endif -%}
    {{ return(none) }}
{% endmacro %}


{#- The snapshot in which the last build read its inputs; none if that is unknown here. -#}
{% macro last_snapshot() %}
    {%- set query -%}
        select to_jsonb(noted) ->> 'read_snapshot' from {{ in_place.models_table(this) }} as noted
        where
            model = '{{ this.identifier }}'
            and cluster = {{ in_place.cluster_id() }}
            and pg_snapshot_xmax((to_jsonb(noted) ->> 'read_snapshot')::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot())
    {%- endset -%}
    {%- set found = in_place.first_column(query) -%}
    {{ return(found[0] if found else none) }}
{% endmacro %}


{#-
  A hash of what the views below a view select, of its own SELECT, and of the functions that they call, as PostgreSQL writes
  them: without comments and white space.
-#}
{% macro definition_of(trial) %}
    {%- set query -%}
        with views as ({{ in_place.views_below(trial) }}),

        functions as (
            select distinct pg_proc.oid, prosrc, pg_get_function_sqlbody(pg_proc.oid) as body
            from views
            inner join pg_catalog.pg_rewrite on ev_class = views.oid
            inner join pg_catalog.pg_depend as calls on calls.objid = pg_rewrite.oid and calls.classid = 'pg_rewrite'::regclass
            -- an operator calls its function
            left join pg_catalog.pg_operator on calls.refclassid = 'pg_operator'::regclass and pg_operator.oid = calls.refobjid
            inner join pg_catalog.pg_proc
                on pg_proc.oid = coalesce(pg_operator.oprcode::oid, calls.refobjid)
                and calls.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
            where pronamespace <> 'pg_catalog'::regnamespace
        )

        select md5(concat(
            (
                select string_agg(pg_get_viewdef(oid), ';' order by oid = '{{ trial }}'::regclass, oid::regclass::text)
                from views
            ),
            (select string_agg(concat(prosrc, body), ';' order by oid::regprocedure::text) from functions)
        ))
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- Whether the last build of the current model had that definition. A snapshot's versions are kept as they are. -#}
{% macro has_last_definition(definition) %}
    {%- if model.resource_type == 'snapshot' -%}{{ return(true) }}{%- endif -%}
    {%- set query -%}
        select definition from {{ in_place.models_table(this) }} where model = '{{ this.identifier }}'
    {%- endset -%}
    {{ return(in_place.single_value(query) == definition) }}
{% endmacro %}


{#- The functions that the current model calls and PostgreSQL does not look into, as a text; none if there are none. -#}
{% macro opaque_functions() %}
    {%- set query -%}
        select string_agg(distinct function::regprocedure::text, ', ') from pg_temp.{{ in_place.temp_name('read') }}
        where function is not null
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- Computes the rows of the staged keys, and stages the keys of the rows that no longer come out. -#}
{% macro stage_rows_by_key(model_, share) %}
    {%- set keys = in_place.temp_name('changed') -%}
    {%- set rows = in_place.rows_of_keys(model_, keys) if in_place.is_cheaper_at_once(model_, keys, share) else in_place.rows_by_key(model_, keys) -%}
    {% call statement('stage') %}
        {{ config.get('sql_header') or '' }}
        drop table if exists pg_temp.{{ model_.stage }}, pg_temp.{{ model_.gone }};
        set local random_page_cost = 1.1;
        create temporary table {{ model_.stage }} as {{ rows }};
        create temporary table {{ model_.gone }} as
        {% if model_.build_by == model_.key -%}
            select {{ in_place.column_list(model_.key, 'in_place_keys') }}
            from {{ keys }} as in_place_keys
            left join {{ model_.stage }} as staged on {{ in_place.keys_equal(model_, model_.key, 'staged', 'in_place_keys') }}
            where staged.ctid is null
        {%- else -%}
            select {{ in_place.column_list(model_.key, 'existing') }}
            from {{ keys }} as in_place_keys
            cross join lateral (
                select * from {{ model_.relation }} as found
                where {{ in_place.keys_equal(model_, model_.build_by, 'found', 'in_place_keys', by_index=true) }}
                offset 0
            ) as existing
            left join {{ model_.stage }} as staged on {{ in_place.keys_equal(model_, model_.key, 'staged', 'existing') }}
            where staged.ctid is null
        {%- endif %};
        reset random_page_cost
    {% endcall %}
{% endmacro %}


{#-
  The model's SELECT for all keys at once: for large groups, for which a dimension that the SELECT joins would be read again
  for each key. The condition gets only to relations that have the key's own column, and costs of such plans are no measure of
  time, so the other way is taken unless it is far more expensive.
-#}
{% macro rows_of_keys(model_, keys) -%}
    {%- set column = adapter.quote(model_.build_by[0]) -%}
    select * from (
        {{ model.compiled_code }}
    ) as model
    where {{ column }} = any(array(select {{ column }} from {{ keys }}))
{%- endmacro %}


{#- Whether rows_of_keys is the cheaper way, for keys of one column each of which costs a hundredth of all rows or more. -#}
{% macro is_cheaper_at_once(model_, keys, share) %}
    {%- if not share or share < 0.01 or model_.build_by | length > 1 or model_.build_by[0] in model_.null_keys -%}{{ return(false) }}{%- endif -%}
    {%- set count = in_place.single_value('select count(*) from ' ~ keys) -%}
    {%- set costs = [] -%}
    {%- for query in [in_place.rows_of_keys(model_, keys), in_place.rows_by_key(model_, keys)] -%}
        {%- do costs.append(in_place.plan_of('set local random_page_cost = 1.1; explain (format json) ' ~ query)['Total Cost']) -%}
    {%- endfor -%}
    {{ return(count > 1 and costs[0] < 0.5 * costs[1]) }}
{% endmacro %}


{#-
  The model's SELECT for some keys. `offset 0` keeps PostgreSQL from joining it with the keys as a whole. Keys with null parts
  have branches of their own, because `is not distinct from` uses no index.
-#}
{% macro rows_by_key(model_, keys) -%}
    {%- set nullable = model_.build_by | select('in', model_.null_keys) | list -%}
    {%- set branches = [[]] -%}
    {%- for column in nullable -%}
        {%- for branch in branches | list -%}{%- do branches.append(branch + [column]) -%}{%- endfor -%}
    {%- endfor -%}
    {%- for nulls in branches %}
        select found.*
        from (
            select * from {{ keys }} as in_place_keys
            where true
            {%- for column in nullable %} and in_place_keys.{{ adapter.quote(column) }} is {{ 'null' if column in nulls else 'not null' }}{% endfor %}
        ) as in_place_keys
        cross join lateral (
            select * from (
                {{ model.compiled_code }}
            ) as model
            where
                true
                {%- for column in model_.build_by %}
                    and model.{{ adapter.quote(column) }} {{ 'is null' if column in nulls else '= in_place_keys.' ~ adapter.quote(column) }}
                {%- endfor %}
            offset 0
        ) as found
        {{- ' union all' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#-
  A condition: these parts of a key are equal. Parts in `null_keys` are also equal if both are null.

  Arguments:
    by_index: whether the condition looks rows up by an index. Otherwise it can be hashed: PostgreSQL has no hash join by
      `is not distinct from`, and arrays with a null are equal.
-#}
{% macro keys_equal(model_, names, left, right, by_index=false) -%}
    {%- for name in names -%}
        {%- set a, b = left ~ '.' ~ adapter.quote(name), right ~ '.' ~ adapter.quote(name) -%}
        {%- if name not in model_.null_keys -%}
            {{ a }} = {{ b }}
        {%- elif by_index -%}
            ({{ a }} = {{ b }} or ({{ a }} is null and {{ b }} is null))
        {%- else -%}
            array[{{ a }}] = array[{{ b }}]
        {%- endif -%}
        {{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


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
