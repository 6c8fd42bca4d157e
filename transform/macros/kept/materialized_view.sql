{#-
  A materialized view that is refreshed concurrently, so that readers keep the old rows until the new ones are there, and
  only when a table below it has changed. It survives a full refresh, which has nothing to mend in it. When its
  definition changes, a new one is filled beside it and takes its name.
-#}
{% materialization kept_materialized_view, adapter='postgres' %}
    {%- set relation = this.incorporate(type='materialized_view') -%}
    {%- set indexes = config.get('indexes') or [] -%}
    {%- if not indexes | selectattr('unique', 'defined') | selectattr('unique') | list -%}
        {%- do exceptions.raise_compiler_error(
            'kept_materialized_view needs a unique index in `indexes`: PostgreSQL refreshes concurrently by it.'
        ) -%}
    {%- endif -%}
    {%- set definition = local_md5(sql | trim ~ indexes) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set horizon = kept_new_horizon() -%}
    {%- set noted = run_query(
        "select definition from " ~ kept_control(relation) ~ " where model = '" ~ relation.identifier
        ~ "' and exists (select from pg_catalog.pg_class where oid = to_regclass('" ~ relation ~ "') and relkind = 'm')"
    ).columns[0].values() -%}
    {%- if config.get('contract').enforced -%}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {%- if not noted or noted[0] != definition -%}
        {{ kept_view_replace(relation, indexes) }}
        {%- set said = 'CREATE MATERIALIZED VIEW' -%}
    {%- elif kept_view_is_stale(relation) -%}
        {% call statement('refresh') %}
            refresh materialized view concurrently {{ relation }}
        {% endcall %}
        {%- set said = 'REFRESH MATERIALIZED VIEW' -%}
    {%- else -%}
        {%- set said = 'nothing below it changed' -%}
    {%- endif -%}
    {% call statement('note') %}
        insert into {{ kept_control(relation) }} (model, horizon, cluster, definition, built_at, changed_at, invocation_id)
        values (
            '{{ relation.identifier }}', '{{ horizon }}', {{ kept_cluster() }}, '{{ definition }}', now(), now(),
            '{{ invocation_id }}'
        )
        on conflict (model) do update set
            horizon = excluded.horizon, cluster = excluded.cluster, definition = excluded.definition,
            built_at = excluded.built_at, invocation_id = excluded.invocation_id
    {% endcall %}
    {%- do store_raw_result(name='main', message=said, code=said, rows_affected=-1) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}


{#- Whether a table below it was written since it was built. The times are of the transactions that wrote it. -#}
{% macro kept_view_is_stale(relation) %}
    {%- set changes = ["false"] -%}
    {%- for above in kept_above(model.depends_on.nodes) -%}
        {%- do changes.append(
            "coalesce((select changed_at >= mine.built_at from " ~ kept_control(above) ~ " as theirs where theirs.model = '"
            ~ above.identifier ~ "'), true)"
        ) -%}
    {%- endfor -%}
    {{ return(run_query(
        "select " ~ changes | join(' or ') ~ " from " ~ kept_control(relation) ~ " as mine where model = '"
        ~ relation.identifier ~ "'"
    ).columns[0].values()[0]) }}
{% endmacro %}


{% macro kept_view_replace(relation, indexes) %}
    {%- set dependents = run_query(
        "select distinct v.oid::regclass::text from pg_catalog.pg_depend d inner join pg_catalog.pg_rewrite r "
        ~ "on r.oid = d.objid inner join pg_catalog.pg_class v on v.oid = r.ev_class "
        ~ "where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass "
        ~ "and d.refobjid = to_regclass('" ~ relation ~ "') and v.oid <> d.refobjid order by 1"
    ).columns[0].values() -%}
    {%- if dependents -%}
        {%- do exceptions.raise_compiler_error(
            relation ~ ' has a new definition, and ' ~ dependents | join(', ') ~ ' stand(s) on the old one, which would be '
            ~ 'lost with it. Drop that first, then run this again, and make it anew.'
        ) -%}
    {%- endif -%}
    {%- set filling = relation.incorporate(path={'identifier': relation.identifier[:50] ~ '__filling'}) -%}
    {% call statement('fill') %}
        drop materialized view if exists {{ filling }};
        create materialized view {{ filling }} as {{ sql }};
        {% for index in indexes %}
            create {{ 'unique' if index.get('unique') }} index on {{ filling }} ({{ kept_list(index.columns) }});
        {% endfor %}
        analyze {{ filling }};
    {% endcall %}
    {{ kept_ddl(
        'replace',
        'drop materialized view if exists ' ~ relation ~ '; alter materialized view ' ~ filling ~ ' rename to '
        ~ adapter.quote(relation.identifier) ~ ';'
    ) }}
{% endmacro %}
