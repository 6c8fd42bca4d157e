{#- dbt takes this macro from the project itself, and from no package. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ return(tidemark.generate_schema_name(custom_schema_name, node)) }}
{%- endmacro %}
