{#-
  The rows that an incremental build is about: the keys that `query` finds, in a temporary table with statistics. Without
  those PostgreSQL takes rows past the newest it knows of for one, and joins them as if they were. It is called `changed`.

  Where it stands the horizon is taken first, so that what is committed after the query is read by the next build.
-#}
{% macro staged_keys(query) %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot'] or model.resource_type == 'unit_test' -%}
        {{ return('(' ~ query ~ '\n) as changed') }}
    {%- endif -%}
    {%- set name = this.identifier[:50] ~ '__changed' -%}
    {%- set horizon = kept_new_horizon() -%}
    {% call statement('changed') %}
        drop table if exists pg_temp.{{ name }};
        create temporary table {{ name }} as {{ query }}
        ;
        comment on table {{ name }} is '{{ horizon }}';
        analyze {{ name }};
    {% endcall %}
    {%- do adapter.commit() -%}
    {{ return(name ~ ' as changed') }}
{% endmacro %}


{#- The horizon that staged_keys took for the build at hand, or else one taken now. -#}
{% macro kept_taken_horizon() %}
    {%- set taken = run_query(
        "select obj_description(to_regclass('pg_temp." ~ this.identifier[:50] ~ "__changed'), 'pg_class')"
    ).columns[0].values()[0] -%}
    {%- if taken is not none -%}
        {{ return(taken) }}
    {%- endif -%}
    {{ return(kept_new_horizon()) }}
{% endmacro %}
