{#-
  Fails for each row whose parent is missing although it must be there, for a foreign key of any source. Streams are read one
  after the other, so a row can be loaded one run before its parent. The parent must be there once its stream was read after
  the row was. A parent that was deleted counts as there: a stream that is not read whole keeps the rows that pointed to it. The
  test also holds during a load.

  Arguments:
    columns, to, to_columns: the foreign key, the parent, and the parent's columns in the same order.
    table: the parent's table in the raw schema; its last complete read counts.
    source_name: the parent's source in dbt.
-#}
{% test foreign_key(model, columns, to, to_columns, table, source_name) %}
with read as (

    select coalesce(max(extracted_at), '-infinity') as until
    from {{ loader_runs(source_name) }}
    where table_name = {{ dbt.string_literal(dbt.escape_single_quotes(table)) }} and outcome = 'succeeded'

)

select child.*
from {{ model }} as child
cross join read
where
    not child.is_deleted
    and {{ quoted_columns(columns, between=' and ', prefix='child.', suffix=' is not null') }}
    and child.extracted_at <= read.until
    and not exists (select 1 from {{ to }} as parent where {{ equal_columns('parent', to_columns, 'child', columns) }})
{% endtest %}
