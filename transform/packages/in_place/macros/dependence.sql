{#-
  On which scans it depends which rows a query has, and what is in each of its columns. A change of an input that gives no key is
  found by values in the rows that the table has. So it must not decide which rows there are, what their keys are, or what these values are.

  Everything is a list of numbers of scans. "Depends" is meant widely: an aggregate depends on all that decides which rows there are to
  aggregate. But a row of an outer join's first side is there whatever its second side has.
-#}

{#- On which scans the rows of a query depend: {rows, many}. `many` only decides how often a row is there. -#}
{% macro rows_depend_on(query) %}
    {%- if 'rows' in query.dependences -%}{{ return(query.dependences.rows) }}{%- endif -%}
    {%- set rows, many = [], [] -%}
    {%- if query.branches -%}
        {%- for branch in query.branches -%}
            {%- set found = in_place.rows_depend_on(branch) -%}
            {%- do rows.extend(found.rows) -%}
            {%- do many.extend(found.many) -%}
        {%- endfor -%}
        {%- for combination in in_place.nodes_in(query.setOperations, ['SETOPERATIONSTMT']) if combination.all != 'true' or combination.op != '1' -%}
            {#- UNION leaves one of equal rows; INTERSECT and EXCEPT go by all columns -#}
            {%- for target in query.targetList -%}
                {%- do (many if combination.op == '1' else rows).extend(in_place.output_depends_on(query, target.resno | int)) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- else -%}
        {%- set from = in_place.item_depends_on(query.jointree, query) -%}
        {#- a key has a row in some group, whatever else the rows are grouped by -#}
        {%- set groups = in_place.values_depend_on(in_place.sorted_by(query.groupClause, query), query) -%}
        {#- an aggregate or a window function in this query depends on them -#}
        {%- do query.dependences.update({'from': (from.rows + from.many + groups) | unique | list}) -%}
        {%- set is_grouped = query.groupClause or query.groupingSets or query.hasAggs == 'true' -%}
        {%- do rows.extend(from.rows + in_place.values_depend_on([query.havingQual], query)) -%}
        {%- set distinct = in_place.values_depend_on(in_place.sorted_by(query.distinctClause, query), query) -%}
        {%- do many.extend((groups if is_grouped else from.many if query.hasDistinctOn != 'true' else []) + distinct) -%}
        {%- if query.hasTargetSRFs == 'true' -%}
            {%- do rows.extend(in_place.values_depend_on(query.targetList, query)) -%}
        {%- endif -%}
    {%- endif -%}
    {%- if query.limitCount or query.limitOffset -%}
        {%- do rows.extend(many) -%}
        {%- for target in query.targetList if query.branches or target.ressortgroupref != '0' -%}
            {%- do rows.extend(in_place.output_depends_on(query, target.resno | int)) -%}
        {%- endfor -%}
        {%- if not query.branches -%}
            {%- do rows.extend(in_place.values_depend_on([query.limitCount, query.limitOffset], query)) -%}
        {%- endif -%}
    {%- endif -%}
    {%- do query.dependences.update({'rows': {'rows': rows | unique | list, 'many': many | unique | list}}) -%}
    {{ return(query.dependences.rows) }}
{% endmacro %}


{#-
  On which scans the rows of a part of a FROM depend: {rows, many, entries}, where `entries` are those of the range table in it. Adds
  what decides whether the second side of an outer join is there to the `extra` of its entries.
-#}
{% macro item_depends_on(item, query) %}
    {%- set rows, many, entries = [], [], [] -%}
    {%- if item.node == 'FROMEXPR' -%}
        {%- for child in item.fromlist or [] -%}
            {%- set found = in_place.item_depends_on(child, query) -%}
            {%- do rows.extend(found.rows) -%}
            {%- do many.extend(found.many) -%}
            {%- do entries.extend(found.entries) -%}
        {%- endfor -%}
        {%- do rows.extend(in_place.values_depend_on([item.quals], query)) -%}
    {%- elif item.node == 'JOINEXPR' -%}
        {%- set kind = in_place.join_kind(item) -%}
        {%- set left, right = in_place.item_depends_on(item.larg, query), in_place.item_depends_on(item.rarg, query) -%}
        {%- set condition = in_place.values_depend_on([item.quals], query) -%}
        {%- do entries.extend(left.entries + right.entries) -%}
        {%- if kind in ['left', 'right'] -%}
            {%- set first, second = (left, right) if kind == 'left' else (right, left) -%}
            {%- do rows.extend(first.rows) -%}
            {%- do many.extend(first.many) -%}
            {%- if not in_place.is_found_once(item.rarg if kind == 'left' else item.larg, second, item.quals, query) -%}
                {%- do many.extend(second.rows + second.many + condition) -%}
            {%- endif -%}
            {%- for entry in second.entries -%}{%- do entry.extra.extend(second.rows + condition) -%}{%- endfor -%}
        {%- else -%}
            {%- do rows.extend(left.rows + right.rows + condition) -%}
            {%- do many.extend(left.many + right.many) -%}
            {%- if kind == 'full' -%}
                {%- for entry in entries -%}{%- do entry.extra.extend(left.rows + right.rows + condition) -%}{%- endfor -%}
            {%- endif -%}
        {%- endif -%}
    {%- else -%}
        {%- set entry = query.rtable[item.rtindex | int - 1] -%}
        {%- do entries.append(entry) -%}
        {%- if entry.scan -%}
            {%- do rows.append(entry.scan.id) -%}
        {%- elif entry.query -%}
            {%- set found = in_place.rows_depend_on(entry.query) -%}
            {%- do rows.extend(found.rows) -%}
            {%- do many.extend(found.many) -%}
        {%- else -%}
            {%- do rows.extend(in_place.column_depends_on(entry, 0, query)) -%}
        {%- endif -%}
    {%- endif -%}
    {{ return({'rows': rows | unique | list, 'many': many | unique | list, 'entries': entries}) }}
{% endmacro %}


{#- On which scans the value of a query's column depends. -#}
{% macro output_depends_on(query, number) %}
    {%- if number not in query.dependences -%}
        {%- set found = [] -%}
        {%- for branch in query.branches -%}{%- do found.extend(in_place.output_depends_on(branch, number)) -%}{%- endfor -%}
        {%- if not query.branches -%}
            {%- if 'from' not in query.dependences -%}{%- do in_place.rows_depend_on(query) -%}{%- endif -%}
            {%- set more = in_place.sorted_by(query.distinctClause + query.sortClause, query) if query.hasDistinctOn == 'true' else [] -%}
            {%- do found.extend(in_place.values_depend_on([query.targetList[number - 1].expr] + more, query)) -%}
        {%- endif -%}
        {%- do query.dependences.update({number: found | unique | list}) -%}
    {%- endif -%}
    {{ return(query.dependences[number]) }}
{% endmacro %}


{#- On which scans the values of expressions depend. -#}
{% macro values_depend_on(expressions, query) %}
    {%- set found = [] -%}
    {%- set nodes = in_place.nodes_in(expressions, ['VAR', 'SUBLINK', 'AGGREF', 'GROUPINGFUNC', 'WINDOWFUNC']) -%}
    {%- if nodes | selectattr('node', 'equalto', 'WINDOWFUNC') | list -%}
        {%- for window in query.windowClause -%}
            {%- set clauses = (window.partitionClause or []) + (window.orderClause or []) -%}
            {%- do nodes.extend(in_place.nodes_in(in_place.sorted_by(clauses, query), ['VAR', 'SUBLINK', 'AGGREF'])) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- for node in nodes -%}
        {%- if node.node == 'VAR' -%}
            {%- set owner = in_place.query_above(query, node.varlevelsup) -%}
            {%- do found.extend(in_place.column_depends_on(owner.rtable[node.varno | int - 1], node.varattno | int, owner)) -%}
        {%- elif node.node == 'SUBLINK' -%}
            {%- set below = in_place.rows_depend_on(node.subselect) -%}
            {%- do found.extend(below.rows + below.many) -%}
            {%- for target in node.subselect.targetList -%}
                {%- do found.extend(in_place.output_depends_on(node.subselect, target.resno | int)) -%}
            {%- endfor -%}
        {%- else -%}
            {%- do found.extend(query.dependences.from) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found | unique | list) }}
{% endmacro %}


{#- On which scans the value of a column of an entry of the range table depends. -#}
{% macro column_depends_on(entry, number, query) %}
    {%- set found = entry.extra | list -%}
    {%- if entry.scan -%}
        {%- do found.append(entry.scan.id) -%}
    {%- elif entry.query -%}
        {%- for target in entry.query.targetList if number in [0, target.resno | int] -%}
            {%- do found.extend(in_place.output_depends_on(entry.query, target.resno | int)) -%}
        {%- endfor -%}
    {%- elif entry.rtekind == '2' -%}
        {%- do found.extend(in_place.values_depend_on(entry.joinaliasvars[number - 1] if number > 0 else entry.joinaliasvars, query)) -%}
    {%- elif entry.rtekind == '9' -%}
        {%- do found.extend(in_place.values_depend_on(entry.groupexprs[number - 1], query)) -%}
    {%- elif entry.rtekind == '6' -%}
        {#- a recursive CTE inside itself -#}
        {%- do found.extend(entry.all_scans | map(attribute='id')) -%}
    {%- else -%}
        {%- do found.extend(in_place.values_depend_on(in_place.expressions_of_entry(entry), query)) -%}
    {%- endif -%}
    {{ return(found) }}
{% endmacro %}


{#- Whether no row of the first side of an outer join finds more than one of the second side. -#}
{% macro is_found_once(item, second, condition, query) %}
    {%- if item.node != 'RANGETBLREF' -%}{{ return(false) }}{%- endif -%}
    {%- set texts = [] -%}
    {%- for equation in in_place.equations_in(condition, query) -%}
        {%- for mine, other in [(equation.left, equation.right), (equation.right, equation.left)] -%}
            {%- if not in_place.values_depend_on([other], query) | select('in', second.rows) | list -%}
                {%- do texts.append(in_place.text_of(mine, query, '')) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for columns in in_place.unique_texts(query.rtable[item.rtindex | int - 1]) if not columns | reject('in', texts) | list -%}
        {{ return(true) }}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#- Lists of texts of columns that are unique in an entry of a range table: those of indexes, or those that a query groups by. -#}
{% macro unique_texts(entry) %}
    {%- set found = [] -%}
    {%- if entry.scan -%}
        {%- for columns in entry.scan.unique_indexes -%}
            {%- set texts = [] -%}
            {%- for column in columns -%}{%- do texts.append(entry.scan.alias ~ '.' ~ column) -%}{%- endfor -%}
            {%- do found.append(texts) -%}
        {%- endfor -%}
        {{ return(found) }}
    {%- elif not entry.query or entry.query.branches or entry.query.groupingSets or entry.query.hasTargetSRFs == 'true' -%}
        {{ return([]) }}
    {%- endif -%}
    {%- set query, items = entry.query, entry.query.jointree.fromlist or [] -%}
    {#- one row at most -#}
    {%- if query.hasAggs == 'true' and not query.groupClause or query.limitCount and in_place.text_of(query.limitCount, query, '') == '1' -%}
        {{ return([[]]) }}
    {%- endif -%}
    {%- set clauses = query.groupClause or (query.distinctClause if query.hasDistinctOn == 'true' else []) -%}
    {%- if clauses -%}
        {%- set texts = [] -%}
        {%- for expression in in_place.sorted_by(clauses, query) -%}
            {%- do texts.append(in_place.text_of(expression, query, '')) -%}
        {%- endfor -%}
        {%- do found.append(texts) -%}
    {%- elif items | length == 1 and items[0].node == 'RANGETBLREF' -%}
        {{ return(in_place.unique_texts(query.rtable[items[0].rtindex | int - 1])) }}
    {%- endif -%}
    {{ return(found) }}
{% endmacro %}


{#-
  Whether each row of a query is one of the whole: it is the outermost, or what is around it only joins something to its rows.

  Arguments:
    queries: all queries.
-#}
{% macro keeps_all_rows(query, queries) %}
    {%- if query.distinctClause or query.limitCount or query.limitOffset -%}{{ return(false) }}{%- endif -%}
    {%- for outer in queries if outer.path != query.path and query.path.startswith(outer.path) or outer is sameas query.parent -%}
        {%- if outer.distinctClause or outer.limitCount or outer.limitOffset or outer.groupClause or outer.groupingSets or outer.hasAggs == 'true'
            or in_place.combines_by_columns(outer) -%}
            {{ return(false) }}
        {%- endif -%}
        {%- if not outer.branches and not query.path.startswith(in_place.kept_path(outer)) -%}{{ return(false) }}{%- endif -%}
    {%- endfor -%}
    {{ return(true) }}
{% endmacro %}


{#- The path of the part of a query's FROM each row of which is a row of the query; 'none' if there is no such part. -#}
{% macro kept_path(query) %}
    {%- set items = query.jointree.fromlist or [] -%}
    {%- if items | length != 1 or query.jointree.quals -%}{{ return('none') }}{%- endif -%}
    {%- set paths, joins = [query.path ~ '1/'], [items[0]] -%}
    {#- the list grows while it is read -#}
    {%- for item in joins if item.node == 'JOINEXPR' -%}
        {%- set kind = in_place.join_kind(item) -%}
        {%- if kind not in ['left', 'right'] -%}{{ return('none') }}{%- endif -%}
        {%- do paths.append(paths[-1] ~ ('l/' if kind == 'left' else 'r/')) -%}
        {%- do joins.append(item.larg if kind == 'left' else item.rarg) -%}
    {%- endfor -%}
    {{ return(paths[-1]) }}
{% endmacro %}
