{#- Trimming of the logs of changes, in the schemas of models and of raw tables. -#}

{#-
  Part of on-run-start: trims the logs of the schemas that this project writes or reads. A reader elsewhere, such as a
  developer's model that defers to this project, never holds a log: it finds that the log does not reach back to its last
  build, and computes all rows.

  Beside this project's models, what each of them has read is deleted at once. Raw may have readers in other projects, so its log
  is trimmed by age and size alone.
-#}
{% macro trim_changes() %}
    {%- set readers, written = {}, [] -%}
    {%- for node in graph.nodes.values() -%}
        {%- if node.config.get('changed_by') -%}
            {%- do readers.setdefault(node.schema, []).append(node.alias) -%}
        {%- endif -%}
        {%- if node.config.materialized in in_place.materializations_with_rows() -%}{%- do written.append(node.schema) -%}{%- endif -%}
    {%- endfor -%}
    {%- set body = in_place.trim_changes_body() -%}
    {%- set limits = "interval '" ~ in_place.days_of_changes() ~ " days', " ~ in_place.most_bytes_of_changes() %}
        create or replace function pg_temp.in_place_trim_changes(schema name, read_before xid8, keep interval, max_bytes bigint) returns void
        language plpgsql as {{ in_place.dollar_tag(body) }}{{ body }}{{ in_place.dollar_tag(body) }};
    {%- for schema, function in in_place.logs_of_raw().items() if schema not in written %}
        select {{ function }}({{ in_place.text_literal(schema) }}, null, {{ limits }});
    {%- endfor -%}
    {#- these may be truncated, and keep their lock until the end of this transaction -#}
    {%- for schema in written | unique | sort %}
        select pg_temp.in_place_trim_changes(
            {{ in_place.text_literal(schema) }},
            -- the oldest transaction that the last build of some model may not have seen
            (
                select min(pg_snapshot_xmin(read_snapshot)::text::numeric)::text::xid8
                from (
                    {%- for reader, names in readers.items() %}
                        select read_snapshot from {{ adapter.quote(reader) }}._tidemark_models
                        where model in ('{{ names | join("', '") }}') and cluster = {{ in_place.cluster_id() }}
                        {{- ' union all' if not loop.last }}
                    {%- else %}
                        select null::pg_snapshot as read_snapshot where false
                    {%- endfor %}
                ) as builds
            ),
            {{ limits }}
        );
    {%- endfor -%}
{% endmacro %}


{#- How many bytes of changes a schema keeps. -#}
{% macro most_bytes_of_changes() %}
    {{ return((var('in_place_changes_max_mb', 512) * 1024 * 1024) | int) }}
{% endmacro %}


{#-
  The body of a function (schema name, read_before xid8, keep interval, max_bytes bigint) that trims a schema's log. The caller must
  own the log. It deletes

    - what belongs to another cluster, from which the warehouse was restored. That cluster's transaction numbers mean nothing
      here: a high one in `trimmed` would make the models above compute all rows in each build, until this cluster passes it;
    - changes of transactions before `read_before`, if it is given: its models have read them;
    - changes older than `keep`;
    - the oldest changes of a log of more than `max_bytes`, until half of that is left.

  The log is no partitioned table. To route each logged row to its partition cost a merge more than a third of its time, as
  measured, and to drop a partition needs a lock on the parent that waits for each load and that each load waits for. If no row of a
  large log is to stay, the log is truncated, if nobody is using it at that moment. PostgreSQL uses the space of deleted rows again.
-#}
{% macro trim_changes_body() %}
declare
    namespace oid := (select oid from pg_catalog.pg_namespace where nspname = schema);
    this_cluster text := (select system_identifier::text from pg_catalog.pg_control_system());
    log text := format('%I._tidemark_changes', schema);
    tracked text := format('%I._tidemark_tracked', schema);
    -- the last transaction whose changes are too many
    surplus xid8;
    goes text;
    is_kept boolean;
begin
    if 2 <> (
        select count(*) from pg_catalog.pg_class
        where relnamespace = namespace and relname in ('_tidemark_changes', '_tidemark_tracked')
            and relkind = 'r' and pg_has_role(current_user, relowner, 'usage')
    ) then
        raise exception '% has no log of changes that belongs to %', schema, current_user using errcode = 'insufficient_privilege';
    end if;
    -- a build that has found that the log reaches back far enough may be about to read it: next time
    if not pg_try_advisory_xact_lock(hashtext('in_place changes'), hashtext(schema)) then
        return;
    end if;
    -- the changes do not name their cluster, so a table's newer ones go with them. The models above compute all rows anyway
    execute format('delete from %s where model in (select model from %s where cluster <> $1)', log, tracked) using this_cluster;
    execute format('delete from %s where cluster <> $1', tracked) using this_cluster;

    if pg_table_size(log::regclass) > max_bytes then
        execute format(
            'select xid from ('
            '   select xid, sum(pg_column_size(changes)) over (order by xid desc) as bytes, sum(pg_column_size(changes)) over () as all_bytes'
            '   from %s as changes'
            ') as sized where all_bytes > $1 and bytes > $1 / 2 order by xid desc limit 1', log
        ) into surplus using max_bytes;
    end if;
    goes := '(xid < $1) is true or logged_at < pg_catalog.now() - $2 or (xid <= $3) is true';

    if read_before is not null and pg_table_size(log::regclass) > 1024 * 1024 then
        begin
            -- no wait, so no load and no build waits behind this
            execute format('lock table %s in access exclusive mode nowait', log);
            execute format('select exists (select from %s where not (%s))', log, goes) into is_kept using read_before, keep, surplus;
            if not is_kept then
                execute format(
                    'update %s as tracked set trimmed = greatest(trimmed, (select xid from %s where model = tracked.model order by xid desc limit 1))'
                    'where exists (select from %2$s where model = tracked.model)', tracked, log
                );
                execute format('truncate %s', log);
                return;
            end if;
            -- gives the lock back
            raise lock_not_available;
        exception when lock_not_available then
            null;
        end;
    end if;
    execute format(
        'with deleted as (delete from %s where %s returning model, xid) '
        'update %s as tracked set trimmed = greatest(trimmed, last.xid) '
        'from (select model, max(xid::text::numeric)::text::xid8 as xid from deleted group by model) as last '
        'where tracked.model = last.model', log, goes, tracked
    ) using read_before, keep, surplus;
end
{% endmacro %}


{#- The schemas of sources that have a log, each with the function that trims it. -#}
{% macro logs_of_raw() %}
    {%- set function = var('in_place_trim_function', 'tidemark.trim_changes') -%}
    {%- set signature = "to_regprocedure('" ~ function ~ "(name, xid8, interval, bigint)')" -%}
    {%- set schemas = graph.sources.values() | map(attribute='schema') | unique | list -%}
    {%- set query -%}
        select
            nspname::text as schema,
            pg_has_role(relowner, 'usage') as is_own,
            {{ signature }} is not null and has_function_privilege({{ signature }}, 'execute') as may
        from pg_catalog.pg_class
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where relname = '_tidemark_changes' and nspname = any({{ in_place.text_array(schemas) }})
        order by nspname
    {%- endset -%}
    {%- set found = {} -%}
    {%- for row in run_query(query) -%}
        {%- if row['is_own'] or row['may'] -%}
            {%- do found.update({row['schema']: 'pg_temp.in_place_trim_changes' if row['is_own'] else function}) -%}
        {%- else -%}
            {%- do log(
                'The log of changes in ' ~ row['schema'] ~ ' is not trimmed by its size, because dbt may not call ' ~ function
                ~ '. Run the script that creates the roles of the warehouse again (tidemark roles warehouse).', info=true
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}
