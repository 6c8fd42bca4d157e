{#-
  A view that is replaced in place, and only if its definition changed. dbt creates its own view beside the old one, and
  `drop … cascade` then removes the old one with every view above it. Those are missing until the same run builds them
  again, or for good if the run is killed before that. replace.sql handles a view that loses columns.
-#}
{% materialization kept_view, adapter='postgres' %}
    {%- set relation = this.incorporate(type='view') -%}
    {%- set there = kept_is_there(relation, 'v') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ kept_begin() }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if config.get('contract').enforced -%}
        {{ kept_refuse_constraints() }}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {%- set said = 'unchanged' -%}
    {%- if not there -%}
        {{ kept_ddl('create', kept_execute('create view ' ~ relation ~ ' as (' ~ sql ~ '\n)')) }}
        {%- set said = 'CREATE VIEW' -%}
    {%- else -%}
        {%- set defined = kept_view_definition(relation) -%}
        {%- if not kept_is_defined_so(relation, defined.sql) -%}
            {%- set create = kept_execute('create or replace view ' ~ relation ~ ' as (' ~ defined.sql ~ '\n)') -%}
            {%- if defined.lost -%}
                {{ kept_replace(relation, defined.lost, create) }}
            {%- else -%}
                {{ kept_ddl('replace', create ~ kept_drop_set_aside(relation)) }}
            {%- endif -%}
            {%- set said = 'REPLACE VIEW' -%}
        {%- endif -%}
    {%- endif -%}
    {%- do store_raw_result(name='main', message=said, code=said, rows_affected=-1) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {{ kept_docs(relation) }}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}


{#-
  The new SQL of the view, and the columns that it loses (`lost`): removed, or with another type. PostgreSQL replaces a
  view only if its columns keep their place and new ones come after them, so this macro orders them that way.
-#}
{% macro kept_view_definition(relation) %}
    {%- set trial = kept_define(sql) -%}
    {%- set lost = run_query(
        "select has.attname::text from pg_catalog.pg_attribute as has left join pg_catalog.pg_attribute as wanted "
        ~ "on wanted.attrelid = '" ~ trial ~ "'::regclass and wanted.attname = has.attname "
        ~ "and (wanted.atttypid, wanted.atttypmod, wanted.attcollation) = (has.atttypid, has.atttypmod, has.attcollation) "
        ~ "where has.attrelid = '" ~ relation ~ "'::regclass and has.attnum > 0 and wanted.attname is null "
        ~ "order by has.attnum"
    ).columns[0].values() | list -%}
    {%- set has = kept_columns(relation) | map(attribute='name') | list -%}
    {%- set wanted = kept_columns(trial) | map(attribute='name') | list -%}
    {%- if lost or wanted[:has | length] == has -%}
        {{ return({'sql': sql, 'lost': lost}) }}
    {%- endif -%}
    {%- set names = kept_list(has + wanted | reject('in', has) | list) -%}
    {{ return({'sql': 'select ' ~ names ~ ' from (' ~ sql ~ '\n) as model', 'lost': []}) }}
{% endmacro %}
