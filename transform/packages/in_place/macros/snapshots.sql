{#-
  Hooks that record a snapshot's horizon, as for in-place tables. With `changed_by` in its config, dbt compares only the rows whose
  inputs changed since the last build; the snapshot's query stays a plain SELECT.

  Do not set `updated_at` in its config: dbt identifies a version by its key and that stamp, and a restored or corrected row
  can have the stamp of an older version. Without it, dbt identifies a version by the time of the run that records it.
-#}
{% macro snapshot_begins() %}
    {%- if flags.WHICH == 'clone' -%}{{ return('') }}{%- endif -%}
    {%- if execute -%}
        {{ in_place.widen_snapshot() }}
        {%- if config.get('changed_by') -%}{{ in_place.stage_snapshot_keys() }}{%- endif -%}
    {%- endif -%}
    -- the statements above may have ended the transaction that psycopg2 began, and psycopg2 sends no second BEGIN: see begin_transaction
    begin;
    -- a few versions are looked up by their keys, as in stage_rows
    {{ in_place.set_for_now('random_page_cost', 1.1) }};
    insert into {{ in_place.models_table(this) }} as noted
    (model, horizon, next_horizon, cluster, built_at, changed_at, read_snapshot)
    values (
        '{{ this.identifier }}', '0', '{{ in_place.new_horizon() if execute }}', {{ in_place.cluster_id() }}, now(), now(),
        {{ in_place.read_snapshot() }}
    )
    on conflict (model) do update set next_horizon = excluded.next_horizon, read_snapshot = excluded.read_snapshot
{% endmacro %}


{% macro snapshot_ends() %}
    {%- if flags.WHICH == 'clone' -%}{{ return('') }}{%- endif -%}
    {%- if execute -%}{{ in_place.drop_temp_relations() }}{%- endif -%}
    update {{ in_place.models_table(this) }} set
        horizon = next_horizon, cluster = {{ in_place.cluster_id() }}, built_at = clock_timestamp(), changed_at = clock_timestamp(),
        changed_xid = pg_current_xact_id(), definition = '{{ in_place.snapshot_definition() }}', invocation_id = '{{ invocation_id }}',
        preparation = {{ in_place.preparation_as_json() if execute else 'null' }}
    where model = '{{ this.identifier }}'
{% endmacro %}


{#- Stages the keys whose inputs changed, unless all rows must be compared. -#}
{% macro stage_snapshot_keys() %}
    {%- set model_ = in_place.snapshot_settings() -%}
    {%- set there = in_place.table_columns(this) | length > 0 -%}
    {%- set prepared = in_place.prepare_by_key(model_, there) -%}
    {%- do in_place.new_horizon() -%}
    {%- set why_full = in_place.stage_changed_keys(model_, prepared, there) -%}
    {%- if not why_full and in_place.last_build().definition != in_place.snapshot_definition() -%}
        {%- set why_full = 'check_cols changed' -%}
    {%- endif -%}
    {%- do in_place.memory().update({'has_keys': not why_full}) -%}
    {%- if why_full -%}
        {%- do log(this ~ ' compares all of its rows: ' ~ why_full ~ '.', info=true) if there -%}
        {% call statement('no keys') %}
            drop table pg_temp.{{ in_place.temp_name('changed') }}
        {% endcall %}
    {%- endif -%}
{% endmacro %}


{#- What the macros of incremental_by_key need to know of a snapshot. -#}
{% macro snapshot_settings() %}
    {%- set key = in_place.as_list(config.get('unique_key')) -%}
    {{ return({'relation': this, 'key': key, 'build_by': key, 'null_keys': []}) }}
{% endmacro %}


{#-
  Widens the snapshot's columns so that they hold the query's values and their own. Otherwise dbt would round values with
  more decimals and find them changed in each build, and to lengthen a text column it would drop what depends on it.
-#}
{% macro widen_snapshot() %}
    {%- if not in_place.table_columns(this) or config.get('sql_header') -%}{{ return('') }}{%- endif -%}
    {%- set trial = 'pg_temp.' ~ in_place.temp_name('trial') -%}
    {%- set actions, refused, widened = [], [], [] -%}
    {%- for row in run_query(in_place.define_trial_view(model.compiled_code) ~ ';' ~ in_place.wider_types(this, trial)) -%}
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


{#- A hash of the columns that a build compares. -#}
{% macro snapshot_definition() %}
    {{ return(local_md5(model.config.check_cols | string)) }}
{% endmacro %}


{#- dbt compares with all current versions, one per key. This compares the rows of the staged keys with their versions. -#}
{% macro postgres__snapshot_staging_table(strategy, source_sql, target_relation) %}
    {%- set keys = in_place.temp_name('changed') -%}
    {%- if in_place.memory().has_keys -%}
        {%- set model_ = in_place.snapshot_settings() -%}
        {%- set source_sql = in_place.rows_by_key(model_, keys) -%}
        {#- a relation and no subquery, because dbt asks for its columns if hard_deletes is new_record -#}
        {%- set versions = api.Relation.create(identifier=in_place.shortened_name(this.identifier, '__versions')) -%}
        {#- dbt renders this twice -#}
        {%- if not in_place.memory().has_versions -%}
            {% call statement('versions') %}
                drop table if exists pg_temp.{{ versions }};
                create temporary table {{ versions }} as
                select versions.*
                from {{ keys }} as in_place_keys
                inner join {{ target_relation }} as versions on {{ in_place.columns_equal(model_.key, 'versions', 'in_place_keys') }}
            {% endcall %}
            {%- do in_place.memory().update({'has_versions': true}) -%}
        {%- endif -%}
        {%- set target_relation = versions -%}
    {%- endif -%}
    {{ default__snapshot_staging_table(strategy, source_sql, target_relation) }}
{% endmacro %}


{#- dbt's own has no time zone, so the session's time zone would shift the stamps. -#}
{% macro postgres__snapshot_get_time() -%}
    current_timestamp
{%- endmacro %}
