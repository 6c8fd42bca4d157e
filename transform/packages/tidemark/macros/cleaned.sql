{#- The text without surrounding blanks; null if nothing is left. -#}
{% macro cleaned(column) -%}
    nullif(trim({{ column }}), '')
{%- endmacro %}
