{#-
  What incremental_by_key refuses: models whose rows may change although `changed_by` gives no key for them, and models whose
  keys PostgreSQL can't push down. Each is checked before anything is written, at each build, because views below may change.
-#}

{#-
  Checks the current model against its temporary view `trial`, the names of its columns and its resolved inputs.

  Returns:
    What one key costs, as a share of the model's plan; none for a model that is built by difference.
-#}
{% macro refuse_by_key(model_, trial, columns, inputs) %}
    {{ in_place.refuse_unlisted_inputs(trial, inputs) }}
    {{ in_place.refuse_clock(trial) }}
    {%- set plan = in_place.plan_of('explain (format json, verbose) select * from ' ~ trial) -%}
    {{ in_place.refuse_deciding_inputs(model_, inputs, plan, columns) }}
    {{ in_place.refuse_untold_columns(inputs, plan) }}
    {{ return(in_place.refuse_unreached_key(model_, plan, inputs) if not config.get('by_difference') else none) }}
{% endmacro %}


{#- Refuses a model that reads a relation which is neither in `changed_by` nor `static`: its changes would be missed. -#}
{% macro refuse_unlisted_inputs(trial, inputs) %}
    {%- set listed = inputs | map(attribute='relation') | list -%}
    {%- for name in config.get('static') or [] -%}
        {%- set nodes = in_place.nameable_inputs() | selectattr('name', 'equalto', name) | list -%}
        {%- if nodes | length != 1 -%}
            {%- do exceptions.raise_compiler_error("static names '" ~ name ~ "', which the model does not read.") -%}
        {%- endif -%}
        {%- set relation = in_place.relation_of(in_place.node_oid(nodes[0])) -%}
        {%- if relation -%}{%- do listed.append(relation.relation) -%}{%- endif -%}
    {%- endfor -%}
    {%- set query -%}
        select string_agg(read.oid::regclass::text, ', ' order by read.oid::regclass::text)
        from ({{ in_place.relations_below(trial) }}) as read
        where read.oid not in (
            select 0::oid
            {%- for relation in listed %}
                union all
                select '{{ relation }}'::regclass::oid
                union all
                select below.oid from ({{ in_place.relations_below(relation) }}) as below
            {%- endfor %}
        )
    {%- endset -%}
    {%- set missing = in_place.single_value(query) -%}
    {%- if missing -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' reads ' ~ missing ~ ', whose changes would be missed. Add it to changed_by with the key that it makes stale, '
            ~ 'or to static if its rows never change. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- Refuses a model whose rows change with the clock or the session: no input changes then. -#}
{% macro refuse_clock(trial) %}
    {%- if config.get('time_dependent') -%}{{ return('') }}{%- endif -%}
    {%- set query -%}
        select trim(trailing '(' from substring(pg_get_viewdef(oid) from '({{ in_place.unstable_pattern() }})'))
        from ({{ in_place.views_below(trial) }}) as views
        where pg_get_viewdef(oid) ~ '{{ in_place.unstable_pattern() }}'
        limit 1
    {%- endset -%}
    {%- set found = in_place.first_column(query) -%}
    {%- if found -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' depends on ' ~ (found[0] or 'the clock or the session') ~ ', so its rows change when no input does. Take it out, '
            ~ 'or set time_dependent: true, which computes all rows at each build. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#-
  Refuses a model in which an input decides whether a row exists, or what its key is, and gives no key: the rows that it
  makes stale are found by the values that the table's rows hold, so rows that are not there yet would be missed.
-#}
{% macro refuse_deciding_inputs(model_, inputs, plan, names) %}
    {%- for input in inputs if not input.gives_key -%}
        {%- set parts = input.key.keys() | list -%}
        {%- if not (parts | reject('in', model_.build_by) | list) -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': ' ~ input.name ~ ' gives ' ~ parts | join(', ') ~ ', a part of ' ~ model_.build_by | join(', ') ~ ', so rows with a new key '
                ~ 'would be missed. Map the whole key, or set build_by: ' ~ parts | join(', ') ~ '. Nothing was changed.'
            ) -%}
        {%- endif -%}
        {%- set tables = {} -%}
        {%- for table in [input] + (in_place.tables_below(input.relation) if input.kind != 'logged' else []) -%}{%- do tables.update({table.relation: true}) -%}{%- endfor -%}
        {%- set aliases = [] -%}
        {%- set decides = in_place.decides_rows(plan, tables, aliases) -%}
        {%- set pattern = '(^|[^\\w"])(' ~ aliases | unique | map('replace', '$', '\\$') | join('|') ~ ')\\.' -%}
        {%- if aliases and not decides -%}
            {%- set decides = in_place.is_in_filter(plan, pattern, tables) -%}
            {%- for name in names if name in model_.build_by and not decides -%}
                {%- set output = (plan['Output'] or [])[names.index(name)] -%}
                {%- if output and modules.re.search(pattern, output) -%}
                    {%- do exceptions.raise_compiler_error(
                        this ~ ': the key ' ~ name ~ ' comes from ' ~ input.name ~ ', whose entry in changed_by gives no key. A change there gives '
                        ~ 'rows new keys, which would be missed. Map the key to expressions over ' ~ input.name ~ ', or take ' ~ name
                        ~ ' out of the key. Nothing was changed.'
                    ) -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
        {%- if decides -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': ' ~ input.name ~ ' decides which rows there are, and its entry in changed_by gives no key. Rows that are not in the '
                ~ 'table yet would be missed. Use a left join and no condition on it, or find the rows \'through\' a model that gives the key '
                ~ 'and holds ' ~ input.key.keys() | join(', ') ~ '. Nothing was changed.'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- Refuses a model that reads more columns of an input than its entry's `columns`: changes of the others would be missed. -#}
{% macro refuse_untold_columns(inputs, plan) %}
    {%- set nodes = [] -%}
    {{ in_place.collect_nodes(plan, nodes) }}
    {%- for input in inputs if input.columns -%}
        {%- set names, aliases, texts = [], [], [] -%}
        {%- set parts -%}
            select relname::text
            from (
                select '{{ input.relation }}'::regclass::oid as oid
                union
                select relid::oid from pg_partition_tree('{{ input.relation }}'::regclass)
            ) as parts
            inner join pg_catalog.pg_class using (oid)
        {%- endset -%}
        {%- set names = in_place.first_column(parts) | list -%}
        {%- for node in nodes if node.get('Relation Name') in names -%}
            {#- a partition's alias is its table's and a number -#}
            {%- do aliases.extend([node['Alias'], modules.re.sub('_\\d+$', '', node['Alias'])]) -%}
        {%- endfor -%}
        {%- for node in nodes -%}
            {%- for name in ['Index Cond', 'Filter', 'Recheck Cond', 'Hash Cond', 'Join Filter', 'Merge Cond'] -%}{%- do texts.append(node.get(name) or '') -%}{%- endfor -%}
            {#- a scan, and what passes its rows on, may print columns that nobody needs -#}
            {%- if loop.first or 'Join' in node['Node Type'] or node['Node Type'] in ['Nested Loop', 'Aggregate', 'WindowAgg'] -%}
                {%- do texts.extend(node.get('Output', [])) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- set read = modules.re.findall('(?<![\\w"])(?:' ~ aliases | unique | map('replace', '$', '\\$') | join('|') ~ ')\\."?(\\w+)', texts | join(' ')) if aliases else [] -%}
        {%- set told = in_place.columns_in_use(input.relation, input.key.values() | list + input.columns) -%}
        {%- set untold = in_place.columns_in_use(input.relation, read) | reject('in', told) | list -%}
        {%- if untold -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ' reads ' ~ untold | join(', ') ~ ' of ' ~ input.name ~ ", whose changes would be missed: its entry in changed_by has 'columns': "
                ~ input.columns ~ '. Add what is missing, or leave columns out. Nothing was changed.'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- The tables that a view reads, as in_place.relation_of() gives them. -#}
{% macro tables_below(relation) %}
    {%- set found = [] -%}
    {%- for oid in in_place.first_column('select oid::text from (' ~ in_place.relations_below(relation) ~ ') as below') -%}
        {%- do found.append(in_place.relation_of(oid)) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- Whether a part of a plan gives rows by what is in one of these tables. Appends the tables' names in the plan to `aliases`. -#}
{% macro decides_rows(node, tables, aliases) %}
    {%- if node.get('Relation Name') -%}
        {%- set name = adapter.quote(node['Relation Name']) if modules.re.search('[^a-z0-9_]', node['Relation Name']) else node['Relation Name'] -%}
        {%- set schema = adapter.quote(node['Schema']) if modules.re.search('[^a-z0-9_]', node['Schema']) else node['Schema'] -%}
        {%- if (schema ~ '.' ~ name) in tables -%}
            {%- do aliases.append(node['Alias']) -%}
            {{ return(true) }}
        {%- endif -%}
    {%- endif -%}
    {%- set decides = [] -%}
    {%- for child in node.get('Plans', []) -%}
        {%- set side = child['Parent Relationship'] -%}
        {%- set found = in_place.decides_rows(child, tables, aliases) -%}
        {%- set is_nullable = (node.get('Join Type') == 'Left' and side == 'Inner') or (node.get('Join Type') == 'Right' and side == 'Outer')
            or side in ['SubPlan', 'InitPlan'] -%}
        {%- if found and not is_nullable -%}{%- do decides.append(true) -%}{%- endif -%}
        {%- if found and side in ['SubPlan', 'InitPlan'] -%}{%- do aliases.append(child['Subplan Name']) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(decides | length > 0) }}
{% endmacro %}


{#- Whether a filter above the tables' scans has a column of these tables. -#}
{% macro is_in_filter(node, pattern, tables) %}
    {%- set filter = node.get('Filter') or '' -%}
    {%- if filter and not node.get('Relation Name') and modules.re.search(pattern, filter) -%}{{ return(true) }}{%- endif -%}
    {%- if modules.re.search('SubPlan \\d', filter) and modules.re.search(pattern, '(' ~ modules.re.search('SubPlan \\d+', filter).group(0) ~ '.') -%}
        {{ return(true) }}
    {%- endif -%}
    {%- for child in node.get('Plans', []) -%}
        {%- if in_place.is_in_filter(child, pattern, tables) -%}{{ return(true) }}{%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#-
  Refuses a model to whose inputs the condition on the key does not get: its rows depend on those of other keys, or each key
  would cost a full build.

  Two things show it in the plan for one key. Some part below a window, a limit, a set operation or a total reads
  without the key. Or a scan that should have the key reads its whole table, although the model has many keys.

  Returns:
    What one key costs, as a share of the model's plan.
-#}
{% macro refuse_unreached_key(model_, full, inputs) %}
    {%- set keys = in_place.temp_name('changed') -%}
    {%- set plan = in_place.plan_of(
        'set local random_page_cost = 1.1; explain (format json, verbose) ' ~ in_place.rows_by_key(model_, keys)
    ) -%}
    {%- set found = [] -%}
    {#- the branches of null parts come last, and their conditions are `is null` -#}
    {{ in_place.unreached_nodes(plan['Plans'][0] if plan['Node Type'] == 'Append' else plan, found, model_.build_by) }}
    {%- if found -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': the key ' ~ model_.build_by | join(', ') ~ ' does not get below ' ~ found | unique | join(', ') ~ ' of the plan, so a row '
            ~ 'may depend on rows of other keys. Partition windows by the key, group by it, and take LIMIT, EXCEPT and totals '
            ~ 'over all rows out;' ~ (' or set build_by to the part of the key by which windows are partitioned;' if model_.build_by | length > 1 else '')
            ~ ' or use in_place_table. Nothing was changed.'
        ) -%}
    {%- endif -%}
    {%- set plan = in_place.plan_of_one_key(plan) -%}
    {%- set scans = in_place.scans_without_index(plan, inputs) -%}
    {%- set cost = scans | map(attribute='Total Cost') | sum -%}
    {%- set is_slow = full['Total Cost'] > 10000 and cost > 0.05 * full['Total Cost']
        and (in_place.build_costs().keys_total or full['Plan Rows']) > 1000 -%}
    {%- if is_slow and not config.get('time_dependent') -%}
        {%- set scan = scans | sort(attribute='Total Cost') | last -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': for one value of ' ~ model_.build_by | join(', ') ~ ', a ' ~ scan['Node Type'] ~ ' reads all of '
            ~ (scan.get('Relation Name') or scan.get('CTE Name') or scan.get('Alias') or 'a subquery') ~ ', because the key gets no index there: '
            ~ in_place.usual_cure(scan) ~ ' Or use in_place_table. Nothing was changed.'
        ) -%}
    {%- endif -%}
    {{ return(plan['Total Cost'] / (full['Total Cost'] or 1)) }}
{% endmacro %}


{#-
  The scans in a plan for one key that should have the key and look it up by no index: those with the key in a filter, and
  those of the inputs that give keys. Another table, such as a dimension, may rightly be read whole.
-#}
{% macro scans_without_index(plan, inputs) %}
    {%- set names, leaves, found = [], [], [] -%}
    {%- for input in inputs if input.gives_key and not input.through -%}
        {%- for table in input.tables -%}{%- do names.append(table.identifier) -%}{%- endfor -%}
    {%- endfor -%}
    {{ in_place.collect_leaves(plan, leaves) }}
    {%- for leaf in leaves if not leaf.get('Index Cond') and leaf['Node Type'] not in ['Result', 'Function Scan', 'Values Scan'] -%}
        {%- if 'in_place_keys.' in (leaf.get('Filter') or '') or leaf.get('Relation Name') in names or leaf['Node Type'] == 'CTE Scan' -%}
            {%- do found.append(leaf) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- The part of a plan for some keys that is run for each of them. -#}
{% macro plan_of_one_key(plan) %}
    {#- the branches of null parts come last -#}
    {%- set plan = plan['Plans'][0] if plan['Node Type'] == 'Append' else plan -%}
    {{ return(plan['Plans'][1] if plan['Node Type'] == 'Nested Loop' else plan) }}
{% endmacro %}


{#- What usually lets the key get to that part of the plan. -#}
{% macro usual_cure(node) %}
    {%- if node['Node Type'] == 'CTE Scan' -%}
        {{ return('write the CTE as not materialized, because PostgreSQL computes one that is read twice as a whole.') }}
    {%- elif '::' in (node.get('Filter') or '') ~ (node.get('Join Filter') or '') -%}
        {{ return('both sides of ' ~ (node.get('Filter') or node.get('Join Filter')) ~ ' need one type and collation; cast in staging.') }}
    {%- endif -%}
    {{ return('give it an index that begins with the column of the key, and join by the column itself and not by an expression.') }}
{% endmacro %}


{% macro collect_leaves(node, leaves) %}
    {%- for child in node.get('Plans', []) -%}{{ in_place.collect_leaves(child, leaves) }}{%- endfor -%}
    {%- if not node.get('Plans') -%}{%- do leaves.append(node) -%}{%- endif -%}
{% endmacro %}


{#- Appends to `found` the parts of a plan that need the key below them and do not have all of it. -#}
{% macro unreached_nodes(node, found, key) %}
    {%- set needs = node['Node Type'] in ['WindowAgg', 'Limit', 'SetOp', 'Unique', 'Recursive Union']
        or node.get('Subplan Name', '').startswith('InitPlan') -%}
    {%- if needs -%}
        {%- set conditions = [] -%}
        {{ in_place.collect_conditions(node, conditions) }}
        {%- for column in key if 'in_place_keys.' ~ (column if modules.re.match('[a-z_][a-z0-9_]*$', column) else adapter.quote(column)) not in conditions | join(' ') -%}
            {%- do found.append(node.get('Subplan Name') or node['Node Type']) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for child in node.get('Plans', []) -%}
        {{ in_place.unreached_nodes(child, found, key) }}
    {%- endfor -%}
{% endmacro %}


{#- Appends the conditions of a part of a plan. -#}
{% macro collect_conditions(node, conditions) %}
    {%- for name in ['Index Cond', 'Filter', 'Recheck Cond', 'Hash Cond', 'Join Filter', 'Merge Cond'] if node.get(name) -%}
        {%- do conditions.append(node[name]) -%}
    {%- endfor -%}
    {%- for child in node.get('Plans', []) -%}{{ in_place.collect_conditions(child, conditions) }}{%- endfor -%}
{% endmacro %}
