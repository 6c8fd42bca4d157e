{#-
  Runs statements that need a lock which conflicts with readers. Each attempt waits only a moment, because later sessions
  queue behind it. Then it lets them pass and tries again. It also tries again if two models with long names that begin
  alike are built at once and PostgreSQL chose the same index name for both: the next attempt gets another name.

  Autovacuum gives way only to a session that has waited for deadlock_timeout, a second by default, and holds a large table's
  lock for minutes. If it alone is in the way, one of ten attempts waits for so long.

  Arguments:
    relation: the table that the statements lock.
    blocks_readers: whether they need a lock that conflicts with readers, and not only one that conflicts with writers.
-#}
{% macro run_ddl(name, ddl, declare='', relation=this, blocks_readers=true) %}
    {%- set tag = in_place.dollar_tag(ddl) -%}
    {%- do in_place.memory().columns.clear() -%}
    {% call statement('in place ' ~ name) %}
        do {{ tag }}
        declare
            attempt integer := 0;
            violated text;
            patience text;
            waited_at integer := -10;
            {{ declare }}
        begin
            loop
                begin
                    perform set_config('lock_timeout', coalesce(patience, '{{ var("in_place_lock_timeout", "500ms") }}'), true);
                    {{ ddl }}
                    perform set_config('lock_timeout', '0', true);
                    return;
                exception when lock_not_available or deadlock_detected or unique_violation then
                    get stacked diagnostics violated = constraint_name;
                    if sqlstate = '23505' and violated <> 'pg_class_relname_nsp_index' then
                        raise;
                    end if;
                    attempt := attempt + 1;
                    -- a transaction sees other sessions as they were when it first looked
                    perform pg_stat_clear_snapshot();
                    patience := null;
                    if attempt >= waited_at + 10 then
                        patience := ({{ in_place.until_autovacuum_gives_way(relation, blocks_readers) }});
                        waited_at := case when patience is null then waited_at else attempt end;
                    end if;
                    if attempt >= {{ var("in_place_lock_attempts", 120) }} then
                        raise exception '% could not be altered: other sessions held a lock on it in each of % attempts: %',
                            '{{ relation }}', attempt, coalesce((
                                select string_agg(distinct coalesce(
                                    'the prepared transaction ' || prepared,
                                    concat('pid ', pid, ' (', case when is_autovacuum then 'autovacuum' else usename end, ')')
                                ), ', ')
                                from ({{ in_place.lock_holders(relation) }}) as holders
                            ), 'they have ended since') using errcode = 'lock_not_available',
                            hint = 'Wait for these sessions or end them (pg_terminate_backend; a prepared transaction: '
                                'commit prepared or rollback prepared), then run this again.';
                    end if;
                    perform pg_sleep(0.2 + 0.3 * random());
                end;
            end loop;
        end
        {{ tag }}
    {% endcall %}
{% endmacro %}


{#-
  A query for the lock_timeout with which autovacuum gives way. The result is null unless autovacuum alone holds the locks: other
  sessions would not give way. It is also null if deadlock_timeout is longer than 2.5 seconds.
-#}
{% macro until_autovacuum_gives_way(relation, blocks_readers) -%}
    select setting::integer + 500
    from pg_catalog.pg_settings
    where
        name = 'deadlock_timeout'
        and setting::integer <= 2500
        and (
            select bool_and(is_autovacuum) from ({{ in_place.lock_holders(relation) }}) as holders
            {%- if not blocks_readers %} where mode not in ('AccessShareLock', 'RowShareLock'){% endif %}
        )
{%- endmacro %}


{#-
  A query for the other sessions and the prepared transactions that hold a lock on a table, its partitions or their TOAST tables.
  Sessions without a user are autovacuum's. A prepared transaction has no session.
-#}
{% macro lock_holders(relation) -%}
    select
        held.pid,
        held.mode,
        sessions.usename,
        sessions.pid is not null and sessions.usesysid is null as is_autovacuum,
        transactions.gid as prepared
    from pg_catalog.pg_locks as held
    left join pg_catalog.pg_stat_activity as sessions on sessions.pid = held.pid
    left join lateral (
        select pg_prepared_xacts.gid
        from pg_catalog.pg_prepared_xacts
        inner join pg_catalog.pg_locks as own
            on own.locktype = 'transactionid' and own.transactionid = pg_prepared_xacts.transaction
        where held.pid is null and own.virtualtransaction = held.virtualtransaction
        limit 1
    ) as transactions on true
    where
        held.locktype = 'relation'
        and held.granted
        and held.pid is distinct from pg_backend_pid()
        -- one that is neither has ended since
        and (sessions.pid is not null or transactions.gid is not null)
        and held.database = (select oid from pg_catalog.pg_database where datname = current_database())
        and held.relation in (
            with tables as (
                select to_regclass('{{ relation }}')::oid as oid
                union
                select relid from pg_catalog.pg_partition_tree(to_regclass('{{ relation }}'))
            )

            select oid from tables
            union all
            select reltoastrelid from pg_catalog.pg_class inner join tables using (oid)
        )
{%- endmacro %}


{#- A dollar quote that does not occur in the text. -#}
{% macro dollar_tag(text) -%}
    $in_place_{{ local_md5(text) }}$
{%- endmacro %}


{#- Ends the transaction, so that the next step holds none of its locks, and begins a new one. -#}
{% macro commit_and_begin() %}
    {%- do adapter.commit() -%}
    {{ in_place.begin_transaction() }}
{% endmacro %}


{#- dbt leaves the first BEGIN to psycopg2. psycopg2 does not see dbt's COMMIT, so it sends no second BEGIN. -#}
{% macro begin_transaction() %}
    {% call statement('begin') %}
        begin;
        -- to compile a plan with a high estimate takes longer than to run it: 3.7 s instead of 0.2 s for 5,000 keys
        set local jit = off
    {% endcall %}
{% endmacro %}


{#-
  Statements that change a setting for a part of a build, and give it back the value that it had. RESET would take away what a
  hook of the model has set.
-#}
{% macro set_for_now(setting, value) -%}
    select set_config(
        'in_place.{{ setting }}',
        -- its former value, unless that is noted already
        coalesce(nullif(current_setting('in_place.{{ setting }}', true), ''), 'was ' || current_setting('{{ setting }}')), true
    );
    set local {{ setting }} = {{ value }}
{%- endmacro %}


{% macro set_back(setting) -%}
    select set_config('{{ setting }}', substr(noted, 5), true), set_config('in_place.{{ setting }}', '', true)
    from current_setting('in_place.{{ setting }}', true) as noted
    where noted like 'was %'
{%- endmacro %}


{#-
  Whether the relation exists. Drops a view that `dbt clone` left in a table's place. Raises if a relation of another kind has
  the name: the user decides whether to drop it.

  Arguments:
    kind: the expected kind, as in pg_class.relkind.
-#}
{% macro exists_as(relation, kind) %}
    {%- set bytes = relation.identifier.encode('utf-8') | length -%}
    {%- if bytes > 63 -%}
        {%- do exceptions.raise_compiler_error(
            relation ~ ' has a name of ' ~ bytes ~ ' bytes, but PostgreSQL keeps 63. Give the model a shorter alias.'
        ) -%}
    {%- endif -%}
    {%- set query -%}
        select relkind::text from pg_catalog.pg_class where oid = to_regclass('{{ relation }}')
    {%- endset -%}
    {%- set found = in_place.first_column(query) -%}
    {%- if found and found[0] == 'v' and kind in ['r', 'p'] and in_place.is_clone(relation) -%}
        {{ in_place.run_ddl('drop clone', 'drop view ' ~ relation ~ ';') }}
        {{ return(false) }}
    {%- endif -%}
    {%- if found and found[0] != kind -%}
        {%- set kinds = {'r': 'a plain table', 'p': 'a partitioned table', 'v': 'a view', 'm': 'a materialized view'} -%}
        {%- do exceptions.raise_compiler_error(
            relation ~ ' is ' ~ kinds.get(found[0], 'something else') ~ ' and the model makes ' ~ kinds[kind]
            ~ '. Dropping it would drop what depends on it, so rename or drop it yourself, then run this again.'
        ) -%}
    {%- endif -%}
    {{ return(found | length > 0) }}
{% endmacro %}


{#-
  Whether a view is what `dbt clone` left in the model's place: a view of a table of the same name in another schema. The
  build's role must own it.
-#}
{% macro is_clone(relation) %}
    {%- set query -%}
        select
            pg_has_role(relowner, 'usage') and (
                select count(*) = 1 and bool_and(
                    below.relname = '{{ relation.identifier }}' and below.oid <> pg_class.oid
                    and pg_get_viewdef(pg_class.oid) ~ '^ *SELECT [^()'']* FROM [^ ]*;$'
                )
                from ({{ in_place.relations_below(relation) }}) as read
                inner join pg_catalog.pg_class as below on below.oid = read.oid
            )
        from pg_catalog.pg_class
        where pg_class.oid = '{{ relation }}'::regclass
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- Sets comments from the model's descriptions where persist_docs asks for them. An unchanged comment takes no lock. -#}
{% macro update_comments(relation) %}
    {%- set noted = {} -%}
    {%- set query -%}
        select coalesce(attname, ''), description
        from pg_catalog.pg_description
        left join pg_catalog.pg_attribute on attrelid = objoid and attnum = objsubid and attnum > 0
        where classoid = 'pg_class'::regclass and objoid = '{{ relation }}'::regclass
    {%- endset -%}
    {%- for row in run_query(query) -%}
        {%- do noted.update({row[0]: row[1]}) -%}
    {%- endfor -%}
    {%- set comments = [] -%}
    {%- if config.persist_relation_docs() and model.description and model.description != noted.get('') -%}
        {%- do comments.append(
            'comment on ' ~ relation.type | replace('_', ' ') ~ ' ' ~ relation ~ ' is '
            ~ postgres_escape_comment(model.description)
        ) -%}
    {%- endif -%}
    {%- if config.persist_column_docs() -%}
        {%- for column in in_place.table_columns(relation) if column.name in model.columns -%}
            {%- set description = model.columns[column.name].description or '' -%}
            {%- if description != noted.get(column.name, '') -%}
                {%- do comments.append(
                    'comment on column ' ~ relation ~ '.' ~ adapter.quote(column.name) ~ ' is '
                    ~ postgres_escape_comment(description)
                ) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if comments -%}
        {% call statement('docs') %}
            {{ comments | join(';\n') }}
        {% endcall %}
    {%- endif -%}
{% endmacro %}
