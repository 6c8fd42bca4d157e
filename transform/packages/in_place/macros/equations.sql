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
  The equations of an opened view, as seen by a scan: a list of {left, right, scope, kept} with texts.

  Arguments:
    at: the path of the scan; only views with UNION look different from different scans.
-#}
{% macro equations_of(opened, at) %}
    {%- set found = [] -%}
    {%- for query in opened.queries -%}
        {%- for part in query.conditions -%}
            {%- for equation in in_place.equations_in(part.condition, query) -%}
                {%- set left, right = in_place.text_of(equation.left, query, at), in_place.text_of(equation.right, query, at) -%}
                {%- do found.append({'left': left, 'right': right, 'scope': part.scope, 'kept': part.kept}) -%}
                {%- if part.is_full -%}
                    {#- USING gives the value that is there -#}
                    {%- for both in ['coalesce(' ~ left ~ ', ' ~ right ~ ')', 'coalesce(' ~ right ~ ', ' ~ left ~ ')'] -%}
                        {%- for side, text in zip(part.kept[-2:], [left, right]) -%}
                            {%- do found.append({'left': both, 'right': text, 'scope': part.scope, 'kept': part.kept[:-2] + (part.kept[-2:] | reject('equalto', side) | list)}) -%}
                        {%- endfor -%}
                    {%- endfor -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endfor -%}
        {%- for link in query.subqueries if link.subLinkType == '2' and in_place.is_only_found(link, query) -%}
            {#- x in (select y …) -#}
            {%- for equation in in_place.equations_in(link.testexpr, query) if equation.right.node == 'PARAM' or equation.right.arg.node == 'PARAM' -%}
                {%- set number = (equation.right.paramid or equation.right.arg.paramid) | int -%}
                {%- do found.append({
                    'left': in_place.text_of(equation.left, query, at),
                    'right': in_place.text_of_output(link.subselect, number, at),
                    'scope': link.subselect.path,
                    'kept': [],
                }) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#-
  Whether a row of `x in (select y …)` matters to equal values of x alone. One whose y is null makes the whole null where it would be false,
  which only a condition takes for the same.
-#}
{% macro is_only_found(link, query) %}
    {%- for part in query.conditions -%}
        {%- set conditions = [part.condition] -%}
        {%- for condition in conditions if condition is mapping -%}
            {%- if condition is sameas link -%}{{ return(true) }}{%- endif -%}
            {%- if condition.node == 'BOOLEXPR' and condition.boolop in ['and', 'or'] -%}{%- do conditions.extend(condition.args) -%}{%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- set below = link.subselect -%}
    {%- set tests = [] -%}
    {%- for part in below.conditions -%}
        {%- set conditions = [part.condition] -%}
        {%- for condition in conditions if condition is mapping -%}
            {%- if condition.node == 'NULLTEST' and condition.nulltesttype == '1' -%}{%- do tests.append(in_place.text_of(condition.arg, below, '')) -%}{%- endif -%}
            {%- if condition.node == 'BOOLEXPR' and condition.boolop == 'and' -%}{%- do conditions.extend(condition.args) -%}{%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for target in below.targetList if target.resjunk != 'true' -%}
        {%- if in_place.text_of(target.expr, below, '') not in tests and not in_place.is_not_null(target.expr, below) -%}{{ return(false) }}{%- endif -%}
    {%- endfor -%}
    {{ return(true) }}
{% endmacro %}


{#- Whether an expression is a column of a table that is never null, below no outer join. -#}
{% macro is_not_null(node, query) %}
    {%- if node.node != 'VAR' or node.varlevelsup != '0' -%}{{ return(false) }}{%- endif -%}
    {%- set entry = query.rtable[node.varno | int - 1] -%}
    {%- if (query.jointree.fromlist or []) | map(attribute='node') | reject('equalto', 'RANGETBLREF') | list -%}{{ return(false) }}{%- endif -%}
    {%- if entry.scan -%}{{ return(entry.scan.columns[node.varattno | int - 1] in entry.scan.not_null) }}{%- endif -%}
    {%- if entry.query and not entry.query.branches and not entry.query.groupingSets -%}
        {{ return(in_place.is_not_null(entry.query.targetList[node.varattno | int - 1].expr, entry.query)) }}
    {%- endif -%}
    {{ return(false) }}
{% endmacro %}


{#- Whether an equation holds for the rows of a scan. -#}
{% macro holds_for(equation, path) %}
    {%- for kept in equation.kept if path.startswith(kept) -%}{{ return(false) }}{%- endfor -%}
    {{ return(path.startswith(equation.scope)) }}
{% endmacro %}


{#- The texts that equal this one for the rows of a scan, itself included. -#}
{% macro equal_texts(text, path, equations) %}
    {%- set equal, usable = [text], [] -%}
    {%- for equation in equations if in_place.holds_for(equation, path) -%}{%- do usable.append(equation) -%}{%- endfor -%}
    {#- the list grows while it is read -#}
    {%- for text in equal -%}
        {%- for equation in usable -%}
            {%- if equation.left == text and equation.right not in equal -%}{%- do equal.append(equation.right) -%}{%- endif -%}
            {%- if equation.right == text and equation.left not in equal -%}{%- do equal.append(equation.left) -%}{%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(equal) }}
{% endmacro %}
