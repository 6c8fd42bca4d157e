{#-
  The parts of a query tree as they are used: each CTE and each view is copied for each place that reads it, so that every scan of a
  table is one of its own, with what holds for its rows. A query gets these fields:

    path: where it is in the whole, such as `/0/l/`; what is in it has a path that begins with its.
    scope: the path below which its equations hold: they say nothing of rows outside a subquery for a value, a total or a branch of UNION.
    parent: the query around it, for columns of outer queries.
    conditions: a list of {condition, scope, missing, sides}, of its WHERE and its joins. `missing` are the paths of the sides of outer joins
      that may be missing in a row, and then the condition says nothing; `sides` are those of a FULL JOIN.
    branches: the queries that UNION, INTERSECT or EXCEPT combine.
    subqueries: its SUBLINK nodes; the query of each is its `subselect`.
    names: of operators, functions and types, as in_place.trees_below() gives them.
    texts, dependences: what was found out about its columns, by number.

  An entry of its range table gets `missing`, likewise; and `scan`, a mapping of {id, alias, oid, path, missing, columns, not_null, unique_indexes}; or `query`, which a
  subquery, a view or a CTE is. `extra` is for dependence.sql.
-#}

{#-
  Opens a view's query.

  Returns:
    {query, scans, queries, views, trees}: the query, and all scans, queries and views {oid, path} in it.
-#}
{% macro open_view(view) %}
    {%- set oid = in_place.single_value("select '" ~ view ~ "'::regclass::oid::text") -%}
    {%- set found = {'scans': [], 'queries': [], 'views': [], 'trees': in_place.trees_below(view)} -%}
    {%- set query = in_place.tree_of(oid, found.trees) -%}
    {{ in_place.open_query(query, '/', '/', [], none, found) }}
    {%- do found.update({'query': query}) -%}
    {{ return(found) }}
{% endmacro %}


{#- Gives a query and all that it reads their fields, and appends the scans and queries to what is found. -#}
{% macro open_query(query, path, scope, missing, parent, found) %}
    {#- a total is there without any row that its conditions hold for -#}
    {%- if query.groupingSets or query.hasAggs == 'true' and not query.groupClause -%}{%- set scope = path -%}{%- endif -%}
    {%- do query.update({'path': path, 'scope': scope, 'parent': parent, 'conditions': [], 'branches': [], 'subqueries': [],
        'names': found.trees.names, 'texts': {}, 'dependences': {}}) -%}
    {#- an empty list is null -#}
    {%- for name in ['rtable', 'targetList', 'groupClause', 'distinctClause', 'sortClause', 'windowClause', 'cteList'] -%}
        {%- do query.update({name: query[name] or []}) -%}
    {%- endfor -%}
    {%- do found.queries.append(query) -%}
    {%- for entry in query.rtable -%}{%- do entry.update({'extra': [], 'missing': []}) -%}{%- endfor -%}
    {%- if query.setOperations -%}
        {%- for leaf in in_place.nodes_in(query.setOperations, ['RANGETBLREF']) -%}
            {%- set branch = query.rtable[leaf.rtindex | int - 1].subquery -%}
            {%- set own = path ~ 'u' ~ leaf.rtindex ~ '/' -%}
            {{ in_place.open_query(branch, own, own, missing, query, found) }}
            {%- do query.branches.append(branch) -%}
        {%- endfor -%}
    {%- else -%}
        {{ in_place.open_item(query.jointree, query, path, scope, missing, found) }}
    {%- endif -%}
    {%- for link in in_place.nodes_in(in_place.expressions_of(query), ['SUBLINK']) -%}
        {%- set own = path ~ 's' ~ loop.index ~ '/' -%}
        {{ in_place.open_query(link.subselect, own, own, missing, query, found) }}
        {%- do query.subqueries.append(link) -%}
    {%- endfor -%}
{% endmacro %}


{#- Opens what is in a FROM: a list with a WHERE, a join, or one relation. -#}
{% macro open_item(item, query, path, scope, missing, found) %}
    {%- if item.node == 'FROMEXPR' -%}
        {%- for child in item.fromlist or [] -%}
            {{ in_place.open_item(child, query, path ~ loop.index ~ '/', scope, missing, found) }}
        {%- endfor -%}
        {%- do query.conditions.append({'condition': item.quals, 'scope': scope, 'missing': missing}) -%}
    {%- elif item.node == 'JOINEXPR' -%}
        {%- set left, right = path ~ 'l/', path ~ 'r/' -%}
        {%- set kind = in_place.join_kind(item) -%}
        {%- set of_left = missing + ([left] if kind in ['right', 'full'] else []) -%}
        {%- set of_right = missing + ([right] if kind in ['left', 'full'] else []) -%}
        {{ in_place.open_item(item.larg, query, left, scope, of_left, found) }}
        {{ in_place.open_item(item.rarg, query, right, scope, of_right, found) }}
        {%- do query.conditions.append({
            'condition': item.quals,
            'scope': scope,
            'missing': (of_left + of_right) | unique | list,
            'sides': [left, right] if kind == 'full' else [],
        }) -%}
    {%- else -%}
        {%- set entry = query.rtable[item.rtindex | int - 1] -%}
        {%- do entry.update({'missing': missing}) -%}
        {%- if entry.rtekind == '0' and entry.relkind == 'v' -%}
            {%- do entry.update({'query': in_place.tree_of(entry.relid, found.trees)}) -%}
            {%- do found.views.append({'oid': entry.relid, 'path': path}) -%}
            {{ in_place.open_query(entry.query, path, scope, missing, none, found) }}
        {%- elif entry.rtekind == '0' -%}
            {%- set number = found.scans | length + 1 -%}
            {%- do entry.update({'scan': {
                'id': number,
                'alias': in_place.readable(entry.eref.aliasname) ~ '#' ~ number,
                'oid': entry.relid,
                'path': path,
                'missing': missing,
                'columns': found.trees.columns.get(entry.relid, []),
                'not_null': found.trees.not_null.get(entry.relid, []),
                'unique_indexes': found.trees.unique_indexes.get(entry.relid, []),
            }}) -%}
            {%- do found.scans.append(entry.scan) -%}
        {%- elif entry.rtekind == '1' -%}
            {%- do entry.update({'query': entry.subquery}) -%}
            {{ in_place.open_query(entry.query, path, scope, missing, query, found) }}
        {%- elif entry.rtekind == '6' and entry.self_reference == 'true' -%}
            {%- do entry.update({'all_scans': found.scans}) -%}
        {%- elif entry.rtekind == '6' -%}
            {%- set owner = in_place.query_above(query, entry.ctelevelsup) -%}
            {%- set cte = owner.cteList | selectattr('ctename', 'equalto', entry.ctename) | first -%}
            {%- do entry.update({'query': fromjson(tojson(cte.ctequery))}) -%}
            {#- a recursive one adds to itself, so no equation in it is one outside -#}
            {{ in_place.open_query(entry.query, path, path if cte.cterecursive == 'true' else scope, missing, owner, found) }}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}


{% macro join_kind(item) %}
    {{ return({'0': 'inner', '1': 'left', '2': 'full', '3': 'right'}[item.jointype]) }}
{% endmacro %}


{#- The query so many levels above this one. -#}
{% macro query_above(query, levels) %}
    {%- set queries = [query] -%}
    {%- for _ in range(levels | int) -%}{%- do queries.append(queries[-1].parent) -%}{%- endfor -%}
    {{ return(queries[-1]) }}
{% endmacro %}


{#- All of a query but its range table and its CTEs; of the former, what functions, VALUES and so on are made of. -#}
{% macro expressions_of(query) %}
    {%- set parts = [query.targetList, query.jointree, query.havingQual, query.limitOffset, query.limitCount] -%}
    {%- for entry in query.rtable -%}{%- do parts.extend(in_place.expressions_of_entry(entry)) -%}{%- endfor -%}
    {{ return(parts) }}
{% endmacro %}


{#- What an entry of a range table that is neither a relation nor a query is made of. -#}
{% macro expressions_of_entry(entry) %}
    {{ return([entry.functions, entry.values_lists, entry.tablefunc, entry.tablesample, entry.groupexprs] | select | list) }}
{% endmacro %}


{#- The expressions by which a list of SORTGROUPCLAUSE nodes sorts or groups. -#}
{% macro sorted_by(clauses, query) %}
    {%- set found, numbers = [], clauses | map(attribute='tleSortGroupRef') | list -%}
    {%- for target in query.targetList if target.ressortgroupref != '0' and target.ressortgroupref in numbers -%}
        {%- do found.append(target.expr) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- A name as it is, with the characters that stand-ins stood for. -#}
{% macro readable(name) %}
    {%- set written = {'name': name} -%}
    {%- for character, stand_in in in_place.stand_ins().items() if stand_in in name -%}
        {%- do written.update({'name': written.name | replace(stand_in, character)}) -%}
    {%- endfor -%}
    {{ return(written.name) }}
{% endmacro %}
