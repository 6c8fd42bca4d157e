{#- Which keys changed since a model's last build, or why that can't be known. -#}

{#-
  Stages the keys whose inputs changed.

  Returns:
    Why all rows must be computed; none if the staged keys are enough.
-#}
{% macro stage_changed_keys(model_, prepared, there) %}
    {%- set inputs = prepared.inputs -%}
    {%- if not there -%}{{ return('the table is new') }}{%- endif -%}
    {%- if should_full_refresh() -%}{{ return('--full-refresh') }}{%- endif -%}
    {%- if config.get('time_dependent') -%}{{ return('it is time_dependent') }}{%- endif -%}
    {%- if in_place.is_sampled() -%}
        {{ return('it is empty' if flags.EMPTY else 'it is a sample of the inputs with an event_time; others are read whole') }}
    {%- endif -%}
    {%- set last, snapshot = in_place.last_build(), in_place.last_snapshot() -%}
    {%- set functions = in_place.memory().functions -%}
    {%- if functions -%}{{ return('it calls ' ~ functions ~ ', which may read anything') }}{%- endif -%}
    {%- if snapshot is none -%}
        {{ return('the last build did not note what it read: it was a sample, was of another kind, or ran in another cluster') }}
    {%- endif -%}
    {#- a snapshot's versions are kept as they are -#}
    {%- if model.resource_type != 'snapshot' and last.definition != prepared.definition -%}
        {{ return('its SELECT, or a view or a function that it uses, changed') }}
    {%- endif -%}
    {%- if in_place.is_remade_below(snapshot) -%}{{ return('an input without changes of its own was written again') }}{%- endif -%}
    {%- set why = in_place.why_unknown(inputs, snapshot, with_edits=prepared.difference is not none) -%}
    {%- if why -%}{{ return(why) }}{%- endif -%}
    {%- if prepared.difference is not none and in_place.lacks_edits(inputs[0], snapshot) -%}
        {{ return('edits of ' ~ inputs[0].relation ~ ' by hand were not logged at its last build') }}
    {%- endif -%}
    {%- set keys = in_place.temp_name('changed') -%}
    {%- set query -%}
        -- a few rows are looked up by their keys
        {{ in_place.set_for_now('random_page_cost', 1.1) }};
        {% for input in inputs if input.tables -%}
            insert into {{ keys }} {{ in_place.keys_changed_by(model_, input, snapshot) }}
            on conflict do nothing;
        {% endfor -%}
        {{ in_place.set_back('random_page_cost') }};
        analyze {{ keys }};
        select count(*) from {{ keys }}
    {%- endset -%}
    {%- set count = in_place.single_value(query) | int -%}
    {%- do in_place.memory().update({'key_count': count}) -%}
    {%- if prepared.difference is none -%}{{ return(in_place.why_full_is_cheaper(count)) }}{%- endif -%}
    {{ return('a sum is or was NaN' if in_place.meets_nan(model_, inputs[0], prepared.difference, snapshot, keys) else none) }}
{% endmacro %}


{#-
  What is known of the last build of the current model: {read_snapshot, definition, keys_total, seconds_per_key, seconds_full},
  each none if unknown.
-#}
{% macro last_build() %}
    {%- if 'last_build' not in in_place.memory() -%}
        {%- set query -%}
            select json_build_object(
                -- a snapshot of another cluster means nothing here
                'read_snapshot', case
                    when
                        cluster = {{ in_place.cluster_id() }}
                        and pg_snapshot_xmax((noted ->> 'read_snapshot')::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot())
                    then noted ->> 'read_snapshot'
                end,
                'definition', noted ->> 'definition',
                'server_version', current_setting('server_version_num')::int,
                'keys_total', coalesce(noted -> 'keys_total', noted -> 'rows_total'),
                'seconds_per_key', noted -> 'seconds_per_key',
                'seconds_full', noted -> 'seconds_full'
            )
            from (select true) as once
            -- as JSON: a table of an earlier version lacks some columns until the next run
            left join lateral (
                select cluster, jsonb_strip_nulls(to_jsonb(models)) as noted
                from {{ in_place.models_table(this) }} as models
                where model = {{ in_place.text_literal(this.identifier) }}
            ) as models on true
        {%- endset -%}
        {%- set last = fromjson(in_place.single_value(query)) -%}
        {%- do in_place.memory().update({'last_build': last, 'server_version': last.server_version}) -%}
    {%- endif -%}
    {{ return(in_place.memory().last_build) }}
{% endmacro %}


{#- SQL that has other runs leave the logs of the inputs as they are until the transaction ends. See in_place.trim_changes_body(). -#}
{% macro keep_changes(inputs) -%}
    select pg_advisory_xact_lock_shared(hashtext('in_place changes'), hashtext(schema))
        from (
            select distinct relnamespace::regnamespace::oid as namespace from pg_catalog.pg_class
            where oid in (0{% for input in inputs %}{% for table in input.tables or [] %}, {{ table.oid }}{% endfor %}{% endfor %})
        ) as read
        cross join lateral (select nspname::text as schema from pg_catalog.pg_namespace where oid = namespace) as named
{%- endmacro %}


{#- The snapshot in which the last build read its inputs; none if that is unknown here. -#}
{% macro last_snapshot() %}
    {{ return(in_place.last_build().read_snapshot) }}
{% endmacro %}


{#-
  Why the changes of some input since `snapshot` can't be known; none if they can.

  Arguments:
    with_edits: whether the log also has the edits of a table that builds write. Then no build says that it is unchanged.
-#}
{% macro why_unknown(inputs, snapshot, with_edits=false) %}
    {%- set facts = [] -%}
    {%- for input in inputs -%}{%- do facts.append(in_place.facts_of_input(input, snapshot, with_edits)) -%}{%- endfor -%}
    {%- set query -%}
        {{ in_place.keep_changes(inputs) }};
        select json_build_array({{ facts | join(', ') }})
    {%- endset -%}
    {%- for input, (is_unchanged, logs) in zip(inputs, fromjson(in_place.single_value(query))) if not is_unchanged -%}
        {%- if input.kind == 'whole' -%}{{ return(input.name ~ ' may have changed, and has no log of its changes') }}{%- endif -%}
        {%- for table, (is_known, is_rewritten) in zip(input.tables, logs) -%}
            {%- if not is_known -%}
                {{ return(
                    'the log of ' ~ table.relation ~ "'s changes does not reach back to the last build for "
                    ~ in_place.columns_to_log(input, table) | join(', ')
                ) }}
            {%- elif is_rewritten -%}
                {{ return(table.relation ~ ' was written as a whole') }}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(none) }}
{% endmacro %}


{#- The columns of a table that its log must have, for an input. -#}
{% macro columns_to_log(input, table) %}
    {{ return(
        table.columns if input.kind == 'tracked'
        else in_place.columns_in_use(table.relation, input.key.values() | list + input.columns)
    ) }}
{% endmacro %}


{#-
  An SQL expression, as JSON: [whether no build has changed the input since `snapshot`, and for each of its tables: [whether its
  log reaches back that far, whether any row may have changed]].
-#}
{% macro facts_of_input(input, snapshot, with_edits) -%}
    json_build_array(
        {% if input.kind != 'tracked' and not with_edits and input.schema in in_place.noted_schemas() -%}
            coalesce((
                select
                    to_jsonb(noted) -> 'changed_xid' is not null
                    and pg_visible_in_snapshot((to_jsonb(noted) ->> 'changed_xid')::xid8, '{{ snapshot }}')
                from {{ input.schema }}._tidemark_models as noted
                where model = {{ in_place.text_literal(input.identifier) }} and cluster = {{ in_place.cluster_id() }}
            ), false)
        {%- else -%}
            false
        {%- endif %},
        json_build_array(
            {%- for table in input.tables -%}
                {%- if not table.has_log %}
                    json_build_array(false, false)
                {%- else %}
                    json_build_array(
                        exists (
                            select from {{ table.schema }}._tidemark_tracked as tracked
                            where
                                model = {{ in_place.text_literal(table.identifier) }}
                                and relation = {{ table.oid }}
                                and cluster = {{ in_place.cluster_id() }}
                                and not exists (
                                    select from unnest({{ in_place.text_array(in_place.columns_to_log(input, table)) }}) as name
                                    where pg_visible_in_snapshot((tracked.columns ->> name)::xid8, '{{ snapshot }}') is not true
                                )
                                -- a transaction that was open then may be among those whose changes were deleted
                                and coalesce(trimmed < pg_snapshot_xmin('{{ snapshot }}'), true)
                        ),
                        exists (
                            select from {{ table.schema }}._tidemark_changes
                            where
                                model = {{ in_place.text_literal(table.identifier) }} and old is null and new is null
                                and {{ in_place.is_later('xid', snapshot) }}
                        )
                    )
                {%- endif -%}
                {{ ',' if not loop.last }}
            {%- endfor %}
        )
    )
{%- endmacro %}


{#- A condition: the transaction in `xid` wrote after the snapshot was taken. -#}
{% macro is_later(xid, snapshot) -%}
    {{ xid }} >= pg_snapshot_xmin('{{ snapshot }}') and not pg_visible_in_snapshot({{ xid }}, '{{ snapshot }}')
{%- endmacro %}


{#- A query for the keys whose rows may differ because an input changed since `snapshot`. -#}
{% macro keys_changed_by(model_, input, snapshot) %}
    {%- set given = in_place.given_by(input, snapshot) -%}
    {%- if input.through -%}
        {%- set through = input.through -%}
        {%- set given -%}
            select {% for column, expression in through.key.items() -%}
                {{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}
            {%- endfor %}
            -- other names, because the expressions are over the other input's columns
            from ({{ given }}) as given ({% for column in input.key %}in_place_{{ loop.index }}{{ ', ' if not loop.last }}{% endfor %})
            inner join {{ through.relation }} as {{ adapter.quote(through.name) }} on
            {%- for column in input.key %}
                {{ adapter.quote(through.name) }}.{{ adapter.quote(column) }} = given.in_place_{{ loop.index }}{{ ' and' if not loop.last }}
            {%- endfor %}
        {%- endset -%}
    {%- endif -%}
    {%- if input.gives_key -%}
        {%- set not_null = model_.build_by | reject('in', model_.null_keys) | list -%}
        {%- set conditions = [] -%}
        {#- the table has no row without a key -#}
        {%- if not_null -%}{%- do conditions.append('num_nulls(' ~ in_place.column_list(not_null) ~ ') = 0') -%}{%- endif -%}
        {%- for column in in_place.table_columns('pg_temp.' ~ in_place.temp_name('trial')) if column.name in model_.build_by -%}
            {%- set condition = in_place.fits_type(adapter.quote(column.name), column.type) -%}
            {%- if condition -%}{%- do conditions.append('(' ~ adapter.quote(column.name) ~ ' is null or ' ~ condition ~ ')') -%}{%- endif -%}
        {%- endfor -%}
        select distinct {{ in_place.column_list(model_.build_by) }}
        from ({{ given }}) as given
        {{ 'where ' ~ conditions | join(' and ') if conditions }}
    {%- else -%}
        {#- it gives other columns than the key: the model's rows that have these values -#}
        {%- set given = in_place.with_collations(input.key.keys() | list, given) -%}
        select distinct {{ in_place.column_list(model_.build_by, 'existing') }}
        {% set among = in_place.and_among(model_, input.key.keys() | list, 'existing', '(' ~ given ~ ') as given') if model_.partition else '' -%}
        {% if among -%}
            from {{ model_.relation }} as existing
            where true {{- among }}
        {%- else -%}
            from ({{ given }}) as given
            inner join {{ model_.relation }} as existing on {{ in_place.columns_equal(input.key.keys() | list, 'existing', 'given') }}
        {%- endif %}
    {%- endif -%}
{% endmacro %}


{#-
  A condition: a value of the key's type can equal this one. An input's column may be wider than the key's, and no row has the key of a value
  that is too long or too large, which the table of keys can't hold. Empty if the type holds all.
-#}
{% macro fits_type(column, type) %}
    {%- set bytes = {'smallint': 2, 'integer': 4, 'bigint': 8}.get(type) -%}
    {%- set typed = modules.re.fullmatch('(character varying|character|numeric)\\((\\d+)(?:,(-?\\d+))?\\)', type) -%}
    {%- if bytes -%}
        {%- set limit = 2 ** (8 * bytes - 1) -%}
        {{ return(column ~ ' between -' ~ limit ~ ' and ' ~ (limit - 1)) }}
    {%- elif typed and typed.group(1) == 'numeric' -%}
        {%- set scale = typed.group(3) | int -%}
        {%- set digits = typed.group(2) | int - scale -%}
        {{ return('(' ~ column ~ "::text = 'NaN' or abs(round(" ~ column ~ '::numeric, ' ~ scale ~ ')) < 1e' ~ digits ~ ')') }}
    {%- elif typed -%}
        {{ return('length(' ~ column ~ ') <= ' ~ typed.group(2)) }}
    {%- endif -%}
    {{ return('') }}
{% endmacro %}


{#- A query with the collations of the SELECT, by which it joins: the table lacks them. -#}
{% macro with_collations(names, query) -%}
    {%- set collations = {} -%}
    {%- for column in in_place.table_columns('pg_temp.' ~ in_place.temp_name('trial')) if column.name in names and column.collation -%}
        {%- do collations.update({column.name: column.collation}) -%}
    {%- endfor -%}
    {%- if not collations -%}{{ return(query) }}{%- endif -%}
    select
        {% for name in names -%}
            {{ adapter.quote(name) }}{{ ' collate ' ~ collations[name] ~ ' as ' ~ adapter.quote(name) if name in collations }}{{ ', ' if not loop.last }}
        {%- endfor %}
    from ({{ query }}) as given
{%- endmacro %}


{#- The columns of a logged row that the key's expressions use, with their types and collations: by some, texts with other letters are equal. -#}
{% macro logged_columns(table, input) -%}
    {%- set columns = in_place.table_columns(table.relation) -%}
    {%- set used = in_place.columns_in_use(table.relation, (table.expressions or input.key).values()) -%}
    {#- a list needs one column -#}
    {%- for column in columns | selectattr('name', 'in', used) | list or columns[:1] -%}
        {{ adapter.quote(column.name) }} {{ column.type }}{{ ' collate ' ~ column.collation if column.collation }}{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- A query for the values that the key's expressions have in rows which changed since `snapshot`, before or after the change. -#}
{% macro given_by(input, snapshot) -%}
    {%- for table in input.tables -%}
        {%- set columns -%}
            {%- for column, expression in (table.expressions or {}).items() -%}
                {{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}
            {%- else -%}
                {#- a key that is a constant needs no column -#}
                {{ table.alias ~ '.*' if table.expressions is none else 'null' }}
            {%- endfor -%}
        {%- endset -%}
        select
            {% for column, expression in input.key.items() -%}
                {{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}
            {%- endfor %}
        from (
            {% if table.stamp -%}
                select {{ columns }}
                from {{ table.relation }} as {{ table.alias }}
                where {{ in_place.is_later(table.alias ~ '.' ~ adapter.quote(table.stamp), snapshot) }}
                union all
            {%- endif %}
            select {{ columns }}
            from {{ table.schema }}._tidemark_changes as in_place_changes
            -- the row as it was, and as it is
            cross join lateral (values (in_place_changes.old), (in_place_changes.new)) as in_place_rows (in_place_row)
            cross join lateral jsonb_to_record(in_place_row) as {{ table.alias }} ({{ in_place.logged_columns(table, input) }})
            where
                in_place_changes.model = {{ in_place.text_literal(table.identifier) }}
                and {{ in_place.is_later('in_place_changes.xid', snapshot) }}
                and in_place_row is not null
                {% if input.columns and input.kind == 'logged' -%}
                    and (
                        in_place_changes.old is null or in_place_changes.new is null
                        -- with those of the key: a row that moves changes both of its groups
                        -- As text, in which 1.0 is not 1.00.
                        {% for name in in_place.columns_in_use(table.relation, input.key.values() | list + input.columns) -%}
                            or in_place_changes.old ->> {{ in_place.text_literal(name) }}
                            is distinct from in_place_changes.new ->> {{ in_place.text_literal(name) }}
                        {% endfor -%}
                    )
                {%- endif %}
        ) as {{ adapter.quote(input.name) }}
        {{- ' union ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- Creates the temporary table of the changed keys, with the types and collations of the model's own columns. -#}
{% macro create_keys_table(model_, trial, there) %}
    {%- set keys = in_place.temp_name('changed') -%}
    {%- set types = {} -%}
    {%- for column in in_place.table_columns(trial) if column.name in model_.build_by -%}
        {%- do types.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- set others = [] -%}
    {%- for column in in_place.table_columns(model_.relation) if column.name in types and column.type != types[column.name] -%}
        {%- do others.append(column) -%}
    {%- endfor -%}
    {% call statement('keys') %}
        drop table if exists pg_temp.{{ keys }};
        create temporary table {{ keys }} as
        -- the SELECT has a collation that the table may lack; two keys that are equal by it would both give its row
        select {{ in_place.column_list(model_.build_by) }} from {{ model_.relation if there and others else trial }} limit 0;
        create unique index on {{ keys }} ({{ in_place.column_list(model_.build_by) }}) nulls not distinct
    {% endcall %}
{% endmacro %}


{#- How many keys a build computed, or how many the table has after a complete build. -#}
{% macro key_count(model_, complete) %}
    {%- if not complete -%}
        {{ return(in_place.memory().key_count) }}
    {%- elif model_.build_by == model_.key -%}
        {{ return(in_place.single_value('select count(*) from ' ~ model_.stage)) }}
    {%- endif -%}
    {%- set query -%}
        select count(*) from (select distinct {{ in_place.column_list(model_.build_by) }} from {{ model_.stage }}) as keys
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#-
  Stages the changed keys of an incremental build: runs `query` into a temporary table with statistics, named `changed`.
  Without statistics, PostgreSQL estimates one row for values above the newest that it knows, and picks a bad join.

  The macro notes every table's horizon before it runs the query. The next build reads what commits after that.
-#}
{% macro staged_keys(query) %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot'] or model.resource_type == 'unit_test' -%}
        {{ return('(' ~ query ~ '\n) as changed') }}
    {%- endif -%}
    {%- set name = in_place.temp_name('changed') -%}
    {%- do in_place.memory().update({'has_notes': true}) -%}
    {% call statement('changed') %}
        {{ in_place.note_horizons() }}
        {{ in_place.note_inputs(query) }}
        drop table if exists pg_temp.{{ name }};
        create temporary table {{ name }} as {{ query }}
        ;
        analyze {{ name }};
    {% endcall %}
    {%- do adapter.commit() -%}
    {{ return(name ~ ' as changed') }}
{% endmacro %}
