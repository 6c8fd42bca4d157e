{#- The comment before each query: the run id, as in logs and run records, and the model. -#}
{% macro query_comment(node) -%}
    {%- set run_id = env_var('TIDEMARK_RUN_ID', '') or invocation_id -%}
    tidemark run {{ run_id }}{% if node is not none %}, {{ node.resource_type }} {{ node.name }}{% endif %}
{%- endmacro %}
