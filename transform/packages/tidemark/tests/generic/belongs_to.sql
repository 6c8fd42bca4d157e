{#-
  Fails for each row whose parent is missing although it must exist. Streams are read one after the other, so a line can
  be loaded one run before its order. The parent must exist if its stream was read in full after the row was read, or
  well after the row was created. The test also holds during a load.

  Arguments:
    to, field: the parent, and the parent's column that this column references.
    table: the parent's table in raw; its last complete read counts.
    owned: whether a deleted parent's rows must go too: within one hour, because each table is repaired on its own.
-#}
{% test belongs_to(model, column_name, to, field, table, owned=false) %}
with read as (

    select coalesce(max(extracted_at), now() - interval '1 hour') as until
    from {{ tidemark.loader_runs() }}
    where table_name = '{{ table }}' and outcome = 'succeeded'

)

select child.*
from {{ model }} as child
cross join read
where
    not child.is_deleted
    and child.{{ column_name }} is not null
    and (child.extracted_at <= read.until or child.created_at < read.until - interval '1 hour')
    and not exists (
        select 1 from {{ to }} as parent
        where
            parent.{{ field }} = child.{{ column_name }}
            and ({{ 'not parent.is_deleted' if owned else 'true' }} or parent.deleted_at > now() - interval '1 hour')
    )
{% endtest %}
