{#-
  Computes the model's rows into a temporary table; returns its columns as a list of {name, type}.

  Arguments:
    prepared: what in_place.prepare_by_key() returned; none for other materializations.
-#}
{% macro stage_rows(model_, complete, prepared=none) %}
    {%- set flag = config.get('delete_flag') -%}
    {%- set difference = prepared.difference if prepared is not none else none -%}
    {%- if difference is not none and not complete -%}
        {{ in_place.stage_rows_by_difference(model_, prepared.inputs[0], difference, in_place.last_snapshot(), prepared.columns) }}
    {%- elif prepared is not none and not complete -%}
        {{ in_place.stage_rows_by_key(model_, prepared.share) }}
    {%- else -%}
    {% call statement('stage') %}
        {{ config.get('sql_header') or '' }}
        drop table if exists pg_temp.{{ model_.stage }}, pg_temp.{{ model_.gone }};
        {% if not complete -%}
            -- a few rows are looked up by their keys; the default cost is for spinning disks and leads to full scans
            {{ in_place.set_for_now('random_page_cost', 1.1) }};
        {%- endif %}
        create temporary table {{ model_.stage }} as (
            {{ sql if difference is none else in_place.sql_with_snapshot() }}
        );
        create temporary table {{ model_.gone }} as
        select {{ in_place.column_list(model_.key) }} from {{ model_.stage }} limit 0;
        {{ in_place.set_back('random_page_cost') }};
    {% endcall %}
    {%- if difference is not none -%}{{ in_place.note_snapshot_of_stage(model_) }}{%- endif -%}
    {%- endif -%}
    {%- if flag and flag in in_place.table_columns('pg_temp.' ~ model_.stage) | map(attribute='name') -%}
        {#- rows that leave the table; only their keys are needed -#}
        {% call statement('gone') %}
            with gone as (delete from {{ model_.stage }} where {{ adapter.quote(flag) }} returning *)
            insert into {{ model_.gone }} select {{ in_place.column_list(model_.key) }} from gone;
            alter table {{ model_.stage }} drop column {{ adapter.quote(flag) }};
        {% endcall %}
    {%- endif -%}
    {{ return(in_place.checked_stage(model_)) }}
{% endmacro %}


{#-
  The columns of the staged rows. Refuses a null or duplicate key: the table could not tell such rows apart. Nothing has been
  written yet.
-#}
{% macro checked_stage(model_) %}
    {%- set key = in_place.column_list(model_.key) -%}
    {%- set never_null = model_.key | reject('in', model_.null_keys) | list -%}
    {%- set query -%}
        -- statistics of all columns would take longer than the merge
        analyze {{ model_.stage }} ({{ in_place.column_list(model_.match) }});
        select
            {{ in_place.columns_as_json("'pg_temp." ~ model_.stage ~ "'::regclass") }},
            (
                select json_build_array({{ in_place.shown_key(model_.key) }}, count(*))
                from {{ model_.stage }}
                group by {{ key }}
                having count(*) > 1{{ ' or num_nulls(' ~ in_place.column_list(never_null) ~ ') > 0' if never_null }}
                limit 1
            ),
            {% if model_.partition -%}
                (
                    select json_build_array({{ in_place.shown_key(model_.key) }})
                    from {{ model_.stage }}
                    where {{ adapter.quote(model_.partition) }} is null
                    limit 1
                )
            {%- else -%}
                null
            {%- endif %}
    {%- endset -%}
    {%- set columns, bad, homeless = run_query(query)[0].values() -%}
    {%- if bad -%}
        {%- set bad = fromjson(bad) -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ': the model gives ' ~ bad[1] ~ ' row(s) with ' ~ model_.key | join(', ') ~ ' = ('
            ~ bad[0] ~ '). unique_key allows one row for each value, and null only in the columns of null_keys. '
            ~ 'The table is unchanged.'
        ) -%}
    {%- elif homeless -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ': the row with ' ~ model_.key | join(', ') ~ ' = (' ~ fromjson(homeless)[0] ~ ') has no '
            ~ model_.partition ~ ', but the table is partitioned by it. The table is unchanged.'
        ) -%}
    {%- endif -%}
    {{ return(fromjson(columns)) }}
{% endmacro %}


{#- SQL for a row's key in a message, with null as 'null'. -#}
{% macro shown_key(names, alias=none) -%}
    concat_ws(', '{% for name in names %}, coalesce({{ alias ~ '.' if alias }}{{ adapter.quote(name) }}::text, 'null'){% endfor %})
{%- endmacro %}


{#-
  The columns of a table as a list of {name, type, collation}, with types as format_type() prints them and no collation if it is
  the type's; an empty list if there is no such table. A build asks for them once, and again after DDL.
-#}
{% macro table_columns(table) %}
    {%- set known = in_place.memory().columns -%}
    {%- if table | string not in known -%}
        {%- set columns = in_place.single_value('select ' ~ in_place.columns_as_json("to_regclass('" ~ table | replace("'", "''") ~ "')")) -%}
        {%- do known.update({table | string: fromjson(columns)}) -%}
    {%- endif -%}
    {{ return(known[table | string]) }}
{% endmacro %}


{#- An SQL expression for what table_columns() returns, as JSON. -#}
{% macro columns_as_json(oid) -%}
    coalesce((
        select json_agg(
            json_build_object(
                'name', attname,
                'type', format_type(atttypid, atttypmod),
                -- null if it is the type's own
                'collation', case when attcollation <> typcollation then attcollation::regcollation::text end
            )
            order by attnum
        )
        from pg_catalog.pg_attribute
        inner join pg_catalog.pg_type on pg_type.oid = atttypid
        where attrelid = {{ oid }} and attnum > 0 and not attisdropped
    ), '[]')
{%- endmacro %}


{% macro column_list(names, alias=none) -%}
    {%- for name in names -%}
        {{ alias ~ '.' if alias }}{{ adapter.quote(name) }}{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{% macro columns_equal(names, left, right) -%}
    {%- for name in names -%}
        {{ left }}.{{ adapter.quote(name) }} = {{ right }}.{{ adapter.quote(name) }}{{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
