{#- The tables with the rows of an input: snapshots and raw tables, also below views. PostgreSQL's plan tells them. -#}

{#-
  The tables whose rows an input has, if it is a snapshot, a raw table, or a view over raw tables without joins: a list of
  {oid, relation, schema, identifier, alias, stamp, expressions, columns, is_own}. PostgreSQL's plan says what the columns of the
  key's expressions are over the table itself. So a row that the view no longer shows still gives its key.
-#}
{% macro base_tables(relation, name, key, node) %}
    {#- all columns: for some of them, PostgreSQL may leave out joins on which the others depend -#}
    {%- set explain -%}
        -- a parallel plan has further nodes
        {{ in_place.set_for_now('max_parallel_workers_per_gather', 0) }};
        -- a table whose constraint contradicts the view today may lose that constraint
        {{ in_place.set_for_now('constraint_exclusion', 'off') }};
        explain (verbose, format json) select * from {{ relation.relation }}
    {%- endset -%}
    {%- set scans, found, oids = [], [], [] -%}
    {{ in_place.collect_scans(in_place.plan_of(explain), scans) }}
    {#- some part is no scan of a table -#}
    {%- if scans | select('mapping') | list | length < scans | length -%}{{ return([]) }}{%- endif -%}
    {%- set names = in_place.table_columns(relation.relation) | map(attribute='name') | list -%}
    {%- set used = in_place.columns_in_use(relation.relation, key.values()) -%}
    {%- for scan in scans -%}
        {%- do oids.append(in_place.oid_of(adapter.quote(scan['Schema']) ~ '.' ~ adapter.quote(scan['Relation Name']))) -%}
    {%- endfor -%}
    {%- for table in in_place.relations_of('array[' ~ oids | join(', ') ~ ']') -%}
        {%- set scan = scans[loop.index0] -%}
        {%- set is_simple = table.is_plain and scan['Output'] | length == names | length
            and not modules.re.search('SubPlan|InitPlan|\\$\\d', scan['Output'] | join(' ')) -%}
        {%- if is_simple and (table.stamp is not none or node.resource_type == 'snapshot') -%}
            {%- set expressions = {} -%}
            {%- for column in used -%}{%- do expressions.update({column: scan['Output'][names.index(column)]}) -%}{%- endfor -%}
            {#- a key that is a constant uses no column, and a log needs one -#}
            {%- do table.update({
                'alias': adapter.quote(scan['Alias']),
                'expressions': expressions,
                'columns': in_place.columns_in_use(table.relation, expressions.values())
                    or in_place.table_columns(table.relation)[:1] | map(attribute='name') | list,
            }) -%}
            {%- do found.append(table) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found if found | length == scans | length else []) }}
{% endmacro %}


{#- Appends a plan's scans of tables. Other parts are appended as the text of their node type. -#}
{% macro collect_scans(node, scans) %}
    {%- if node['Node Type'] == 'Append' -%}
        {%- for child in node['Plans'] -%}{{ in_place.collect_scans(child, scans) }}{%- endfor -%}
    {%- elif node.get('Plans', []) | selectattr('Subplan Name', 'defined') | list or node.get('Subplan Name') -%}
        {#- a subquery in its condition reads another table -#}
        {%- do scans.append('SubPlan') -%}
    {%- elif node['Node Type'] in ['Seq Scan', 'Index Scan', 'Index Only Scan', 'Bitmap Heap Scan'] -%}
        {%- do scans.append(node) -%}
    {%- else -%}
        {%- do scans.append(node['Node Type']) -%}
    {%- endif -%}
{% endmacro %}


{#- A query for a raw table's column with the transaction that wrote each row. It gives null if the table has no such column. -#}
{% macro stamp_column(oid) -%}
    (
        select min(attname::text)
        from pg_catalog.pg_attribute
        left join pg_catalog.pg_attrdef on adrelid = attrelid and adnum = attnum
        where
            attrelid = {{ oid }}
            and atttypid = 'xid8'::regtype
            and attnum > 0
            and not attisdropped
            and (
                pg_get_expr(adbin, adrelid) like '%pg_current_xact_id()'
                or attname = '_tidemark_loaded_xid' and exists (
                    select from pg_catalog.pg_class as beside
                    where
                        beside.relname = '_tidemark_state'
                        and beside.relnamespace = (select relnamespace from pg_catalog.pg_class where oid = {{ oid }})
                )
            )
    )
{%- endmacro %}


{#-
  Relations as a list of {oid, relation, schema, identifier, stamp, is_own, is_plain, has_log}, quoted but for the identifier;
  none in the place of one that does not exist. `stamp`: see in_place.stamp_column(). `is_own`: whether the build's role owns it.
  `is_plain`: whether it is a table without partitions. `has_log`: whether its schema has a log of changes.

  Arguments:
    oids: an SQL expression, an array of their oids.
-#}
{% macro relations_of(oids) %}
    {%- set query -%}
        select json_agg(
            case when relations.oid is not null then json_build_object(
                'oid', relations.oid::text,
                'relation', format('%I.%I', nspname, relname),
                'schema', quote_ident(nspname),
                'identifier', relname,
                'stamp', {{ in_place.stamp_column('relations.oid') }},
                'is_own', pg_has_role(relowner, 'usage'),
                'is_plain', relkind = 'r' and not relispartition,
                'has_log', 2 = (
                    select count(*) from pg_catalog.pg_class as beside
                    where beside.relnamespace = relations.relnamespace and beside.relname in ('_tidemark_changes', '_tidemark_tracked')
                ),
                'columns', {{ in_place.columns_as_json('relations.oid') }}
            ) end
            order by place
        )
        from unnest({{ oids }}) with ordinality as asked (asked_oid, place)
        left join pg_catalog.pg_class as relations on relations.oid = asked_oid
        left join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
    {%- endset -%}
    {%- set relations = fromjson(in_place.single_value(query) or '[]') -%}
    {%- for relation in relations if relation -%}
        {%- do in_place.memory().columns.update({relation.relation: relation.pop('columns')}) -%}
    {%- endfor -%}
    {{ return(relations) }}
{% endmacro %}
