{#-
  The key of a dimension's row, made of the columns that tell its rows apart: the same in every build, so that facts can
  hold it before the row is there. Where all of them are null it is the unknown member's.
-#}
{% macro surrogate_key(columns) -%}
    {%- if columns | length == 1 -%}
    coalesce(md5({{ columns[0] }}::text)::uuid, {{ unknown_key() }})
    {%- else -%}
    md5(jsonb_build_array({{ columns | join(', ') }})::text)::uuid
    {%- endif -%}
{%- endmacro %}


{#- The key of the row that stands for one which isn't there. -#}
{% macro unknown_key() -%}
    '00000000-0000-0000-0000-000000000000'::uuid
{%- endmacro %}
