-- Staging neither drops nor doubles a row.
{% for table in ['customers', 'products', 'orders', 'order_items'] %}
    select
        '{{ table }}' as name,
        rows_in_raw,
        rows_in_staging
    from (select count(*) as rows_in_raw from {{ source('raw', table) }}) as raw
    cross join (select count(*) as rows_in_staging from {{ ref('stg_' ~ table) }}) as staging
    where rows_in_raw != rows_in_staging
    {{ 'union all' if not loop.last }}
{% endfor %}
