{#-
  The schemas are called staging, intermediate and marts, not marts_staging as in dbt's default. DBT_SCHEMA_PREFIX
  precedes each name, so that a developer or a CI run has separate schemas. Raw has no prefix: everybody reads the same.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- if custom_schema_name is none -%}
        {{ target.schema }}
    {%- else -%}
        {{ env_var('DBT_SCHEMA_PREFIX', '') }}{{ custom_schema_name | trim }}
    {%- endif -%}
{%- endmacro %}
