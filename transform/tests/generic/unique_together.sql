{#-
  Fails for each combination of values that several rows have, and for each row that has a null in one of the columns: for a
  key of several columns.
-#}
{% test unique_together(model, columns) %}
select
    {{ quoted_columns(columns) }},
    count(*) as row_count
from {{ model }}
group by {{ quoted_columns(columns) }}
having count(*) > 1 or {{ quoted_columns(columns, between=' or ', suffix=' is null') }}
{% endtest %}
