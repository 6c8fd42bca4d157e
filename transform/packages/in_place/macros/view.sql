{#-
  A view that is replaced in place, and only if its definition changed. dbt creates its own view beside the old one, and
  `drop … cascade` then removes the old one with every view above it. Those are missing until the same run builds them
  again, or stay missing if the run is killed before that. replace.sql handles a view that loses columns.
-#}
{% materialization in_place_view, adapter='postgres' %}
    {%- set relation = this.incorporate(type='view') -%}
    {%- set there = in_place.exists_as(relation, 'v') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ in_place.begin_transaction() }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {{ in_place.refuse_aliased_ref() }}
    {%- if config.get('contract').enforced -%}
        {{ in_place.refuse_constraints() }}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {%- set definition = in_place.inlined(sql) -%}
    {%- set said = 'unchanged' -%}
    {%- if not there -%}
        {{ in_place.refuse_other_view(definition) }}
        {%- set create -%}
            create view {{ relation }} as (
                {{ definition }}
            )
        {%- endset -%}
        {{ in_place.run_ddl('create', in_place.plpgsql_execute(create)) }}
        {%- set said = 'CREATE VIEW' -%}
    {%- else -%}
        {%- set defined = in_place.view_definition(relation, definition) -%}
        {%- if not defined.is_there -%}
            {{ in_place.refuse_other_view(definition) }}
            {%- set replace -%}
                create or replace view {{ relation }} as (
                    {{ defined.sql }}
                )
            {%- endset -%}
            {%- set ddl = in_place.plpgsql_execute(replace) -%}
            {%- if defined.lost -%}
                {{ in_place.replace_relation(relation, defined.lost, ddl) }}
            {%- else -%}
                {{ in_place.run_ddl('replace', ddl ~ in_place.drop_set_aside(relation)) }}
            {%- endif -%}
            {%- set said = 'REPLACE VIEW' -%}
        {%- endif -%}
    {%- endif -%}
    {%- do store_raw_result(name='main', message=said, code=said, rows_affected=-1) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {{ in_place.update_comments(relation) }}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}


{#-
  The new SQL of the view, the columns that it loses (`lost`): removed, or with another type; and whether the view has that
  SQL (`is_there`). PostgreSQL replaces a view only if its columns keep their place and new ones come after them, so this macro
  orders them that way.

  Arguments:
    definition: the model's SQL.
-#}
{% macro view_definition(relation, definition) %}
    {%- set trial = 'pg_temp.' ~ in_place.temp_name('trial') -%}
    {%- set query -%}
        {{ in_place.define_trial_view(definition) }};
        select json_build_object(
            'lost', (
                select coalesce(json_agg(has.attname order by has.attnum), '[]')
                from pg_catalog.pg_attribute as has
                left join pg_catalog.pg_attribute as wanted
                    on wanted.attrelid = '{{ trial }}'::regclass
                    and wanted.attname = has.attname
                    and (wanted.atttypid, wanted.atttypmod, wanted.attcollation)
                    = (has.atttypid, has.atttypmod, has.attcollation)
                where has.attrelid = '{{ relation }}'::regclass and has.attnum > 0 and wanted.attname is null
            ),
            'has', {{ in_place.columns_as_json("'" ~ relation ~ "'::regclass") }},
            'wanted', {{ in_place.columns_as_json("'" ~ trial ~ "'::regclass") }},
            'is_there', pg_get_viewdef('{{ relation }}'::regclass) = pg_get_viewdef('{{ trial }}'::regclass)
        )
    {%- endset -%}
    {%- set found = fromjson(in_place.single_value(query)) -%}
    {% call statement('defined') %}
        drop view {{ trial }}
    {% endcall %}
    {%- set has, wanted = found.has | map(attribute='name') | list, found.wanted | map(attribute='name') | list -%}
    {%- if found.lost or wanted[:has | length] == has -%}
        {{ return({'sql': definition, 'lost': found.lost, 'is_there': found.is_there}) }}
    {%- endif -%}
    {%- set reordered -%}
        select {{ in_place.column_list(has + wanted | reject('in', has) | list) }}
        from (
            {{ definition }}
        ) as model
    {%- endset -%}
    {{ return({'sql': reordered, 'lost': [], 'is_there': in_place.has_definition(relation, reordered)}) }}
{% endmacro %}
