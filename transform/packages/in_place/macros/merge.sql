{#-
  Makes the table's rows equal to the stage's rows and writes only what differs. Returns how many rows were inserted,
  updated and deleted, and after a complete build the total. A row that changes its partition is deleted in one and
  inserted in the other, and counts as updated.

  Arguments:
    complete: whether the stage has all rows. If so, rows that it lacks are deleted; if not, the rows in `gone` are.
-#}
{% macro merge_rows(model_, columns, complete) %}
    {%- set names = columns | map(attribute='name') | list -%}
    {%- set tracked = in_place.tracked_columns() -%}
    {%- set written = {'inserted': 0, 'updated': 0, 'deleted': 0} -%}
    {{ in_place.plan_merge(model_, names, complete) }}
    {%- if tracked and in_place.log_merge(model_, tracked, complete) == 'as a whole' -%}{%- set tracked = [] -%}{%- endif -%}

    {% call statement('delete', fetch_result=True) %}
        with deleted as (
            delete from {{ model_.relation }} as existing
            {% if complete -%}
                where not exists (
                    select from {{ model_.stage }} as staged where {{ in_place.keys_equal(model_, model_.match, 'staged', 'existing') }}
                )
            {%- else -%}
                using {{ model_.gone }} as gone
                where {{ in_place.keys_equal(model_, model_.key, 'existing', 'gone', by_index=true) }}
            {%- endif %}
            returning existing.*
        )
        {{ in_place.log_deleted(model_, tracked, 'deleted') if tracked }}
        {%- if model_.match != model_.key and complete %}
            -- a row that is new in another partition moved there; it is not deleted
            select count(*), count(distinct ({{ in_place.column_list(model_.key, 'plan') }})) filter (where plan.is_new)
            from deleted
            left join {{ model_.plan }} as plan on plan.is_new and {{ in_place.keys_equal(model_, model_.key, 'plan', 'deleted') }}
        {%- else %}
            select count(*), 0 from deleted
        {%- endif %}
    {% endcall %}
    {%- set deletions = [load_result('delete').table[0]] -%}
    {%- if model_.match != model_.key and not complete -%}
        {#- a row that is missing in its partition may be in another one; only for these few are all partitions searched -#}
        {% call statement('leave', fetch_result=True) %}
            with deleted as (
                delete from {{ model_.relation }} as existing using {{ model_.plan }} as plan
                where plan.is_new and {{ in_place.keys_equal(model_, model_.key, 'existing', 'plan', by_index=true) }}
                {{- in_place.and_among(model_, model_.key, 'existing', model_.plan ~ ' where is_new') }}
                returning existing.*
            )
            {{ in_place.log_deleted(model_, tracked, 'deleted') if tracked }}
            select count(*), count(distinct ({{ in_place.column_list(model_.key) }})) from deleted
        {% endcall %}
        {%- do deletions.append(load_result('leave').table[0]) -%}
    {%- endif -%}
    {%- set moved = deletions | map(attribute=1) | map('int') | sum -%}
    {%- do written.update({'deleted': deletions | map(attribute=0) | map('int') | sum - moved}) -%}

    {% call statement('update') %}
        update {{ model_.relation }} as existing
        -- the key, too: 1.0 and 1.00 are equal, and so are names in a collation without case
        set {% for name in names -%}
            {{ adapter.quote(name) }} = staged.{{ adapter.quote(name) }}{{ ', ' if not loop.last }}
        {%- endfor %}
        from {{ model_.plan }} as plan
        inner join {{ model_.stage }} as staged on {{ in_place.keys_equal(model_, model_.match, 'plan', 'staged') }}
        where plan.differs and {{ in_place.keys_equal(model_, model_.match, 'existing', 'plan', by_index=not complete) }}
    {% endcall %}
    {%- do written.update({'updated': load_result('update').response.rows_affected}) -%}
    {% call statement('insert') %}
        insert into {{ model_.relation }} ({{ in_place.column_list(names) }})
        select {{ in_place.column_list(names, 'staged') }}
        from {{ model_.stage }} as staged
        inner join {{ model_.plan }} as plan on {{ in_place.keys_equal(model_, model_.match, 'plan', 'staged') }}
        where plan.is_new
    {% endcall %}
    {%- do written.update({
        'inserted': load_result('insert').response.rows_affected - moved,
        'updated': written.updated + moved,
    }) -%}
    {%- if complete -%}
        {#- each row now equals one in the stage, whose keys are unique; rows that others wrote were never counted -#}
        {%- do written.update({'total': in_place.single_value('select count(*) from ' ~ model_.plan)}) -%}
    {%- elif model_.match != model_.key -%}
        {{ in_place.prove_unique(model_) }}
    {%- endif -%}
    {{ return(written) }}
{% endmacro %}


{#- Fills a table that was just created. -#}
{% macro fill_table(model_, columns) %}
    {%- set names = columns | map(attribute='name') | list -%}
    {% call statement('insert') %}
        {{ in_place.writes_begin(model_.relation) }};
        insert into {{ model_.relation }} ({{ in_place.column_list(names) }}) select {{ in_place.column_list(names) }} from {{ model_.stage }}
    {% endcall %}
    {%- set rows = load_result('insert').response.rows_affected -%}
    {%- if in_place.tracked_columns() -%}
        {{ in_place.log_all(model_) }}
    {%- endif -%}
    {{ return({'inserted': rows, 'updated': 0, 'deleted': 0, 'total': rows}) }}
{% endmacro %}


{#-
  Decides in one pass, for each staged row, whether the table lacks it or has it with other values, and which keys the
  change moves it away from. It compares by key and partition together: one probe of one partition.
-#}
{% macro plan_merge(model_, names, complete) %}
    {% call statement('plan') %}
        {{ in_place.writes_begin(model_.relation) }};
        -- nobody else may write to it between the comparison and the commit; readers are not blocked
        lock table {{ model_.relation }} in share row exclusive mode;
        {% if not complete -%}
            {{ in_place.set_for_now('random_page_cost', 1.1) }};
        {%- endif %}
        drop table if exists pg_temp.{{ model_.plan }};
        create temporary table {{ model_.plan }} as
        select
            {{ in_place.column_list(model_.match, 'staged') }},
            existing.ctid is null as is_new,
            existing.ctid is not null
            -- compares binary images, because some types have no equality; casts to the table's types, in which 0 is 0.00
            and row(
                {%- for column in in_place.table_columns(model_.relation) if column.name in names -%}
                    existing.{{ adapter.quote(column.name) }}{{ ', ' if not loop.last }}
                {%- endfor -%}
            )::record *<> row(
                {%- for column in in_place.table_columns(model_.relation) if column.name in names -%}
                    staged.{{ adapter.quote(column.name) }}::{{ column.type }}{{ ', ' if not loop.last }}
                {%- endfor -%}
            )::record as differs
        from {{ model_.stage }} as staged
        {% if complete -%}
            left join {{ model_.relation }} as existing on {{ in_place.keys_equal(model_, model_.match, 'existing', 'staged') }};
        {%- else -%}
            -- offset 0: otherwise PostgreSQL makes this a join and hashes the whole table for a few rows
            left join lateral (
                select found.ctid, found.* from {{ model_.relation }} as found
                where {{ in_place.keys_equal(model_, model_.match, 'found', 'staged', by_index=true) }}
                offset 0
            ) as existing on true;
        {%- endif %}
        analyze {{ model_.plan }};
    {% endcall %}
{% endmacro %}


{#- An index of a partitioned table can't prove a key unique without the partition column. This does, for staged keys. -#}
{% macro prove_unique(model_) %}
    {%- set among = in_place.and_among(model_, model_.key, 'existing', model_.stage) -%}
    {%- set query -%}
        {%- if among -%}
            select json_build_array({{ in_place.shown_key(model_.key) }})
            from {{ model_.relation }} as existing
            where true {{- among }}
            group by {{ in_place.column_list(model_.key) }}
            having count(*) > 1
        {%- else -%}
            select json_build_array({{ in_place.shown_key(model_.key) }})
            from {{ model_.stage }} as staged
            where (
                select count(*) from {{ model_.relation }} as existing
                where {{ in_place.keys_equal(model_, model_.key, 'existing', 'staged', by_index=true) }}
            ) > 1
        {%- endif %}
        limit 1
    {%- endset -%}
    {%- set twice = run_query(query) -%}
    {%- if twice | length -%}
        {%- do exceptions.raise_compiler_error(
            model_.relation ~ ' has ' ~ model_.key | join(', ') ~ ' = (' ~ fromjson(twice[0][0])[0] ~ ') in two partitions. No build '
            ~ 'of this model does that, so something else wrote it. Run it once with --full-refresh.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#-
  A further condition, for a search of all partitions: the key is among those of another table. From version 17 on, PostgreSQL
  reads each page of an index once for a whole array, and skips a partition whose keys are all higher or lower; a join looks
  each key up in each partition. Empty for an older server, for a key that an array can't look up, and for so many keys that they
  are compared faster by a hash.

  Arguments:
    keys: the other table, and a condition on it.
-#}
{% macro and_among(model_, names, existing, keys) -%}
    {%- set types = in_place.table_columns(model_.relation) | selectattr('name', 'in', names) | map(attribute='type') | list -%}
    {%- set is_fit = names | length == 1 and names[0] not in model_.null_keys and not types[0].endswith('[]') -%}
    {%- if is_fit and in_place.memory().key_count | default(0) <= 100000 and in_place.reads_arrays_at_once() -%}
        {%- set column = adapter.quote(names[0]) %}
        and {{ existing }}.{{ column }} = any(array(select {{ column }} from {{ keys }}))
    {%- endif -%}
{%- endmacro %}


{#- Whether the server reads an index once for all values of an array. -#}
{% macro reads_arrays_at_once() %}
    {%- if 'server_version' not in in_place.memory() -%}
        {%- do in_place.memory().update({'server_version': in_place.single_value("select current_setting('server_version_num')::int")}) -%}
    {%- endif -%}
    {{ return(in_place.memory().server_version >= 170000) }}
{% endmacro %}


{#- Autovacuum never analyzes a partitioned table as a whole, and comes late for one that was just filled. -#}
{% macro analyze_table(relation) %}
    {{ in_place.begin_transaction() }}
    {% call statement('statistics') %}
        analyze {{ relation }};
        update {{ in_place.models_table(relation) }} set rows_since_analyze = 0 where model = '{{ relation.identifier }}';
    {% endcall %}
    {%- do adapter.commit() -%}
{% endmacro %}


{% macro changes_table(relation) -%}
    {{ adapter.quote(relation.schema) }}._tidemark_changes
{%- endmacro %}


{#- The tracked columns of a row, as JSON. A function takes 100 arguments. -#}
{% macro tracked_json(tracked, alias) -%}
    {% for names in tracked | batch(45) -%}
        jsonb_build_object({% for name in names -%}
            {{ in_place.text_literal(name) }}, {{ alias }}.{{ adapter.quote(name) }}{{ ', ' if not loop.last }}
        {%- endfor %}){{ ' || ' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#-
  Logs the rows that a merge is going to insert and update, for the models that are built by this one's changes. A complete
  build that changes many rows is logged as one row, because these models then compute all of theirs.
-#}
{% macro log_merge(model_, tracked, complete) %}
    {%- if complete -%}
        {%- set query -%}
            select count(*) filter (where differs or is_new) > greatest(1000, 0.2 * count(*)) from {{ model_.plan }}
        {%- endset -%}
        {%- if in_place.single_value(query) -%}
            {{ in_place.log_all(model_) }}
            {{ return('as a whole') }}
        {%- endif -%}
    {%- endif -%}
    {% call statement('log') %}
        insert into {{ in_place.changes_table(model_.relation) }} (model, old, new)
        select
            '{{ model_.relation.identifier }}',
            case when plan.differs then {{ in_place.tracked_json(tracked, 'existing') }} end,
            {{ in_place.tracked_json(tracked, 'staged') }}
        from {{ model_.plan }} as plan
        inner join {{ model_.stage }} as staged on {{ in_place.keys_equal(model_, model_.match, 'plan', 'staged') }}
        left join lateral (
            select * from {{ model_.relation }} as found
            where {{ in_place.keys_equal(model_, model_.match, 'found', 'plan', by_index=true) }}
            offset 0
        ) as existing on plan.differs
        where plan.differs or plan.is_new
    {% endcall %}
{% endmacro %}


{#- Logs that any row may have changed. -#}
{% macro log_all(model_) %}
    {% call statement('log all') %}
        insert into {{ in_place.changes_table(model_.relation) }} (model) values ('{{ model_.relation.identifier }}')
    {% endcall %}
{% endmacro %}


{#- Part of a WITH: logs the rows that a merge deletes. -#}
{% macro log_deleted(model_, tracked, deleted) -%}
    , logged as (
        insert into {{ in_place.changes_table(model_.relation) }} (model, old)
        select '{{ model_.relation.identifier }}', {{ in_place.tracked_json(tracked, deleted) }}
        from {{ deleted }}
    )
{%- endmacro %}
