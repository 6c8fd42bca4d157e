{#- For tests that must hold during a load: the transaction up to which all of these models are built, as SQL. -#}
{% macro built_until(models) -%}
    {%- set horizons = [] -%}
    {%- for name in models -%}
        {%- do horizons.append("'" ~ (in_place.horizon_of(ref(name)) or 0) ~ "'::xid8") -%}
    {%- endfor -%}
    least({{ horizons | join(', ') }})
{%- endmacro %}


{#-
  The loader's record of its runs into the tables of this source. It is not a source(): dbt would make it a parent of the test
  and skip the test in a partial build, because no other selected node depends on it.
-#}
{% macro loader_runs(source_name='raw') -%}
    {%- if execute -%}
        {#- the project or any of its packages describes the source -#}
        {%- set described = graph.sources.values() | selectattr('source_name', 'equalto', source_name) -%}
        {%- set runs = described | selectattr('name', 'equalto', '_tidemark_runs') | first -%}
        {%- if not runs -%}
            {%- do exceptions.raise_compiler_error(
                "The source '" ~ source_name ~ "' has no table _tidemark_runs, the loader's record of its runs, by which this test finds what "
                ~ "is loaded: list it with the source's other tables, as demo/shop/models/staging/_sources.yml does."
            ) -%}
        {%- endif -%}
        {{ api.Relation.create(runs.database, runs.schema, runs.identifier) }}
    {%- else -%}
        _tidemark_runs
    {%- endif -%}
{%- endmacro %}
