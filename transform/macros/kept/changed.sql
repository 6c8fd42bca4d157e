{#-
  The rows that an incremental build is about: the keys that `query` finds, in a temporary table with statistics. Without
  those PostgreSQL takes rows past the newest it knows of for one, and joins them as if they were. It is called `changed`.

  It is noted first how far all tables go, so that what is committed after the query is read by the next build.
-#}
{% macro staged_keys(query) %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot'] or model.resource_type == 'unit_test' -%}
        {{ return('(' ~ query ~ '\n) as changed') }}
    {%- endif -%}
    {%- set name = kept_temp('changed') -%}
    {{ kept_take_notes() }}
    {{ kept_add_read(query) }}
    {% call statement('changed') %}
        drop table if exists pg_temp.{{ name }};
        create temporary table {{ name }} as {{ query }}
        ;
        analyze {{ name }};
    {% endcall %}
    {%- do adapter.commit() -%}
    {{ return(name ~ ' as changed') }}
{% endmacro %}
