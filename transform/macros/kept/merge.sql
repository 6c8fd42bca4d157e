{#-
  Makes the table's rows those of the stage, writing only what differs; returns how many were inserted, updated and
  deleted. A row whose partition changes is deleted in the one and inserted in the other.

  Arguments:
    complete: whether the stage has all rows, so that what it lacks is to go; else what is to go is in `gone`.
-#}
{% macro kept_merge(model_, columns, complete) %}
    {%- set names = columns | map(attribute='name') | list -%}
    {#- compared as the table will have them: 0 and 0.00 are two images of one value -#}
    {%- set cast = [] -%}
    {%- for column in kept_columns(model_.relation) if column.name in names and column.name not in model_.match -%}
        {%- do cast.append({'name': column.name, 'type': column.type}) -%}
    {%- endfor -%}
    {%- set values = cast | map(attribute='name') | list -%}
    {%- set moved_keys = config.get('moved_keys') or [] -%}
    {%- set written = {'inserted': 0, 'updated': 0, 'deleted': 0} -%}

    {#- nobody else is to write it between the comparison and the end; who reads is not in the way -#}
    {% call statement('lock') %}
        lock table {{ model_.relation }} in share row exclusive mode
    {% endcall %}
    {%- if not complete -%}
        {{ kept_note_moved_keys(model_, moved_keys) }}
    {%- elif moved_keys -%}
        {{ kept_note_moved_keys(model_, moved_keys, complete=true) }}
    {%- endif -%}

    {%- if complete -%}
        {% call statement('delete') %}
            delete from {{ model_.relation }} as kept
            where not exists (
                select from {{ model_.stage }} as staged where {{ kept_equal(model_.match, 'staged', 'kept') }}
            )
        {% endcall %}
        {%- do written.update({'deleted': load_result('delete').response.rows_affected}) -%}
    {%- else -%}
        {% call statement('delete') %}
            delete from {{ model_.relation }} as kept using {{ model_.gone }} as gone
            where {{ kept_equal(model_.key, 'kept', 'gone') }}
        {% endcall %}
        {%- do written.update({'deleted': load_result('delete').response.rows_affected}) -%}
        {%- if model_.match != model_.key -%}
            {#- first told by key and partition, one probe a row: to look in all partitions is for the few others -#}
            {% call statement('leave') %}
                with elsewhere as materialized (
                    select {{ kept_list(model_.match) }} from {{ model_.stage }} as staged
                    where not exists (
                        select from {{ model_.relation }} as kept
                        where {{ kept_equal(model_.match, 'kept', 'staged') }}
                    )
                )
                delete from {{ model_.relation }} as kept using elsewhere
                where {{ kept_equal(model_.key, 'kept', 'elsewhere') }}
            {% endcall %}
        {%- endif -%}
    {%- endif -%}

    {%- if values -%}
        {% call statement('update') %}
            update {{ model_.relation }} as kept
            set {% for name in values -%}
                {{ adapter.quote(name) }} = staged.{{ adapter.quote(name) }}{{ ', ' if not loop.last }}
            {%- endfor %}
            from {{ model_.stage }} as staged
            where {{ kept_equal(model_.match, 'kept', 'staged') }}
                -- by their images, as there are types without equality
                and row({{ kept_list(values, 'kept') }})::record
                *<> row(
                    {%- for column in cast -%}
                        staged.{{ adapter.quote(column.name) }}::{{ column.type }}{{ ', ' if not loop.last }}
                    {%- endfor -%}
                )::record
        {% endcall %}
        {%- do written.update({'updated': load_result('update').response.rows_affected}) -%}
    {%- endif -%}
    {% call statement('insert') %}
        insert into {{ model_.relation }} ({{ kept_list(names) }})
        select {{ kept_list(names) }} from {{ model_.stage }} as staged
        where not exists (
            select from {{ model_.relation }} as kept where {{ kept_equal(model_.match, 'kept', 'staged') }}
        )
    {% endcall %}
    {%- do written.update({'inserted': load_result('insert').response.rows_affected}) -%}
    {%- if model_.match != model_.key -%}
        {{ kept_prove_unique(model_) }}
    {%- endif -%}
    {{ return(written) }}
{% endmacro %}


{#- No index of a partitioned table proves a key without the partition's column unique; this does, for staged keys. -#}
{% macro kept_prove_unique(model_) %}
    {%- set twice = run_query(
        "select concat_ws(', ', " ~ kept_list(model_.key, 'kept') ~ ") from " ~ model_.relation ~ " as kept inner join "
        ~ model_.stage ~ " as staged on " ~ kept_equal(model_.key, 'kept', 'staged') ~ " group by "
        ~ kept_list(model_.key, 'kept') ~ " having count(*) > 1 limit 1"
    ) -%}
    {%- if twice | length -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' has ' ~ model_.key | join(', ') ~ ' = (' ~ twice[0][0] ~ ') in two partitions, which no '
            ~ 'build of this model does: somebody else wrote it. Run it once with --full-refresh.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{% macro kept_analyze(relation, written) %}
    {#- autovacuum never looks at a partitioned table as a whole, and is late for one that was just filled -#}
    {%- set due = run_query(
        "select rows_since_analyze > 0.1 * rows_total from " ~ kept_control(relation) ~ " where model = '"
        ~ relation.identifier ~ "'"
    ).columns[0].values()[0] -%}
    {%- if due -%}
        {{ kept_begin() }}
        {% call statement('statistics') %}
            analyze {{ relation }};
            update {{ kept_control(relation) }} set rows_since_analyze = 0 where model = '{{ relation.identifier }}';
        {% endcall %}
        {%- do adapter.commit() -%}
    {%- endif -%}
{% endmacro %}
