{#- For tests that must hold during a load: the transaction up to which all of these models are built, as SQL. -#}
{% macro built_until(models) -%}
    {%- set horizons = [] -%}
    {%- for name in models -%}
        {%- do horizons.append("'" ~ (in_place.horizon_of(ref(name)) or 0) ~ "'::xid8") -%}
    {%- endfor -%}
    least({{ horizons | join(', ') }})
{%- endmacro %}


{#-
  A query of the orders that were loaded, or whose lines were loaded, since one of these models was built. It leaves out
  null order ids: `not in` matches no row if the list has a null, so the test would check nothing.
-#}
{% macro orders_in_flight(models) -%}
    select order_id from {{ ref('stg_orders') }} where loaded_xid >= {{ built_until(models) }}
    union all
    select order_id from {{ ref('stg_order_items') }}
    where loaded_xid >= {{ built_until(models) }} and order_id is not null
{%- endmacro %}


{#-
  The loader's record of its runs into the tables of this source. It is not a source(): dbt would make it a parent of the test
  and skip the test in a partial build, because no other selected node depends on it.
-#}
{% macro loader_runs(source_name='raw') -%}
    {%- if execute -%}
        {%- set runs = graph.sources['source.' ~ project_name ~ '.' ~ source_name ~ '._tidemark_runs'] -%}
        {{ api.Relation.create(runs.database, runs.schema, runs.identifier) }}
    {%- else -%}
        _tidemark_runs
    {%- endif -%}
{%- endmacro %}
