{#- Text without blanks around it, and null where nothing is left. -#}
{% macro cleaned(column) -%}
    nullif(trim({{ column }}), '')
{%- endmacro %}
