{#-
  A view that is replaced in its place. dbt's own is made beside the old one, which `drop … cascade` then takes away with
  every view above it: those are missing until the same run has come to them, and for good if it is killed before. Only a
  definition that takes a column away or alters one still costs what stands on it.
-#}
{% materialization kept_view, adapter='postgres' %}
    {%- set relation = this.incorporate(type='view') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ kept_begin() }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if config.get('contract').enforced -%}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {{ kept_ddl(
        'replace',
        'begin execute $definition$create or replace view ' ~ relation ~ ' as (' ~ sql ~ '\n)$definition$; '
        ~ 'exception when invalid_table_definition then execute $definition$drop view ' ~ relation
        ~ ' cascade; create view ' ~ relation ~ ' as (' ~ sql ~ '\n)$definition$; end;'
    ) }}
    {%- do store_raw_result(name='main', message='CREATE VIEW', code='CREATE VIEW', rows_affected=-1) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {%- do persist_docs(relation, model) -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}
