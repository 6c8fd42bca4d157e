{#-
  What a model reads, and the horizon of that.
  PostgreSQL says what the model reads: the macros create a temporary view of the model's SQL and follow it, through other
  views, to the relations that hold rows. So it does not matter what is in between or what its name is: views, ephemeral
  models, models of other packages, relations that dbt defers to.
-#}

{#-
  The quoted schemas with notes on builds, as the run found them first: the model's project created its own when the run
  started.
-#}
{% macro noted_schemas() %}
    {%- set asked = 'in_place schemas in ' ~ invocation_id -%}
    {%- if asked not in graph -%}
        {%- set query -%}
            select quote_ident(nspname)
            from pg_catalog.pg_class
            inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
            where
                relname = '_tidemark_models'
                and relkind = 'r'
                and has_schema_privilege(pg_namespace.oid, 'usage')
                and has_table_privilege(pg_class.oid, 'select')
        {%- endset -%}
        {%- do graph.update({asked: in_place.first_column(query)}) -%}
    {%- endif -%}
    {{ return(graph[asked]) }}
{% endmacro %}


{#- SQL that notes the horizon of every table, in one snapshot. Run it before the current build reads its first row. -#}
{% macro note_horizons() -%}
    drop table if exists pg_temp.{{ in_place.temp_name('notes') }}, pg_temp.{{ in_place.temp_name('read') }};
    create temporary table {{ in_place.temp_name('read') }} (relation oid, function oid);
    create temporary table {{ in_place.temp_name('notes') }} as
    select
        null::oid as relation,
        pg_snapshot_xmin(pg_current_snapshot()) as horizon,
        null::xid8 as changed_xid,
        pg_current_snapshot() as snapshot
    {% for schema in in_place.noted_schemas() -%}
        union all
        select
            to_regclass('{{ schema }}.' || quote_ident(model))::oid,
            case
                when cluster = {{ in_place.cluster_id() }} and horizon <= pg_snapshot_xmax(pg_current_snapshot()) then horizon
                else '0'
            end,
            -- as JSON: tables of other projects and prefixes may lack this column
            (to_jsonb(noted) ->> 'changed_xid')::xid8,
            null
        from {{ schema }}._tidemark_models as noted
    {% endfor %};
{%- endmacro %}


{#- SQL that adds the relations of that query to what the current build reads. -#}
{% macro note_inputs(query) -%}
    {%- set trial = in_place.temp_name('trial') -%}
    {{ in_place.define_trial_view(query) }};
    insert into {{ in_place.temp_name('read') }} (relation) {{ in_place.relations_below('pg_temp.' ~ trial) }};
    insert into {{ in_place.temp_name('read') }} (function) {{ in_place.functions_below('pg_temp.' ~ trial) }};
    drop view {{ trial }};
{%- endmacro %}


{#- A query for the relations with rows that a view or materialized view reads. -#}
{% macro relations_below(view) -%}
    with recursive below (oid) as (
        select '{{ view }}'::regclass::oid
        union
        select refobjid
        from below
        inner join pg_catalog.pg_class on pg_class.oid = below.oid
        inner join pg_catalog.pg_rewrite on ev_class = below.oid
        inner join pg_catalog.pg_depend on objid = pg_rewrite.oid and classid = 'pg_rewrite'::regclass
        where
            refclassid = 'pg_class'::regclass
            and (relkind = 'v' or below.oid = '{{ view }}'::regclass)
    )
    select oid
    from below
    inner join pg_catalog.pg_class using (oid)
    where
        relkind in ('r', 'p', 'm', 'f')
        and oid not in ('{{ view }}'::regclass, coalesce(to_regclass('{{ this }}')::oid, 0))
        -- the tables of staged_keys
        and relpersistence <> 't'
        -- written in one transaction with the rows of their models
        and relname not in ('_tidemark_models', '_tidemark_changes')
{%- endmacro %}


{#- A query for a view and the views below it. -#}
{% macro views_below(view) -%}
    with recursive views (oid) as (
        select '{{ view }}'::regclass::oid
        union
        select refobjid
        from views
        inner join pg_catalog.pg_rewrite on ev_class = views.oid
        inner join pg_catalog.pg_depend on objid = pg_rewrite.oid and classid = 'pg_rewrite'::regclass
        inner join pg_catalog.pg_class on pg_class.oid = refobjid and relkind = 'v'
        where refclassid = 'pg_class'::regclass
    )
    select oid from views
{%- endmacro %}


{#- The part of a FROM that joins pg_proc, with the functions that these views call, to a table expression with their oids. -#}
{% macro join_functions_of(views) -%}
    inner join pg_catalog.pg_rewrite on ev_class = {{ views }}.oid
    inner join pg_catalog.pg_depend as calls on calls.objid = pg_rewrite.oid and calls.classid = 'pg_rewrite'::regclass
    -- an operator calls its function
    left join pg_catalog.pg_operator on calls.refclassid = 'pg_operator'::regclass and pg_operator.oid = calls.refobjid
    inner join pg_catalog.pg_proc
        on pg_proc.oid = coalesce(pg_operator.oprcode::oid, calls.refobjid)
        and calls.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
{%- endmacro %}


{#-
  A query for the functions that views may call: {oid, prosrc, body, provolatile}. PostgreSQL does not record which functions a
  function calls. So these are all functions of users if the views call any of them, but not those that log changes.
-#}
{% macro functions_in_reach(views) -%}
    select pg_proc.oid, prosrc, pg_get_function_sqlbody(pg_proc.oid) as body, provolatile
    from pg_catalog.pg_proc
    inner join pg_catalog.pg_namespace on pg_namespace.oid = pronamespace
    where
        exists (
            select from {{ views }}
            {{ in_place.join_functions_of(views) }}
            where pronamespace <> 'pg_catalog'::regnamespace
        )
        and nspname <> 'information_schema'
        and not starts_with(nspname, 'pg_')
        and not starts_with(proname, '_tidemark_')
        and not exists (
            select from pg_catalog.pg_depend
            where classid = 'pg_proc'::regclass and objid = pg_proc.oid and deptype = 'e'
        )
{%- endmacro %}


{#-
  A query for the functions through which a view may read what PostgreSQL does not record: user-defined functions that
  are not immutable. Functions of extensions read no tables, except dblink's, which read other servers.
-#}
{% macro functions_below(view) -%}
    select distinct pg_proc.oid
    from ({{ in_place.views_below(view) }}) as views
    {{ in_place.join_functions_of('views') }}
    left join pg_catalog.pg_depend as made
        on made.objid = pg_proc.oid and made.classid = 'pg_proc'::regclass and made.deptype = 'e'
        and made.refclassid = 'pg_extension'::regclass
    left join pg_catalog.pg_extension on pg_extension.oid = made.refobjid
    where
        provolatile <> 'i'
        and prokind <> 'a'
        and pronamespace <> 'pg_catalog'::regnamespace
        and coalesce(extname, 'dblink') = 'dblink'
{%- endmacro %}


{#-
  The horizon of what was read: the oldest transaction that may be missing from any of it; 0 if it can't be known. A table
  in raw reaches to the build's own snapshot. Any other table reaches to its recorded horizon.

  Arguments:
    notes: SQL that runs before, for what the horizon is of.
-#}
{% macro input_horizon(notes) %}
    {%- set reach -%}
        {{ notes }}
        with read as (
            select relation, horizon, {{ in_place.is_raw('relation') }} as is_raw
            from (select distinct relation from {{ in_place.temp_name('read') }} where relation is not null) as read
            left join {{ in_place.temp_name('notes') }} as notes using (relation)
        ),
        horizons as (
            select horizon from {{ in_place.temp_name('notes') }} where snapshot is not null
            union all
            select coalesce(horizon, '0') from read where horizon is not null or not is_raw
            union all
            select '0' from {{ in_place.temp_name('read') }} where function is not null
            {% for node in in_place.nearest_recorded_nodes(model.depends_on.nodes) -%}
                union all
                select coalesce(
                    (select horizon from {{ in_place.temp_name('notes') }} where relation = {{ in_place.node_oid(node) }}), '0'
                )
            {% endfor %}
        )
        select
            (select horizon::text from horizons order by horizons.horizon limit 1),
            (select string_agg(name, ', ') from (
                select relation::regclass::text as name from read where horizon is null and not is_raw
                union
                select function::regprocedure::text from {{ in_place.temp_name('read') }} where function is not null
            ) as unknown),
            (
                select string_agg(distinct function::regprocedure::text, ', ') from {{ in_place.temp_name('read') }}
                where function is not null
            )
    {%- endset -%}
    {%- set found = run_query(reach)[0] -%}
    {#- what the current model calls and PostgreSQL does not look into -#}
    {%- do in_place.memory().update({'functions': found[2]}) -%}
    {%- if found[1] and model.config.materialized == 'in_place_incremental' -%}
        {%- do log(
            this ~ ' computes all of its rows at each build, because these inputs have no known horizon: ' ~ found[1] ~ '.',
            info=true
        ) -%}
    {%- endif -%}
    {{ return(found[0]) }}
{% endmacro %}


{#-
  Whether the loader writes the relation's rows, and stamps each with the transaction that writes it: the relation is in
  the schema of the loader's own tables, or the stamp is a column's default. A copy of such a table has only the column.
-#}
{% macro is_raw(oid) -%}
    exists (
        select
        from pg_catalog.pg_attribute
        inner join pg_catalog.pg_class on pg_class.oid = attrelid
        left join pg_catalog.pg_attrdef on adrelid = attrelid and adnum = attnum
        where
            attrelid = {{ oid }}
            and relkind in ('r', 'p')
            and atttypid = 'xid8'::regtype
            and not attisdropped
            and (
                pg_get_expr(adbin, adrelid) = 'pg_current_xact_id()'
                or attname = '_tidemark_loaded_xid' and exists (
                    select from pg_catalog.pg_class as beside
                    where beside.relnamespace = pg_class.relnamespace and beside.relname = '_tidemark_state'
                )
            )
    )
{%- endmacro %}


{#- These nodes and all nodes below them. -#}
{% macro nodes_below(ids) %}
    {%- set found, ids = {}, ids | list -%}
    {%- for id in ids -%}
        {%- if id in graph.nodes and id not in found -%}
            {%- do found.update({id: graph.nodes[id]}) -%}
            {%- do ids.extend(graph.nodes[id].depends_on.nodes or []) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found.values() | list) }}
{% endmacro %}


{#- The nearest in-place tables and snapshots at or below these nodes. A model is never fresher than they are. -#}
{% macro nearest_recorded_nodes(ids) %}
    {%- set found, ids = {}, ids | list -%}
    {%- set recorded = in_place.materializations_with_rows() -%}
    {%- for id in ids -%}
        {%- if id in graph.nodes and id not in found -%}
            {%- do found.update({id: graph.nodes[id]}) -%}
            {%- if graph.nodes[id].config.materialized not in recorded -%}
                {%- do ids.extend(graph.nodes[id].depends_on.nodes or []) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found.values() | selectattr('config.materialized', 'in', recorded) | list) }}
{% endmacro %}


{#- An SQL expression for a relation's oid; null if there is no such relation. -#}
{% macro oid_of(relation) -%}
    to_regclass('{{ relation | replace("'", "''") }}')::oid
{%- endmacro %}


{#- SQL for the oid of a node's relation: its own, or the one that dbt defers to if it has none. -#}
{% macro node_oid(node) -%}
    {%- set own = api.Relation.create(schema=node.schema, identifier=node.alias) -%}
    {%- set oid = "to_regclass('" ~ own ~ "')::oid" -%}
    {%- set deferred = node.get('defer_relation') -%}
    {%- if deferred -%}
        {%- set deferred = api.Relation.create(schema=deferred.schema, identifier=deferred.alias) -%}
        {%- set oid = 'coalesce(' ~ oid ~ ", to_regclass('" ~ deferred ~ "')::oid)" -%}
    {%- endif -%}
    {{ in_place.cloned_oid(oid) if node.config.materialized in in_place.materializations_with_rows() else oid }}
{%- endmacro %}


{#- SQL for the oid of the table that `dbt clone` made a view of, or for the given oid: the changes of the table are logged. -#}
{% macro cloned_oid(oid) -%}
    coalesce(
        (
            select min(cloned.oid)
            from pg_catalog.pg_class as clone
            inner join pg_catalog.pg_rewrite on ev_class = clone.oid
            inner join pg_catalog.pg_depend on objid = pg_rewrite.oid and classid = 'pg_rewrite'::regclass
            inner join pg_catalog.pg_class as cloned
                on cloned.oid = refobjid and refclassid = 'pg_class'::regclass and cloned.oid <> clone.oid
            where
                clone.oid = {{ oid }}
                and clone.relkind = 'v'
            having
                count(distinct cloned.oid) = 1
                and bool_and(cloned.relname = clone.relname and cloned.relkind in ('r', 'p'))
        ),
        {{ oid }}
    )
{%- endmacro %}
