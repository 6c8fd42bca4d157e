{#- For tests that hold while a load is under way: up to which transaction all of these models are built, as SQL. -#}
{% macro built_until(models) -%}
    {%- set horizons = [] -%}
    {%- for name in models -%}
        {%- do horizons.append("'" ~ (kept_horizon(ref(name)) or 0) ~ "'::xid8") -%}
    {%- endfor -%}
    least({{ horizons | join(', ') }})
{%- endmacro %}


{#-
  A query of the orders that were loaded, or a line of which was, since one of these models was built. Without the null
  of a line that names none: nothing is `not in` what has a null in it, and the test would look at nothing.
-#}
{% macro orders_in_flight(models) -%}
    select order_id from {{ ref('stg_orders') }} where loaded_xid >= {{ built_until(models) }}
    union all
    select order_id from {{ ref('stg_order_items') }}
    where loaded_xid >= {{ built_until(models) }} and order_id is not null
{%- endmacro %}


{#-
  The loader's account of its runs. Not by source(), which would make it one of the test's parents: dbt would leave the
  test out of a build of a part, as nothing else in it stands on this.
-#}
{% macro loader_runs() -%}
    {%- if execute -%}
        {%- set runs = graph.sources['source.shop.raw._tidemark_runs'] -%}
        {{ api.Relation.create(runs.database, runs.schema, runs.identifier) }}
    {%- endif -%}
{%- endmacro %}
