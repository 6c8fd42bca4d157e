{#-
  Names that are made of a model's, within the 63 bytes that PostgreSQL keeps of a name. One that is too long is cut, and
  a hash of all of it keeps it apart from others that begin the same.
-#}
{% macro kept_name(name, suffix) %}
    {%- if (name ~ suffix).encode('utf-8') | length <= 63 -%}{{ return(name ~ suffix) }}{%- endif -%}
    {%- set suffix = '_' ~ local_md5(name)[:8] ~ suffix -%}
    {{ return(name.encode('utf-8')[:63 - suffix | length].decode('utf-8', 'ignore') ~ suffix) }}
{% endmacro %}


{#- The beginning of a name that is no longer than so many bytes. -#}
{% macro kept_cut(name, bytes) %}
    {{ return(name.encode('utf-8')[:bytes].decode('utf-8', 'ignore')) }}
{% endmacro %}


{#- A temporary relation of the model at hand, quoted. -#}
{% macro kept_temp(what) %}
    {{ return(adapter.quote(kept_name(this.identifier, '__' ~ what))) }}
{% endmacro %}
