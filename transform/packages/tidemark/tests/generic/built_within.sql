{#-
  Fails if an in-place table was last built more than `hours` ago. The time of the build counts, because in a quiet shop the
  rows do not change.
-#}
{% test built_within(model, hours) %}
select
    '{{ model.identifier }}' as name,
    max(built_at) as built_at
from {{ in_place.models_table(model) }}
where model = '{{ model.identifier }}'
having max(built_at) is null or max(built_at) < now() - interval '{{ hours }} hours'
{% endtest %}
