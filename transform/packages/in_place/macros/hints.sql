{#- What errors say beside what was wrong: the name that was meant, and what a part of a plan is called in SQL. -#}

{#-
  " Did you mean x?" if one of these names is like that one, otherwise nothing. Names are compared by the pairs of letters
  that they share, because dbt's Jinja has no difflib.
-#}
{% macro did_you_mean(name, names) %}
    {%- set pairs, best = in_place.letter_pairs(name), {'name': none, 'share': 0.6} -%}
    {%- for other in names if other != name -%}
        {%- set others = in_place.letter_pairs(other) -%}
        {%- set share = 2 * (pairs | select('in', others) | list | length) / ((pairs + others) | length or 1) -%}
        {%- if share > best.share -%}{%- do best.update({'name': other, 'share': share}) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(' Did you mean ' ~ best.name ~ '?' if best.name else '') }}
{% endmacro %}


{#- Each two letters in a row of a name, once. -#}
{% macro letter_pairs(name) %}
    {%- set found = {} -%}
    {%- for at in range([name | length - 1, 0] | max) -%}{%- do found.update({name[at:at + 2]: true}) -%}{%- endfor -%}
    {{ return(found.keys() | list) }}
{% endmacro %}


{#- Refuses a setting whose name is almost that of one of incremental_by_key's: dbt ignores settings that it does not know. -#}
{% macro refuse_misspelt_settings() %}
    {%- set known = [
        'changed_by', 'build_by', 'null_keys', 'by_difference', 'static', 'time_dependent', 'partition_by', 'partial_indexes', 'indexes', 'unique_key'
    ] -%}
    {%- for name in model.config.keys() if name not in known -%}
        {%- set meant = in_place.did_you_mean(name, known) -%}
        {%- if meant -%}
            {%- do exceptions.raise_compiler_error(this ~ ': incremental_by_key has no setting ' ~ name ~ '.' ~ meant ~ ' Nothing was changed.') -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- " Did you mean that by x?" if a model has a setting whose name is like this one. -#}
{% macro meant_setting(name) %}
    {%- for other in model.config.keys() if other not in ['unique_key', 'changed_by'] and in_place.did_you_mean(other, [name]) -%}
        {{ return(' Did you mean that by ' ~ other ~ '?') }}
    {%- endfor -%}
    {{ return('') }}
{% endmacro %}


{#- What an author wrote that PostgreSQL plans as this part. -#}
{% macro in_words(node) %}
    {%- set words = {
        'WindowAgg': 'a window function, whose partition by lacks the key',
        'Limit': "LIMIT or OFFSET (for one row a key, write distinct on (the key) and order by the key first)",
        'SetOp': 'EXCEPT or INTERSECT',
        'Unique': 'DISTINCT ON other columns',
        'Recursive Union': 'WITH RECURSIVE',
        'Nested Loop': 'a join',
        'Hash Join': 'a join',
        'Merge Join': 'a join',
        'CTE Scan': 'a CTE that is read twice, or is materialized',
        'Subquery Scan': 'a subquery',
        'Function Scan': 'a function in FROM',
        'ProjectSet': 'a function that returns rows',
        'Result': 'a SELECT without a table',
        'Values Scan': 'VALUES',
    } -%}
    {%- if node.get('Subplan Name', '').startswith('InitPlan') -%}
        {{ return('a total over all rows, or another subquery for one value') }}
    {%- endif -%}
    {{ return(words.get(node['Node Type'], node['Node Type'])) }}
{% endmacro %}
