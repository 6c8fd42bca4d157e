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
        set local max_parallel_workers_per_gather = 0;
        explain (verbose, format json) select * from {{ relation.relation }}
    {%- endset -%}
    {%- set scans, found = [], [] -%}
    {{ in_place.collect_scans(in_place.plan_of(explain), scans) }}
    {%- set names = in_place.table_columns(relation.relation) | map(attribute='name') | list -%}
    {%- set used = in_place.columns_in_use(relation.relation, key.values()) -%}
    {%- for scan in scans if scan is mapping -%}
        {%- set query -%}
            select
                base.oid::text,
                {{ in_place.stamp_column('base.oid') }},
                pg_has_role(relowner, 'usage'),
                relkind = 'r' and not relispartition
            from pg_catalog.pg_class as base
            where base.oid = to_regclass('{{ adapter.quote(scan.get("Schema")) }}.{{ adapter.quote(scan.get("Relation Name")) }}')
        {%- endset -%}
        {%- set rows = run_query(query) -%}
        {%- set is_simple = rows | length and rows[0][3] and scan['Output'] | length == names | length
            and not modules.re.search('SubPlan|InitPlan|\\$\\d', scan['Output'] | join(' ')) -%}
        {%- if is_simple and (rows[0][1] is not none or node.resource_type == 'snapshot') -%}
            {%- set table = in_place.relation_of(rows[0][0]) -%}
            {%- set expressions = {} -%}
            {%- for column in used -%}{%- do expressions.update({column: scan['Output'][names.index(column)]}) -%}{%- endfor -%}
            {%- do table.update({
                'alias': adapter.quote(scan['Alias']),
                'stamp': rows[0][1],
                'is_own': rows[0][2],
                'expressions': expressions,
                'columns': in_place.columns_in_use(table.relation, expressions.values()),
            }) -%}
            {%- do found.append(table) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found if found | length == scans | length else []) }}
{% endmacro %}


{#- Appends a plan's scans of tables; for a part that is none, a text that names it. -#}
{% macro collect_scans(node, scans) %}
    {%- if node['Node Type'] == 'Append' -%}
        {%- for child in node['Plans'] -%}{{ in_place.collect_scans(child, scans) }}{%- endfor -%}
    {%- elif node['Node Type'] in ['Seq Scan', 'Index Scan', 'Index Only Scan', 'Bitmap Heap Scan'] -%}
        {%- do scans.append(node) -%}
    {%- else -%}
        {%- do scans.append(node['Node Type']) -%}
    {%- endif -%}
{% endmacro %}


{#- A query for the name of the column with the transaction that wrote each row of a raw table; null if there is none. -#}
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


{#- A relation by its oid, an SQL expression, as {oid, relation, schema, identifier}, quoted but for the identifier; none if there is none. -#}
{% macro relation_of(oid) %}
    {%- set query -%}
        select pg_class.oid::text, format('%I.%I', nspname, relname), quote_ident(nspname), relname::text
        from pg_catalog.pg_class
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where pg_class.oid = {{ oid }}
    {%- endset -%}
    {%- set rows = run_query(query) -%}
    {%- if not rows | length -%}{{ return(none) }}{%- endif -%}
    {{ return({'oid': rows[0][0], 'relation': rows[0][1], 'schema': rows[0][2], 'identifier': rows[0][3]}) }}
{% endmacro %}
