{#- PostgreSQL's plans, as EXPLAIN gives them in JSON. -#}

{#- The plan of an EXPLAIN in JSON. -#}
{% macro plan_of(explain) %}
    {%- set plan = run_query(explain)[0][0] -%}
    {{ return((fromjson(plan) if plan is string else plan)[0]['Plan']) }}
{% endmacro %}


{% macro collect_nodes(node, nodes) %}
    {%- do nodes.append(node) -%}
    {%- for child in node.get('Plans', []) -%}{{ in_place.collect_nodes(child, nodes) }}{%- endfor -%}
{% endmacro %}


{% macro collect_leaves(node, leaves) %}
    {%- for child in node.get('Plans', []) -%}{{ in_place.collect_leaves(child, leaves) }}{%- endfor -%}
    {%- if not node.get('Plans') -%}{%- do leaves.append(node) -%}{%- endif -%}
{% endmacro %}


{#- Appends the conditions of a part of a plan. -#}
{% macro collect_conditions(node, conditions) %}
    {%- for name in ['Index Cond', 'Filter', 'Recheck Cond', 'Hash Cond', 'Join Filter', 'Merge Cond'] if node.get(name) -%}
        {%- do conditions.append(node[name]) -%}
    {%- endfor -%}
    {%- for child in node.get('Plans', []) -%}{{ in_place.collect_conditions(child, conditions) }}{%- endfor -%}
{% endmacro %}


{#- The part of a plan for some keys that is run for each of them. -#}
{% macro plan_of_one_key(plan) %}
    {#- the branches of null parts come last -#}
    {%- set plan = plan['Plans'][0] if plan['Node Type'] == 'Append' else plan -%}
    {{ return(plan['Plans'][1] if plan['Node Type'] == 'Nested Loop' else plan) }}
{% endmacro %}
