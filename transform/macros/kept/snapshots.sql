{#-
  Hooks by which a snapshot notes how far it goes, as kept tables do; its query then reads the rows that were loaded
  since: `{% if is_incremental() %} where loaded_xid >= {{ horizon() }} {% endif %}`.
-#}
{% macro snapshot_begins() %}
    insert into {{ kept_control(this) }} (model, horizon, next_horizon, cluster, built_at, changed_at)
    values ('{{ this.identifier }}', '0', pg_snapshot_xmin(pg_current_snapshot()), {{ kept_cluster() }}, now(), now())
    on conflict (model) do update set next_horizon = excluded.next_horizon
{% endmacro %}


{% macro snapshot_ends() %}
    update {{ kept_control(this) }} set
        horizon = next_horizon, cluster = {{ kept_cluster() }}, built_at = clock_timestamp(), changed_at = clock_timestamp(),
        invocation_id = '{{ invocation_id }}'
    where model = '{{ this.identifier }}'
{% endmacro %}


{#- dbt's own is without a time zone, and would turn the stamps into those of the session's. -#}
{% macro postgres__snapshot_get_time() -%}
    current_timestamp
{%- endmacro %}
