{#-
  Names derived from a model's name, within the 63 bytes that PostgreSQL keeps. A name that is too long is cut, and gets a
  hash of the whole name, so that it differs from others that begin the same.
-#}
{% macro shortened_name(name, suffix) %}
    {%- if (name ~ suffix).encode('utf-8') | length <= 63 -%}{{ return(name ~ suffix) }}{%- endif -%}
    {%- set suffix = '_' ~ local_md5(name)[:8] ~ suffix -%}
    {{ return(name.encode('utf-8')[:63 - suffix | length].decode('utf-8', 'ignore') ~ suffix) }}
{% endmacro %}


{#- The first `bytes` bytes of a name, without half a character. -#}
{% macro cut_name(name, bytes) %}
    {{ return(name.encode('utf-8')[:bytes].decode('utf-8', 'ignore')) }}
{% endmacro %}


{#- The quoted name of a temporary relation of the current model. -#}
{% macro temp_name(what) %}
    {{ return(adapter.quote(in_place.shortened_name(this.identifier, '__' ~ what))) }}
{% endmacro %}


{#- Refuses names with a quote, which this package's SQL has in literals and between quotes. -#}
{% macro refuse_quotes_in_names(names) %}
    {%- for name in names if "'" in name or '"' in name -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' has the name ' ~ name ~ ', and in_place can write none with a quote into its SQL. Rename it, or give the model an alias. '
            ~ 'Nothing was changed.'
        ) -%}
    {%- endfor -%}
{% endmacro %}


{#- A text as SQL. dbt's string_literal does not double the quotes in it. -#}
{% macro text_literal(value) -%}
    '{{ value | replace("'", "''") }}'
{%- endmacro %}
