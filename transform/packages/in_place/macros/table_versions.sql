{#-
  on-run-start: refuses tables that a newer release has brought to its form. `known` maps a table's name to the version that this
  release writes. The macros that create these tables also bring older ones up to date, and note the version in the table's comment.
-#}
{% macro refuse_newer_tables(known) %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'test', 'snapshot', 'seed'] -%}{{ return('') }}{%- endif -%}
    {%- set schemas = [target.schema] + (graph.nodes.values() | map(attribute='schema') | list) -%}
    {%- set query -%}
        select
            pg_namespace.nspname::text || '.' || pg_class.relname::text as name,
            substring(obj_description(pg_class.oid, 'pg_class') from '^Kept by Tidemark: version ([0-9]+)$')::integer as version,
            pg_class.relname::text as kind
        from pg_catalog.pg_class
        inner join pg_catalog.pg_namespace on pg_namespace.oid = pg_class.relnamespace
        where
            pg_class.relname in ('{{ known | join("', '") }}')
            and pg_namespace.nspname in ('{{ schemas | unique | join("', '") }}')
    {%- endset -%}
    {%- for row in run_query(query) if row['version'] is not none and row['version'] > known[row['kind']] -%}
        {%- do exceptions.raise_compiler_error(
            row['name'] ~ ' has version ' ~ row['version'] ~ ', and this release knows ' ~ known[row['kind']]
            ~ ': a newer one has built here. Upgrade this one. Nothing was changed.'
        ) -%}
    {%- endfor -%}
{% endmacro %}
