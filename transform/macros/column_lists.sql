{#- Columns as SQL, quoted: `"a" and "b"` with ` and ` as `between`; `prefix` and `suffix` go around each. -#}
{% macro quoted_columns(columns, between=', ', prefix='', suffix='') -%}
    {%- set found = [] -%}
    {%- for column in columns -%}
        {%- do found.append(prefix ~ adapter.quote(column) ~ suffix) -%}
    {%- endfor -%}
    {{ found | join(between) }}
{%- endmacro %}


{#- The condition that columns of one alias equal those of another, pair by pair. -#}
{% macro equal_columns(left, columns, right, others) -%}
    {%- set found = [] -%}
    {%- for column in columns -%}
        {%- do found.append(left ~ '.' ~ adapter.quote(column) ~ ' = ' ~ right ~ '.' ~ adapter.quote(others[loop.index0])) -%}
    {%- endfor -%}
    {{ found | join(' and ') }}
{%- endmacro %}
