{#- What a build by key and a full one cost, and which of them is cheaper for so many keys. -#}

{#- Why all rows are computed instead of so many keys; none if the keys are cheaper, by what was measured or, at first, by their share. -#}
{% macro why_full_is_cheaper(count) %}
    {%- set known = in_place.last_build() -%}
    {%- if known.seconds_per_key is not none and known.seconds_full is not none -%}
        {%- if count * known.seconds_per_key > known.seconds_full -%}
            {{ return(
                count ~ ' keys changed, which would take ' ~ (count * known.seconds_per_key) | round(1) ~ ' s by key, and all rows took '
                ~ known.seconds_full | round(1) ~ ' s'
            ) }}
        {%- endif -%}
    {%- elif known.keys_total and count > 1000 and count > 0.05 * known.keys_total -%}
        {{ return(count ~ ' of ' ~ known.keys_total | int ~ ' keys changed') }}
    {%- endif -%}
    {{ return(none) }}
{% endmacro %}
