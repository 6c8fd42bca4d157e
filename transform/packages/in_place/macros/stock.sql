{#-
  Hooks that record the horizon of dbt's own tables, as for in-place tables. Such a table holds what was committed when its
  build began, and a model on it must not treat it as fresh as raw. The project sets the hooks for all models. They do
  nothing for models that do not need them, and nothing in a schema without `_tidemark_models`. `build_seed` calls them itself:
  a project without seeds would be warned of a setting for them.
-#}

{#- dbt's own materializations with rows of their own. -#}
{% macro recorded_materializations() %}
    {{ return(['table', 'incremental', 'materialized_view', 'seed']) }}
{% endmacro %}


{% macro stock_begins() %}
    {%- if flags.WHICH == 'clone' -%}{{ return('') }}{%- endif -%}
    {%- if not execute or model.config.materialized not in in_place.recorded_materializations() -%}{{ return('') }}{%- endif -%}
    {#- a sql_header may create what the SQL needs and runs only with it, so such a table's horizon stays unknown -#}
    {%- if not in_place.exists(in_place.models_table(this)) or config.get('sql_header') -%}{{ return('') }}{%- endif -%}
    {%- set is_seed = model.resource_type == 'seed' -%}
    {%- set is_whole = is_seed or (model.config.materialized == 'incremental' and not in_place.is_incremental()) -%}
    -- dbt writes no log: if the table was one of this package's, its log ends here
    delete from {{ adapter.quote(this.schema) }}._tidemark_tracked where model = {{ in_place.text_literal(this.identifier) }};
    insert into {{ in_place.models_table(this) }} as noted
    (model, horizon, next_horizon, cluster, built_at, changed_at, changed_xid, remade_xid)
    values (
        '{{ this.identifier }}', '0', '{{ in_place.new_horizon() }}', {{ in_place.cluster_id() }}, now(), now(),
        pg_current_xact_id(), {{ 'pg_current_xact_id()' if is_whole else 'null' }}
    )
    on conflict (model) do update set
        {% if not is_seed -%}
            changed_xid = excluded.changed_xid,
            remade_xid = coalesce(excluded.remade_xid, noted.remade_xid),
        {%- endif %}
        next_horizon = excluded.next_horizon
{% endmacro %}


{% macro stock_ends() %}
    {%- if flags.WHICH == 'clone' -%}{{ return('') }}{%- endif -%}
    {%- if not execute or model.config.materialized not in in_place.recorded_materializations() -%}{{ return('') }}{%- endif -%}
    {%- if not in_place.exists(in_place.models_table(this)) or config.get('sql_header') -%}{{ return('') }}{%- endif -%}
    {%- if model.resource_type != 'seed' -%}
        {{ in_place.drop_temp_relations() }}
    {%- endif -%}
    update {{ in_place.models_table(this) }} set
        horizon = next_horizon, cluster = {{ in_place.cluster_id() }}, built_at = clock_timestamp(), changed_at = clock_timestamp(),
        invocation_id = '{{ invocation_id }}'
    where model = '{{ this.identifier }}'
{% endmacro %}


{#- Runs what a hook gives, if that is anything. -#}
{% macro run_if_any(query) %}
    {%- if query | trim -%}
        {% call statement('hook') %}{{ query }}{% endcall %}
    {%- endif -%}
{% endmacro %}
