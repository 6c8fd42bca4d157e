{#-
  A materialized view that is refreshed concurrently: readers see the old rows until the new ones are complete. A build
  skips the refresh only if nothing below the view can have changed: the view reads only tables that record their changes,
  and no clock. If its definition changes, the build fills a new one beside it, which takes its name, owner and grants.
-#}
{% materialization in_place_materialized_view, adapter='postgres' %}
    {%- set relation = this.incorporate(type='materialized_view') -%}
    {%- set indexes = config.get('indexes') or [] -%}
    {%- if not indexes | selectattr('unique', 'defined') | selectattr('unique') | list -%}
        {%- do exceptions.raise_compiler_error(
            'in_place_materialized_view needs a unique index in `indexes`: PostgreSQL needs one to refresh concurrently.'
        ) -%}
    {%- endif -%}
    {%- set there = in_place.exists_as(relation, 'm') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set horizon = in_place.new_horizon() -%}
    {%- if config.get('contract').enforced -%}
        {{ in_place.refuse_constraints() }}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {%- if not there or not in_place.has_definition(relation, sql) -%}
        {{ in_place.fill_view(relation, indexes, there) }}
        {%- set said = 'CREATE MATERIALIZED VIEW' -%}
    {%- else -%}
        {#- the refresh needs one of them -#}
        {{ in_place.create_view_indexes(relation, indexes) }}
        {%- set said = in_place.refresh_view(relation) -%}
    {%- endif -%}
    {% call statement('note') %}
        insert into {{ in_place.models_table(relation) }} as noted
        (model, horizon, cluster, built_at, changed_at, changed_xid, read_snapshot, invocation_id)
        values (
            '{{ relation.identifier }}', '{{ horizon }}', {{ in_place.cluster_id() }}, now(), now(), pg_current_xact_id(),
            {{ in_place.read_snapshot() }}, '{{ invocation_id }}'
        )
        on conflict (model) do update set
            horizon = excluded.horizon, cluster = excluded.cluster, built_at = excluded.built_at,
            {% if said != in_place.unchanged_message() -%}
                changed_at = excluded.changed_at, changed_xid = excluded.changed_xid,
            {%- endif %}
            read_snapshot = excluded.read_snapshot, invocation_id = excluded.invocation_id
    {% endcall %}
    {{ in_place.drop_temp_relations() }}
    {%- do store_raw_result(name='main', message=said, code=said, rows_affected=-1) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {{ in_place.update_comments(relation) }}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{% endmaterialization %}


{% macro unchanged_message() %}{{ return('nothing below it changed') }}{% endmacro %}


{#- Refreshes the view if its rows may have changed; returns what it did. -#}
{% macro refresh_view(relation) %}
    {%- set query -%}
        select relispopulated from pg_catalog.pg_class where oid = '{{ relation }}'::regclass
    {%- endset -%}
    {%- set populated = in_place.single_value(query) -%}
    {%- if populated and not should_full_refresh() and not in_place.is_stale(relation) -%}
        {{ return(in_place.unchanged_message()) }}
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
{% macro is_stale(relation) %}
    {%- set stale -%}
        with recursive below (oid) as (
            {{ in_place.relations_below(relation) }}
        ),
        mine as (
            select (to_jsonb(noted) ->> 'read_snapshot')::pg_snapshot as snapshot
            from {{ in_place.models_table(relation) }} as noted
            where model = '{{ relation.identifier }}' and cluster = {{ in_place.cluster_id() }}
        )
        select
            exists (
                select
                from below
                left join {{ in_place.temp_name('notes') }} as notes on notes.relation = below.oid
                where coalesce(not pg_visible_in_snapshot(changed_xid, (select snapshot from mine)), true)
            )
            or exists ({{ in_place.functions_below(relation) }})
            or exists (
                select from ({{ in_place.views_below(relation) }}) as views where pg_get_viewdef(oid) ~ '{{ in_place.unstable_pattern() }}'
            )
    {%- endset -%}
    {{ return(in_place.single_value(stale)) }}
{% endmacro %}


{#-
  Matches what makes a view's rows differ from one moment or role to the next, in its SQL as PostgreSQL writes it: the
  clock, random values, the session, samples, and PostgreSQL's own tables and functions, for which it records no dependency.
-#}
{% macro unstable_pattern() -%}
    \m(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|age|random|random_normal|gen_random_uuid|uuidv4|uuidv7|nextval|currval|lastval|current_setting|version|txid_\w+|has_\w+_privilege|inet_\w+|row_security_active|to_reg\w+|(query|table|cursor|schema|database)_to_xml\w*|[oc]\w+_description)\(|\m(CURRENT_\w+|LOCALTIME|LOCALTIMESTAMP|SESSION_USER|USER|SYSTEM_USER|TABLESAMPLE)\M|\minformation_schema\.|\mpg_\w+|''(now|today|tomorrow|yesterday)''::text
{%- endmacro %}


{#- Creates it, fills and indexes it, and puts it in the place of the old one. -#}
{% macro fill_view(relation, indexes, there) %}
    {%- set filling = relation.incorporate(path={'identifier': in_place.shortened_name(relation.identifier, '__filling')}) -%}
    {% call statement('fill') %}
        drop materialized view if exists {{ filling }};
        create materialized view {{ filling }} as
        {{ sql }}
    {% endcall %}
    {{ in_place.create_view_indexes(filling, indexes) }}
    {% call statement('statistics') %}
        analyze {{ filling }}
    {% endcall %}
    {%- set rename = 'alter table ' ~ filling ~ ' rename to ' ~ adapter.quote(relation.identifier) ~ ';' -%}
    {%- if there -%}
        {{ in_place.replace_relation(relation, ['its definition'], rename) }}
    {%- else -%}
        {{ in_place.run_ddl('create', rename) }}
    {%- endif -%}
{% endmacro %}


{#- Creates the missing indexes. It compares their definitions, because PostgreSQL chose the names. -#}
{% macro create_view_indexes(relation, indexes) %}
    {%- for index in indexes -%}
        {%- set unique = 'unique ' if index.get('unique') else '' -%}
        {%- set method = index.get('type') or 'btree' -%}
        {%- set query -%}
            select 1
            from pg_catalog.pg_index
            where
                indrelid = '{{ relation }}'::regclass
                and indisunique = {{ unique != '' }}
                and pg_get_indexdef(indexrelid) like '% USING {{ method }} (' || (
                    select string_agg(quote_ident(name), ', ' order by place)
                    from unnest(array['{{ index.columns | join("', '") }}']) with ordinality as wanted (name, place)
                ) || ')'
        {%- endset -%}
        {%- if not run_query(query) | length -%}
            {%- set ddl -%}
                create {{ unique }}index on {{ relation }} using {{ method }} ({{ in_place.column_list(index.columns) }});
            {%- endset -%}
            {{ in_place.run_ddl('index ' ~ loop.index, ddl) }}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}
