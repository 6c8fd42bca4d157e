{#- Fails for each row that points to the unknown member of its dimension. Leaves out rows loaded in the last hour. -#}
{% test known_member(model, column_name) %}
select * from {{ model }}
where {{ column_name }} = {{ tidemark.unknown_key() }} and loaded_at < now() - interval '1 hour'
{% endtest %}
