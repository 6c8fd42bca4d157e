{#- The schemas are called staging, intermediate and marts, not marts_staging as dbt would have it. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
