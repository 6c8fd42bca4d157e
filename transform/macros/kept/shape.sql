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


{#-
  Brings the table's columns to those of the model, as far as on_schema_change, or a full refresh, allows, and takes away
  what a contract has no more. Returns what of the contract is still to come, once the rows are there: see contract.sql.
-#}
{% macro kept_follow_columns(model_, columns) %}
    {%- set has, wanted = {}, {} -%}
    {%- for column in kept_columns(model_.relation) -%}
        {%- do has.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- set contract = kept_contract(model_) -%}
    {%- for column in contract.columns or columns -%}
        {%- do wanted.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- set all_may_change = should_full_refresh() -%}
    {%- set appends = config.get('on_schema_change') == 'append_new_columns' -%}
    {%- set actions, refused = [], [] -%}
    {%- if all_may_change -%}
        {%- for name in contract.gone -%}
            {%- do actions.append('drop constraint ' ~ adapter.quote(name)) -%}
        {%- endfor -%}
        {%- for name in contract.nullable if name in wanted -%}
            {%- do actions.append('alter column ' ~ adapter.quote(name) ~ ' drop not null') -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for name, type in wanted.items() if name not in has -%}
        {%- if all_may_change or appends -%}
            {%- do actions.append('add column ' ~ adapter.quote(name) ~ ' ' ~ type) -%}
        {%- else -%}
            {%- do refused.append('lacks ' ~ name ~ ' (' ~ type ~ ')') -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name, type in has.items() -%}
        {%- if name not in wanted -%}
            {%- if all_may_change -%}
                {%- do actions.append('drop column ' ~ adapter.quote(name)) -%}
            {%- elif not appends -%}
                {%- do refused.append('has ' ~ name ~ ' (' ~ type ~ '), which the model lacks') -%}
            {%- endif -%}
        {%- elif not (wanted[name] == type or (not contract.columns and kept_fits(wanted[name], type))) -%}
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
    {%- if not all_may_change -%}
        {%- for name in contract.not_null if name in has or appends -%}
            {%- do refused.append('lacks not null on ' ~ name) -%}
        {%- endfor -%}
        {%- for constraint in contract.missing -%}
            {%- do refused.append('lacks ' ~ constraint.definition) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if refused -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' ' ~ refused | join('; ')
            ~ '. Run it once with --full-refresh, which alters the table in place and leaves what stands on it, '
            ~ 'or set on_schema_change: append_new_columns for columns that are only new.'
        ) -%}
    {%- endif -%}
    {{ kept_prove_contract(model_, columns, contract) }}
    {%- if actions -%}
        {{ kept_ddl('columns', 'alter table ' ~ model_.relation ~ ' ' ~ actions | join(', ') ~ ';') }}
    {%- endif -%}
    {{ return(contract) }}
{% endmacro %}


{#- Whether values of a query's column of type `type` go into the table's. A query's numeric often has no precision. -#}
{% macro kept_fits(type, into) %}
    {{ return(type == into or (type == 'numeric' and into.startswith('numeric('))
        or (type in ('text', 'character varying') and into.startswith('character varying'))) }}
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
