{% materialization seed, adapter='postgres' %}
    {{ return(in_place.build_seed()) }}
{% endmaterialization %}
