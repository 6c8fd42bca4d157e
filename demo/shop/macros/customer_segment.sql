{#- The customer's segment, from all orders that were not cancelled. It reads no clock, so only a load changes it. -#}
{% macro customer_segment(order_count, lifetime_revenue) -%}
    case
        when coalesce({{ order_count }}, 0) = 0 then 'prospect'
        when {{ order_count }} >= 10 or {{ lifetime_revenue }} >= 5000 then 'loyal'
        when {{ order_count }} >= 3 then 'regular'
        else 'new'
    end
{%- endmacro %}
