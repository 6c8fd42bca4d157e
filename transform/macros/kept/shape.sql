{#- Makes the table, empty: with the contract's types and constraints if there is one. -#}
{% macro kept_create(model_, columns) %}
    {%- set partitions -%}
        {%- if model_.partition_by %} partition by range ({{ adapter.quote(model_.partition) }}){% endif -%}
    {%- endset -%}
    {% call statement('create') %}
        create table {{ model_.relation }}
        {% if config.get('contract').enforced -%}
            {{ get_table_columns_and_constraints() }}
        {%- else -%}
            (
                {%- for column in columns -%}
                    {{ adapter.quote(column.name) }} {{ column.type }}{{ ', ' if not loop.last }}
                {%- endfor -%}
            )
        {%- endif -%}
        {{ partitions }};
    {% endcall %}
    {%- if model_.partition_by -%}
        {{ kept_partitions(model_) }}
    {%- endif -%}
{% endmacro %}


{#- Brings the table's columns to those of the model, as far as on_schema_change, or a full refresh, allows. -#}
{% macro kept_follow_columns(model_, columns, complete) %}
    {%- set has = {} -%}
    {%- for column in kept_columns(model_.relation) -%}
        {%- do has.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- set wanted = {} -%}
    {%- for column in columns -%}
        {%- do wanted.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- set all_may_change = should_full_refresh() -%}
    {%- set actions, refused = [], [] -%}
    {%- for name, type in wanted.items() if name not in has -%}
        {%- if all_may_change or config.get('on_schema_change') == 'append_new_columns' -%}
            {%- do actions.append('add column ' ~ adapter.quote(name) ~ ' ' ~ type) -%}
        {%- else -%}
            {%- do refused.append('lacks ' ~ name ~ ' (' ~ type ~ ')') -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name, type in has.items() -%}
        {%- if name not in wanted -%}
            {%- if all_may_change -%}
                {%- do actions.append('drop column ' ~ adapter.quote(name)) -%}
            {%- elif config.get('on_schema_change') != 'append_new_columns' -%}
                {%- do refused.append('has ' ~ name ~ ' (' ~ type ~ '), which the model lacks') -%}
            {%- endif -%}
        {%- elif not kept_fits(wanted[name], type) -%}
            {%- if all_may_change -%}
                {%- do actions.append(
                    'alter column ' ~ adapter.quote(name) ~ ' type ' ~ wanted[name] ~ ' using ' ~ adapter.quote(name)
                    ~ '::' ~ wanted[name]
                ) -%}
            {%- else -%}
                {%- do refused.append('has ' ~ name ~ ' as ' ~ type ~ ', the model as ' ~ wanted[name]) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if refused -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' ' ~ refused | join('; ')
            ~ '. Run it once with --full-refresh, which alters the table in place and leaves what stands on it, '
            ~ 'or set on_schema_change: append_new_columns for columns that are only new.'
        ) -%}
    {%- endif -%}
    {%- if actions -%}
        {{ kept_ddl('columns', 'alter table ' ~ model_.relation ~ ' ' ~ actions | join(', ') ~ ';') }}
    {%- endif -%}
{% endmacro %}


{#- Whether values of a query's column of type `type` go into the table's. A query's numeric often has no precision. -#}
{% macro kept_fits(type, into) %}
    {{ return(type == into or (type == 'numeric' and into.startswith('numeric('))
        or (type in ('text', 'character varying') and into.startswith('character varying'))) }}
{% endmacro %}


{#-
  The partitions that the staged rows need, and a default one that catches what others write and is emptied here. A
  partition is named for its beginning: fct_sales_2026_01.
-#}
{% macro kept_partitions(model_) %}
    {%- if not model_.partition_by -%}{{ return('') }}{%- endif -%}
    {%- set relation = model_.relation -%}
    {%- set stem = relation.identifier[:50] -%}
    {%- set default = adapter.quote(relation.schema) ~ '.' ~ adapter.quote(stem ~ '_default') -%}
    {%- set column = adapter.quote(model_.partition) -%}
    {%- set format = {'day': 'YYYY_MM_DD', 'month': 'YYYY_MM', 'year': 'YYYY'}[model_.grain] -%}
    {%- set ddl -%}
        create table if not exists {{ default }} partition of {{ relation }} default;
        for missing in
            select
                starts,
                starts + interval '1 {{ model_.grain }}' as ends,
                '{{ stem }}_' || to_char(starts, '{{ format }}') as name
            from (
                select date_trunc('{{ model_.grain }}', {{ column }}::timestamp) as starts from {{ model_.stage }}
                union
                select date_trunc('{{ model_.grain }}', {{ column }}::timestamp) from {{ default }}
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
            execute format(
                'create table %I.%I partition of {{ relation }} for values from (%L) to (%L)',
                '{{ relation.schema }}', missing.name, missing.starts, missing.ends
            );
        end loop;
        if to_regclass('pg_temp.{{ stem }}__strays') is not null then
            insert into {{ relation }} select * from {{ stem }}__strays;
            drop table {{ stem }}__strays;
        end if;
    {%- endset -%}
    {{ kept_ddl('partitions', ddl, declare='missing record;') }}
{% endmacro %}


{#- The indexes of `indexes` and `partial_indexes` that are not there yet, and a unique one on the key. -#}
{% macro kept_indexes(model_) %}
    {%- set wanted = [] -%}
    {%- set keyed = run_query(
        "select 1 from pg_catalog.pg_index where indrelid = '" ~ model_.relation ~ "'::regclass and indisunique "
        ~ "and indpred is null and indexprs is null and indnkeyatts = " ~ model_.match | length
        ~ " and (select array_agg(attname::text order by attname) from pg_catalog.pg_attribute "
        ~ "where attrelid = indrelid and attnum = any(indkey)) = array['" ~ model_.match | sort | join("', '") ~ "']"
    ) | length -%}
    {%- if not keyed -%}
        {%- do wanted.append({'columns': model_.match, 'unique': true}) -%}
    {%- endif -%}
    {%- for index in (config.get('indexes') or []) + (config.get('partial_indexes') or []) -%}
        {%- do wanted.append(index) -%}
    {%- endfor -%}
    {%- for index in wanted -%}
        {%- set definition -%}
            {{ model_.relation }} using {{ index.get('type') or 'btree' }} ({{ kept_list(index.columns) }})
            {%- if index.get('where') %} where {{ index.where }}{% endif %}
        {%- endset -%}
        {%- set name = model_.relation.identifier[:40] ~ '_' ~ local_md5(definition ~ index.get('unique', false))[:12] -%}
        {%- set there = run_query(
            "select to_regclass('" ~ adapter.quote(model_.relation.schema) ~ '.' ~ adapter.quote(name)
            ~ "') is not null"
        ).columns[0].values()[0] -%}
        {%- if not there -%}
            {{ kept_ddl(
                'index ' ~ loop.index,
                'create ' ~ ('unique ' if index.get('unique') else '') ~ 'index ' ~ adapter.quote(name) ~ ' on '
                ~ definition ~ ';'
            ) }}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#-
  Runs statements that need a lock which readers are in the way of. Each attempt waits a moment only, as those who come
  after wait behind it; then it lets them pass and tries again.
-#}
{% macro kept_ddl(name, ddl, declare='') %}
    {% call statement('kept ' ~ name) %}
        do $tidemark$
        declare
            attempt integer := 0;
            {{ declare }}
        begin
            loop
                begin
                    perform set_config('lock_timeout', '{{ var("kept_lock_timeout", "500ms") }}', true);
                    {{ ddl }}
                    perform set_config('lock_timeout', '0', true);
                    return;
                exception when lock_not_available or deadlock_detected then
                    attempt := attempt + 1;
                    if attempt >= {{ var("kept_lock_attempts", 120) }} then
                        raise exception '% could not be altered: others kept it locked in each of % attempts',
                            '{{ this }}', attempt using errcode = 'lock_not_available',
                            hint = 'See pg_stat_activity for long transactions that read it, then run this again.';
                    end if;
                    perform pg_sleep(0.2 + 0.3 * random());
                end;
            end loop;
        end
        $tidemark$
    {% endcall %}
{% endmacro %}
