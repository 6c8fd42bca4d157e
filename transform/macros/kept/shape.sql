{#- Creates the empty table, with the contract's types and constraints if the model has one. -#}
{% macro kept_create(model_, columns) %}
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
    {%- if model_.partition_by -%}
        {{ kept_partitions(model_) }}
    {%- endif -%}
{% endmacro %}


{#-
  Works out how to bring the table to the model's shape, as far as on_schema_change or a full refresh allows: it gets the
  model's columns and key, and loses constraints that the contract no longer has. Raises if that is not allowed.

  Returns `actions` for one ALTER TABLE, `old_indexes` to drop, and `anew`, which says how to rewrite all rows if the old
  ones can't be compared with the new ones. 'with the shape': in one transaction, because the old values can't be cast.
  'after it': because the key changed. '': they can be compared.
-#}
{% macro kept_changes(model_, columns, contract) %}
    {%- set has, wanted = {}, {} -%}
    {%- for column in kept_columns(model_.relation) -%}
        {%- do has.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- for column in contract.columns or columns -%}
        {%- do wanted.update({column.name: column.type}) -%}
    {%- endfor -%}
    {{ kept_refuse_partition_key(model_, wanted.get(model_.partition, 'no column')) }}
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
        {%- elif not (wanted[name] == type or (not contract.columns and kept_fits(wanted[name], type))) -%}
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
    {%- set keys = kept_keys(model_) -%}
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
        {{ kept_refuse_held(model_, has.keys() | reject('in', wanted) | list + casts.keys() | list) }}
    {%- endif -%}
    {%- set old = keys.old | map(attribute='name') | list -%}
    {%- if casts -%}
        {#- their conditions may not be valid for the new types; kept_indexes creates them again -#}
        {%- for row in run_query(
            "select relname::text from pg_catalog.pg_index inner join pg_catalog.pg_class on pg_class.oid = indexrelid "
            ~ "where indpred is not null and indrelid = '" ~ model_.relation ~ "'::regclass"
        ) if kept_is_index_name(model_, row[0]) -%}
            {%- do old.append(row[0]) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set castable = not casts or kept_can_cast(model_, casts) -%}
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
    {{ return({'actions': actions, 'old_indexes': old | unique | list, 'anew': anew}) }}
{% endmacro %}


{#-
  Refuses to drop or retype a column that a view reads, before anything is changed. The owner of the view decides whether
  it may go. If a developer built it by deferral, the developer's next build creates it again.
-#}
{% macro kept_refuse_held(model_, columns) %}
    {%- set names = [] -%}
    {%- for name in columns -%}
        {%- do names.append("'" ~ name | replace("'", "''") ~ "'") -%}
    {%- endfor -%}
    {%- set held = [] if not names else run_query(
        "with recursive above (oid, depth) as (select ev_class, 1 from pg_catalog.pg_depend "
        ~ "inner join pg_catalog.pg_rewrite on pg_rewrite.oid = objid and classid = 'pg_rewrite'::regclass "
        ~ "inner join pg_catalog.pg_attribute on attrelid = refobjid and attnum = refobjsubid "
        ~ "where refclassid = 'pg_class'::regclass and refobjid = '" ~ model_.relation ~ "'::regclass "
        ~ "and attname in (" ~ names | join(', ') ~ ") union select ev_class, depth + 1 from above "
        ~ "inner join pg_catalog.pg_depend on refclassid = 'pg_class'::regclass and refobjid = above.oid "
        ~ "and classid = 'pg_rewrite'::regclass "
        ~ "inner join pg_catalog.pg_rewrite on pg_rewrite.oid = objid and ev_class <> refobjid) "
        ~ "select format('%I.%I', nspname, relname), nspname::text, pg_get_userbyid(relowner)::text, "
        ~ "case relkind when 'm' then 'materialized view' else 'view' end from above "
        ~ "inner join pg_catalog.pg_class using (oid) inner join pg_catalog.pg_namespace n on n.oid = relnamespace "
        ~ "where relkind in ('v', 'm') group by 1, 2, 3, 4 order by max(depth) desc, 1"
    ) -%}
    {%- set views, drops, sandboxes = [], [], kept_sandboxes() if held else [] -%}
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
{% macro kept_can_cast(model_, casts) %}
    {%- set trial -%}
        select
            {%- for name, type in casts.items() %}
                count({{ adapter.quote(name) }}::{{ type }}){{ ',' if not loop.last }}
            {%- endfor %}
        from {{ model_.relation }}
    {%- endset -%}
    {%- set tag = kept_tag(trial) -%}
    {% call statement('can cast') %}
        do {{ tag }}
        begin
            perform set_config('kept.can_cast', 'yes', true);
            perform * from ({{ trial }}) as trial;
        exception when others then
            -- a value that can't be cast, or two types without a cast; any other error is raised
            if sqlstate !~ '^(22|42846|42804|23)' then raise; end if;
            perform set_config('kept.can_cast', 'no', true);
        end
        {{ tag }}
    {% endcall %}
    {{ return(run_query("select current_setting('kept.can_cast')").columns[0].values()[0] == 'yes') }}
{% endmacro %}


{#- Applies the result of kept_changes. -#}
{% macro kept_follow(model_, change) %}
    {%- set ddl = [] -%}
    {%- for name in change.old_indexes -%}
        {%- do ddl.append('drop index ' ~ adapter.quote(model_.relation.schema) ~ '.' ~ adapter.quote(name) ~ ';') -%}
    {%- endfor -%}
    {%- if change.actions -%}
        {%- do ddl.append('alter table ' ~ model_.relation ~ ' ' ~ change.actions | join(', ') ~ ';') -%}
    {%- endif -%}
    {%- if ddl -%}
        {{ kept_ddl('columns', ddl | join(' ')) }}
    {%- endif -%}
{% endmacro %}


{#- Deletes all rows and returns their number. Other sessions see the rows until the commit. -#}
{% macro kept_delete_all(model_) %}
    {% call statement('delete all', fetch_result=True) %}
        lock table {{ model_.relation }} in share row exclusive mode;
        with deleted as (
            delete from {{ model_.relation }} returning *
        )
        {{ kept_note_moved_keys(model_, kept_moved_keys_there(model_), 'deleted') }}
        select count(*) from deleted
    {% endcall %}
    {{ return(load_result('delete all').table[0][0] | int) }}
{% endmacro %}


{#- The moved_keys that the table has. A new one was in no row. -#}
{% macro kept_moved_keys_there(model_) %}
    {%- set there = kept_columns(model_.relation) | map(attribute='name') | list -%}
    {{ return((config.get('moved_keys') or []) | select('in', there) | list) }}
{% endmacro %}


{#-
  `there`: whether the table has a unique index on the model's key. `old`: unique indexes of earlier builds that the model
  no longer asks for, that is, the indexes of an earlier key.
-#}
{% macro kept_keys(model_) %}
    {%- set asked = [] -%}
    {%- for index in (config.get('indexes') or []) + (config.get('partial_indexes') or []) if index.get('unique') -%}
        {%- do asked.append(kept_index_name(model_, index)) -%}
    {%- endfor -%}
    {%- set keys = {'there': false, 'old': []} -%}
    {%- for row in run_query(
        "select relname::text, indpred is null and indexprs is null, (select string_agg(attname, ', ' order by attname) "
        ~ "from pg_catalog.pg_attribute where attrelid = indrelid and attnum = any(indkey)), "
        ~ "exists (select from pg_catalog.pg_constraint where conindid = indexrelid) "
        ~ "from pg_catalog.pg_index inner join pg_catalog.pg_class on pg_class.oid = indexrelid where indrelid = '"
        ~ model_.relation ~ "'::regclass and indisunique and indnkeyatts = indnatts order by 1"
    ) -%}
        {%- if row[1] and row[2] == model_.match | sort | join(', ') -%}
            {%- do keys.update({'there': true}) -%}
        {%- elif not row[3] and row[0] not in asked and kept_is_index_name(model_, row[0]) -%}
            {%- do keys.old.append({'name': row[0], 'columns': row[2]}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(keys) }}
{% endmacro %}


{#- Whether values of type `type` from a query fit into the table's type. A query's numeric often has no precision. -#}
{% macro kept_fits(type, into) %}
    {{ return(type == into or (type == 'numeric' and into.startswith('numeric('))
        or (type in ('text', 'character varying') and into.startswith('character varying'))) }}
{% endmacro %}


{#- Creates the missing indexes of `indexes` and `partial_indexes`, and a unique one on the key. -#}
{% macro kept_indexes(model_) %}
    {%- set wanted = [] -%}
    {%- if not kept_keys(model_).there -%}
        {{ kept_refuse_twice(model_) }}
        {%- do wanted.append({'columns': model_.match, 'unique': true}) -%}
    {%- endif -%}
    {%- for index in (config.get('indexes') or []) + (config.get('partial_indexes') or []) -%}
        {%- do wanted.append(index) -%}
    {%- endfor -%}
    {%- for index in wanted -%}
        {%- set definition = kept_index_definition(model_, index) -%}
        {%- set name = kept_index_name(model_, index) -%}
        {%- set place = adapter.quote(model_.relation.schema) ~ '.' -%}
        {#- a renamed table still has the names of its indexes -#}
        {%- set other = name[:-12] ~ local_md5(name ~ kept_oid(model_.relation))[:12] -%}
        {%- set taken = run_query(
            "select indrelid = '" ~ model_.relation ~ "'::regclass from pg_catalog.pg_index where indexrelid in "
            ~ "(to_regclass('" ~ place ~ adapter.quote(name) ~ "'), to_regclass('" ~ place ~ adapter.quote(other) ~ "'))"
        ).columns[0].values() | list -%}
        {%- if true not in taken -%}
            {%- set name = other if taken else name -%}
            {{ kept_ddl(
                'index ' ~ loop.index,
                'create ' ~ ('unique ' if index.get('unique') else '') ~ 'index ' ~ adapter.quote(name) ~ ' on '
                ~ definition ~ ';'
            ) }}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{% macro kept_index_definition(model_, index) %}
    {%- set definition -%}
        {{ model_.relation }} using {{ index.get('type') or 'btree' }} ({{ kept_list(index.columns) }})
        {%- if index.get('where') %} where {{ index.where }}{% endif %}
    {%- endset -%}
    {{ return(definition) }}
{% endmacro %}


{% macro kept_index_name(model_, index) %}
    {%- set definition = kept_index_definition(model_, index) -%}
    {{ return(kept_cut(model_.relation.identifier[:40], 50) ~ '_' ~ local_md5(definition ~ index.get('unique', false))[:12]) }}
{% endmacro %}


{#- Whether an index of the table has a name as kept_index_name makes it. -#}
{% macro kept_is_index_name(model_, name) %}
    {%- set stem = kept_cut(model_.relation.identifier[:40], 50) ~ '_' -%}
    {{ return(name[:-12] == stem and modules.re.fullmatch('[0-9a-f]{12}', name[-12:]) is not none) }}
{% endmacro %}


{% macro kept_oid(relation) %}
    {{ return(run_query("select '" ~ relation ~ "'::regclass::oid::text").columns[0].values()[0]) }}
{% endmacro %}


{#- Before an index on the key is built: refuses duplicate rows, which others wrote or an earlier key allowed. -#}
{% macro kept_refuse_twice(model_) %}
    {%- set key = kept_list(model_.match) -%}
    {%- set twice = run_query(
        "select concat_ws(', ', " ~ key ~ "), count(*) from " ~ model_.relation ~ " group by " ~ key
        ~ " having count(*) > 1 limit 1"
    ) -%}
    {%- if twice | length -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' has no unique index on (' ~ model_.match | join(', ') ~ '), and has ' ~ twice[0][1]
            ~ ' rows with (' ~ twice[0][0] ~ '). Run it once with --full-refresh, which computes all rows again.'
        ) -%}
    {%- endif -%}
{% endmacro %}
