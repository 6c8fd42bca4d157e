{#- What kind of customer it is, by all that they ordered and did not cancel. No clock in it: it changes with a load. -#}
{% macro customer_segment(order_count, lifetime_revenue) -%}
    case
        when coalesce({{ order_count }}, 0) = 0 then 'prospect'
        when {{ order_count }} >= 10 or {{ lifetime_revenue }} >= 5000 then 'loyal'
        when {{ order_count }} >= 3 then 'regular'
        else 'new'
    end
{%- endmacro %}
