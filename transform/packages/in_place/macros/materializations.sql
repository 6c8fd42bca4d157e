{#-
  Tables that are created once and then changed in place: a build writes only the rows that differ, in one transaction, and
  drops nothing. Views, grants and materialized views on such a table stay, and no reader finds the table empty or missing,
  even during a full refresh. The package's README lists the settings of each.
-#}

{#- Each build computes all rows. -#}
{% materialization in_place_table, adapter='postgres' %}
    {{ return(in_place.build_table(complete=true)) }}
{% endmaterialization %}

{#-
  After the first build, each build computes only what changed, as the model defines it under in_place.is_incremental().
  With partition_by, the table is partitioned by range of a date or time.
-#}
{% materialization in_place_incremental, adapter='postgres' %}
    {{ return(in_place.build_table(complete=not in_place.is_incremental())) }}
{% endmaterialization %}


{% macro build_table(complete, by_key=false) %}
    {%- set model_ = in_place.model_settings() -%}
    {%- set there = in_place.exists_as(model_.relation, 'p' if model_.partition_by else 'r') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ in_place.begin_transaction() }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set prepared = in_place.prepare_by_key(model_, there) if by_key else none -%}
    {#- 1: compute the table's new rows beside it, and the horizon up to which they are complete -#}
    {%- set horizon = in_place.new_horizon() -%}
    {%- if by_key -%}
        {%- set why_full = in_place.stage_changed_keys(model_, prepared, there) -%}
        {%- do log(this ~ ' computes all of its rows: ' ~ why_full ~ '.', info=true) if why_full and there -%}
        {%- set complete = why_full is not none -%}
    {%- endif -%}
    {%- set begun = modules.datetime.datetime.now() -%}
    {%- set columns = in_place.stage_rows(model_, complete, prepared) -%}
    {%- set seconds = in_place.seconds_since(begun) -%}
    {#- keys of the stage are unique, but a contract's type may round them -#}
    {%- set are_unique = not config.get('contract').enforced -%}

    {%- if there -%}
        {#- 2: alter the table's shape and commit, so that its lock is short and does not cover building an index -#}
        {%- set facts = in_place.table_facts(model_) -%}
        {%- set contract = in_place.compare_contract(model_, facts) -%}
        {{ in_place.refuse_other_columns(model_, columns, contract.columns) }}
        {%- set change = in_place.shape_changes(model_, columns, contract, facts) -%}
        {{ in_place.prove_contract(model_, columns, contract) }}
        {%- if change.anew == 'with the shape' -%}
            {#- the old rows would not fit it, and no reader may find the table without old or new rows -#}
            {%- set deleted = in_place.delete_all_rows(model_) -%}
        {%- endif -%}
        {{ in_place.alter_shape(model_, change) }}
        {%- if change.casts.keys() | select('in', in_place.tracked_columns()) | list -%}
            {#- a cast may round or cut values, and no row of the merge would differ then -#}
            {{ in_place.log_all(model_) }}
            {% call statement('retyped') %}
                update {{ in_place.models_table(model_.relation) }} set changed_at = now(), changed_xid = pg_current_xact_id()
                where model = {{ in_place.text_literal(model_.relation.identifier) }}
            {% endcall %}
        {%- endif -%}
        {{ in_place.create_partitions(model_, facts.default_partition) }}
        {%- if not change.anew -%}
            {%- if change.actions or change.old_indexes or in_place.missing_indexes(model_, facts) -%}
                {{ in_place.commit_and_begin() }}
                {{ in_place.create_missing_indexes(model_) }}
            {%- endif -%}
            {#- not to hold what was read while the merge waits for its lock -#}
            {{ in_place.commit_and_begin() }}
            {#- 3: write its rows, and its horizon with them -#}
            {%- set begun = modules.datetime.datetime.now() -%}
            {%- set written = in_place.merge_rows(model_, columns, complete) -%}
            {%- set seconds = seconds + in_place.seconds_since(begun) -%}
        {%- else -%}
            {%- if change.anew != 'with the shape' -%}
                {{ in_place.commit_and_begin() }}
                {%- set deleted = in_place.delete_all_rows(model_) -%}
            {%- endif -%}
            {%- set written = in_place.fill_table(model_, columns) -%}
            {%- do written.update({'deleted': deleted}) -%}
            {{ in_place.create_missing_indexes(model_, are_unique=are_unique) }}
        {%- endif -%}
    {%- else -%}
        {{ in_place.refuse_other_columns(model_, columns) }}
        {%- set dropped = in_place.create_table(model_, columns) -%}
        {%- set written = in_place.fill_table(model_, columns) -%}
        {{ in_place.add_index_constraints(model_, dropped) }}
        {{ in_place.create_missing_indexes(model_, are_unique=are_unique) }}
    {%- endif -%}
    {%- set keys = in_place.key_count(model_, complete) if by_key else none -%}
    {%- set due = in_place.record_build(model_.relation, horizon, written, complete, keys, seconds if there else none, prepared.definition if by_key else none) -%}
    {%- do store_raw_result(
        name='main',
        message=(keys ~ (' key: ' if keys == 1 else ' keys: ') if by_key and not complete else '') ~ written.inserted ~ ' new, ' ~ written.updated ~ ' changed, ' ~ written.deleted ~ ' gone',
        code='MERGE',
        rows_affected=written.inserted + written.updated + written.deleted,
    ) -%}
    {%- do apply_grants(model_.relation, config.get('grants'), should_revoke=there) -%}
    {{ in_place.update_comments(model_.relation) }}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}

    {%- if there -%}
        {#- 4: add the constraints that are new in the contract -#}
        {{ in_place.add_constraints(model_, contract) }}
    {%- endif -%}
    {%- if due -%}{{ in_place.analyze_table(model_.relation) }}{%- endif -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [model_.relation]}) }}
{% endmacro %}


{#- The seconds since a time of this machine's clock. -#}
{% macro seconds_since(begun) %}
    {{ return((modules.datetime.datetime.now() - begun).total_seconds()) }}
{% endmacro %}


{#- A setting that is a name, a list of names or nothing, as a list. -#}
{% macro as_list(setting) %}
    {{ return([setting] if setting is string else setting or []) }}
{% endmacro %}


{#- The checked settings of the build. -#}
{% macro model_settings() %}
    {%- set key = config.get('unique_key') -%}
    {%- set key = in_place.as_list(key) -%}
    {%- if not key -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' needs a unique_key: the columns that no two of its rows share.' ~ in_place.meant_setting('unique_key') ~ ' Nothing was changed.'
        ) -%}
    {%- endif -%}
    {%- set partition_by = config.get('partition_by') -%}
    {%- if partition_by and (partition_by is string or not partition_by.get('column')) -%}
        {%- do exceptions.raise_compiler_error(
            'partition_by is ' ~ partition_by ~ '; it must name a column, as in {column: ordered_on, grain: month}.'
        ) -%}
    {%- endif -%}
    {%- if partition_by and (partition_by.get('grain') or 'month') not in ['day', 'month', 'year'] -%}
        {%- do exceptions.raise_compiler_error(
            "partition_by's grain is " ~ partition_by.grain ~ '; it can be day, month or year.'
        ) -%}
    {%- endif -%}
    {%- set explicit = (model.unrendered_config or {}).get('on_schema_change') or 'fail' -%}
    {%- if explicit not in ['fail', 'append_new_columns'] -%}
        {%- do exceptions.raise_compiler_error(
            'on_schema_change is ' ~ explicit ~ '; an in-place table takes fail or append_new_columns. A run with '
            ~ '--full-refresh alters its columns to match the model.'
        ) -%}
    {%- endif -%}
    {{ in_place.refuse_foreign_keys() }}
    {{ in_place.refuse_quotes_in_names([this.schema, this.identifier] + key) }}
    {{ return({
        'relation': this.incorporate(type='table'),
        'stage': in_place.temp_name('stage'),
        'gone': in_place.temp_name('gone'),
        'plan': in_place.temp_name('plan'),
        'shape': in_place.temp_name('shape'),
        'key': key,
        'build_by': in_place.as_list(config.get('build_by')) or key,
        'null_keys': in_place.as_list(config.get('null_keys')),
        'partition_by': partition_by,
        'partition': partition_by.column if partition_by else none,
        'grain': (partition_by.get('grain') or 'month') if partition_by else none,
        'match': key + ([partition_by.column] if partition_by and partition_by.column not in key else []),
    }) }}
{% endmacro %}
