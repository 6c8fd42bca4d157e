{#-
  Tables that are created once and then kept: a build writes only the rows that differ, in one transaction, and drops
  nothing. Views, grants and materialized views on such a table stay, and no reader finds the table empty or missing,
  even during a full refresh. transform/macros/kept/README.md lists the settings of each.
-#}

{#- Each build computes all rows. -#}
{% materialization kept_table, adapter='postgres' %}
    {{ return(kept_build(complete=true)) }}
{% endmaterialization %}

{#- After the first build, each build computes only what changed, as the model defines it under is_incremental(). -#}
{% materialization kept_incremental, adapter='postgres' %}
    {{ return(kept_build(complete=not is_incremental())) }}
{% endmaterialization %}

{#- The same, in partitions by range of a date or time. -#}
{% materialization partitioned_incremental, adapter='postgres' %}
    {%- if not config.get('partition_by') -%}
        {%- do exceptions.raise_compiler_error(
            'partitioned_incremental needs partition_by, such as {column: ordered_on, grain: month}.'
        ) -%}
    {%- endif -%}
    {{ return(kept_build(complete=not is_incremental())) }}
{% endmaterialization %}


{% macro kept_build(complete) %}
    {%- set model_ = kept_model() -%}
    {%- set there = kept_is_there(model_.relation, 'p' if model_.partition_by else 'r') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ kept_begin() }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {#- 1: compute the table's new rows beside it, and the horizon up to which they are complete -#}
    {%- set horizon = kept_new_horizon() -%}
    {%- set columns = kept_stage(model_, complete) -%}

    {%- if there -%}
        {#- 2: alter the table's shape and commit, so that its lock is short and does not cover building an index -#}
        {%- set contract = kept_contract(model_) -%}
        {%- set change = kept_changes(model_, columns, contract) -%}
        {{ kept_prove_contract(model_, columns, contract) }}
        {%- if change.anew == 'with the shape' -%}
            {#- the old rows would not fit it, and no reader may find the table without old or new rows -#}
            {%- set deleted = kept_delete_all(model_) -%}
        {%- endif -%}
        {{ kept_follow(model_, change) }}
        {{ kept_partitions(model_) }}
        {%- if not change.anew -%}
            {{ kept_commit() }}
            {{ kept_indexes(model_) }}
            {{ kept_commit() }}
            {#- 3: write its rows, and its horizon with them -#}
            {%- set written = kept_merge(model_, columns, complete) -%}
        {%- else -%}
            {%- if change.anew != 'with the shape' -%}
                {{ kept_commit() }}
                {%- set deleted = kept_delete_all(model_) -%}
            {%- endif -%}
            {%- set written = kept_fill(model_, columns) -%}
            {%- do written.update({'deleted': deleted}) -%}
            {{ kept_indexes(model_) }}
        {%- endif -%}
    {%- else -%}
        {{ kept_create(model_, columns) }}
        {%- set written = kept_fill(model_, columns) -%}
        {{ kept_indexes(model_) }}
    {%- endif -%}
    {{ kept_note(model_.relation, horizon, written) }}
    {{ kept_clear() }}
    {%- do store_raw_result(
        name='main',
        message=written.inserted ~ ' new, ' ~ written.updated ~ ' changed, ' ~ written.deleted ~ ' gone',
        code='MERGE',
        rows_affected=written.inserted + written.updated + written.deleted,
    ) -%}
    {%- do apply_grants(model_.relation, config.get('grants'), should_revoke=there) -%}
    {{ kept_docs(model_.relation) }}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}

    {%- if there -%}
        {#- 4: add the constraints that are new in the contract -#}
        {{ kept_constrain(model_, contract) }}
    {%- endif -%}
    {{ kept_analyze(model_.relation, written) }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [model_.relation]}) }}
{% endmacro %}


{#- The checked settings of the build. -#}
{% macro kept_model() %}
    {%- set key = config.get('unique_key') -%}
    {%- set key = [key] if key is string else key -%}
    {%- if not key -%}
        {%- do exceptions.raise_compiler_error(model.config.materialized ~ ' needs a unique_key.') -%}
    {%- endif -%}
    {%- set partition_by = config.get('partition_by') -%}
    {%- if partition_by and (partition_by.get('grain') or 'month') not in ['day', 'month', 'year'] -%}
        {%- do exceptions.raise_compiler_error(
            "partition_by's grain is " ~ partition_by.grain ~ '; it can be day, month or year.'
        ) -%}
    {%- endif -%}
    {%- set explicit = (model.unrendered_config or {}).get('on_schema_change') or 'fail' -%}
    {%- if explicit not in ['fail', 'append_new_columns'] -%}
        {%- do exceptions.raise_compiler_error(
            'on_schema_change is ' ~ explicit ~ '; a kept table takes fail or append_new_columns. A run with '
            ~ '--full-refresh alters its columns to match the model.'
        ) -%}
    {%- endif -%}
    {{ kept_refuse_foreign_keys() }}
    {{ return({
        'relation': this.incorporate(type='table'),
        'stage': kept_temp('stage'),
        'gone': kept_temp('gone'),
        'plan': kept_temp('plan'),
        'shape': kept_temp('shape'),
        'key': key,
        'partition_by': partition_by,
        'partition': partition_by.column if partition_by else none,
        'grain': (partition_by.get('grain') or 'month') if partition_by else none,
        'match': key + ([partition_by.column] if partition_by and partition_by.column not in key else []),
    }) }}
{% endmacro %}
