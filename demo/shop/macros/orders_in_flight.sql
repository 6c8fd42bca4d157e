{#-
  A query of the orders that were loaded, or whose lines were loaded, since one of these models was built. It leaves out
  null order ids: `not in` matches no row if the list has a null, so the test would check nothing.
-#}
{% macro orders_in_flight(models) -%}
    select order_id from {{ ref('stg_orders') }} where loaded_xid >= {{ tidemark.built_until(models) }}
    union all
    select order_id from {{ ref('stg_order_items') }}
    where loaded_xid >= {{ tidemark.built_until(models) }} and order_id is not null
{%- endmacro %}
