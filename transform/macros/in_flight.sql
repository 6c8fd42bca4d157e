{#- For tests that hold while a load is under way: up to which transaction all of these models are built, as SQL. -#}
{% macro built_until(models) -%}
    {%- set horizons = [] -%}
    {%- for name in models -%}
        {%- do horizons.append("'" ~ (kept_horizon(ref(name)) or 0) ~ "'::xid8") -%}
    {%- endfor -%}
    least({{ horizons | join(', ') }})
{%- endmacro %}


{#- A query of the orders that were loaded, or a line of which was, since one of these models was built. -#}
{% macro orders_in_flight(models) -%}
    select order_id from {{ ref('stg_orders') }} where loaded_xid >= {{ built_until(models) }}
    union all
    select order_id from {{ ref('stg_order_items') }} where loaded_xid >= {{ built_until(models) }}
{%- endmacro %}
