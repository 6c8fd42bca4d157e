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
  Stages the keys whose inputs changed, in a temporary table with the columns of `unique_key`.

  Returns:
    Why all rows must be computed; none if the staged keys are enough.
-#}
{% macro stage_changed_keys(model_, there) %}
    {%- set inputs = in_place.changed_by(model_) -%}
    {{ in_place.refuse_unlisted_inputs(inputs) }}
    {{ in_place.refuse_clock() }}
    {%- set keys = in_place.temp_name('changed') -%}
    {% call statement('changed') %}
        drop table if exists pg_temp.{{ keys }};
        -- types and collations of the model's own columns
        create temporary table {{ keys }} as select {{ in_place.column_list(model_.key) }} from
        {%- if there %} {{ model_.relation }}{% else %} (
            {{ sql }}
        ) as model{% endif %} limit 0;
        create unique index on {{ keys }} ({{ in_place.column_list(model_.key) }})
    {% endcall %}
    {{ in_place.refuse_unreached_key(model_) }}
    {%- if not there -%}{{ return('the table is new') }}{%- endif -%}
    {%- if should_full_refresh() -%}{{ return('--full-refresh') }}{%- endif -%}
    {%- set snapshot = in_place.last_snapshot() -%}
    {%- if snapshot is none -%}{{ return('what the last build read is unknown in this cluster') }}{%- endif -%}
    {%- if in_place.is_remade_below(snapshot) -%}{{ return('an input without changes of its own was written anew') }}{%- endif -%}
    {%- for input in inputs -%}
        {%- set why = in_place.why_unknown(input, snapshot) -%}
        {%- if why -%}{{ return(why) }}{%- endif -%}
        {% call statement('changed by ' ~ input.name) %}
            insert into {{ keys }} {{ in_place.keys_changed_by(model_, input, snapshot) }}
            on conflict do nothing
        {% endcall %}
    {%- endfor -%}
    {% call statement('changed statistics') %}
        analyze {{ keys }}
    {% endcall %}
    {%- set query -%}
        select count(*), (select rows_total from {{ in_place.models_table(this) }} where model = '{{ this.identifier }}')
        from {{ keys }}
    {%- endset -%}
    {%- set counts = run_query(query)[0] -%}
    {%- if counts[0] > 1000 and counts[0] > 0.05 * counts[1] -%}
        {{ return(counts[0] ~ ' of ' ~ counts[1] ~ ' keys changed') }}
    {%- endif -%}
    {{ return(none) }}
{% endmacro %}


