{#- Fails when the newest value of a load time is older than `hours`, or when there is none. -#}
{% test loaded_within(model, column_name, hours) %}
select newest
from (select max({{ column_name }}) as newest from {{ model }}) as latest
where newest is null or newest < now() - interval '{{ hours }} hours'
{% endtest %}
