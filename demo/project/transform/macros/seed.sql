{#- dbt lets only the project itself, and no package, replace a materialization of dbt's own. -#}
{% materialization seed, adapter='postgres' %}
    {{ return(in_place.build_seed()) }}
{% endmaterialization %}
