{#- Fails for each row whose value is below `minimum`. -#}
{% test at_least(model, column_name, minimum=0) %}
select {{ column_name }}
from {{ model }}
where {{ column_name }} < {{ minimum }}
{% endtest %}
