{#-
  Stages the changed keys of an incremental build: runs `query` into a temporary table with statistics, named `changed`.
  Without statistics, PostgreSQL estimates one row for values above the newest that it knows, and picks a bad join.

  The macro notes every table's horizon before it runs the query. The next build reads what commits after that.
-#}
{% macro staged_keys(query) %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot'] or model.resource_type == 'unit_test' -%}
        {{ return('(' ~ query ~ '\n) as changed') }}
    {%- endif -%}
    {%- set name = in_place.temp_name('changed') -%}
    {{ in_place.note_horizons() }}
    {{ in_place.note_inputs(query) }}
    {% call statement('changed') %}
        drop table if exists pg_temp.{{ name }};
        create temporary table {{ name }} as {{ query }}
        ;
        analyze {{ name }};
    {% endcall %}
    {%- do adapter.commit() -%}
    {{ return(name ~ ' as changed') }}
{% endmacro %}
