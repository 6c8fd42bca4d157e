{#- The loader stores an instant as a timestamp without zone, in UTC. This makes it an instant again,
    whatever time zone the session is in. -#}
{% macro utc(column) -%}
    ({{ column }} at time zone 'UTC')
{%- endmacro %}
