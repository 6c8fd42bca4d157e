drop table order_items, orders, products, customers;
drop function stamp_row();
