{#- What `changed_by` names: the inputs of a model that is built by key, and the keys whose rows a change of them makes stale. -#}

{#-
  The entries of `changed_by`, resolved: a list of {name, node, relation, key, columns, kind, tables, through, gives_key}. `key`
  maps columns of the model, or of the model that the rows are found `through`, to expressions over the input.

  `kind` says how the input's changes are known. `logged`: the materialization that writes it logs them. `tracked`: its rows
  are those of `tables`, which have triggers. `whole`: only whether it was written is known.

  Arguments:
    columns: the names of the model's columns.
-#}
{% macro changed_by(model_, columns) %}
    {%- set entries = config.get('changed_by') -%}
    {%- if not entries or entries is string or entries is mapping -%}
        {%- do exceptions.raise_compiler_error(
            this ~ (' has ' ~ entries ~ ' as changed_by, which must be a list: ' if entries else ' needs changed_by: ') ~ "what makes a key's row stale, as in [{'model': 'stg_orders', 'key': 'order_id'}]."
        ) -%}
    {%- endif -%}
    {%- set below, found = in_place.nameable_inputs(), [] -%}
    {%- for entry in entries -%}
        {{ in_place.refuse_bad_entry(entry, below, columns) }}
        {%- set node = (below | selectattr('name', 'equalto', entry.model) | list)[0] -%}
        {%- set key = {entry.key: adapter.quote(entry.key)} if entry.key is string else entry.key -%}
        {%- set relation = in_place.relation_of(in_place.node_oid(node)) -%}
        {%- if not relation -%}
            {%- do exceptions.raise_compiler_error(
                'changed_by names ' ~ entry.model ~ ', which does not exist in the warehouse yet. Build it first: dbt build --select +' ~ model.name
            ) -%}
        {%- endif -%}
        {%- set is_logged = in_place.is_logged(node) -%}
        {%- set tables = [] if is_logged else in_place.base_tables(relation, entry.model, key, node) -%}
        {%- do found.append({
            'name': entry.model,
            'node': node,
            'relation': relation.relation,
            'oid': relation.oid,
            'schema': relation.schema,
            'identifier': relation.identifier,
            'key': key,
            'columns': in_place.as_list(entry.get('columns')),
            'kind': 'logged' if is_logged else 'tracked' if tables else 'whole',
            'tables': [dict(relation, alias=adapter.quote(entry.model), stamp=none, expressions=none)] if is_logged else tables,
            'through': entry.get('through'),
            'gives_key': 'through' in entry or not (model_.build_by | reject('in', key.keys()) | list),
        }) -%}
    {%- endfor -%}
    {{ in_place.refuse_missing_input_columns(entries, found) }}
    {%- for input in found if input.through -%}
        {%- do input.update({'through': in_place.resolve_through(input, found)}) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- Refuses an entry of `changed_by` that names columns which its input does not have. -#}
{% macro refuse_missing_input_columns(entries, inputs) %}
    {%- for input in inputs -%}
        {%- set key = entries[loop.index0].key -%}
        {%- set columns = in_place.table_columns(input.relation) | map(attribute='name') | list -%}
        {%- set missing = (([key] if key is string else []) + input.columns) | reject('in', columns) | list -%}
        {%- if missing -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': changed_by names ' ~ missing | join(', ') ~ ' for ' ~ input.name ~ ', which has no such column. If the key has another '
                ~ "name there, map it, as in {'" ~ missing[0] ~ "': '…'}. Its columns: " ~ columns | join(', ') ~ '. Nothing was changed.'
            ) -%}
        {%- endif -%}
        {%- if key is not string -%}
            {#- PostgreSQL says what is wrong with an expression, before anything is built -#}
            {%- do run_query('select ' ~ key.values() | join(', ') ~ ' from ' ~ input.relation ~ ' as ' ~ adapter.quote(input.name) ~ ' limit 0') -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- The input through which another one's keys are found. -#}
{% macro resolve_through(input, inputs) %}
    {%- set others = inputs | selectattr('name', 'equalto', input.through) | selectattr('gives_key') | rejectattr('through') | list -%}
    {%- if not others -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by finds the rows that ' ~ input.name ~ " changes through '" ~ input.through ~ "', which needs an entry of its own that gives the key."
        ) -%}
    {%- endif -%}
    {%- set columns = in_place.table_columns(others[0].relation) | map(attribute='name') | list -%}
    {%- set missing = input.key.keys() | reject('in', columns) | list -%}
    {%- if missing -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by joins ' ~ input.name ~ ' and ' ~ input.through ~ ' by ' ~ missing | join(', ') ~ ', which the latter does not have. Its columns: '
            ~ columns | join(', ') ~ '.'
        ) -%}
    {%- endif -%}
    {{ return(others[0]) }}
{% endmacro %}


{#- What `changed_by` and `static` can name: the nodes below the current model, and its sources as `source.table`. -#}
{% macro nameable_inputs() %}
    {%- set nodes, found = in_place.nodes_below(model.depends_on.nodes), [] -%}
    {%- set ids = model.depends_on.nodes | list -%}
    {%- for node in nodes -%}
        {%- do found.append(node) -%}
        {%- do ids.extend(node.depends_on.nodes or []) -%}
    {%- endfor -%}
    {%- for id in ids | unique if id in graph.sources -%}
        {%- set source = graph.sources[id] -%}
        {%- do found.append({
            'name': source.source_name ~ '.' ~ source.name,
            'schema': source.schema,
            'alias': source.identifier,
            'resource_type': 'source',
            'config': {},
        }) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- Refuses an entry of `changed_by` that is misspelt, or names what the model does not read or have. -#}
{% macro refuse_bad_entry(entry, below, columns) %}
    {%- set example = "{'model': 'stg_orders', 'key': 'order_id'}" -%}
    {%- if entry is not mapping or not entry.get('model') or not entry.get('key') -%}
        {%- do exceptions.raise_compiler_error('changed_by has ' ~ entry ~ '. An entry names a model and a key, as in ' ~ example ~ '.') -%}
    {%- endif -%}
    {%- set unknown = entry.keys() | reject('in', ['model', 'key', 'columns', 'through']) | list -%}
    {%- if unknown -%}
        {%- do exceptions.raise_compiler_error('changed_by has ' ~ unknown | join(', ') ~ '. An entry has model, key, columns and through, as in ' ~ example ~ '.') -%}
    {%- endif -%}
    {%- if below | selectattr('name', 'equalto', entry.model) | list | length != 1 -%}
        {%- do exceptions.raise_compiler_error(
            "changed_by names '" ~ entry.model ~ "', which the model does not read. It reads: "
            ~ below | map(attribute='name') | sort | join(', ') ~ '.'
        ) -%}
    {%- endif -%}
    {%- if entry.key is not string and entry.key is not mapping -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by has the key ' ~ entry.key ~ ' for ' ~ entry.model ~ '. A key is a column, or maps columns of this model to expressions.'
        ) -%}
    {%- endif -%}
    {%- set missing = ([entry.key] if entry.key is string else entry.key.keys() | list) | reject('in', columns) | list -%}
    {%- if missing and not entry.get('through') -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by maps ' ~ entry.model ~ ' to ' ~ missing | join(', ') ~ ', which this model does not have. Select it, or '
            ~ "find the rows 'through' a model that has it. Columns of this model: " ~ columns | join(', ') ~ '.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- A relation by its oid, an SQL expression, as {oid, relation, schema, identifier}, quoted but for the identifier; none if there is none. -#}
{% macro relation_of(oid) %}
    {%- set query -%}
        select pg_class.oid::text, format('%I.%I', nspname, relname), quote_ident(nspname), relname::text
        from pg_catalog.pg_class
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where pg_class.oid = {{ oid }}
    {%- endset -%}
    {%- set rows = run_query(query) -%}
    {%- if not rows | length -%}{{ return(none) }}{%- endif -%}
    {{ return({'oid': rows[0][0], 'relation': rows[0][1], 'schema': rows[0][2], 'identifier': rows[0][3]}) }}
{% endmacro %}


{#- Whether the materialization of a node logs the changes of its rows. -#}
{% macro is_logged(node) %}
    {{ return(node.config.materialized in in_place.materializations_with_rows() and node.resource_type != 'snapshot') }}
{% endmacro %}


{#-
  The tables whose rows an input has, if it is a snapshot, a raw table, or a view over raw tables without joins: a list of
  {oid, relation, schema, identifier, alias, stamp, expressions, columns, is_own}. PostgreSQL's plan says what the columns of the
  key's expressions are over the table itself. So a row that the view no longer shows still gives its key.
-#}
{% macro base_tables(relation, name, key, node) %}
    {#- all columns: for some of them, PostgreSQL may leave out joins on which the others depend -#}
    {%- set explain -%}
        -- a parallel plan has further nodes
        set local max_parallel_workers_per_gather = 0;
        explain (verbose, format json) select * from {{ relation.relation }}
    {%- endset -%}
    {%- set scans, found = [], [] -%}
    {{ in_place.collect_scans(in_place.plan_of(explain), scans) }}
    {%- set names = in_place.table_columns(relation.relation) | map(attribute='name') | list -%}
    {%- set used = in_place.columns_in_use(relation.relation, key.values()) -%}
    {%- for scan in scans if scan is mapping -%}
        {%- set query -%}
            select
                base.oid::text,
                {{ in_place.stamp_column('base.oid') }},
                pg_has_role(relowner, 'usage'),
                relkind = 'r' and not relispartition
            from pg_catalog.pg_class as base
            where base.oid = to_regclass('{{ adapter.quote(scan.get("Schema")) }}.{{ adapter.quote(scan.get("Relation Name")) }}')
        {%- endset -%}
        {%- set rows = run_query(query) -%}
        {%- set is_simple = rows | length and rows[0][3] and scan['Output'] | length == names | length
            and not modules.re.search('SubPlan|InitPlan|\\$\\d', scan['Output'] | join(' ')) -%}
        {%- if is_simple and (rows[0][1] is not none or node.resource_type == 'snapshot') -%}
            {%- set table = in_place.relation_of(rows[0][0]) -%}
            {%- set expressions = {} -%}
            {%- for column in used -%}{%- do expressions.update({column: scan['Output'][names.index(column)]}) -%}{%- endfor -%}
            {%- do table.update({
                'alias': adapter.quote(scan['Alias']),
                'stamp': rows[0][1],
                'is_own': rows[0][2],
                'expressions': expressions,
                'columns': in_place.columns_in_use(table.relation, expressions.values()),
            }) -%}
            {%- do found.append(table) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found if found | length == scans | length else []) }}
{% endmacro %}


{#- Appends a plan's scans of tables; for a part that is none, a text that names it. -#}
{% macro collect_scans(node, scans) %}
    {%- if node['Node Type'] == 'Append' -%}
        {%- for child in node['Plans'] -%}{{ in_place.collect_scans(child, scans) }}{%- endfor -%}
    {%- elif node['Node Type'] in ['Seq Scan', 'Index Scan', 'Index Only Scan', 'Bitmap Heap Scan'] -%}
        {%- do scans.append(node) -%}
    {%- else -%}
        {%- do scans.append(node['Node Type']) -%}
    {%- endif -%}
{% endmacro %}


{#- The plan of an EXPLAIN in JSON. -#}
{% macro plan_of(explain) %}
    {%- set plan = run_query(explain)[0][0] -%}
    {{ return((fromjson(plan) if plan is string else plan)[0]['Plan']) }}
{% endmacro %}


{#- A query for the name of the column with the transaction that wrote each row of a raw table; null if there is none. -#}
{% macro stamp_column(oid) -%}
    (
        select min(attname::text)
        from pg_catalog.pg_attribute
        left join pg_catalog.pg_attrdef on adrelid = attrelid and adnum = attnum
        where
            attrelid = {{ oid }}
            and atttypid = 'xid8'::regtype
            and attnum > 0
            and not attisdropped
            and (
                pg_get_expr(adbin, adrelid) like '%pg_current_xact_id()'
                or attname = '_tidemark_loaded_xid' and exists (
                    select from pg_catalog.pg_class as beside
                    where
                        beside.relname = '_tidemark_state'
                        and beside.relnamespace = (select relnamespace from pg_catalog.pg_class where oid = {{ oid }})
                )
            )
    )
{%- endmacro %}


{#- The columns of a table whose names are words of these expressions. -#}
{% macro columns_in_use(relation, expressions) %}
    {%- set words = modules.re.findall('\\w+', expressions | join(' ')) -%}
    {{ return(in_place.table_columns(relation) | map(attribute='name') | select('in', words) | list) }}
{% endmacro %}


{#- The columns of the current model that the log of its changes has: those that other models' `changed_by` use. -#}
{% macro tracked_columns() %}
    {%- set words = [] -%}
    {%- for node in graph.nodes.values() if node.config.get('changed_by') -%}
        {%- for entry in node.config.changed_by if entry is mapping and entry.get('model') == model.name and entry.get('key') -%}
            {%- do words.extend([entry.key] if entry.key is string else entry.key.values()) -%}
            {%- do words.extend(entry.get('columns') or []) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(in_place.columns_in_use(this, words) if words and in_place.exists(this) else []) }}
{% endmacro %}


{#- A condition: the transaction in `xid` wrote after the snapshot was taken. -#}
{% macro is_later(xid, snapshot) -%}
    {{ xid }} >= pg_snapshot_xmin('{{ snapshot }}') and not pg_visible_in_snapshot({{ xid }}, '{{ snapshot }}')
{%- endmacro %}


{#- Why the changes of an input since `snapshot` can't be known; none if they can. -#}
{% macro why_unknown(input, snapshot) %}
    {%- if input.kind != 'tracked' and (input.schema == this.schema or in_place.exists(input.schema ~ '._tidemark_models')) -%}
        {%- set query -%}
            select
                to_jsonb(noted) -> 'changed_xid' is not null
                and pg_visible_in_snapshot((to_jsonb(noted) ->> 'changed_xid')::xid8, '{{ snapshot }}')
            from {{ input.schema }}._tidemark_models as noted
            where model = {{ dbt.string_literal(input.identifier) }} and cluster = {{ in_place.cluster_id() }}
        {%- endset -%}
        {%- set unchanged = in_place.first_column(query) -%}
        {%- if unchanged and unchanged[0] -%}{{ return(none) }}{%- endif -%}
    {%- endif -%}
    {%- if input.kind == 'whole' -%}{{ return(input.name ~ ' may have changed, and has no log of its changes') }}{%- endif -%}
    {%- for table in input.tables -%}
        {%- set tracked = table.schema ~ '._tidemark_tracked' -%}
        {%- if input.kind != 'tracked' and table.schema != this.schema and not in_place.exists(tracked) -%}{{ return('the changes of ' ~ table.relation ~ ' were not logged yet') }}{%- endif -%}
        {%- set columns = table.columns if input.kind == 'tracked'
            else in_place.columns_in_use(table.relation, input.key.values() | list + input.columns) -%}
        {%- set query -%}
            select
                exists (
                    select from {{ tracked }} as tracked
                    where
                        model = {{ dbt.string_literal(table.identifier) }}
                        and relation = {{ table.oid }}
                        and cluster = {{ in_place.cluster_id() }}
                        and not exists (
                            select from unnest({{ in_place.text_array(columns) }}) as name
                            where pg_visible_in_snapshot((tracked.columns ->> name)::xid8, '{{ snapshot }}') is not true
                        )
                        and coalesce(trimmed < pg_snapshot_xmin('{{ snapshot }}'), true)
                ),
                exists (
                    select from {{ table.schema }}._tidemark_changes
                    where
                        model = {{ dbt.string_literal(table.identifier) }} and old is null and new is null
                        and {{ in_place.is_later('xid', snapshot) }}
                )
        {%- endset -%}
        {%- set is_known, is_rewritten = run_query(query)[0].values() -%}
        {%- if not is_known -%}
            {{ return('the log of ' ~ table.relation ~ "'s changes does not reach back to the last build for " ~ columns | join(', ')) }}
        {%- elif is_rewritten -%}
            {{ return(table.relation ~ ' was written as a whole') }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(none) }}
{% endmacro %}


{#- A query for the keys whose rows may differ because an input changed since `snapshot`. -#}
{% macro keys_changed_by(model_, input, snapshot) %}
    {%- set given = in_place.given_by(input, snapshot) -%}
    {%- if input.through -%}
        {%- set through = input.through -%}
        {%- set given -%}
            select {% for column, expression in through.key.items() -%}
                {{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}
            {%- endfor %}
            -- other names, because the expressions are over the other input's columns
            from ({{ given }}) as given ({% for column in input.key %}in_place_{{ loop.index }}{{ ', ' if not loop.last }}{% endfor %})
            inner join {{ through.relation }} as {{ adapter.quote(through.name) }} on
            {%- for column in input.key %}
                {{ adapter.quote(through.name) }}.{{ adapter.quote(column) }} = given.in_place_{{ loop.index }}{{ ' and' if not loop.last }}
            {%- endfor %}
        {%- endset -%}
    {%- endif -%}
    {%- if input.gives_key -%}
        {%- set not_null = model_.build_by | reject('in', model_.null_keys) | list -%}
        select distinct {{ in_place.column_list(model_.build_by) }}
        from ({{ given }}) as given
        {% if not_null -%}
            -- the table has no row without a key
            where num_nulls({{ in_place.column_list(not_null) }}) = 0
        {%- endif %}
    {%- else -%}
        {#- it gives other columns than the key: the model's rows that have these values -#}
        select distinct {{ in_place.column_list(model_.build_by, 'existing') }}
        from ({{ given }}) as given
        inner join {{ model_.relation }} as existing on {{ in_place.columns_equal(input.key.keys() | list, 'existing', 'given') }}
    {%- endif -%}
{% endmacro %}


{#- A query for the values that the key's expressions have in rows which changed since `snapshot`, before or after the change. -#}
{% macro given_by(input, snapshot) -%}
    {%- for table in input.tables -%}
        {%- set columns -%}
            {%- for column, expression in (table.expressions or {}).items() -%}
                {{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}
            {%- else -%}
                {{ table.alias }}.*
            {%- endfor -%}
        {%- endset -%}
        select
            {% for column, expression in input.key.items() -%}
                {{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}
            {%- endfor %}
        from (
            {% if table.stamp -%}
                select {{ columns }}
                from {{ table.relation }} as {{ table.alias }}
                where {{ in_place.is_later(table.alias ~ '.' ~ adapter.quote(table.stamp), snapshot) }}
                union all
            {%- endif %}
            select {{ columns }}
            from {{ table.schema }}._tidemark_changes as in_place_changes
            -- the row as it was, and as it is
            cross join lateral (values (in_place_changes.old), (in_place_changes.new)) as in_place_rows (in_place_row)
            cross join lateral jsonb_populate_record(null::{{ table.relation }}, in_place_row) as {{ table.alias }}
            where
                in_place_changes.model = {{ dbt.string_literal(table.identifier) }}
                and {{ in_place.is_later('in_place_changes.xid', snapshot) }}
                and in_place_row is not null
                {% if input.columns and input.kind == 'logged' -%}
                    and (
                        in_place_changes.old is null or in_place_changes.new is null
                        {% for name in input.columns -%}
                            or in_place_changes.old -> '{{ name }}' is distinct from in_place_changes.new -> '{{ name }}'
                        {% endfor -%}
                    )
                {%- endif %}
        ) as {{ adapter.quote(input.name) }}
        {{- ' union ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
