{#-
  Creates the empty table, with the contract's types and constraints if the model has one.

  Returns the dropped constraints that need an index, for in_place.add_index_constraints() once the table has its rows: an
  index that is built at the end takes a fraction of the time and of the WAL of one that each row is inserted into.
-#}
{% macro create_table(model_, columns) %}
    {%- set partitions -%}
        {%- if model_.partition_by %} partition by range ({{ adapter.quote(model_.partition) }}){% endif -%}
    {%- endset -%}
    {% call statement('create') %}
        create table {{ model_.relation }}
        {% if config.get('contract').enforced -%}
            {{ get_table_columns_and_constraints() }}
        {%- else -%}
            (
                {%- for column in columns -%}
                    {{ adapter.quote(column.name) }} {{ column.type }}{{ ', ' if not loop.last }}
                {%- endfor -%}
            )
        {%- endif -%}
        {{ partitions }};
    {% endcall %}
    {%- do in_place.memory().columns.clear() -%}
    {%- if model_.partition_by -%}
        {{ in_place.create_partitions(model_) }}
    {%- endif -%}
    {#- last: to create a partition, rows are deleted from the default one, which a publication allows only with its key -#}
    {{ return(in_place.drop_index_constraints(model_) if config.get('contract').enforced else []) }}
{% endmacro %}


{#-
  Works out how to bring the table to the model's shape, as far as on_schema_change or a full refresh allows: it gets the
  model's columns and key, and loses constraints that the contract no longer has. Raises if that is not allowed.

  Returns `actions` for one ALTER TABLE, `casts` (columns that get another type) and `old_indexes` to drop, and `anew`, which says how to rewrite all rows if the old
  ones can't be compared with the new ones. 'with the shape': in one transaction, because the old values can't be cast.
  'after it': because the key changed. '': they can be compared.

  Arguments:
    facts: in_place.table_facts().
-#}
{% macro shape_changes(model_, columns, contract, facts) %}
    {%- set has, wanted = {}, {} -%}
    {%- for column in facts.columns -%}
        {%- do has.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- for column in contract.columns or columns -%}
        {%- do wanted.update({column.name: column.type}) -%}
    {%- endfor -%}
    {{ in_place.refuse_partition_change(model_, wanted.get(model_.partition, 'no column'), facts) }}
    {%- set all_may_change = should_full_refresh() -%}
    {%- set appends = config.get('on_schema_change') == 'append_new_columns' -%}
    {%- set actions, refused, casts = [], [], {} -%}
    {%- if all_may_change -%}
        {%- for name in contract.gone -%}
            {%- do actions.append('drop constraint ' ~ adapter.quote(name)) -%}
        {%- endfor -%}
        {%- for name in contract.nullable if name in wanted -%}
            {%- do actions.append('alter column ' ~ adapter.quote(name) ~ ' drop not null') -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for name, type in wanted.items() if name not in has -%}
        {%- if all_may_change or appends -%}
            {%- do actions.append('add column ' ~ adapter.quote(name) ~ ' ' ~ type) -%}
        {%- else -%}
            {%- do refused.append('lacks ' ~ name ~ ' (' ~ type ~ ')') -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name, type in has.items() -%}
        {%- if name not in wanted -%}
            {%- if all_may_change -%}
                {%- do actions.append('drop column ' ~ adapter.quote(name)) -%}
            {%- elif not appends -%}
                {%- do refused.append('has ' ~ name ~ ' (' ~ type ~ '), which the model lacks') -%}
            {%- endif -%}
        {%- elif not (wanted[name] == type or (not contract.columns and in_place.type_fits(wanted[name], type))) -%}
            {%- if all_may_change -%}
                {%- do casts.update({name: wanted[name]}) -%}
            {%- else -%}
                {%- do refused.append('has ' ~ name ~ ' as ' ~ type ~ ', the model as ' ~ wanted[name]) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if not all_may_change -%}
        {%- for name in contract.not_null if name in has or appends -%}
            {%- do refused.append('lacks not null on ' ~ name) -%}
        {%- endfor -%}
        {%- for constraint in contract.missing -%}
            {%- do refused.append('lacks ' ~ constraint.definition) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set keys = in_place.unique_indexes(model_, facts.unique_indexes) -%}
    {%- if keys.old and not all_may_change -%}
        {%- do refused.append(
            'has the key (' ~ keys.old | map(attribute='columns') | join('), (') ~ '), the model ('
            ~ model_.match | join(', ') ~ ')'
        ) -%}
    {%- endif -%}
    {%- if refused -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' ' ~ refused | join('; ')
            ~ '. Run it once with --full-refresh, which alters the table in place and keeps what depends on it. '
            ~ 'For columns that are only new, you can also set on_schema_change: append_new_columns.'
        ) -%}
    {%- endif -%}
    {%- if all_may_change -%}
        {{ in_place.refuse_columns_of_views(model_, has.keys() | reject('in', wanted) | list + casts.keys() | list) }}
    {%- endif -%}
    {%- set old = keys.old | map(attribute='name') | list -%}
    {%- if casts -%}
        {#- their conditions may not be valid for the new types; create_missing_indexes creates them again -#}
        {%- set partial_query -%}
            select relname::text
            from pg_catalog.pg_index
            inner join pg_catalog.pg_class on pg_class.oid = indexrelid
            where indpred is not null and indrelid = '{{ model_.relation }}'::regclass
        {%- endset -%}
        {%- for name in in_place.first_column(partial_query) if in_place.is_index_name(model_, name) -%}
            {%- do old.append(name) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set castable = not casts or in_place.can_cast(model_, casts) -%}
    {%- for name, type in casts.items() -%}
        {%- do actions.append(
            'alter column ' ~ adapter.quote(name) ~ ' type ' ~ type ~ ' using '
            ~ (adapter.quote(name) if castable else 'null') ~ '::' ~ type
        ) -%}
    {%- endfor -%}
    {%- set anew = '' -%}
    {%- if all_may_change and not castable -%}
        {%- set anew = 'with the shape' -%}
    {%- elif all_may_change and (keys.old or not keys.there) -%}
        {%- set anew = 'after it' -%}
    {%- endif -%}
    {{ return({'actions': actions, 'old_indexes': old | unique | list, 'anew': anew, 'casts': casts}) }}
{% endmacro %}


{#-
  Refuses to drop or retype a column that a view reads, before anything is changed. The owner of the view decides whether
  it may go. If a developer built it by deferral, the developer's next build creates it again.
-#}
{% macro refuse_columns_of_views(model_, columns) %}
    {%- set names = [] -%}
    {%- for name in columns -%}
        {%- do names.append("'" ~ name | replace("'", "''") ~ "'") -%}
    {%- endfor -%}
    {%- if not names -%}{{ return('') }}{%- endif -%}
    {%- set query -%}
        with recursive above (oid, depth) as (
            select ev_class, 1
            from pg_catalog.pg_depend
            inner join pg_catalog.pg_rewrite on pg_rewrite.oid = objid and classid = 'pg_rewrite'::regclass
            inner join pg_catalog.pg_attribute on attrelid = refobjid and attnum = refobjsubid
            where
                refclassid = 'pg_class'::regclass
                and refobjid = '{{ model_.relation }}'::regclass
                and attname in ({{ names | join(', ') }})
            union
            select ev_class, depth + 1
            from above
            inner join pg_catalog.pg_depend
                on refclassid = 'pg_class'::regclass and refobjid = above.oid and classid = 'pg_rewrite'::regclass
            inner join pg_catalog.pg_rewrite on pg_rewrite.oid = objid and ev_class <> refobjid
        )
        select
            format('%I.%I', nspname, relname),
            nspname::text,
            pg_get_userbyid(relowner)::text,
            case relkind when 'm' then 'materialized view' else 'view' end
        from above
        inner join pg_catalog.pg_class using (oid)
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where relkind in ('v', 'm')
        group by 1, 2, 3, 4
        order by max(depth) desc, 1
    {%- endset -%}
    {%- set held = run_query(query) | list -%}
    {%- set views, drops, sandboxes = [], [], in_place.developer_schemas() if held else [] -%}
    {%- for row in held -%}
        {%- set whose = "in a developer's schema, " if row[1] in sandboxes else '' -%}
        {%- do views.append(row[3] ~ ' ' ~ row[0] ~ ' (' ~ whose ~ 'owner ' ~ row[2] ~ ')') -%}
        {%- do drops.append('drop ' ~ row[3] ~ ' ' ~ row[0] ~ ';') -%}
    {%- endfor -%}
    {%- if views -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' is to drop or retype ' ~ columns | join(', ') ~ ', but views depend on it: ' ~ views | join(', ')
            ~ '. Nothing was changed. The next build of a model creates its view again; keep the definition of any other '
            ~ 'view. Run this again after: ' ~ drops | join(' ')
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- Whether all old values can be cast to the new types of their columns; alters nothing. -#}
{% macro can_cast(model_, casts) %}
    {%- set trial -%}
        select
            {%- for name, type in casts.items() %}
                count({{ adapter.quote(name) }}::{{ type }}){{ ',' if not loop.last }}
            {%- endfor %}
        from {{ model_.relation }}
    {%- endset -%}
    {%- set tag = in_place.dollar_tag(trial) -%}
    {% call statement('can cast') %}
        do {{ tag }}
        begin
            perform set_config('in_place.can_cast', 'yes', true);
            perform * from ({{ trial }}) as trial;
        exception when others then
            -- a value that can't be cast, or two types without a cast; any other error is raised
            if sqlstate !~ '^(22|42846|42804|23)' then raise; end if;
            perform set_config('in_place.can_cast', 'no', true);
        end
        {{ tag }}
    {% endcall %}
    {{ return(in_place.single_value("select current_setting('in_place.can_cast')") == 'yes') }}
{% endmacro %}


{#- Applies the result of shape_changes. -#}
{% macro alter_shape(model_, change) %}
    {%- set ddl = [] -%}
    {%- for name in change.old_indexes -%}
        {%- do ddl.append('drop index ' ~ adapter.quote(model_.relation.schema) ~ '.' ~ adapter.quote(name) ~ ';') -%}
    {%- endfor -%}
    {%- if change.actions -%}
        {%- do ddl.append('alter table ' ~ model_.relation ~ ' ' ~ change.actions | join(', ') ~ ';') -%}
    {%- endif -%}
    {%- if ddl -%}
        {{ in_place.run_ddl('columns', ddl | join(' ')) }}
    {%- endif -%}
{% endmacro %}


{#- Deletes all rows and returns their number. Other sessions see the rows until the commit. -#}
{% macro delete_all_rows(model_) %}
    {% call statement('delete all') %}
        {{ in_place.writes_begin(model_.relation) }};
        lock table {{ model_.relation }} in share row exclusive mode;
        delete from {{ model_.relation }}
    {% endcall %}
    {{ return(load_result('delete all').response.rows_affected) }}
{% endmacro %}


{#-
  `there`: whether the table has a unique index on the model's key. `old`: unique indexes of earlier builds that the model
  no longer asks for, that is, the indexes of an earlier key.

  Arguments:
    found: what in_place.unique_indexes_as_json() gave.
-#}
{% macro unique_indexes(model_, found) %}
    {%- set asked = [] -%}
    {%- for index in in_place.asked_indexes() if index.get('unique') -%}
        {%- do asked.append(in_place.index_name(model_, index)) -%}
    {%- endfor -%}
    {%- set keys = {'there': false, 'old': []} -%}
    {%- for name, is_plain, columns, has_constraint in found -%}
        {%- if is_plain and columns == model_.match | sort | join(', ') -%}
            {%- do keys.update({'there': true}) -%}
        {%- elif not has_constraint and name not in asked and in_place.is_index_name(model_, name) -%}
            {%- do keys.old.append({'name': name, 'columns': columns}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(keys) }}
{% endmacro %}


{#- Whether values of type `type` from a query fit into the table's type. A query's numeric often has no precision. -#}
{% macro type_fits(type, into) %}
    {{ return(type == into or (type == 'numeric' and into.startswith('numeric('))
        or (type in ('text', 'character varying') and into.startswith('character varying'))) }}
{% endmacro %}


{#- The indexes that the model's config asks for. -#}
{% macro asked_indexes() %}
    {{ return((config.get('indexes') or []) + (config.get('partial_indexes') or [])) }}
{% endmacro %}


{#- The unique index on the model's key. -#}
{% macro key_index(model_) %}
    {{ return({'columns': model_.match, 'unique': true, 'null_keys': model_.null_keys}) }}
{% endmacro %}


{#- The indexes that the table lacks: a list of {index, name}. -#}
{% macro missing_indexes(model_, facts) %}
    {%- set wanted, missing = in_place.asked_indexes() | list, [] -%}
    {%- if not in_place.unique_indexes(model_, facts.unique_indexes).there -%}
        {%- do wanted.insert(0, in_place.key_index(model_)) -%}
    {%- endif -%}
    {%- for index in wanted -%}
        {%- set is_there, name = facts.indexes[in_place.index_name(model_, index)] -%}
        {%- if not is_there -%}{%- do missing.append({'index': index, 'name': name}) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(missing) }}
{% endmacro %}


{#-
  Creates the missing indexes of `indexes` and `partial_indexes`, and a unique one on the key.

  Arguments:
    are_unique: whether the keys are known to be unique.
-#}
{% macro create_missing_indexes(model_, are_unique=false) %}
    {%- set query -%}
        select json_build_object(
            'unique_indexes', {{ in_place.unique_indexes_as_json(model_) }},
            'indexes', {{ in_place.indexes_as_json(model_) }}
        )
    {%- endset -%}
    {%- for missing in in_place.missing_indexes(model_, fromjson(in_place.single_value(query))) -%}
        {%- set index = missing.index -%}
        {%- if not are_unique and index == in_place.key_index(model_) -%}{{ in_place.refuse_duplicates(model_) }}{%- endif -%}
        {%- set ddl -%}
            create {{ 'unique ' if index.get('unique') }}index {{ adapter.quote(missing.name) }}
            on {{ in_place.index_definition(model_, index) }}{{ ' nulls not distinct' if index.get('unique') and index.get('null_keys') }};
        {%- endset -%}
        {{ in_place.run_ddl('index ' ~ loop.index, ddl, blocks_readers=false) }}
    {%- endfor -%}
{% endmacro %}


{% macro index_definition(model_, index) %}
    {%- set definition -%}
        {{ model_.relation }} using {{ index.get('type') or 'btree' }} ({{ in_place.column_list(index.columns) }})
        {%- if index.get('where') %} where {{ index.where }}{% endif %}
    {%- endset -%}
    {{ return(definition) }}
{% endmacro %}


{% macro index_name(model_, index) %}
    {%- set definition = in_place.index_definition(model_, index) -%}
    {{ return(in_place.cut_name(model_.relation.identifier[:40], 50) ~ '_' ~ local_md5(definition ~ index.get('unique', false))[:12]) }}
{% endmacro %}


{#- Whether an index of the table has a name as index_name makes it. -#}
{% macro is_index_name(model_, name) %}
    {%- set stem = in_place.cut_name(model_.relation.identifier[:40], 50) ~ '_' -%}
    {{ return(name[:-12] == stem and modules.re.fullmatch('[0-9a-f]{12}', name[-12:]) is not none) }}
{% endmacro %}


{#- Before an index on the key is built: refuses duplicate rows, which others wrote or an earlier key allowed. -#}
{% macro refuse_duplicates(model_) %}
    {%- set key = in_place.column_list(model_.match) -%}
    {%- set query -%}
        select {{ in_place.shown_key(model_.match) }}, count(*) from {{ model_.relation }}
        group by {{ key }}
        having count(*) > 1
        limit 1
    {%- endset -%}
    {%- set twice = run_query(query) -%}
    {%- if twice | length -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' has no unique index on (' ~ model_.match | join(', ') ~ '), and has ' ~ twice[0][1]
            ~ ' rows with (' ~ twice[0][0] ~ '). Run it once with --full-refresh, which computes all rows again.'
        ) -%}
    {%- endif -%}
{% endmacro %}
