{#-
  The key of a dimension's row, computed from the column that identifies the row. It is the same in each build, so a
  fact can hold it before the dimension has the row. For null, it is the unknown member's key.
-#}
{% macro surrogate_key(column) -%}
    coalesce(md5({{ column }}::text)::uuid, {{ tidemark.unknown_key() }})
{%- endmacro %}


{#- The key of the unknown member, which stands for a missing row of a dimension. -#}
{% macro unknown_key() -%}
    '00000000-0000-0000-0000-000000000000'::uuid
{%- endmacro %}
