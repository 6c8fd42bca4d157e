{#-
  Hooks by which a snapshot notes how far it goes, as kept tables do; its query then reads the rows that were loaded
  since: `{% if snapshot_goes_on() %} where id in (select id from {{ staged_keys(changed) }}) {% endif %}`.

  Leave out `updated_at` in its config: dbt names a version by its key and that stamp, and what is restored or corrected
  bears a stamp again that an older version has. Without it a version is named by the time of the run that records it.
-#}
{% macro snapshot_begins() %}
    -- staged_keys ended the one that psycopg2 began, which sends no second: see kept_begin
    begin;
    -- a few versions are found by their keys, as in kept_stage
    set local random_page_cost = 1.1;
    insert into {{ kept_control(this) }} as noted
    (model, horizon, next_horizon, cluster, built_at, changed_at, read_snapshot)
    values (
        '{{ this.identifier }}', '0', '{{ kept_new_horizon() if execute }}', {{ kept_cluster() }}, now(), now(),
        {{ kept_read_snapshot() }}
    )
    on conflict (model) do update set next_horizon = excluded.next_horizon, read_snapshot = excluded.read_snapshot
{% endmacro %}


{% macro snapshot_ends() %}
    {%- if execute -%}{{ kept_clear() }}{%- endif -%}
    update {{ kept_control(this) }} set
        horizon = next_horizon, cluster = {{ kept_cluster() }}, built_at = clock_timestamp(), changed_at = clock_timestamp(),
        changed_xid = pg_current_xact_id(), definition = '{{ snapshot_definition() }}', invocation_id = '{{ invocation_id }}'
    where model = '{{ this.identifier }}'
{% endmacro %}


{#- Whether it compares what was loaded since the last time alone: not when it looks at other columns than it did then. -#}
{% macro snapshot_goes_on() %}
    {%- if not is_incremental() -%}{{ return(false) }}{%- endif -%}
    {%- set noted = run_query(
        "select definition from " ~ kept_control(this) ~ " where model = '" ~ this.identifier ~ "'"
    ).columns[0].values() -%}
    {{ return(noted[0] == snapshot_definition()) }}
{% endmacro %}


{% macro snapshot_definition() %}
    {{ return(local_md5(model.config.check_cols | string)) }}
{% endmacro %}


{#-
  By which models on the snapshot find a version: the transaction that loaded it, or that which records it where rows are
  compared that were loaded long ago.
-#}
{% macro version_xid() -%}
    {{ 'loaded_xid' if snapshot_goes_on() or not execute or load_relation(this) is none else 'pg_current_xact_id()' }}
{%- endmacro %}


{#- dbt compares with all current versions, of which there is one a key; this with those of the keys that were staged. -#}
{% macro postgres__snapshot_staging_table(strategy, source_sql, target_relation) %}
    {%- set staged = kept_temp('changed') -%}
    {%- if run_query("select to_regclass('pg_temp." ~ staged ~ "') is not null").columns[0].values()[0] -%}
        {%- set target_relation = '(select * from ' ~ target_relation ~ ' where ' ~ strategy.unique_key ~ ' in (select '
            ~ strategy.unique_key ~ ' from ' ~ staged ~ ')) as versions' -%}
    {%- endif -%}
    {{ default__snapshot_staging_table(strategy, source_sql, target_relation) }}
{% endmacro %}


{#- dbt's own is without a time zone, and would turn the stamps into those of the session's. -#}
{% macro postgres__snapshot_get_time() -%}
    current_timestamp
{%- endmacro %}
