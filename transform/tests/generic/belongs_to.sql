{#-
  Fails for each row whose parent isn't there, though it must be: streams are read one after the other, so that a line
  can be loaded a run before its order. It must be there if the parent's stream was read to its end since the row was
  read, or well after the row was made. Holds while a load is under way.

  Arguments:
    to, field: the parent, and the column of it that this one names.
    table: the parent's table in raw, whose last complete read counts.
    owned: whether rows go when their parent does: within the hour, as each table is repaired by itself.
-#}
{% test belongs_to(model, column_name, to, field, table, owned=false) %}
with read as (

    select coalesce(max(extracted_at), now() - interval '1 hour') as until
    from {{ loader_runs() }}
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
