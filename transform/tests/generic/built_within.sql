{#-
  Fails when a kept table was last built more than `hours` ago: by its build and not by its rows, which a quiet shop lets
  be.
-#}
{% test built_within(model, hours) %}
select
    '{{ model.identifier }}' as name,
    max(built_at) as built_at
from {{ kept_control(model) }}
where model = '{{ model.identifier }}'
having max(built_at) is null or max(built_at) < now() - interval '{{ hours }} hours'
{% endtest %}
