{#-
  Edits of an in-place table by hand. Builds log what they write, and a table that is built by key or in full corrects an edit
  sooner or later, with the edited value as the old one. A sum by difference over the table never counted that value, so it needs the
  edit in the log as well: then it always equals a sum of the rows that the table has. So triggers log each change of such
  a table that no build makes. While a build writes its table, `in_place.writes` holds the table's oid.
-#}

{#- Has the edits of the input of a model that is built by difference logged, and commits. Call it before the build's snapshot is taken. -#}
{% macro track_edits(input) %}
    {%- set columns = in_place.columns_of_edits(input) -%}
    {%- set body = in_place.log_edit_body(input, columns) -%}
    {%- set due_query -%}
        select
            pg_has_role(relowner, 'usage')
            and 4 > (
                select count(*) from pg_catalog.pg_trigger
                inner join pg_catalog.pg_proc on pg_proc.oid = tgfoid
                where
                    tgrelid = pg_class.oid and tgname like '\_tidemark\_edits\_%' and tgenabled = 'A'
                    and position({{ in_place.dollar_tag(body) }}{{ body }}{{ in_place.dollar_tag(body) }} in prosrc) > 0
            )
        from pg_catalog.pg_class where oid = {{ input.oid }}
    {%- endset -%}
    {%- if in_place.single_value(due_query) -%}
        {%- set function = input.schema ~ '.' ~ adapter.quote(in_place.shortened_name('_tidemark_edit_of_' ~ input.identifier, '')) -%}
        {%- set ddl -%}
            -- two models above the table, built at once, would both create them
            perform pg_advisory_xact_lock(hashtext('in_place edits of {{ input.oid }}'));
            if ({{ due_query }}) then
                execute {{ in_place.text_literal(in_place.create_edit_function(function, body)) }};
                {%- for event in ['insert', 'update', 'delete', 'truncate'] %}
                    drop trigger if exists _tidemark_edits_{{ event }} on {{ input.relation }};
                    create trigger _tidemark_edits_{{ event }} after {{ event }} on {{ input.relation }}
                    for each {{ 'statement' if event == 'truncate' else 'row' }}
                    when (pg_catalog.current_setting('in_place.writes', true) is distinct from '{{ input.oid }}')
                    execute function {{ function }}();
                    alter table {{ input.relation }} enable always trigger _tidemark_edits_{{ event }};
                {%- endfor %}
            end if;
        {%- endset -%}
        {{ in_place.run_ddl('track edits', ddl, relation=input.relation) }}
        {{ in_place.commit_and_begin() }}
    {%- endif -%}
{% endmacro %}


{#- The columns that the input's log has, or that the current model needs if the input was not built since it needs them. -#}
{% macro columns_of_edits(input) %}
    {%- set query -%}
        select jsonb_object_keys(columns) from {{ input.schema }}._tidemark_tracked
        where model = {{ in_place.text_literal(input.identifier) }} and relation = {{ input.oid }} and cluster = {{ in_place.cluster_id() }}
        order by 1
    {%- endset -%}
    {%- set known = in_place.first_column(query) | list -%}
    {%- set there = in_place.table_columns(input.relation) | map(attribute='name') | list -%}
    {%- set needed = in_place.columns_in_use(input.relation, input.key.values() | list + input.columns) -%}
    {{ return((known | select('in', there) | list + needed) | unique | sort) }}
{% endmacro %}


{#- The body of the function that logs an edit. As in track_changes_body, it names all that it calls. -#}
{% macro log_edit_body(input, columns) -%}
    declare
        old_values pg_catalog.jsonb;
        new_values pg_catalog.jsonb;
    begin
        -- without values, any row may have changed
        if pg_catalog.texteq(tg_op, 'TRUNCATE') is not true then
            begin
                if pg_catalog.texteq(tg_op, 'INSERT') is not true then
                    old_values := {{ in_place.tracked_json(columns, 'old') }};
                end if;
                if pg_catalog.texteq(tg_op, 'DELETE') is not true then
                    new_values := {{ in_place.tracked_json(columns, 'new') }};
                end if;
            exception when others then
                old_values := null;
                new_values := null;
            end;
        end if;
        insert into {{ input.schema }}._tidemark_changes (model, old, new)
        values ({{ in_place.text_literal(input.identifier) }}, old_values, new_values);
        return null;
    end
{%- endmacro %}


{% macro create_edit_function(function, body) -%}
    create or replace function {{ function }}() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp
    set extra_float_digits = 1 set intervalstyle = postgres set datestyle = iso set bytea_output = hex
    as {{ in_place.dollar_tag(body) }}{{ body }}{{ in_place.dollar_tag(body) }};
    -- others could put it on a table of theirs, and log what never changed
    revoke all on function {{ function }}() from public
{%- endmacro %}


{#- Whether edits of the input since `snapshot` may be missing in its log. -#}
{% macro lacks_edits(input, snapshot) %}
    {%- set query -%}
        with now as (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xid),

        triggers as (
            -- the transaction that created the trigger, or that enabled it again
            select xmin::text::bigint as xid from pg_catalog.pg_trigger
            where tgrelid = {{ input.oid }} and tgname like '\_tidemark\_edits\_%' and tgenabled = 'A'
        )

        select count(*) filter (
            -- with the epoch that a transaction of the last four billion has
            where pg_visible_in_snapshot(
                (triggers.xid + ((now.xid >> 32) - (triggers.xid > (now.xid & 4294967295))::integer << 32))::text::xid8, '{{ snapshot }}'
            )
        ) < 4
        from triggers
        cross join now
    {%- endset -%}
    {{ return(in_place.single_value(query)) }}
{% endmacro %}


{#- SQL: from here to writes_end(), or to the end of the transaction, the current build writes its own table and logs that itself. -#}
{% macro writes_begin(relation) -%}
    select set_config('in_place.writes', '{{ relation }}'::regclass::oid::text, true)
{%- endmacro %}


{% macro writes_end() -%}
    select set_config('in_place.writes', '', true)
{%- endmacro %}
