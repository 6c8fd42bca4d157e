{#- The value of the first column of a query's first row. -#}
{% macro single_value(query) %}
    {{ return(in_place.first_column(query)[0]) }}
{% endmacro %}


{#- The values of a query's first column, as a list. -#}
{% macro first_column(query) %}
    {{ return(run_query(query).columns[0].values() | list) }}
{% endmacro %}


{#- Whether a relation of that name exists. -#}
{% macro exists(relation) %}
    {%- set query -%}
        select to_regclass('{{ relation }}') is not null
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#-
  What the macros remember during one build of the current model: a dict that they change. Jinja keeps nothing between two
  calls of a macro. dbt's graph is one dict for the whole process.
-#}
{% macro memory() %}
    {%- set name = 'in_place build of ' ~ model.unique_id ~ ' in ' ~ invocation_id -%}
    {%- if name not in graph -%}{%- do graph.update({name: {'columns': {}}}) -%}{%- endif -%}
    {{ return(graph[name]) }}
{% endmacro %}
