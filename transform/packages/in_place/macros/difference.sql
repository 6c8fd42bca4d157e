{#-
  by_difference: a model of counts and sums by group, built by what each change adds and takes away. Its cost follows the
  changes, however large the groups are. Each change must be read exactly once, so it is for models of one kind only:

      select group columns, count(*), count(a), sum(a), … from one in-place table [where …] group by group columns

  The SELECT is evaluated over the old and over the new rows of the changes alone. What it gives is subtracted and added.
-#}

{#-
  Checks that the current model is of that kind, by PostgreSQL's plan of it.

  Returns:
    {rows, sums, counts, numerics}: the column with count(*); for each column with a sum, the column that counts its values; the
    other counts; for each column with a sum of numeric values, the input's column.
-#}
{% macro difference_settings(model_, trial, columns, inputs) %}
    {%- set types = {} -%}
    {%- for column in in_place.table_columns(trial) -%}{%- do types.update({column.name: column.type}) -%}{%- endfor -%}
    {%- set declared = in_place.declared_types(model_) -%}
    {%- set plan = in_place.plan_of(
        in_place.set_for_now('max_parallel_workers_per_gather', 0) ~ '; explain (format json, verbose) select * from ' ~ trial
    ) -%}
    {%- set input = inputs[0] -%}
    {%- set is_one_logged_table = inputs | length == 1 and input.kind == 'logged' -%}
    {%- if not is_one_logged_table or in_place.tables_below(trial) | map(attribute='relation') | list != [input.relation] -%}
        {{ in_place.refuse_difference('it reads more than one table, or one that does not log its changes') }}
    {%- endif -%}
    {%- set nodes = [] -%}
    {{ in_place.collect_nodes(plan, nodes) }}
    {%- set others = nodes | rejectattr('Node Type', 'in', [
        'Aggregate', 'Group', 'Sort', 'Incremental Sort', 'Append',
        'Seq Scan', 'Index Scan', 'Index Only Scan', 'Bitmap Heap Scan', 'Bitmap Index Scan'
    ]) | list -%}
    {%- if plan['Node Type'] != 'Aggregate' or plan.get('Filter') or others or not plan.get('Group Key') -%}
        {{ in_place.refuse_difference(
            'it is more than a GROUP BY of one table: '
            ~ (in_place.in_words(others[0]) if others else 'HAVING, or an expression over the sums')
        ) }}
    {%- endif -%}
    {%- set found, aggregates = {'rows': none, 'sums': {}, 'counts': [], 'numerics': {}}, {} -%}
    {%- for name in columns if name not in model_.key -%}
        {%- set output = plan['Output'][columns.index(name)] -%}
        {%- set aggregate = modules.re.fullmatch(
            '\\(?(count|sum)\\((\\*|[\\w".]+)\\)\\)?(::(integer|bigint|numeric(\\([\\d,]+\\))?))?', output
        ) -%}
        {%- if not aggregate or in_place.scale_of(types[name]) is none -%}
            {{ in_place.refuse_difference(
                name ~ ' is ' ~ output ~ ' of type ' ~ types[name]
                ~ ', and not a count or a sum of a column, of an integer or numeric type'
            ) }}
        {%- endif -%}
        {%- do aggregates.update({name: [aggregate.group(1), aggregate.group(2)]}) -%}
        {%- if aggregate.group(2) == '*' -%}{%- do found.update({'rows': name}) -%}{%- endif -%}
    {%- endfor -%}
    {%- if found.rows is none -%}
        {{ in_place.refuse_difference('it has no count(*), which says when a group has no rows left') }}
    {%- endif -%}
    {%- for name, aggregate in aggregates.items() -%}
        {%- if aggregate[0] == 'count' -%}
            {%- do found.counts.append(name) -%}
        {%- else -%}
            {%- set counting = [] -%}
            {%- for other, counted in aggregates.items() if counted == ['count', aggregate[1]] -%}
                {%- do counting.append(other) -%}
            {%- endfor -%}
            {%- set summed = in_place.printed_column(input.relation, aggregate[1]) -%}
            {%- if not counting and summed.not_null -%}{%- do counting.append(found.rows) -%}{%- endif -%}
            {%- if not counting -%}
                {{ in_place.refuse_difference(name ~ ' needs count(' ~ aggregate[1] ~ ') beside it, which says when the sum is null') }}
            {%- endif -%}
            {%- do found.sums.update({name: counting[0]}) -%}
            {{ in_place.refuse_rounded_sum(name, summed, [types[name], declared.get(name) or types[name]]) }}
            {%- if summed.type.startswith('numeric') -%}{%- do found.numerics.update({name: summed.name}) -%}{%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{ in_place.refuse_untracked_columns(input, nodes) }}
    {{ return(found) }}
{% endmacro %}


{#- How many digits a type keeps after the point: `any` for numeric without a limit; none if it is no exact number. -#}
{% macro scale_of(type) %}
    {%- if type in ['smallint', 'integer', 'bigint'] -%}{{ return(0) }}{%- endif -%}
    {%- set numeric = modules.re.fullmatch('numeric(?:\\(\\d+,(-?\\d+)\\))?', type) -%}
    {{ return((numeric.group(1) | int if numeric.group(1) else 'any') if numeric else none) }}
{% endmacro %}


{#-
  Refuses a sum that differs from the sum of its differences: if each of them is rounded, the roundings add up; and if values have no
  fixed scale, a sum shows as many digits as its longest value, so 21.0 would not become 21 when 1.5 and 0.5 leave it.

  Arguments:
    summed: the input's column, of in_place.printed_column().
    types: the sum's type in the SELECT, and that in the contract.
-#}
{% macro refuse_rounded_sum(name, summed, types) %}
    {%- set scale = in_place.scale_of(summed.type) -%}
    {%- if scale is none or scale == 'any' -%}
        {{ in_place.refuse_difference(
            name ~ ' sums ' ~ summed.name ~ ' of type ' ~ summed.type
            ~ ', which keeps no fixed number of digits: cast it in the model that has it, as in ' ~ summed.name ~ '::numeric(18, 2)'
        ) }}
    {%- endif -%}
    {%- for wanted in types -%}
        {%- set kept = in_place.scale_of(wanted) -%}
        {%- if kept is none or (kept != 'any' and kept < scale) -%}
            {{ in_place.refuse_difference(
                name ~ ' is a sum of ' ~ summed.type ~ ' as ' ~ wanted ~ ', which would round each difference: give it ' ~ scale
                ~ ' digits after the point, and round it in a view above'
            ) }}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{% macro refuse_difference(why) %}
    {%- do exceptions.raise_compiler_error(
        this ~ ' cannot be built by_difference: ' ~ why ~ '. Such a model is: select group columns, count(*), count(a), sum(a) from one in-place table '
        ~ 'where … group by group columns. Take by_difference out, or the rest into a view above. Nothing was changed.'
    ) -%}
{% endmacro %}


{#- A relation's column, as a plan prints it: {name, type, not_null}. -#}
{% macro printed_column(relation, printed) %}
    {%- set query -%}
        select json_build_object('name', attname, 'type', format_type(atttypid, atttypmod), 'not_null', attnotnull)
        from pg_catalog.pg_attribute
        where
            attrelid = '{{ relation }}'::regclass and attnum > 0 and not attisdropped
            -- with the table's alias, or without
            and right({{ in_place.text_literal('.' ~ printed) }}, length(quote_ident(attname)) + 1) = '.' || quote_ident(attname)
    {%- endset -%}
    {{ return(fromjson(in_place.single_value(query))) }}
{% endmacro %}


{#-
  Whether a sum of a group that changed is NaN, or has a NaN that came or went: nothing can be taken away from NaN again.

  Arguments:
    keys: the table of the changed groups.
-#}
{% macro meets_nan(model_, input, settings, snapshot, keys) %}
    {%- if not settings.numerics -%}{{ return(false) }}{%- endif -%}
    {%- set query -%}
        select
            exists (
                select from {{ input.schema }}._tidemark_changes as in_place_changes
                where
                    in_place_changes.model = {{ in_place.text_literal(input.identifier) }}
                    and {{ in_place.is_later('in_place_changes.xid', snapshot) }}
                    and 'NaN' in (
                        {%- for column in settings.numerics.values() | unique %}
                            in_place_changes.old ->> {{ in_place.text_literal(column) }},
                            in_place_changes.new ->> {{ in_place.text_literal(column) }}{{ ',' if not loop.last }}
                        {%- endfor %}
                    )
            )
            or exists (
                select
                from {{ keys }} as in_place_keys
                inner join {{ model_.relation }} as existing
                    on {{ in_place.keys_equal(model_, model_.key, 'existing', 'in_place_keys', by_index=true) }}
                where
                    'NaN' in (
                        {%- for name in settings.numerics %}
                            existing.{{ adapter.quote(name) }}::numeric{{ ',' if not loop.last }}
                        {%- endfor %}
                    )
            )
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- Refuses a model that reads columns which the log of the input's changes does not have. -#}
{% macro refuse_untracked_columns(input, nodes) %}
    {%- set texts = [] -%}
    {%- for node in nodes -%}
        {%- for name in ['Filter', 'Index Cond', 'Recheck Cond'] -%}{%- do texts.append(node.get(name) or '') -%}{%- endfor -%}
        {%- if node['Node Type'] == 'Aggregate' -%}{%- do texts.extend(node['Output'] + node.get('Group Key', [])) -%}{%- endif -%}
    {%- endfor -%}
    {%- set tracked = in_place.columns_in_use(input.relation, input.key.values() | list + input.columns) -%}
    {%- set missing = in_place.columns_in_use(input.relation, texts) | reject('in', tracked) | list -%}
    {%- if missing -%}
        {{ in_place.refuse_difference(
            "changed_by must say all that it reads: add 'columns': " ~ (tracked + missing) | unique | list ~ ' to the entry of ' ~ input.name
        ) }}
    {%- endif -%}
{% endmacro %}


{#- Stages the groups of the staged keys with what the changes since `snapshot` add to them and take from them. -#}
{% macro stage_rows_by_difference(model_, input, settings, snapshot, columns) %}
    {%- set old, new = in_place.temp_name('old'), in_place.temp_name('new') -%}
    {%- set own, deferred = input.own_name, input.deferred_name -%}
    {%- set read = own if own in model.compiled_code else deferred -%}
    {%- if not read or read not in model.compiled_code -%}
        {{ in_place.refuse_difference('its SELECT does not name ' ~ own) }}
    {%- endif -%}
    {%- set measures = settings.counts + settings.sums.keys() | list -%}
    {% call statement('difference') %}
        drop table if exists pg_temp.{{ model_.stage }}, pg_temp.{{ model_.gone }}, pg_temp.{{ old }}, pg_temp.{{ new }};
        {{ in_place.set_for_now('random_page_cost', 1.1) }};
        {% for version, table in {'old': old, 'new': new}.items() -%}
            create temporary table {{ table }} as
            select changed.*
            from {{ input.schema }}._tidemark_changes as in_place_changes
            cross join lateral jsonb_populate_record(null::{{ input.relation }}, in_place_changes.{{ version }}) as changed
            where
                in_place_changes.model = {{ in_place.text_literal(input.identifier) }}
                and in_place_changes.{{ version }} is not null
                and {{ in_place.is_later('in_place_changes.xid', snapshot) }}
                -- what commits later is read by the next build: each change counts exactly once
                and pg_visible_in_snapshot(in_place_changes.xid, {{ in_place.read_snapshot() }});
        {% endfor -%}
        create temporary table {{ model_.stage }} as
        with changed as (
            select 1 as in_place_sign, * from ({{ model.compiled_code | replace(read, 'pg_temp.' ~ new) }}) as added
            union all
            select -1, * from ({{ model.compiled_code | replace(read, 'pg_temp.' ~ old) }}) as taken
        ),

        differences as (
            select
                {{ in_place.column_list(model_.key) }},
                {%- for name in measures %}
                    coalesce(sum(in_place_sign * {{ adapter.quote(name) }}), 0) as {{ adapter.quote(name) }}{{ ',' if not loop.last }}
                {%- endfor %}
            from changed
            group by {{ in_place.column_list(model_.key) }}
        ),

        totals as (
            select
                {{ in_place.column_list(model_.key, 'differences') }},
                {%- for name in measures %}
                    coalesce(existing.{{ adapter.quote(name) }}, 0) + differences.{{ adapter.quote(name) }} as {{ adapter.quote(name) }}
                    {{- ',' if not loop.last }}
                {%- endfor %}
            from differences
            left join lateral (
                select * from {{ model_.relation }} as found
                where {{ in_place.keys_equal(model_, model_.key, 'found', 'differences', by_index=true) }}
                offset 0
            ) as existing on true
        )

        select
            {% for name in columns -%}
                {% if name in settings.sums -%}
                    case
                        when {{ adapter.quote(settings.sums[name]) }} > 0 then {{ adapter.quote(name) }}
                    end as {{ adapter.quote(name) }}
                {%- else -%}
                    {{ adapter.quote(name) }}
                {%- endif -%}
                {{ ', ' if not loop.last }}
            {%- endfor %}
        from totals;
        create temporary table {{ model_.gone }} as
        select {{ in_place.column_list(model_.key) }} from {{ model_.stage }} where {{ adapter.quote(settings.rows) }} = 0;
        delete from {{ model_.stage }} where {{ adapter.quote(settings.rows) }} = 0;
        {{ in_place.set_back('random_page_cost') }};
        drop table pg_temp.{{ old }}, pg_temp.{{ new }}
    {% endcall %}
    {%- set query -%}
        select exists (select from {{ model_.stage }} where least({{ in_place.column_list(settings.counts) }}) < 0)
    {%- endset -%}
    {%- if in_place.single_value(query) -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' has fewer rows in a group than its input lost: somebody else wrote it. Run it once with --full-refresh. Nothing was changed.'
        ) -%}
    {%- endif -%}
    {{ in_place.cast_stage(model_, columns) }}
{% endmacro %}


{#- Gives the staged columns the types of the table's. -#}
{% macro cast_stage(model_, columns) %}
    {% call statement('cast') %}
        alter table {{ model_.stage }}
        {%- for column in in_place.table_columns(model_.relation) if column.name in columns %}
            alter column {{ adapter.quote(column.name) }} type {{ column.type }}
            using {{ adapter.quote(column.name) }}::{{ column.type }}{{ ',' if not loop.last }}
        {%- endfor %}
    {% endcall %}
{% endmacro %}


{#-
  The SQL of a full build whose next one is by difference: with the snapshot in which it reads, because a change that
  commits after the build's notes and before this must not count twice.
-#}
{% macro sql_with_snapshot() -%}
    select model.*, pg_current_snapshot() as in_place_snapshot from ({{ sql }}) as model
{%- endmacro %}


{#- Takes the snapshot out of the stage and into the build's notes. Without a row it is unknown, and the next build is a full one. -#}
{% macro note_snapshot_of_stage(model_) %}
    {% call statement('snapshot of stage') %}
        update pg_temp.{{ in_place.temp_name('notes') }} set snapshot = (select in_place_snapshot from {{ model_.stage }} limit 1)
        where snapshot is not null;
        alter table {{ model_.stage }} drop column in_place_snapshot
    {% endcall %}
{% endmacro %}
