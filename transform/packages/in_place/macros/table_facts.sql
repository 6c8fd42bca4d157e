{#-
  What PostgreSQL's catalog says of the current model's table, in one query: a build that has nothing to alter asks once.
-#}

{#-
  Creates an empty temporary table with the contract's columns and constraints, if there is a contract, and compares.

  Returns:
    {columns, shape, differences, unique_indexes, indexes, partition, default_partition}. `columns` and `shape`: the table's and the
    contract's columns. `differences`: lists of [what, kind, name, definition] for in_place.compare_contract(). `partition`: name and
    type of the column that the table is partitioned by; none if it is not. `default_partition`: its quoted name, or none. For the
    others, see in_place.indexes_as_json() and in_place.unique_indexes_as_json().
-#}
{% macro table_facts(model_) %}
    {%- set has_contract = config.get('contract').enforced -%}
    {%- set table = "'" ~ model_.relation ~ "'::regclass" -%}
    {%- set shape = "'pg_temp." ~ model_.shape ~ "'::regclass" -%}
    {%- set query -%}
        {% if has_contract -%}
            drop table if exists pg_temp.{{ model_.shape }};
            create temporary table {{ model_.shape }} {{ get_table_columns_and_constraints() }};
        {%- endif %}
        select json_build_object(
            'columns', {{ in_place.columns_as_json(table) }},
            'shape', {{ in_place.columns_as_json(shape) if has_contract else "'[]'::json" }},
            'differences', {{ in_place.differences_as_json(table, shape) if has_contract else "'[]'::json" }},
            'unique_indexes', {{ in_place.unique_indexes_as_json(model_) }},
            'indexes', {{ in_place.indexes_as_json(model_) }},
            'partition', (
                select json_build_array(attname, format_type(atttypid, atttypmod))
                from pg_catalog.pg_partitioned_table
                inner join pg_catalog.pg_attribute on attrelid = partrelid and attnum = partattrs[0]
                where partrelid = {{ table }}
            ),
            'default_partition', (
                select format('%I.%I', nspname, relname)
                from pg_catalog.pg_partitioned_table
                inner join pg_catalog.pg_class on pg_class.oid = partdefid
                inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
                where partrelid = {{ table }}
            )
        )
    {%- endset -%}
    {%- set facts = fromjson(in_place.single_value(query)) -%}
    {%- do in_place.memory().columns.update({model_.relation | string: facts.columns}) -%}
    {{ return(facts) }}
{% endmacro %}


{#- An SQL expression for what a contract and a table do not have in common. -#}
{% macro differences_as_json(table, shape) -%}
    (
        with constraints as (
            select conrelid = {{ table }} as is_there, contype::text as kind, conname, pg_get_constraintdef(oid) as definition
            from pg_catalog.pg_constraint
            where contype in ('p', 'u', 'c', 'x') and conrelid in ({{ table }}, {{ shape }})
        ),

        nulls as (
            select
                attname,
                bool_or(attnotnull) filter (where attrelid = {{ table }}) as is_there,
                bool_or(attnotnull) filter (where attrelid = {{ shape }}) as is_wanted
            from pg_catalog.pg_attribute
            where attnum > 0 and not attisdropped and attrelid in ({{ table }}, {{ shape }})
            group by attname
        ),

        differences as (
            select case when is_there then 'gone' else 'missing' end as what, kind, conname::text as name, definition
            from constraints
            where not exists (
                select from constraints as other
                where other.is_there <> constraints.is_there and other.definition = constraints.definition
            )
            union all
            select case when is_wanted then 'not_null' else 'nullable' end, null, attname::text, null
            from nulls
            where is_wanted <> coalesce(is_there, false)
        )

        select coalesce(json_agg(json_build_array(what, kind, name, definition) order by what, definition, name), '[]')
        from differences
    )
{%- endmacro %}


{#-
  An SQL expression for the table's unique indexes: lists of [name, whether it is on plain columns and all rows, its columns,
  whether a constraint made it].
-#}
{% macro unique_indexes_as_json(model_) -%}
    coalesce((
        select json_agg(json_build_array(
            relname,
            indpred is null and indexprs is null,
            (
                select string_agg(attname, ', ' order by attname)
                from pg_catalog.pg_attribute
                where attrelid = indrelid and attnum = any(indkey)
            ),
            exists (select from pg_catalog.pg_constraint where conindid = indexrelid)
        ) order by relname)
        from pg_catalog.pg_index
        inner join pg_catalog.pg_class on pg_class.oid = indexrelid
        where indrelid = '{{ model_.relation }}'::regclass and indisunique and indnkeyatts = indnatts
    ), '[]')
{%- endmacro %}


{#-
  An SQL expression for the indexes that the model asks for, by the name that in_place.index_name() gives each: lists of [whether
  the table has it, the name that it gets]. A renamed table still has the names of its indexes, so a taken name gets another end.
-#}
{% macro indexes_as_json(model_) -%}
    {%- set names = [in_place.index_name(model_, in_place.key_index(model_))] -%}
    {%- for index in in_place.asked_indexes() -%}{%- do names.append(in_place.index_name(model_, index)) -%}{%- endfor -%}
    coalesce((
        select json_object_agg(name, json_build_array(
            exists (
                select from pg_catalog.pg_index
                inner join pg_catalog.pg_class on pg_class.oid = indexrelid
                where indrelid = '{{ model_.relation }}'::regclass and relname in (name, other)
            ),
            case
                when exists (
                    select from pg_catalog.pg_class as taken
                    where taken.relname = name and taken.relnamespace = (
                        select relnamespace from pg_catalog.pg_class where oid = '{{ model_.relation }}'::regclass
                    )
                ) then other
                else name
            end
        ))
        from (
            select name, left(name, -12) || left(md5(name || '{{ model_.relation }}'::regclass::oid::text), 12) as other
            from unnest({{ in_place.text_array(names | unique | list) }}) as name
        ) as names
    ), '{}')
{%- endmacro %}