{#-
  The entries of `changed_by`, resolved: a list of {name, node, relation, key, columns, kind}. `key` maps columns of the model
  to expressions over the input. `kind` says how the input's changes are found: `logged` for tables of this package, `stamped`
  for relations with a column of type xid8, `whole` for all others.
-#}
{% macro changed_by(model_) %}
    {%- set entries = config.get('changed_by') -%}
    {%- if not entries -%}
        {%- do exceptions.raise_compiler_error(
            "incremental_by_key needs changed_by: what makes a key's row stale, as in [{'model': 'stg_orders', 'key': 'order_id'}]."
        ) -%}
    {%- endif -%}
    {%- set below, found = in_place.nodes_below(model.depends_on.nodes), [] -%}
    {%- set columns = in_place.model_columns(model_) -%}
    {%- for entry in entries -%}
        {%- set nodes = below | selectattr('name', 'equalto', entry.model) | list -%}
        {%- if nodes | length != 1 -%}
            {%- do exceptions.raise_compiler_error(
                "changed_by names '" ~ entry.model ~ "', which the model does not read. It reads: "
                ~ below | map(attribute='name') | sort | join(', ') ~ '.'
            ) -%}
        {%- endif -%}
        {%- set node = nodes[0] -%}
        {%- set query -%}
            select pg_class.oid::regclass::text, quote_ident(nspname), relname::text
            from pg_catalog.pg_class
            inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
            where pg_class.oid = {{ in_place.node_oid(node) }}
        {%- endset -%}
        {%- set relation, schema, identifier = run_query(query)[0].values() -%}
        {%- set stamp = in_place.stamp_column(relation) -%}
        {%- set key = {entry.key: entry.key} if entry.key is string else entry.key -%}
        {%- set unknown = key.keys() | reject('in', columns) | list -%}
        {%- if unknown -%}
            {%- do exceptions.raise_compiler_error(
                'changed_by maps ' ~ entry.model ~ ' to ' ~ unknown | join(', ') ~ ', which the model does not have. Use its columns: '
                ~ columns | join(', ') ~ '.'
            ) -%}
        {%- endif -%}
        {%- do found.append({
            'name': entry.model,
            'node': node,
            'relation': relation,
            'schema': schema,
            'identifier': identifier,
            'key': key,
            'columns': entry.get('columns') or [],
            'stamp': stamp,
            'kind': 'logged' if in_place.is_logged(node) else 'stamped' if stamp else 'whole',
        }) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- The names of the model's columns. -#}
{% macro model_columns(model_) %}
    {%- set trial = in_place.create_trial_view(sql) -%}
    {%- set names = in_place.table_columns(trial) | map(attribute='name') | list -%}
    {% call statement('model columns') %}
        drop view {{ trial }}
    {% endcall %}
    {{ return(names) }}
{% endmacro %}


{#- The column with the transaction that wrote each row; none if there is none. -#}
{% macro stamp_column(relation) %}
    {%- set found = in_place.table_columns(relation) | selectattr('type', 'equalto', 'xid8') | map(attribute='name') | list -%}
    {{ return(found[0] if found | length == 1 else none) }}
{% endmacro %}


{#- Whether a node's table has a log of its changes. -#}
{% macro is_logged(node) %}
    {{ return(node.config.materialized in in_place.materializations_with_rows() and node.resource_type != 'snapshot') }}
{% endmacro %}


{#- The snapshot in which the last build read its inputs; none if that is unknown here. -#}
{% macro last_snapshot() %}
    {%- if in_place.horizon_of(this) in (none, '0') -%}{{ return(none) }}{%- endif -%}
    {%- set query -%}
        select to_jsonb(noted) ->> 'read_snapshot' from {{ in_place.models_table(this) }} as noted
        where model = '{{ this.identifier }}'
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- A condition: the transaction in `xid` wrote after the snapshot was taken. -#}
{% macro is_later(xid, snapshot) -%}
    {{ xid }} >= pg_snapshot_xmin('{{ snapshot }}') and not pg_visible_in_snapshot({{ xid }}, '{{ snapshot }}')
{%- endmacro %}


{#- Why the changes of an input since `snapshot` can't be known; none if they can. -#}
{% macro why_unknown(input, snapshot) %}
    {%- if input.kind == 'stamped' -%}{{ return(none) }}{%- endif -%}
    {%- set query -%}
        select
            to_jsonb(noted) -> 'changed_xid' is not null
            and pg_visible_in_snapshot((to_jsonb(noted) ->> 'changed_xid')::xid8, '{{ snapshot }}') as is_unchanged,
            pg_visible_in_snapshot((to_jsonb(noted) ->> 'tracked_since')::xid8, '{{ snapshot }}')
            and (to_jsonb(noted) -> 'tracked')
            @> '{{ in_place.columns_in_use(input.node, input.relation, [input]) | tojson }}'::jsonb as is_logged
        from {{ input.schema }}._tidemark_models as noted
        where model = '{{ input.identifier }}' and cluster = {{ in_place.cluster_id() }}
    {%- endset -%}
    {%- set rows = run_query(query) -%}
    {%- if rows | length and rows[0][0] -%}{{ return(none) }}{%- endif -%}
    {%- if input.kind == 'whole' -%}{{ return(input.name ~ ' was written, and has no log of its changes') }}{%- endif -%}
    {%- if not (rows | length and rows[0][1]) -%}
        {{ return('the log of ' ~ input.name ~ ' does not reach back to the last build') }}
    {%- endif -%}
    {%- set whole -%}
        select exists (
            select from {{ input.schema }}._tidemark_changes
            where
                model = '{{ input.identifier }}' and old is null and new is null
                and {{ in_place.is_later('xid', snapshot) }}
        )
    {%- endset -%}
    {{ return(input.name ~ ' was written as a whole' if in_place.single_value(whole) else none) }}
{% endmacro %}


{#- A query for the keys whose rows may differ because an input changed since `snapshot`. -#}
{% macro keys_changed_by(model_, input, snapshot) %}
    {%- set changed -%}
        {%- if input.kind == 'stamped' -%}
            select * from {{ input.relation }} where {{ in_place.is_later(adapter.quote(input.stamp), snapshot) }}
        {%- else -%}
            select changed.*
            from {{ input.schema }}._tidemark_changes as logged
            -- the row as it was, and as it is
            cross join lateral (values (logged.old), (logged.new)) as versions (version)
            cross join lateral jsonb_populate_record(null::{{ input.relation }}, versions.version) as changed
            where
                logged.model = '{{ input.identifier }}'
                and {{ in_place.is_later('logged.xid', snapshot) }}
                and versions.version is not null
                {% if input.columns -%}
                    and (
                        logged.old is null or logged.new is null
                        {% for name in input.columns -%}
                            or logged.old -> '{{ name }}' is distinct from logged.new -> '{{ name }}'
                        {% endfor -%}
                    )
                {%- endif %}
        {%- endif -%}
    {%- endset -%}
    {%- if model_.key | reject('in', input.key.keys()) | list -%}
        {#- it gives other columns than the key: the model's rows that have these values -#}
        select distinct {{ in_place.column_list(model_.key, 'existing') }}
        from (
            select distinct {% for column, expression in input.key.items() -%}
                {{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}
            {%- endfor %}
            from ({{ changed }}) as {{ adapter.quote(input.name) }}
        ) as given
        inner join {{ model_.relation }} as existing on {{ in_place.columns_equal(input.key.keys() | list, 'existing', 'given') }}
    {%- else -%}
        select distinct {% for column in model_.key -%}
            {{ input.key[column] }}{{ ', ' if not loop.last }}
        {%- endfor %}
        from ({{ changed }}) as {{ adapter.quote(input.name) }}
        -- the table has no row without a key
        where {% for column in model_.key -%}
            {{ input.key[column] }} is not null{{ ' and ' if not loop.last }}
        {%- endfor %}
    {%- endif -%}
{% endmacro %}


{#- The columns of an input that these entries of `changed_by` use: those whose names are words of an expression, and `columns`. -#}
{% macro columns_in_use(node, relation, entries) %}
    {%- set used = [] -%}
    {%- for column in in_place.table_columns(relation) | map(attribute='name') -%}
        {%- for entry in entries -%}
            {%- set words = modules.re.findall('\\w+', entry.key.values() | join(' ')) -%}
            {%- if column in words or column in entry.columns -%}
                {%- do used.append(column) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(used | unique | sort) }}
{% endmacro %}


{#- The columns of the current model that the log of its changes has: those that other models' `changed_by` use. -#}
{% macro tracked_columns() %}
    {%- set entries = [] -%}
    {%- for node in graph.nodes.values() if node.config.materialized == 'incremental_by_key' -%}
        {%- for entry in node.config.get('changed_by') or [] if entry.model == model.name -%}
            {%- do entries.append({
                'key': {entry.key: entry.key} if entry.key is string else entry.key, 'columns': entry.get('columns') or []
            }) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(in_place.columns_in_use(model, this, entries) if entries and in_place.exists(this) else []) }}
{% endmacro %}


{#- Computes the rows of the staged keys, and stages the keys without a row as gone. -#}
{% macro stage_rows_by_key(model_) %}
    {%- set keys = in_place.temp_name('changed') -%}
    {% call statement('stage') %}
        {{ config.get('sql_header') or '' }}
        drop table if exists pg_temp.{{ model_.stage }}, pg_temp.{{ model_.gone }};
        -- rows are looked up by their keys; compiling a plan whose estimate is high takes longer than running it
        set local random_page_cost = 1.1;
        set local jit = off;
        create temporary table {{ model_.stage }} as {{ in_place.rows_by_key(model_, keys) }};
        create temporary table {{ model_.gone }} as
        select {{ in_place.column_list(model_.key, 'keys') }}
        from {{ keys }} as keys
        left join {{ model_.stage }} as staged on {{ in_place.columns_equal(model_.key, 'staged', 'keys') }}
        where staged.{{ adapter.quote(model_.key[0]) }} is null;
        reset random_page_cost;
        reset jit
    {% endcall %}
{% endmacro %}


{#- The model's SELECT for some keys. `offset 0` keeps PostgreSQL from joining it with the keys as a whole. -#}
{% macro rows_by_key(model_, keys) -%}
    select found.*
    from {{ keys }} as keys
    cross join lateral (
        select * from (
            {{ sql }}
        ) as model
        where {{ in_place.columns_equal(model_.key, 'model', 'keys') }}
        offset 0
    ) as found
{%- endmacro %}


{#- Refuses a model that reads a relation which is neither in `changed_by` nor `static`: its changes would be missed. -#}
{% macro refuse_unlisted_inputs(inputs) %}
    {%- set listed = inputs | map(attribute='relation') | list -%}
    {%- for name in config.get('static') or [] -%}
        {%- set nodes = in_place.nodes_below(model.depends_on.nodes) | selectattr('name', 'equalto', name) | list -%}
        {%- if nodes | length != 1 -%}
            {%- do exceptions.raise_compiler_error("static names '" ~ name ~ "', which the model does not read.") -%}
        {%- endif -%}
        {%- do listed.append(in_place.single_value('select ' ~ in_place.node_oid(nodes[0]) ~ '::regclass::text')) -%}
    {%- endfor -%}
    {%- set trial = in_place.create_trial_view(sql) -%}
    {%- set query -%}
        select string_agg(read.oid::regclass::text, ', ' order by read.oid::regclass::text)
        from ({{ in_place.relations_below(trial) }}) as read
        where read.oid not in (
            {%- for relation in listed %}
                select '{{ relation }}'::regclass::oid
                union all
                select below.oid from ({{ in_place.relations_below(relation) }}) as below
                {{- ' union all' if not loop.last }}
            {%- endfor %}
        )
    {%- endset -%}
    {%- set missing = in_place.single_value(query) -%}
    {% call statement('inputs') %}
        drop view {{ trial }}
    {% endcall %}
    {%- if missing -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' reads ' ~ missing ~ ', whose changes would be missed. Add it to changed_by with the key that it makes stale, '
            ~ 'or to static if its rows never change. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- Refuses a model whose rows change with the clock: no input changes then. -#}
{% macro refuse_clock() %}
    {%- set trial = in_place.create_trial_view(sql) -%}
    {%- set query -%}
        select (regexp_match(pg_get_viewdef(oid), '{{ in_place.unstable_pattern() }}'))[1:] is not null,
            substring(pg_get_viewdef(oid) from '{{ in_place.unstable_pattern() }}'), oid::regclass::text
        from ({{ in_place.views_below(trial) }}) as views
        where pg_get_viewdef(oid) ~ '{{ in_place.unstable_pattern() }}'
        limit 1
    {%- endset -%}
    {%- set found = run_query(query) -%}
    {% call statement('clock') %}
        drop view {{ trial }}
    {% endcall %}
    {%- if found | length -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' depends on ' ~ (found[0][1] or 'the clock or the session') ~ ', so its rows change when no input does. Take it out, '
            ~ 'or use in_place_table. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#-
  Refuses a model to whose inputs the condition on the key does not get: its rows depend on those of other keys, or it would
  cost a full build for each key. The plan for one key shows it: some part below a window, a limit, a set operation or a total
  reads without the key.
-#}
{% macro refuse_unreached_key(model_) %}
    {%- set keys = in_place.temp_name('changed') -%}
    {%- set plan = run_query('explain (format json, verbose) ' ~ in_place.rows_by_key(model_, keys))[0][0] -%}
    {%- set plan = fromjson(plan) if plan is string else plan -%}
    {%- set found = [] -%}
    {{ in_place.unreached_nodes(plan[0]['Plan'], found) }}
    {%- if found -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': the key ' ~ model_.key | join(', ') ~ ' does not get below ' ~ found | unique | join(', ') ~ ' of the plan, so a row '
            ~ 'may depend on rows of other keys. Partition windows by the key, group by it, and take LIMIT, EXCEPT and totals '
            ~ 'over all rows out; or use in_place_table. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- Appends to `found` the parts of a plan that need the key below them and do not have it. -#}
{% macro unreached_nodes(node, found) %}
    {%- set needs = node['Node Type'] in ['WindowAgg', 'Limit', 'SetOp', 'Unique', 'Recursive Union']
        or node.get('Subplan Name', '').startswith('InitPlan') -%}
    {%- if needs and not in_place.has_key_condition(node) -%}
        {%- do found.append(node.get('Subplan Name') or node['Node Type']) -%}
    {%- endif -%}
    {%- for child in node.get('Plans', []) -%}
        {{ in_place.unreached_nodes(child, found) }}
    {%- endfor -%}
{% endmacro %}


{#- Whether a part of a plan has a condition on the staged keys. -#}
{% macro has_key_condition(node) %}
    {%- for name in ['Index Cond', 'Filter', 'Recheck Cond', 'Hash Cond', 'Join Filter', 'Merge Cond'] -%}
        {%- if 'keys.' in (node.get(name) or '') -%}{{ return(true) }}{%- endif -%}
    {%- endfor -%}
    {%- for child in node.get('Plans', []) -%}
        {%- if in_place.has_key_condition(child) -%}{{ return(true) }}{%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#-
  Part of on-run-start: deletes the changes that every model of the project has read. A reader elsewhere, such as a developer's
  model that defers to this project, then finds that the log does not reach back to its last build, and computes all rows.
-#}
{% macro trim_changes() %}
    {%- set readers, written = {}, [] -%}
    {%- for node in graph.nodes.values() -%}
        {%- if node.config.materialized == 'incremental_by_key' -%}
            {%- do readers.setdefault(node.schema, []).append(node.alias) -%}
        {%- endif -%}
        {%- if in_place.is_logged(node) -%}{%- do written.append(node.schema) -%}{%- endif -%}
    {%- endfor -%}
    {%- if readers -%}
        do $tidemark$
        declare
            -- the oldest transaction that the last build of some model may not have seen
            unread constant xid8 := (
                select min(pg_snapshot_xmin(read_snapshot)::text::bigint)::text::xid8 from (
                    {%- for schema, names in readers.items() %}
                        select read_snapshot from {{ adapter.quote(schema) }}._tidemark_models
                        where model in ('{{ names | join("', '") }}') and cluster = {{ in_place.cluster_id() }}
                        {{- ' union all' if not loop.last }}
                    {%- endfor %}
                ) as builds
            );
            seen constant xid8 := (unread::text::bigint - 1)::text::xid8;
        begin
            {%- for schema in written | unique | sort %}
                delete from {{ adapter.quote(schema) }}._tidemark_changes where xid < unread;
                if found then
                    update {{ adapter.quote(schema) }}._tidemark_models set tracked_since = seen where tracked_since < seen;
                end if;
            {%- endfor %}
        end
        $tidemark$;
    {%- endif -%}
{% endmacro %}
