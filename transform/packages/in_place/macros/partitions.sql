{#-
  Creates the partitions that the staged rows need, and a default one. A partition is named after its start:
  fct_sales_2026_01. The macros find it by its bounds, because another table's partition may have the name.

  Rows that others write for a missing partition land in the default one. The next build moves them to their own
  partition. Infinite dates and mistakes (before the year 1, after 9999) stay there: a partition for each would not help,
  and refusing them would stop the build for one row.

  Arguments:
    default: the quoted name of the default partition; none if there is none.
-#}
{% macro create_partitions(model_, default=none) %}
    {%- if not model_.partition_by -%}{{ return('') }}{%- endif -%}
    {%- set relation = model_.relation -%}
    {%- set column, strays = adapter.quote(model_.partition), in_place.temp_name('strays') -%}
    {%- set format = {'day': 'YYYY_MM_DD', 'month': 'YYYY_MM', 'year': 'YYYY'}[model_.grain] -%}
    {%- set stem = in_place.shortened_name(relation.identifier, '_' ~ format)[:-(format | length + 1)] -%}
    {#- for a partition whose name is taken by another table; a hash of 8 digits follows -#}
    {%- set free_stem = in_place.shortened_name(relation.identifier, '_12345678_' ~ format)[:-(format | length + 10)] ~ '_' -%}
    {%- set name = default or in_place.free_default_name(relation) -%}
    {%- set type = in_place.table_columns(relation) | selectattr('name', 'equalto', model_.partition) | map(attribute='type') | first -%}
    {%- set ddl -%}
        -- UTC decides where a day begins for a time with a zone, not the session's time zone
        perform set_config('timezone', 'UTC', true);
        -- rows that leave the default partition stay in the table
        perform set_config('in_place.writes', '{{ relation }}'::regclass::oid::text, true);
        {% if not default -%}
            create table {{ name }} partition of {{ relation }} default;
        {%- endif %}
        for missing in
            select starts, ends, '{{ stem }}_' || to_char(starts, '{{ format }}') as name
            from (
                select starts, starts + interval '1 {{ model_.grain }}' as ends
                from (
                    select date_trunc('{{ model_.grain }}', {{ column }}::timestamp) as starts from {{ model_.stage }}
                    where {{ column }} between '0001-01-01' and '9999-12-31'
                    union
                    select date_trunc('{{ model_.grain }}', {{ column }}::timestamp) from {{ name }}
                    where {{ column }} between '0001-01-01' and '9999-12-31'
                ) as found
            ) as wanted
            where not exists (
                select from pg_catalog.pg_inherits inner join pg_catalog.pg_class on pg_class.oid = inhrelid
                where inhparent = '{{ relation }}'::regclass and pg_get_expr(relpartbound, pg_class.oid)
                    = format('FOR VALUES FROM (%L) TO (%L)', starts::{{ type }}::text, ends::{{ type }}::text)
            )
            order by starts
        loop
            if exists (
                select from pg_catalog.pg_class inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
                where nspname = '{{ relation.schema }}' and relname = missing.name and relispartition
            ) then
                missing.name := '{{ free_stem }}' || substr(md5('{{ relation }}'::regclass::oid::text), 1, 8) || '_'
                    || to_char(missing.starts, '{{ format }}');
            end if;
            -- PostgreSQL refuses a new partition while the default one has rows for it
            create temporary table if not exists {{ strays }} (like {{ relation }});
            with stray as (
                delete from {{ name }} where {{ column }} >= missing.starts and {{ column }} < missing.ends
                returning *
            ) insert into {{ strays }} select * from stray;
            begin
                execute format(
                    'create table %I.%I partition of {{ relation }} for values from (%L) to (%L)',
                    '{{ relation.schema }}', missing.name, missing.starts, missing.ends
                );
            exception
                when invalid_object_definition then
                    raise exception '{{ relation }} has partitions with some of the {{ model_.grain }} from %: %. %',
                        missing.starts, sqlerrm, 'Set the grain of partition_by back to the one that they were made with, or '
                        'rename the table, build it again and drop the old one.';
                when duplicate_table then
                    raise exception '{{ relation }} needs a partition from %, but % exists and is not a partition. %',
                        missing.starts, missing.name, 'Attach it again, or rename it, then run this again.';
            end;
        end loop;
        if to_regclass('pg_temp.{{ strays }}') is not null then
            insert into {{ relation }} select * from {{ strays }};
            drop table {{ strays }};
        end if;
        perform set_config('timezone', zone, true);
    {%- endset -%}
    {{ in_place.run_ddl('partitions', ddl, declare="missing record; zone text := current_setting('timezone');") }}
{% endmacro %}


{#- A free name for the default partition. -#}
{% macro free_default_name(relation) %}
    {%- set names = [] -%}
    {%- for suffix in ['_default', '_' ~ local_md5(relation ~ invocation_id)[:8] ~ '_default'] -%}
        {%- set name = relation.incorporate(path={'identifier': in_place.shortened_name(relation.identifier, suffix)}) -%}
        {%- if not in_place.exists(name) -%}
            {%- do names.append(name) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(names[0] | string) }}
{% endmacro %}


{#- Refuses another partition key: PostgreSQL can't change it after the table is created. -#}
{% macro refuse_partition_change(model_, type, facts) %}
    {%- if not model_.partition_by -%}{{ return('') }}{%- endif -%}
    {%- set by = facts.partition -%}
    {%- if by[0] != model_.partition or (by[1] != type and should_full_refresh()) -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' is partitioned by ' ~ by[0] ~ ' (' ~ by[1] ~ '), the model by ' ~ model_.partition ~ ' ('
            ~ type ~ '). PostgreSQL cannot repartition a table. Rename it, build this again, and drop the old one.'
        ) -%}
    {%- endif -%}
{% endmacro %}
