{#-
  What a build by key finds out about its model before it reads a row: the inputs that `changed_by` names, and that nothing
  is to be refused. That takes some twenty queries, and their answers rarely change. So the last build's are kept in
  `_tidemark_models` with a fingerprint of all that they follow from: the model's SELECT and settings; the views, tables, columns,
  indexes and functions that it reads, and the size of the tables, fourfold or not; the server's version; the package's macros.
-#}

{#-
  Resolves `changed_by`, refuses what can't be built by key, and has the changes of the inputs logged. Call it before the build's
  snapshot is taken.

  Returns:
    {inputs, columns, definition, share, difference}: the resolved inputs, the names of the model's columns, a hash of its SELECT and
    of the views below it, what the planner expects of one key as a share of all rows, and in_place.difference_settings() of a
    model that is built by difference.
-#}
{% macro prepare_by_key(model_, there) %}
    {#- what --empty and --sample add to the SELECT can't be built by key, and is built as a whole -#}
    {%- if in_place.is_sampled() -%}
        {{ return({'inputs': [], 'columns': [], 'definition': none, 'share': none, 'difference': none}) }}
    {%- endif -%}
    {%- set trial = 'pg_temp.' ~ in_place.temp_name('trial') -%}
    {%- set query -%}
        {{ in_place.define_trial_view(model.compiled_code) }};
        select json_build_object(
            'columns', {{ in_place.columns_as_json("'" ~ trial ~ "'::regclass") }},
            'own_columns', {{ in_place.columns_as_json(in_place.oid_of(this)) }},
            'definition', {{ in_place.definition_of(trial) }},
            'fingerprint', {{ in_place.fingerprint_of(trial) }},
            -- as JSON: a table of an earlier version lacks this column until the next run
            'kept', (
                select to_jsonb(noted) -> 'preparation' from {{ in_place.models_table(this) }} as noted
                where model = {{ in_place.text_literal(this.identifier) }}
            )
        )
    {%- endset -%}
    {%- set found = fromjson(in_place.single_value(query)) -%}
    {%- do in_place.memory().columns.update({trial: found.columns, this | string: found.own_columns}) -%}
    {%- set columns = found.columns | map(attribute='name') | list -%}
    {%- set prepared = found.kept or {} -%}
    {%- if prepared.fingerprint != found.fingerprint or should_full_refresh() -%}
        {%- set prepared = in_place.checked_preparation(model_, trial, columns, there) -%}
        {%- do prepared.update({'fingerprint': found.fingerprint}) -%}
    {%- else -%}
        {{ in_place.create_keys_table(model_, trial, there) }}
        {%- do in_place.memory().columns.update(prepared.columns_of_inputs) -%}
    {%- endif -%}
    {%- do in_place.memory().update({'preparation': prepared}) -%}
    {{ in_place.track_changes(prepared.inputs | selectattr('kind', 'equalto', 'tracked') | map(attribute='tables') | sum(start=[])) }}
    {%- if prepared.difference is not none -%}{{ in_place.track_edits(prepared.inputs[0]) }}{%- endif -%}
    {{ return(dict(prepared, columns=columns, definition=found.definition)) }}
{% endmacro %}


{#- Checks the current model; returns what is kept of it: {inputs, share, difference, columns_of_inputs}. -#}
{% macro checked_preparation(model_, trial, columns, there) %}
    {{ in_place.refuse_misspelt_settings() }}
    {{ in_place.refuse_missing_columns(model_, columns) }}
    {%- set inputs = in_place.changed_by(model_, columns) -%}
    {{ in_place.create_keys_table(model_, trial, there) }}
    {%- set difference = in_place.difference_settings(model_, trial, columns, inputs) if config.get('by_difference') else none -%}
    {%- set share = in_place.refuse_by_key(model_, trial, columns, inputs) -%}
    {% call statement('reset') %}
        {{ in_place.set_back('max_parallel_workers_per_gather') }};
        {{ in_place.set_back('constraint_exclusion') }};
        {{ in_place.set_back('random_page_cost') }}
    {% endcall %}
    {%- set of_inputs = {} -%}
    {%- for relation, found in in_place.memory().columns.items() if relation != trial and relation != this | string -%}
        {%- do of_inputs.update({relation: found}) -%}
    {%- endfor -%}
    {{ return({'inputs': inputs, 'share': share, 'difference': difference, 'columns_of_inputs': of_inputs}) }}
{% endmacro %}


{#- SQL that notes what the current build prepared; null for a model that is not built by key. -#}
{% macro preparation_as_json() -%}
    {%- set prepared = in_place.memory().preparation -%}
    {%- if prepared -%}{{ in_place.text_literal(tojson(prepared)) }}::jsonb{%- else -%}null{%- endif -%}
{%- endmacro %}


{#- An SQL expression for the fingerprint. -#}
{% macro fingerprint_of(trial) -%}
    {%- set oids = ["'" ~ trial ~ "'::regclass::oid"] -%}
    {%- set named = in_place.as_list(config.get('static')) -%}
    {%- for entry in config.get('changed_by') or [] if entry is mapping -%}{%- do named.append(entry.get('model')) -%}{%- endfor -%}
    {%- set settings = {'macros': in_place.hash_of_macros(), 'dbt': dbt_version, 'columns': {}, 'inputs': [], 'names': model.config.keys() | sort} -%}
    {%- for node in in_place.nameable_inputs() if node.name in named -%}
        {%- do oids.append(in_place.node_oid(node)) -%}
        {#- how its changes are known, and what the SELECT calls it -#}
        {%- do settings.inputs.append([
            node.name, node.resource_type, node.config.get('materialized'), node.get('relation_name'),
            (node.get('defer_relation') or {}).get('relation_name'),
        ]) -%}
    {%- endfor -%}
    {%- for name in ['changed_by', 'static', 'unique_key', 'build_by', 'null_keys', 'by_difference', 'time_dependent', 'contract'] -%}
        {%- do settings.update({name: config.get(name) | string}) -%}
    {%- endfor -%}
    {%- for name, column in model.columns.items() -%}{%- do settings.columns.update({name: column.get('data_type')}) -%}{%- endfor -%}
    (
        with recursive read (oid) as (
            select oid from unnest(array[{{ oids | join(', ') }}]) as oid
            union
            select refobjid
            from read
            inner join pg_catalog.pg_class on pg_class.oid = read.oid and relkind = 'v'
            inner join pg_catalog.pg_rewrite on ev_class = read.oid
            inner join pg_catalog.pg_depend on objid = pg_rewrite.oid and classid = 'pg_rewrite'::regclass
            where refclassid = 'pg_class'::regclass
        ),

        relations as (
            select string_agg(concat_ws(
                ' ',
                case when pg_class.oid <> '{{ trial }}'::regclass then concat_ws(' ', pg_class.oid, relowner, nspname, relname) end,
                relkind, reloptions, pg_has_role(relowner, 'usage'),
                case when relkind = 'v' then pg_get_viewdef(pg_class.oid) end,
                case when relkind <> 'v' then floor(log(4, greatest(reltuples, 1)::numeric)) end,
                (
                    select string_agg(
                        concat_ws(',', attnum, attname, atttypid, format_type(atttypid, atttypmod), attcollation, attnotnull, pg_get_expr(adbin, adrelid)),
                        ';' order by attnum
                    )
                    from pg_catalog.pg_attribute
                    left join pg_catalog.pg_attrdef on adrelid = attrelid and adnum = attnum
                    where attrelid = pg_class.oid and attnum > 0 and not attisdropped
                ),
                (select string_agg(indexrelid::text, ',' order by indexrelid) from pg_catalog.pg_index where indrelid = pg_class.oid and indisvalid),
                (
                    select string_agg(pg_get_constraintdef(pg_constraint.oid), ',' order by pg_constraint.oid) from pg_catalog.pg_constraint
                    where conrelid = pg_class.oid and contype = 'c'
                ),
                -- a partition changes nothing; a table that inherits has triggers and stamps of its own
                case when relkind = 'r' then (
                    select string_agg(inhrelid::text, ',' order by inhrelid) from pg_catalog.pg_inherits where inhparent = pg_class.oid
                ) end,
                (
                    -- not to_regclass(), which needs a right to the schema: views below may read others
                    select string_agg(beside.oid::text, ',' order by beside.relname) from pg_catalog.pg_class as beside
                    where
                        beside.relnamespace = pg_class.relnamespace
                        and beside.relname in ('_tidemark_changes', '_tidemark_tracked', '_tidemark_state')
                )
            ), ';' order by pg_class.oid <> '{{ trial }}'::regclass, pg_class.oid) as text
            from (select distinct oid from read) as read
            inner join pg_catalog.pg_class on pg_class.oid = read.oid
            inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        ),

        functions as (
            select string_agg(concat(oid, prosrc, body, provolatile), ';' order by oid) as text
            from ({{ in_place.functions_in_reach('read') }}) as functions
        )

        select md5(concat_ws(
            ' ', '{{ local_md5(tojson(settings, sort_keys=true)) }}', current_setting('server_version'), current_user,
            (select text from relations), (select text from functions)
        ))
    )
{%- endmacro %}


{#- A hash of the package's macros, because another release may refuse more. -#}
{% macro hash_of_macros() %}
    {%- set asked = 'in_place macros in ' ~ invocation_id -%}
    {%- if asked not in graph -%}
        {%- set texts = [] -%}
        {%- for name, called in in_place.items() -%}{%- do texts.append(called.macro.macro_sql) -%}{%- endfor -%}
        {%- do graph.update({asked: local_md5(texts | sort | join)}) -%}
    {%- endif -%}
    {{ return(graph[asked]) }}
{% endmacro %}
