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
