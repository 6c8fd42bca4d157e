{#- Whether the condition on the key gets to all that a model reads, by PostgreSQL's plan for one key. -#}

{#-
  Refuses a model to whose inputs the condition on the key does not get: its rows depend on those of other keys, or each key
  would cost a full build.

  Two things show it in the plan for one key. Some part below a window, a limit, a set operation or a total reads
  without the key. Or a scan that should have the key reads its whole table, although the model has many keys.

  Arguments:
    full: the plan for all rows.
    plan: the plan for keys; see in_place.rows_by_key().

  Returns:
    What one key costs, as a share of the model's plan.
-#}
{% macro refuse_unreached_key(model_, opened, full, plan, inputs) %}
    {%- set found = [] -%}
    {#- the branches of null parts come last, and their conditions are `is null` -#}
    {%- set of_key = plan['Plans'][0] if plan['Node Type'] == 'Append' else plan -%}
    {%- set limited = opened.queries | selectattr('limitCount') | list or opened.queries | selectattr('limitOffset') | list -%}
    {{ in_place.unreached_nodes(of_key, found, model_.build_by, limited) }}
    {%- if found -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': a row may depend on rows of other keys, because PostgreSQL can\'t apply a condition on ' ~ model_.build_by | join(', ') ~ ' before '
            ~ found | unique | join('; ') ~ '. Partition windows by the key, group by it, and take LIMIT, EXCEPT and totals '
            ~ 'over all rows out;' ~ (' or set build_by to the part of the key by which windows are partitioned;' if model_.build_by | length > 1 else '')
            ~ ' or use in_place_table. Nothing was changed.'
        ) -%}
    {%- endif -%}
    {%- set plan = in_place.plan_of_one_key(plan) -%}
    {%- set scans = in_place.scans_without_index(plan, inputs) -%}
    {%- set cost = scans | map(attribute='Total Cost') | sum -%}
    {%- set is_slow = full['Total Cost'] > 10000 and cost > 0.05 * full['Total Cost']
        and (in_place.last_build().keys_total or full['Plan Rows']) > 1000 -%}
    {%- if is_slow and not config.get('time_dependent') -%}
        {%- set scan = scans | sort(attribute='Total Cost') | last -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': for one value of ' ~ model_.build_by | join(', ') ~ ', PostgreSQL reads all of '
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


{#-
  Appends to `found` the parts of a plan that need the key below them and do not have all of it.

  Arguments:
    cte: the CTE that the node is in, if PostgreSQL computes it as a whole because it is read twice.
-#}
{% macro unreached_nodes(node, found, key, has_limit, cte=none) %}
    {%- set is_total = node.get('Subplan Name', '').startswith('InitPlan') -%}
    {%- if node.get('Subplan Name', '').startswith('CTE ') -%}
        {%- set cte = node['Subplan Name'][4:] if node['Node Type'] != 'Recursive Union' else none -%}
    {%- endif -%}
    {%- set needs = is_total or node['Node Type'] in ['WindowAgg', 'Limit', 'SetOp', 'Unique', 'Recursive Union'] -%}
    {#- without one in the SELECT, a LIMIT for one value is how PostgreSQL gets a min() or max() from an index; others are of DISTINCT ON constants -#}
    {%- if needs and not (node['Node Type'] == 'Limit' and is_total and not has_limit) -%}
        {%- set conditions = [] -%}
        {{ in_place.collect_conditions(node, conditions) }}
        {%- for column in key -%}
            {%- set name = modules.re.escape(column) -%}
            {#- the whole name: another column's may begin with it; PostgreSQL quotes it if it is a keyword, such as user -#}
            {%- if not modules.re.search('in_place_keys\\.(?:' ~ name ~ '(?![\\w$])|' ~ modules.re.escape(adapter.quote(column)) ~ ')', conditions | join(' ')) -%}
                {%- set cure = ' (in the CTE ' ~ cte ~ ', which is read twice: write ' ~ cte ~ ' as not materialized)' -%}
                {%- do found.append(in_place.in_words(node) ~ (cure if cte else '')) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for child in node.get('Plans', []) -%}
        {{ in_place.unreached_nodes(child, found, key, has_limit, cte) }}
    {%- endfor -%}
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
