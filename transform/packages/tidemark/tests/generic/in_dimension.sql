{#-
  Fails for each row whose key is missing in the dimension. Members that were loaded since the dimension was built are
  left out, because a fact that was built later already has their keys.

  Arguments:
    to: the dimension; its key has the same name.
    staged, id: the staging view of the dimension, and the shop's own key in it.
-#}
{% test in_dimension(model, column_name, to, staged, id) %}
select facts.*
from {{ model }} as facts
where
    not exists (select 1 from {{ to }} as members where members.{{ column_name }} = facts.{{ column_name }})
    and not exists (
        select 1 from {{ staged }} as staged
        where staged.{{ id }} = facts.{{ id }} and staged.loaded_xid >= '{{ in_place.horizon_of(to) or 0 }}'::xid8
    )
{% endtest %}
