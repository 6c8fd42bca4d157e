{#-
  The partitions that the staged rows need, and a default one. A partition is named for its beginning: fct_sales_2026_01.

  What others write where there is no partition yet is in the default one, and goes from there to its own. What stays are
  dates that are none (infinity) or mistakes (before the year 1, after 9999): a partition each would be no help, and the
  build would stop for one row if they were refused.
-#}
{% macro kept_partitions(model_) %}
    {%- if not model_.partition_by -%}{{ return('') }}{%- endif -%}
    {%- set relation = model_.relation -%}
    {%- set stem = relation.identifier[:50] -%}
    {%- set default = adapter.quote(relation.schema) ~ '.' ~ adapter.quote(stem ~ '_default') -%}
    {%- set column = adapter.quote(model_.partition) -%}
    {%- set format = {'day': 'YYYY_MM_DD', 'month': 'YYYY_MM', 'year': 'YYYY'}[model_.grain] -%}
    {%- set ddl -%}
        -- where a time with a zone begins its day is for the table to say, and not for each session
        perform set_config('timezone', 'UTC', true);
        create table if not exists {{ default }} partition of {{ relation }} default;
        for missing in
            select
                starts,
                starts + interval '1 {{ model_.grain }}' as ends,
                '{{ stem }}_' || to_char(starts, '{{ format }}') as name
            from (
                select date_trunc('{{ model_.grain }}', {{ column }}::timestamp) as starts from {{ model_.stage }}
                where {{ column }} between '0001-01-01' and '9999-12-31'
                union
                select date_trunc('{{ model_.grain }}', {{ column }}::timestamp) from {{ default }}
                where {{ column }} between '0001-01-01' and '9999-12-31'
            ) as wanted
            where not exists (
                select from pg_catalog.pg_inherits inner join pg_catalog.pg_class on pg_class.oid = inhrelid
                where inhparent = '{{ relation }}'::regclass
                    and relname = '{{ stem }}_' || to_char(starts, '{{ format }}')
            )
            order by starts
        loop
            -- rows in the default partition would keep the new one from being made
            create temporary table if not exists {{ stem }}__strays (like {{ relation }});
            with stray as (
                delete from {{ default }} where {{ column }} >= missing.starts and {{ column }} < missing.ends
                returning *
            ) insert into {{ stem }}__strays select * from stray;
            begin
                execute format(
                    'create table %I.%I partition of {{ relation }} for values from (%L) to (%L)',
                    '{{ relation.schema }}', missing.name, missing.starts, missing.ends
                );
            exception
                when invalid_object_definition then
                    raise exception '{{ relation }} has partitions with some of the {{ model_.grain }} from %: %. %',
                        missing.starts, sqlerrm, 'Set the grain of partition_by back to what they were made with, or '
                        'rename the table, build it anew and drop the old one.';
                when duplicate_table then
                    raise exception '{{ relation }} needs a partition from %, and % is there and is none. %',
                        missing.starts, missing.name, 'Attach it again, or rename it, then run this again.';
            end;
        end loop;
        if to_regclass('pg_temp.{{ stem }}__strays') is not null then
            insert into {{ relation }} select * from {{ stem }}__strays;
            drop table {{ stem }}__strays;
        end if;
        perform set_config('timezone', zone, true);
    {%- endset -%}
    {{ kept_ddl('partitions', ddl, declare="missing record; zone text := current_setting('timezone');") }}
{% endmacro %}
