{#- What a build by key and a full one cost, and which of them is cheaper for so many keys. -#}

{#- What earlier builds of the current model cost: {keys_total, seconds_per_key, seconds_full}, each none if unknown. -#}
{% macro build_costs() %}
    {%- set query -%}
        select
            coalesce((to_jsonb(noted) ->> 'keys_total')::float8, rows_total),
            (to_jsonb(noted) ->> 'seconds_per_key')::float8,
            (to_jsonb(noted) ->> 'seconds_full')::float8
        from {{ in_place.models_table(this) }} as noted
        where model = '{{ this.identifier }}'
    {%- endset -%}
    {%- set rows = run_query(query) -%}
    {%- if not rows | length -%}{{ return({}) }}{%- endif -%}
    {%- set known = {} -%}
    {%- for name in ['keys_total', 'seconds_per_key', 'seconds_full'] -%}
        {%- do known.update({name: rows[0][loop.index0] | float if rows[0][loop.index0] is not none else none}) -%}
    {%- endfor -%}
    {{ return(known) }}
{% endmacro %}


{#- Why all rows are computed instead of so many keys; none if the keys are cheaper, by what was measured or, at first, by their share. -#}
{% macro why_full_is_cheaper(count) %}
    {%- set known = in_place.build_costs() -%}
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
