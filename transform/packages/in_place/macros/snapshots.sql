{#-
  Hooks that record a snapshot's horizon, as for in-place tables. Its query then reads only the rows that were loaded since:
  `{% if in_place.snapshot_goes_on() %} where id in (select id from {{ in_place.staged_keys(changed) }}) {% endif %}`.

  Do not set `updated_at` in its config: dbt identifies a version by its key and that stamp, and a restored or corrected row
  can have the stamp of an older version. Without it, dbt identifies a version by the time of the run that records it.
-#}
{% macro snapshot_begins() %}
    {%- if execute -%}{{ in_place.widen_snapshot() }}{%- endif -%}
    -- staged_keys ended the transaction that psycopg2 began, and psycopg2 sends no second BEGIN: see begin_transaction
    begin;
    -- a few versions are looked up by their keys, as in stage_rows
    set local random_page_cost = 1.1;
    insert into {{ in_place.models_table(this) }} as noted
    (model, horizon, next_horizon, cluster, built_at, changed_at, read_snapshot)
    values (
        '{{ this.identifier }}', '0', '{{ in_place.new_horizon() if execute }}', {{ in_place.cluster_id() }}, now(), now(),
        {{ in_place.read_snapshot() }}
    )
    on conflict (model) do update set next_horizon = excluded.next_horizon, read_snapshot = excluded.read_snapshot
{% endmacro %}


{% macro snapshot_ends() %}
    {%- if execute -%}{{ in_place.drop_temp_relations() }}{%- endif -%}
    update {{ in_place.models_table(this) }} set
        horizon = next_horizon, cluster = {{ in_place.cluster_id() }}, built_at = clock_timestamp(), changed_at = clock_timestamp(),
        changed_xid = pg_current_xact_id(), definition = '{{ in_place.snapshot_definition() }}', invocation_id = '{{ invocation_id }}'
    where model = '{{ this.identifier }}'
{% endmacro %}


{#-
  Widens the snapshot's columns so that they hold the query's values and their own. Otherwise dbt would round values with
  more decimals and find them changed in each build, and to lengthen a text column it would drop what depends on it.
-#}
{% macro widen_snapshot() %}
    {%- if not in_place.exists(this) or config.get('sql_header') -%}{{ return('') }}{%- endif -%}
    {%- set trial = in_place.create_trial_view(model.compiled_code) -%}
    {%- set actions, refused, widened = [], [], [] -%}
    {%- for row in run_query(in_place.wider_types(this, trial)) -%}
        {%- if row[3] is none -%}
            {%- do refused.append(row[0] ~ ' as ' ~ row[1] ~ ', the query as ' ~ row[2]) -%}
        {%- else -%}
            {%- do actions.append('alter column ' ~ adapter.quote(row[0]) ~ ' type ' ~ row[3]) -%}
            {%- do widened.append(row[0]) -%}
        {%- endif -%}
    {%- endfor -%}
    {% call statement('compared') %}
        drop view {{ trial }}
    {% endcall %}
    {%- if refused -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' has ' ~ refused | join('; ') ~ '. Its versions hold values of the old type. Cast the column in the '
            ~ "snapshot's query to the old type, or alter the snapshot's column to the new type yourself. Then run this again."
        ) -%}
    {%- endif -%}
    {%- if actions -%}
        {%- set query -%}
            select string_agg(distinct ev_class::regclass::text, ', ')
            from pg_catalog.pg_depend
            inner join pg_catalog.pg_rewrite on pg_rewrite.oid = objid
            inner join pg_catalog.pg_attribute on attrelid = refobjid and attnum = refobjsubid
            where
                classid = 'pg_rewrite'::regclass
                and refclassid = 'pg_class'::regclass
                and refobjid = '{{ this }}'::regclass
                and attname in ('{{ widened | map("replace", "'", "''") | join("', '") }}')
        {%- endset -%}
        {%- set views = in_place.single_value(query) -%}
        {%- if views -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ' needs wider types (' ~ widened | join(', ') ~ '), but PostgreSQL cannot alter a column that a view '
                ~ 'reads: ' ~ views ~ '. Drop these views and what depends on them, then run this again. A run creates the views of models again.'
            ) -%}
        {%- endif -%}
        {{ in_place.run_ddl('widen', 'alter table ' ~ this ~ ' ' ~ actions | join(', ') ~ ';') }}
    {%- endif -%}
{% endmacro %}


{#-
  A query for the columns of a table whose type can't hold the values that a view has for them: name, both types, and a
  type that holds both. That type is null if none keeps every value unchanged.
-#}
{% macro wider_types(table, view) -%}
    with columns as (
        select
            has.attname::text as name,
            has.atttypid::regtype as old,
            wanted.atttypid::regtype as new,
            has.atttypmod as old_mod,
            wanted.atttypmod as new_mod,
            -- precision and scale of a numeric: see numeric_typmod_scale in PostgreSQL's numeric.c
            ((has.atttypmod - 4) >> 16) & 65535 as old_precision,
            (((has.atttypmod - 4) & 2047) # 1024) - 1024 as old_scale,
            ((wanted.atttypmod - 4) >> 16) & 65535 as new_precision,
            (((wanted.atttypmod - 4) & 2047) # 1024) - 1024 as new_scale,
            case has.atttypid when 'int2'::regtype then 5 when 'int4'::regtype then 10 when 'int8'::regtype then 19 end as old_digits,
            case wanted.atttypid when 'int2'::regtype then 5 when 'int4'::regtype then 10 when 'int8'::regtype then 19 end as new_digits,
            has.atttypid in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) as old_is_text,
            wanted.atttypid in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype) as new_is_text
        from pg_catalog.pg_attribute as has
        inner join pg_catalog.pg_attribute as wanted on wanted.attname = has.attname
        where
            has.attrelid = '{{ table }}'::regclass and has.attnum > 0
            and wanted.attrelid = '{{ view }}'::regclass and wanted.attnum > 0
            and (has.atttypid, has.atttypmod) <> (wanted.atttypid, wanted.atttypmod)
    ),
    wider as (
        select
            name,
            format_type(old, old_mod) as old_type,
            format_type(new, new_mod) as new_type,
            case
                when old = new and old = 'numeric'::regtype then
                    case
                        when old_mod = -1 then ''
                        when new_mod = -1 then 'numeric'
                        when old_scale >= new_scale and old_precision - old_scale >= new_precision - new_scale then ''
                        else format(
                            'numeric(%s, %s)',
                            greatest(old_precision - old_scale, new_precision - new_scale) + greatest(old_scale, new_scale),
                            greatest(old_scale, new_scale)
                        )
                    end
                when old = new and old = 'interval'::regtype then case when old_mod = -1 then '' else 'interval' end
                -- lengths, and fractional digits of a second
                when old = new and (old_mod = -1 or old_mod >= new_mod and new_mod <> -1) then ''
                when old = new then format_type(old, new_mod)
                when old_digits >= new_digits then ''
                when old_digits < new_digits then format_type(new, -1)
                when old_digits is not null and new = 'numeric'::regtype then 'numeric'
                when old = 'numeric'::regtype and new_digits is not null then
                    case when old_mod = -1 or old_precision - old_scale >= new_digits then '' else 'numeric' end
                when old_is_text and new_is_text then
                    case when old = 'text'::regtype or old = 'varchar'::regtype and old_mod = -1 then '' else 'text' end
                when (old, new) = ('real'::regtype, 'double precision'::regtype) then 'double precision'
                when (old, new) = ('double precision'::regtype, 'real'::regtype) then ''
                when (old, new) = ('date'::regtype, 'timestamp'::regtype) then format_type(new, new_mod)
                when (old, new) = ('timestamp'::regtype, 'date'::regtype) then ''
            end as wider
        from columns
    )
    select name, old_type, new_type, wider
    from wider
    where wider is distinct from ''
    order by name
{%- endmacro %}


{#- Whether the snapshot compares only rows that were loaded since the last build. It does not if check_cols changed. -#}
{% macro snapshot_goes_on() %}
    {%- if not in_place.is_incremental() -%}{{ return(false) }}{%- endif -%}
    {%- set query -%}
        select definition from {{ in_place.models_table(this) }} where model = '{{ this.identifier }}'
    {%- endset -%}
    {{ return(in_place.single_value(query) == in_place.snapshot_definition()) }}
{% endmacro %}


{% macro snapshot_definition() %}
    {{ return(local_md5(model.config.check_cols | string)) }}
{% endmacro %}


{#-
  The transaction by which models on the snapshot find a version: the one that loaded it, or the one that records it if the
  snapshot compares rows that were loaded long ago.
-#}
{% macro version_xid() -%}
    {{ 'loaded_xid' if in_place.snapshot_goes_on() or not execute or load_relation(this) is none else 'pg_current_xact_id()' }}
{%- endmacro %}


{#- dbt compares with all current versions, one per key. This compares with the versions of the staged keys. -#}
{% macro postgres__snapshot_staging_table(strategy, source_sql, target_relation) %}
    {%- set staged = in_place.temp_name('changed') -%}
    {%- if in_place.exists('pg_temp.' ~ staged) -%}
        {%- set versions -%}
            (
                select * from {{ target_relation }}
                where {{ strategy.unique_key }} in (select {{ strategy.unique_key }} from {{ staged }})
            ) as versions
        {%- endset -%}
        {%- set target_relation = versions -%}
    {%- endif -%}
    {{ default__snapshot_staging_table(strategy, source_sql, target_relation) }}
{% endmacro %}


{#- dbt's own has no time zone, so the session's time zone would shift the stamps. -#}
{% macro postgres__snapshot_get_time() -%}
    current_timestamp
{%- endmacro %}
