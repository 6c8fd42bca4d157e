{#- The key of a dimension's row; for null, the key of the unknown member. -#}
{% macro surrogate_key(column) -%}
    coalesce(md5({{ column }}::text)::uuid, {{ unknown_key() }})
{%- endmacro %}


{#- The key of the unknown member. -#}
{% macro unknown_key() -%}
    '00000000-0000-0000-0000-000000000000'::uuid
{%- endmacro %}
