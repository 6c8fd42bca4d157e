{#-
  Fails for each row whose key the dimension lacks. Its members that were loaded since it was built are left out: what
  was built after them has found them already.

  Arguments:
    to: the dimension, whose key has the same name.
    staged, id: the view of staging that it is made of, and the shop's own key of it.
-#}
{% test in_dimension(model, column_name, to, staged, id) %}
select facts.*
from {{ model }} as facts
where
    not exists (select 1 from {{ to }} as members where members.{{ column_name }} = facts.{{ column_name }})
    and not exists (
        select 1 from {{ staged }} as staged
        where staged.{{ id }} = facts.{{ id }} and staged.loaded_xid >= '{{ kept_horizon(to) or 0 }}'::xid8
    )
{% endtest %}
