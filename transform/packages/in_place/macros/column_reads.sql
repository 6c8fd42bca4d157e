{#- Which columns of its tables a SELECT needs: not those that a CTE selects with `*` and nothing uses. -#}

{#-
  The columns that an opened view needs, by the number of the scan: lists of names; `*` is the row as a whole.
-#}
{% macro column_reads(opened) %}
    {%- set reads, wanted, seen = {}, [], {} -%}
    {%- for scan in opened.scans -%}{%- do reads.update({scan.id: []}) -%}{%- endfor -%}
    {%- for query in opened.queries -%}
        {%- do wanted.append({'query': query, 'parts': in_place.always_needed(query)}) -%}
        {%- if loop.first or in_place.combines_by_columns(query) -%}
            {%- for target in query.targetList -%}{%- do wanted.append({'query': query, 'number': target.resno | int}) -%}{%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {#- the list grows while it is read -#}
    {%- for want in wanted -%}
        {%- set query, parts = want.query, want.parts or [] -%}
        {%- if want.number -%}
            {%- set asked = query.path ~ ' ' ~ want.number -%}
            {%- if asked not in seen -%}
                {%- do seen.update({asked: true}) -%}
                {%- for branch in query.branches -%}{%- do wanted.append({'query': branch, 'number': want.number}) -%}{%- endfor -%}
                {%- if not query.branches -%}{%- set parts = [query.targetList[want.number - 1].expr] -%}{%- endif -%}
            {%- endif -%}
        {%- endif -%}
        {%- for node in in_place.nodes_in(parts, ['VAR', 'SUBLINK']) -%}
            {%- if node.node == 'SUBLINK' -%}
                {%- for target in node.subselect.targetList if node.subLinkType != '0' -%}
                    {%- do wanted.append({'query': node.subselect, 'number': target.resno | int}) -%}
                {%- endfor -%}
            {%- else -%}
                {%- set owner, number = in_place.query_above(query, node.varlevelsup), node.varattno | int -%}
                {%- set entry = owner.rtable[node.varno | int - 1] -%}
                {%- if entry.scan -%}
                    {%- do reads[entry.scan.id].append(in_place.readable(entry.scan.columns[number - 1]) if number > 0 else '*') -%}
                {%- elif entry.query -%}
                    {%- for target in entry.query.targetList if number in [0, target.resno | int] -%}
                        {%- do wanted.append({'query': entry.query, 'number': target.resno | int}) -%}
                    {%- endfor -%}
                {%- elif entry.rtekind == '2' -%}
                    {%- do wanted.append({'query': owner, 'parts': [entry.joinaliasvars[number - 1] if number > 0 else entry.joinaliasvars]}) -%}
                {%- elif entry.rtekind == '9' -%}
                    {%- do wanted.append({'query': owner, 'parts': [entry.groupexprs[number - 1]]}) -%}
                {%- endif -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(reads) }}
{% endmacro %}


{#- The parts of a query that decide about its rows, or their order, whichever of its columns are used. -#}
{% macro always_needed(query) %}
    {%- set parts = [query.jointree, query.havingQual, query.limitOffset, query.limitCount] -%}
    {%- for entry in query.rtable -%}{%- do parts.extend(in_place.expressions_of_entry(entry)) -%}{%- endfor -%}
    {%- set clauses = query.groupClause + query.distinctClause + query.sortClause -%}
    {%- for window in query.windowClause -%}
        {%- do clauses.extend((window.partitionClause or []) + (window.orderClause or [])) -%}
    {%- endfor -%}
    {%- do parts.extend(in_place.sorted_by(clauses, query)) -%}
    {%- if query.hasTargetSRFs == 'true' -%}{%- do parts.append(query.targetList) -%}{%- endif -%}
    {{ return(parts) }}
{% endmacro %}


{#- Whether it depends on all columns which rows a query has: it combines others by more than UNION ALL. -#}
{% macro combines_by_columns(query) %}
    {%- for combination in in_place.nodes_in(query.setOperations, ['SETOPERATIONSTMT']) if combination.all != 'true' or combination.op != '1' -%}
        {{ return(true) }}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}
