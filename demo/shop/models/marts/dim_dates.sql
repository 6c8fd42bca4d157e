{{ config(materialized='in_place_table', unique_key='date_day') }}

with days as (

    select day::date as date_day
    from generate_series('{{ var("dates_from") }}'::date, '{{ var("dates_to") }}'::date, interval '1 day') as day

),

final as (

    select
        -- dates
        date_day,
        date_trunc('week', date_day)::date as week_starts_on,
        date_trunc('month', date_day)::date as month_starts_on,
        date_trunc('quarter', date_day)::date as quarter_starts_on,

        -- numbers
        extract(year from date_day)::integer as year,
        extract(quarter from date_day)::integer as quarter,
        extract(month from date_day)::integer as month,
        extract(day from date_day)::integer as day_of_month,
        extract(isodow from date_day)::integer as day_of_week,
        extract(isoyear from date_day)::integer as iso_year,
        extract(week from date_day)::integer as iso_week,

        -- text: English names, whatever the session's language
        to_char(date_day, 'FMMonth') as month_name,
        to_char(date_day, 'FMDay') as day_name,

        -- booleans
        extract(isodow from date_day) >= 6 as is_weekend

    from days

)

select * from final
