{{
    config(
        materialized='in_place_materialized_view',
        indexes=[{'columns': ['month', 'category', 'country'], 'unique': true}],
    )
}}

with daily_sales as (

    -- columns by name: PostgreSQL can't drop or alter a column that a materialized view reads
    select
        ordered_on,
        category,
        country,
        line_count,
        units,
        revenue,
        margin
    from {{ ref('mart_daily_sales') }}

),

final as (

    select
        date_trunc('month', ordered_on)::date as month,
        category,
        country,
        sum(line_count)::integer as line_count,
        sum(units)::integer as units,
        sum(revenue)::numeric(14, 2) as revenue,
        sum(margin)::numeric(14, 2) as margin
    from daily_sales
    group by date_trunc('month', ordered_on), category, country

)

select * from final
