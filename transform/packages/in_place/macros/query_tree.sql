{#-
  A SELECT as PostgreSQL understood it: the tree of nodes that it keeps of each view's query (parsenodes.h, primnodes.h), as mappings
  and lists. Unlike a plan, it says by position which column is meant, whatever its name is, at each level, and it does not change with
  the tables' sizes. A node is {node, …fields}; every atom is a text. Written for PostgreSQL 15 to 18.
-#}

{#-
  What is needed of a view's query and of the views below it.

  Returns:
    {queries, names, columns, unique_indexes, not_null}. `queries` has each view's tree as JSON, by its oid; `names` the names of operators,
    functions, types and domains, by kind and oid, as in `o96`, with in_place.mark_of_not_strict() behind those that may make a value of null; `columns` a list of all columns by number,
    `unique_indexes` a list of lists of columns and `not_null` a list of columns, by the oid of the table.
-#}
{% macro trees_below(view) %}
    {%- set queries, oids = {}, {'o': ['0'], 'f': ['0'], 't': ['0'], 'r': ['0']} -%}
    {%- set query -%}
        select views.oid::text, ev_action::text
        from ({{ in_place.views_below(view) }}) as views
        inner join pg_catalog.pg_rewrite on ev_class = views.oid and ev_type = '1'
    {%- endset -%}
    {%- for oid, text in run_query(query).rows -%}
        {%- do queries.update({oid: in_place.tree_as_json(text)}) -%}
        {%- do oids.o.extend(modules.re.findall(':opno (\\d+)', text)) -%}
        {%- do oids.f.extend(modules.re.findall(':(?:funcid|aggfnoid|winfnoid) (\\d+)', text)) -%}
        {%- do oids.t.extend(modules.re.findall(':(?:resulttype|funcresulttype|vartype) (\\d+)', text)) -%}
        {%- do oids.r.extend(modules.re.findall(':relid (\\d+)', text)) -%}
    {%- endfor -%}
    {%- set query -%}
        select json_build_object(
            'names', (
                select json_object_agg(kind || oid, name)
                from (
                    select
                        'o' as kind, pg_operator.oid,
                        concat(
                            case when oprnamespace <> 'pg_catalog'::regnamespace and oprname <> '=' then oprnamespace::regnamespace || '.' end,
                            oprname, case when not proisstrict then '{{ in_place.mark_of_not_strict() }}' end
                        ) as name
                    from pg_catalog.pg_operator inner join pg_catalog.pg_proc on pg_proc.oid = oprcode
                    where pg_operator.oid in ({{ oids.o | unique | join(', ') }})
                    union all
                    select
                        'f', oid,
                        concat(
                            case when pronamespace <> 'pg_catalog'::regnamespace then pronamespace::regnamespace || '.' end,
                            proname, case when not proisstrict then '{{ in_place.mark_of_not_strict() }}' end
                        )
                    from pg_catalog.pg_proc where oid in ({{ oids.f | unique | join(', ') }})
                    union all
                    select kind, oid, format_type(oid, null)
                    from pg_catalog.pg_type, unnest(array['t', typtype::text]) as kind
                    where oid in ({{ oids.t | unique | join(', ') }}) and kind in ('t', 'd')
                ) as names
            ),
            -- by number, with those that were dropped
            'columns', (
                select json_object_agg(attrelid, names)
                from (
                    select attrelid, json_agg(attname order by attnum) as names from pg_catalog.pg_attribute
                    where attrelid in ({{ oids.r | unique | join(', ') }}) and attnum > 0
                    group by attrelid
                ) as columns
            ),
            'unique_indexes', (
                select json_object_agg(indrelid, indexes)
                from (
                    select
                        indrelid,
                        json_agg((
                            select json_agg(attname) from pg_catalog.pg_attribute
                            where attrelid = indrelid and attnum = any(indkey[0:indnkeyatts - 1])
                        )) as indexes
                    from pg_catalog.pg_index
                    where
                        indrelid in ({{ oids.r | unique | join(', ') }})
                        and indisunique and indisvalid and indpred is null and indexprs is null
                    group by indrelid
                ) as indexes
            ),
            'not_null', (
                select json_object_agg(attrelid, names)
                from (
                    select attrelid, json_agg(attname) as names from pg_catalog.pg_attribute
                    where attrelid in ({{ oids.r | unique | join(', ') }}) and attnotnull
                    group by attrelid
                ) as not_null
            )
        )
    {%- endset -%}
    {%- set facts = fromjson(in_place.single_value(query)) -%}
    {{ return({
        'queries': queries,
        'names': facts.names or {},
        'columns': facts.columns or {},
        'unique_indexes': facts.unique_indexes or {},
        'not_null': facts.not_null or {},
    }) }}
{% endmacro %}


{#- A tree as JSON, from PostgreSQL's text of it (outfuncs.c). -#}
{% macro tree_as_json(text) %}
    {%- set written = {'text': text} -%}
    {#- characters with a backslash before them, and quotes in a name, are no syntax: private use characters stand in for them -#}
    {%- for character, stand_in in in_place.stand_ins().items() -%}
        {%- do written.update({'text': written.text | replace('\\' ~ character, stand_in)}) -%}
    {%- endfor -%}
    {%- for pattern, replacement in [
        ('\\\\', ''),
        ('\\s+', ' '),
        ('(?<=[^\\s(])"(?=[^\\s)}])', '\ue022'),
        ('(?<=\\s)([^\\s"(){}]+)"(?=[\\s)}])', '\\1\ue022'),
        ('([^\\s(])""(?=[\\s)])', '\\1\ue022"'),
        (':constvalue \\d+ \\[ ([-\\d ]*)\\]', ':constvalue "\\1"'),
        ('\\(([iobx])\\)', '[]'),
        ('\\([iobx] ([-\\d ]+)\\)', '["\\1"]'),
        (':(\\w+) ([^\\s(){}\\["<][^\\s(){}]*)', ':\\1 "\\2"'),
        ('<>', 'null'),
        (' ?:(\\w+) ', ',"\\1":'),
        ('\\{(\\w+)', '{"node":"\\1"'),
        ('\\(', '['),
        ('\\)', ']'),
        ('(?<=[}\\]"l]) (?=[{\\["n])', ','),
    ] -%}
        {%- do written.update({'text': modules.re.sub(pattern, replacement, written.text)}) -%}
    {%- endfor -%}
    {{ return(written.text) }}
{% endmacro %}


{#- A private use character that no name has, behind the names of operators and functions of which null is not always null. -#}
{% macro mark_of_not_strict() %}
    {{ return('\ue041') }}
{% endmacro %}


{% macro stand_ins() %}
    {{ return({'\\': '\ue05c', ' ': '\ue020', '(': '\ue028', ')': '\ue029', '{': '\ue07b', '}': '\ue07d', '"': '\ue022', ':': '\ue03a', '<': '\ue03c', '\n': '\ue00a', '\t': '\ue009'}) }}
{% endmacro %}


{#- A new copy of a view's tree. -#}
{% macro tree_of(oid, trees) %}
    {%- set actions = fromjson(trees.queries.get(oid, ''), []) -%}
    {%- if not actions or actions[0].node != 'QUERY' -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': what PostgreSQL keeps of the query of ' ~ oid ~ ' has a form that this package does not know; it knows PostgreSQL 15 to 18. '
            ~ 'Use in_place_table until it does. Nothing was changed.'
        ) -%}
    {%- endif -%}
    {{ return(actions[0]) }}
{% endmacro %}


{#-
  The nodes of some kinds in a part of a tree, but not those inside of another query; `kinds` may be none for all.
-#}
{% macro nodes_in(part, kinds) %}
    {%- set values, found = [part], [] -%}
    {#- the list grows while it is read -#}
    {%- for value in values -%}
        {%- if value is mapping -%}
            {%- if value.node in kinds -%}{%- do found.append(value) -%}{%- endif -%}
            {%- if value.node != 'QUERY' -%}{%- do values.extend(value.values()) -%}{%- endif -%}
        {%- elif value is sequence and value is not string -%}
            {%- do values.extend(value) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}
