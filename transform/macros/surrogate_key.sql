{#-
  The key of a dimension's row, made of the column that tells its rows apart: the same in every build, so that facts can
  hold it before the row is there. Where that is null it is the unknown member's.
-#}
{% macro surrogate_key(column) -%}
    coalesce(md5({{ column }}::text)::uuid, {{ unknown_key() }})
{%- endmacro %}


{#- The key of the row that stands for one which isn't there. -#}
{% macro unknown_key() -%}
    '00000000-0000-0000-0000-000000000000'::uuid
{%- endmacro %}
