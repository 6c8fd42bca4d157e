{#- A pre-hook: deletes the rows that a staging model has marked as deleted since the last build. -#}
{% macro delete_marked(staging, key) -%}
    {%- if is_incremental() -%}
        delete from {{ this }} where {{ key }} in (
            select {{ key }} from {{ source('staging', staging) }}
            where deleted_at > (select max(loaded_at) from {{ this }})
        )
    {%- endif -%}
{%- endmacro %}
