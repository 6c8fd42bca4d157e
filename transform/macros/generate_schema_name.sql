{#-
  The schemas are called staging, intermediate and marts, not marts_staging as dbt would have it; each with the prefix of
  DBT_SCHEMA_PREFIX, by which a developer or a CI run has schemas of its own. Raw has no prefix: all read the same.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- if custom_schema_name is none -%}
        {{ target.schema }}
    {%- else -%}
        {{ env_var('DBT_SCHEMA_PREFIX', '') }}{{ custom_schema_name | trim }}
    {%- endif -%}
{%- endmacro %}
