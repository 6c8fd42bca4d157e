{#- An instant's date and time in UTC, independent of the session's time zone. -#}
{% macro utc(column) -%}
    ({{ column }} at time zone 'UTC')
{%- endmacro %}
