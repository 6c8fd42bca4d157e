{#-
  A materialized view that is refreshed concurrently: readers see the old rows until the new ones are complete. A build
  skips the refresh only if nothing below the view can have changed: the view reads only tables that record their changes,
  and no clock. If its definition changes, the build fills a new one beside it, which takes its name, owner and grants.
-#}
{% materialization kept_materialized_view, adapter='postgres' %}
    {%- set relation = this.incorporate(type='materialized_view') -%}
    {%- set indexes = config.get('indexes') or [] -%}
    {%- if not indexes | selectattr('unique', 'defined') | selectattr('unique') | list -%}
        {%- do exceptions.raise_compiler_error(
            'kept_materialized_view needs a unique index in `indexes`: PostgreSQL needs one to refresh concurrently.'
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
    {%- else -%}
        {#- the refresh needs one of them -#}
        {{ kept_view_indexes(relation, indexes) }}
        {%- set said = kept_view_refresh(relation) -%}
    {%- endif -%}
    {% call statement('note') %}
        insert into {{ kept_control(relation) }} as noted
        (model, horizon, cluster, built_at, changed_at, changed_xid, read_snapshot, invocation_id)
        values (
            '{{ relation.identifier }}', '{{ horizon }}', {{ kept_cluster() }}, now(), now(), pg_current_xact_id(),
            {{ kept_read_snapshot() }}, '{{ invocation_id }}'
        )
        on conflict (model) do update set
            horizon = excluded.horizon, cluster = excluded.cluster, built_at = excluded.built_at,
            {% if said != kept_view_is_fresh() -%}
                changed_at = excluded.changed_at, changed_xid = excluded.changed_xid,
            {%- endif %}
            read_snapshot = excluded.read_snapshot, invocation_id = excluded.invocation_id
    {% endcall %}
    {{ kept_clear() }}
    {%- do store_raw_result(name='main', message=said, code=said, rows_affected=-1) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {{ kept_docs(relation) }}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}


{% macro kept_view_is_fresh() %}{{ return('nothing below it changed') }}{% endmacro %}


{#- Refreshes the view if its rows may have changed; returns what it did. -#}
{% macro kept_view_refresh(relation) %}
    {%- set populated = run_query(
        "select relispopulated from pg_catalog.pg_class where oid = '" ~ relation ~ "'::regclass"
    ).columns[0].values()[0] -%}
    {%- if populated and not should_full_refresh() and not kept_view_is_stale(relation) -%}
        {{ return(kept_view_is_fresh()) }}
    {%- endif -%}
    {% call statement('refresh') %}
        {#- a view that was restored without rows can't be read, so a plain refresh blocks no reader -#}
        refresh materialized view {{ 'concurrently' if populated }} {{ relation }}
    {% endcall %}
    {{ return('REFRESH MATERIALIZED VIEW') }}
{% endmacro %}


{#-
  Whether its rows may have changed. The macro compares what its last build could see with the transaction that last
  wrote each table below. Rows in raw can disappear without a trace, so a view that reads raw, or a table that records
  no changes, is always stale. So is a view that reads the clock, or calls functions that may read anything.
-#}
{% macro kept_view_is_stale(relation) %}
    {%- set stale -%}
        with recursive below (oid) as (
            {{ kept_relations_below(relation) }}
        ),
        mine as (
            select (to_jsonb(noted) ->> 'read_snapshot')::pg_snapshot as snapshot
            from {{ kept_control(relation) }} as noted
            where model = '{{ relation.identifier }}' and cluster = {{ kept_cluster() }}
        )
        select
            exists (
                select
                from below
                left join {{ kept_temp('notes') }} as notes on notes.relation = below.oid
                where coalesce(not pg_visible_in_snapshot(changed_xid, (select snapshot from mine)), true)
            )
            or exists ({{ kept_functions_below(relation) }})
            or exists (
                select from ({{ kept_views_below(relation) }}) as views where pg_get_viewdef(oid) ~ '{{ kept_unsteady() }}'
            )
    {%- endset -%}
    {{ return(run_query(stale).columns[0].values()[0]) }}
{% endmacro %}


{#-
  Matches what makes a view's rows differ from one moment or role to the next, in its SQL as PostgreSQL writes it: the
  clock, random values, the session, samples, and PostgreSQL's own tables and functions, for which it records no dependency.
-#}
{% macro kept_unsteady() -%}
    \m(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|age|random|random_normal|gen_random_uuid|uuidv4|uuidv7|nextval|currval|lastval|current_setting|version|txid_\w+|has_\w+_privilege|inet_\w+|row_security_active|to_reg\w+|(query|table|cursor|schema|database)_to_xml\w*|[oc]\w+_description)\(|\m(CURRENT_\w+|LOCALTIME|LOCALTIMESTAMP|SESSION_USER|USER|SYSTEM_USER|TABLESAMPLE)\M|\minformation_schema\.|\mpg_\w+|''(now|today|tomorrow|yesterday)''::text
{%- endmacro %}


{#- Creates it, fills and indexes it, and puts it in the place of the old one. -#}
{% macro kept_view_fill(relation, indexes, there) %}
    {%- set filling = relation.incorporate(path={'identifier': kept_name(relation.identifier, '__filling')}) -%}
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


{#- Creates the missing indexes. It compares their definitions, because PostgreSQL chose the names. -#}
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
