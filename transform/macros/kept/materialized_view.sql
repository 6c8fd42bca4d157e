{#-
  A materialized view that is refreshed concurrently, so that readers keep the old rows until the new ones are there, and
  only when a table below it has changed. It survives a full refresh, which has nothing to mend in it. When its
  definition changes, a new one is filled beside it and takes its name, its owner and its grants.
-#}
{% materialization kept_materialized_view, adapter='postgres' %}
    {%- set relation = this.incorporate(type='materialized_view') -%}
    {%- set indexes = config.get('indexes') or [] -%}
    {%- if not indexes | selectattr('unique', 'defined') | selectattr('unique') | list -%}
        {%- do exceptions.raise_compiler_error(
            'kept_materialized_view needs a unique index in `indexes`: PostgreSQL refreshes concurrently by it.'
        ) -%}
    {%- endif -%}
    {%- set there = kept_is_there(relation, 'm') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set horizon = kept_new_horizon() -%}
    {%- if config.get('contract').enforced -%}
        {{ kept_refuse_constraints() }}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {%- if not there or not kept_is_defined_so(relation, sql) -%}
        {{ kept_view_fill(relation, indexes, there) }}
        {%- set said = 'CREATE MATERIALIZED VIEW' -%}
    {%- elif kept_view_is_stale(relation) -%}
        {% call statement('refresh') %}
            refresh materialized view concurrently {{ relation }}
        {% endcall %}
        {%- set said = 'REFRESH MATERIALIZED VIEW' -%}
    {%- else -%}
        {%- set said = 'nothing below it changed' -%}
    {%- endif -%}
    {{ kept_view_indexes(relation, indexes) }}
    {% call statement('note') %}
        insert into {{ kept_control(relation) }} (model, horizon, cluster, built_at, changed_at, invocation_id)
        values (
            '{{ relation.identifier }}', '{{ horizon }}', {{ kept_cluster() }}, now(), now(), '{{ invocation_id }}'
        )
        on conflict (model) do update set
            horizon = excluded.horizon, cluster = excluded.cluster, built_at = excluded.built_at,
            invocation_id = excluded.invocation_id
    {% endcall %}
    {%- do store_raw_result(name='main', message=said, code=said, rows_affected=-1) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {{ kept_docs(relation) }}

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


{#- Makes it, filled and indexed, in the place of what is there. -#}
{% macro kept_view_fill(relation, indexes, there) %}
    {%- set filling = relation.incorporate(path={'identifier': relation.identifier[:50] ~ '__filling'}) -%}
    {% call statement('fill') %}
        drop materialized view if exists {{ filling }};
        create materialized view {{ filling }} as
        {{ sql }}
    {% endcall %}
    {{ kept_view_indexes(filling, indexes) }}
    {% call statement('statistics') %}
        analyze {{ filling }}
    {% endcall %}
    {%- set rename = 'alter table ' ~ filling ~ ' rename to ' ~ adapter.quote(relation.identifier) ~ ';' -%}
    {%- if there -%}
        {{ kept_replace(relation, ['its definition'], rename) }}
    {%- else -%}
        {{ kept_ddl('create', rename) }}
    {%- endif -%}
{% endmacro %}


{#- The indexes that are not there yet, told by what they are: their names are whatever PostgreSQL gave them. -#}
{% macro kept_view_indexes(relation, indexes) %}
    {%- for index in indexes -%}
        {%- set unique = 'unique ' if index.get('unique') else '' -%}
        {%- set method = index.get('type') or 'btree' -%}
        {%- set there = run_query(
            "select 1 from pg_catalog.pg_index where indrelid = '" ~ relation ~ "'::regclass and indisunique = "
            ~ (unique != '') ~ " and pg_get_indexdef(indexrelid) like '% USING " ~ method ~ " (' || (select "
            ~ "string_agg(quote_ident(name), ', ' order by place) from unnest(array['" ~ index.columns | join("', '")
            ~ "']) with ordinality as wanted (name, place)) || ')'"
        ) -%}
        {%- if not there | length -%}
            {{ kept_ddl(
                'index ' ~ loop.index,
                'create ' ~ unique ~ 'index on ' ~ relation ~ ' using ' ~ method ~ ' (' ~ kept_list(index.columns) ~ ');'
            ) }}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}
