{#- Creates the table that another program would load, with 1,000 orders. -#}
{% macro load_orders() %}
    {%- set query -%}
        create schema {{ target.schema }}_raw;
        create table {{ target.schema }}_raw.orders (
            order_id bigint primary key,
            customer_id bigint not null,
            status text not null,
            amount numeric(12, 2) not null,
            ordered_on date not null,
            deleted_at timestamptz,
            -- the transaction that wrote the row; each update must set it to its default again
            loaded_xid xid8 not null default pg_current_xact_id()
        );
        create index on {{ target.schema }}_raw.orders (loaded_xid);
        insert into {{ target.schema }}_raw.orders (order_id, customer_id, status, amount, ordered_on)
        select
            id,
            id % 50 + 1,
            case id % 3 when 0 then 'open' when 1 then 'paid' else 'sent' end,
            id,
            date '2026-01-01' + (id % 90)::integer
        from generate_series(1, 1000) as id;
        commit
    {%- endset -%}
    {%- do run_query(query) -%}
{% endmacro %}


{#- Changes three orders, deletes one, and adds one in a month that has no partition yet. -#}
{% macro change_orders() %}
    {%- set query -%}
        update {{ target.schema }}_raw.orders set amount = amount + 1, loaded_xid = default where order_id in (1, 2, 3);
        update {{ target.schema }}_raw.orders set deleted_at = now(), loaded_xid = default where order_id = 4;
        insert into {{ target.schema }}_raw.orders (order_id, customer_id, status, amount, ordered_on)
        values (1001, 1, 'open', 10, '2026-07-01');
        commit
    {%- endset -%}
    {%- do run_query(query) -%}
{% endmacro %}
