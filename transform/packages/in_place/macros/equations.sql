{#- The equations between expressions that hold for the rows of a scan. -#}

{#- The equations in a condition, as lists of nodes {left, right}: itself, or those that AND combines. -#}
{% macro equations_in(condition, query) %}
    {%- set conditions, found = [condition], [] -%}
    {#- the list grows while it is read -#}
    {%- for part in conditions if part is mapping -%}
        {%- if part.node == 'BOOLEXPR' and part.boolop == 'and' -%}
            {%- do conditions.extend(part.args) -%}
        {%- elif part.node == 'OPEXPR' and part.args | length == 2 and query.names['o' ~ part.opno] == '=' -%}
            {%- do found.append({'left': part.args[0], 'right': part.args[1]}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#-
  The equations of an opened view, as seen by a scan: a list of {left, right, scope, missing} with texts.

  Arguments:
    at: the path of the scan; only views with UNION look different from different scans.
-#}
{% macro equations_of(opened, at) %}
    {%- set found = [] -%}
    {%- for query in opened.queries -%}
        {%- for part in query.conditions -%}
            {%- for equation in in_place.equations_in(part.condition, query) -%}
                {%- set left = in_place.without_casts(in_place.text_of(equation.left, query, at)) -%}
                {%- set right = in_place.without_casts(in_place.text_of(equation.right, query, at)) -%}
                {%- do found.append({'left': left, 'right': right, 'scope': part.scope, 'missing': part.missing}) -%}
                {%- for side in part.sides -%}
                    {#- USING gives the value that is there: for the rows of a side theirs, if the other one is null where it is missing -#}
                    {%- set others = in_place.columns_of_side([left, right], part.sides | reject('equalto', side) | first, opened) -%}
                    {%- for other in others if others | length == 1 -%}
                        {%- for both in ['coalesce(' ~ left ~ ', ' ~ right ~ ')', 'coalesce(' ~ right ~ ', ' ~ left ~ ')'] -%}
                            {%- do found.append({
                                'left': both,
                                'right': right if other == left else left,
                                'scope': part.scope,
                                'missing': part.missing | reject('in', part.sides) | list + [side],
                            }) -%}
                        {%- endfor -%}
                    {%- endfor -%}
                {%- endfor -%}
            {%- endfor -%}
        {%- endfor -%}
        {%- for link in query.subqueries if link.subLinkType == '2' and in_place.is_only_found(link, query) -%}
            {#- x in (select y …) -#}
            {%- for equation in in_place.equations_in(link.testexpr, query) if in_place.parameter_of(equation.right) -%}
                {%- do found.append({
                    'left': in_place.without_casts(in_place.text_of(equation.left, query, at)),
                    'right': in_place.without_casts(in_place.text_of_output(link.subselect, in_place.parameter_of(equation.right), at)),
                    'scope': link.subselect.path,
                    'missing': [],
                }) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- The texts that are columns, or coalesce() of columns, of scans on one side of a join: they are null if the side is missing. -#}
{% macro columns_of_side(texts, side, opened) %}
    {%- set found, column = [], "[^(){},:'\\[\\]]+#\\d+\\.[^(){},:'\\[\\]]+" -%}
    {%- for text in texts if modules.re.fullmatch(column ~ '|coalesce\\(' ~ column ~ '(?:, ' ~ column ~ ')*\\)', text) -%}
        {%- set numbers, outside = modules.re.findall('#(\\d+)\\.', text), [] -%}
        {%- for scan in opened.scans if scan.id | string in numbers and not scan.path.startswith(side) -%}
            {%- do outside.append(scan) -%}
        {%- endfor -%}
        {%- if not outside -%}{%- do found.append(text) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- The number of the column of a subquery that stands on a side of `x in (select y …)`; none if something is done with it first. -#}
{% macro parameter_of(node) %}
    {%- if node.node == 'RELABELTYPE' -%}{{ return(in_place.parameter_of(node.arg)) }}{%- endif -%}
    {{ return(node.paramid | int if node.node == 'PARAM' else none) }}
{% endmacro %}


{#-
  Whether a row of `x in (select y …)` matters to equal values of x alone. If x or y is null, the whole is null where it would be false
  without rows, which only a condition takes for the same.
-#}
{% macro is_only_found(link, query) %}
    {%- for part in query.conditions + [{'condition': query.havingQual}] -%}
        {%- set conditions = [part.condition] -%}
        {%- for condition in conditions if condition is mapping -%}
            {%- if condition is sameas link -%}{{ return(true) }}{%- endif -%}
            {%- if condition.node == 'BOOLEXPR' and condition.boolop in ['and', 'or'] -%}
                {%- do conditions.extend(condition.args) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for equation in in_place.equations_in(link.testexpr, query) if not in_place.is_not_null(equation.left, query) -%}
        {{ return(false) }}
    {%- endfor -%}
    {%- set below = link.subselect -%}
    {%- set tests = [] -%}
    {%- for part in below.conditions -%}
        {%- set conditions = [part.condition] -%}
        {%- for condition in conditions if condition is mapping -%}
            {%- if condition.node == 'NULLTEST' and condition.nulltesttype == '1' -%}
                {%- do tests.append(in_place.text_of(condition.arg, below, '')) -%}
            {%- endif -%}
            {%- if condition.node == 'BOOLEXPR' and condition.boolop == 'and' -%}{%- do conditions.extend(condition.args) -%}{%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for target in below.targetList if target.resjunk != 'true' -%}
        {%- if in_place.text_of(target.expr, below, '') not in tests and not in_place.is_not_null(target.expr, below) -%}
            {{ return(false) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(true) }}
{% endmacro %}


{#- Whether an expression is a column of a table that is never null, below no outer join. -#}
{% macro is_not_null(node, query) %}
    {%- if node.node != 'VAR' or node.varlevelsup != '0' -%}{{ return(false) }}{%- endif -%}
    {%- set entry = query.rtable[node.varno | int - 1] -%}
    {%- if (query.jointree.fromlist or []) | map(attribute='node') | reject('equalto', 'RANGETBLREF') | list -%}
        {{ return(false) }}
    {%- endif -%}
    {%- if entry.scan -%}{{ return(entry.scan.columns[node.varattno | int - 1] in entry.scan.not_null) }}{%- endif -%}
    {%- if entry.query and not entry.query.branches and not entry.query.groupingSets -%}
        {{ return(in_place.is_not_null(entry.query.targetList[node.varattno | int - 1].expr, entry.query)) }}
    {%- endif -%}
    {{ return(false) }}
{% endmacro %}


{#-
  The equations that hold for the rows of a scan. One of the side of an outer join that may be missing holds if the side is there: for scans in
  it, and for those that one of its columns equals, because null equals nothing.
-#}
{% macro equations_for(scan, equations, scans) %}
    {%- set there, usable, others = [], [], [] -%}
    {%- for equation in equations if scan.path.startswith(equation.scope) -%}{%- do others.append(equation) -%}{%- endfor -%}
    {%- for path in others | map(attribute='missing') | sum(start=[]) | unique if scan.path.startswith(path) -%}
        {%- do there.append(path) -%}
    {%- endfor -%}
    {%- for _ in range(others | length) -%}
        {%- set before = usable | length -%}
        {%- for equation in others if equation not in usable and not equation.missing | reject('in', there) | list -%}
            {%- do usable.append(equation) -%}
            {#- a column, and not what an expression makes of null -#}
            {%- for number in modules.re.findall('^[^(){}:]*#(\\d+)\\.[^(){}]*$', equation.left) + modules.re.findall('^[^(){}:]*#(\\d+)\\.[^(){}]*$', equation.right) -%}
                {%- do there.extend((scans | selectattr('id', 'equalto', number | int) | first).missing) -%}
            {%- endfor -%}
        {%- endfor -%}
        {%- if usable | length == before -%}{{ return(usable) }}{%- endif -%}
    {%- endfor -%}
    {{ return(usable) }}
{% endmacro %}


{#- The texts that equal this one by these equations, itself included. -#}
{% macro equal_texts(text, equations) %}
    {%- set equal = [text] -%}
    {#- the list grows while it is read -#}
    {%- for text in equal -%}
        {%- for equation in equations -%}
            {%- if equation.left == text and equation.right not in equal -%}{%- do equal.append(equation.right) -%}{%- endif -%}
            {%- if equation.right == text and equation.left not in equal -%}{%- do equal.append(equation.left) -%}{%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(equal) }}
{% endmacro %}
