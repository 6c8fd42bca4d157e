{#-
  The body of a project's own `seed` materialization. Its table is created once, and its rows are rewritten in one
  transaction, only if the file has other rows. dbt's own seed is truncated by each build, and a full refresh drops it with
  everything that depends on it. It fails if the file has another column. Here, if a column is removed or gets another type,
  the old table is set aside, as a view is.
-#}
{% macro build_seed() %}
    {%- set relation = this.incorporate(type='table') -%}
    {%- set there = in_place.exists_as(relation, 'r') -%}
    {%- set file = load_agate_table() -%}
    {%- do store_result('agate_table', response='OK', agate_table=file) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ in_place.begin_transaction() }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {{ in_place.run_if_any(in_place.stock_begins()) }}

    {%- set rows = file.rows | length -%}
    {{ in_place.stage_seed(file) }}
    {%- if not there -%}
        {{ in_place.run_ddl('create', 'create table ' ~ relation ~ ' (like ' ~ in_place.temp_name('stage') ~ ');') }}
    {%- endif -%}
    {%- set is_new = not there or in_place.alter_seed(relation) -%}
    {%- set is_other = in_place.fill_seed(relation, is_new) -%}
    {%- if is_new -%}
        {%- do create_indexes(relation) -%}
    {%- endif -%}
    {{ in_place.drop_temp_relations() }}
    {%- do store_raw_result(
        name='main',
        message=('INSERT ' ~ rows) if is_other else 'unchanged',
        code='INSERT',
        rows_affected=rows if is_other else 0,
    ) -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=there) -%}
    {{ in_place.update_comments(relation) }}

    {{ in_place.run_if_any(in_place.stock_ends()) }}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [relation]}) }}
{% endmacro %}


{#- Loads the file into a temporary table, with the types that dbt infers or that column_types sets. -#}
{% macro stage_seed(file) %}
    {%- set types, quotes = config.get('column_types') or {}, config.get('quote_columns') -%}
    {%- set stage, columns, names = in_place.temp_name('stage'), [], [] -%}
    {%- for name in file.column_names -%}
        {%- set quoted = adapter.quote_seed_column(name | string, quotes) -%}
        {%- do names.append(quoted) -%}
        {%- do columns.append(quoted ~ ' ' ~ types.get(name, adapter.convert_type(file, loop.index0))) -%}
    {%- endfor -%}
    {% call statement('stage') %}
        drop table if exists pg_temp.{{ stage }};
        create temporary table {{ stage }} ({{ columns | join(', ') }})
    {% endcall %}
    {%- set row = '(' ~ (['%s'] * names | length) | join(', ') ~ ')' -%}
    {%- for chunk in file.rows | batch(10000) -%}
        {%- set values = [] -%}
        {%- for one in chunk -%}{%- do values.extend(one) -%}{%- endfor -%}
        {%- do adapter.add_query(
            'insert into ' ~ stage ~ ' (' ~ names | join(', ') ~ ') values ' ~ ([row] * chunk | length) | join(', '),
            bindings=values, abridge_sql_log=True
        ) -%}
    {%- endfor -%}
{% endmacro %}


{#- Gives the table the file's columns; returns whether that created a new table. -#}
{% macro alter_seed(relation) %}
    {%- set has, wanted, lost, added = {}, {}, [], [] -%}
    {%- for column in in_place.table_columns(relation) -%}{%- do has.update({column.name: column.type}) -%}{%- endfor -%}
    {%- for column in in_place.table_columns('pg_temp.' ~ in_place.temp_name('stage')) -%}
        {%- do wanted.update({column.name: column.type}) -%}
        {%- if column.name not in has -%}
            {%- do added.append('add column ' ~ adapter.quote(column.name) ~ ' ' ~ column.type) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name, type in has.items() if wanted.get(name) != type -%}{%- do lost.append(name) -%}{%- endfor -%}
    {%- if lost -%}
        {{ in_place.replace_relation(relation, lost, 'create table ' ~ relation ~ ' (like ' ~ in_place.temp_name('stage') ~ ');') }}
    {%- elif added -%}
        {{ in_place.run_ddl('columns', 'alter table ' ~ relation ~ ' ' ~ added | join(', ') ~ ';') }}
    {%- endif -%}
    {{ return(lost | length > 0) }}
{% endmacro %}


{#-
  Makes the table's rows equal to the file's. Records that for the in-place tables above it, because a seed's row does not say when
  it was written. Returns whether the rows changed.
-#}
{% macro fill_seed(relation, is_new) %}
    {%- set names = in_place.column_list(in_place.table_columns('pg_temp.' ~ in_place.temp_name('stage')) | map(attribute='name') | list) -%}
    {%- set query -%}
        with existing as (
            select row({{ names }})::text from {{ relation }}
        ),
        staged as (
            select row({{ names }})::text from {{ in_place.temp_name('stage') }}
        )
        select exists (
            (select * from existing except all select * from staged)
            union all
            (select * from staged except all select * from existing)
        )
    {%- endset -%}
    {%- set is_other = is_new or in_place.single_value(query) -%}
    {%- if is_other -%}
        {% call statement('fill') %}
            delete from {{ relation }};
            insert into {{ relation }} ({{ names }}) select {{ names }} from {{ in_place.temp_name('stage') }}
        {% endcall %}
        {%- if in_place.exists(in_place.models_table(relation)) -%}
            {% call statement('remade') %}
                update {{ in_place.models_table(relation) }}
                set changed_xid = pg_current_xact_id(), remade_xid = pg_current_xact_id()
                where model = '{{ relation.identifier }}'
            {% endcall %}
        {%- endif -%}
    {%- endif -%}
    {{ return(is_other) }}
{% endmacro %}
