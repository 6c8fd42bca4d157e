{#- The date and time of an instant in UTC, whatever time zone the session is in. -#}
{% macro utc(column) -%}
    ({{ column }} at time zone 'UTC')
{%- endmacro %}
