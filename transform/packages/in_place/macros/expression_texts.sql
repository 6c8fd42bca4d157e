{#-
  Expressions of a query tree as texts that are equal if the expressions are: over columns of scans (`orders#2.customer_id`), whatever
  they are called in the subqueries, CTEs and views between. People read them in errors, without the numbers, if there is no `{` in them.
-#}

{#-
  The text of an expression.

  Arguments:
    at: the path of a scan. For its rows, a column of UNION ALL is what the branch with the scan has there; for others it is something of its own.
-#}
{% macro text_of(node, query, at) %}
    {%- if node is none -%}{{ return('') }}{%- endif -%}
    {%- set kind = node.node -%}
    {%- if kind == 'VAR' -%}
        {%- set owner = in_place.query_above(query, node.varlevelsup) -%}
        {{ return(in_place.text_of_column(owner.rtable[node.varno | int - 1], node.varattno | int, owner, node.varno, at)) }}
    {%- elif kind == 'RELABELTYPE' and in_place.has_same_equality(node, query) -%}
        {{ return(in_place.text_of(node.arg, query, at)) }}
    {%- elif kind == 'CONST' -%}
        {{ return(in_place.text_of_constant(node)) }}
    {%- elif kind == 'SUBLINK' -%}
        {{ return('(subquery ' ~ node.subselect.path ~ ')') }}
    {%- endif -%}
    {%- set arguments = [] -%}
    {%- if kind in ['OPEXPR', 'FUNCEXPR', 'COALESCEEXPR'] -%}
        {%- for argument in node.args or [] -%}{%- do arguments.append(in_place.text_of(argument, query, at)) -%}{%- endfor -%}
        {%- if kind == 'COALESCEEXPR' -%}{{ return('coalesce(' ~ arguments | join(', ') ~ ')') }}{%- endif -%}
    {%- endif -%}
    {%- if kind == 'OPEXPR' and arguments | length == 2 -%}
        {{ return('(' ~ arguments | join(' ' ~ query.names['o' ~ node.opno] ~ ' ') ~ ')') }}
    {%- elif kind == 'FUNCEXPR' -%}
        {%- if node.funcformat in ['1', '2'] and in_place.mark_of_not_strict() not in query.names['f' ~ node.funcid] -%}
            {#- the length or the precision of the type comes after the value -#}
            {#- the mark says that a whole text may go without the cast: see in_place.without_casts() -#}
            {%- if arguments | length == 1 and in_place.is_lossless(node) -%}
                {{ return(arguments[0] ~ '::' ~ query.names['t' ~ node.funcresulttype] ~ '~') }}
            {%- endif -%}
            {{ return(arguments[0] ~ '::' ~ query.names['t' ~ node.funcresulttype] ~ ('(' ~ arguments[1:] | join(', ') ~ ')' if arguments | length > 1 else '')) }}
        {%- endif -%}
        {{ return(query.names['f' ~ node.funcid] ~ '(' ~ arguments | join(', ') ~ ')') }}
    {%- endif -%}
    {#- any other node, with all that it is made of, in braces, because nobody would write it so; the rest is how and where it was written -#}
    {%- set ignored = ['node', 'location', 'coerceformat', 'relabelformat'] -%}
    {%- for name, value in node.items() if name not in ignored -%}
        {%- if value is mapping -%}
            {%- do arguments.append(in_place.text_of(value, query, at)) -%}
        {%- elif value is sequence and value is not string -%}
            {%- for part in value -%}
                {%- do arguments.append(in_place.text_of(part, query, at) if part is mapping else part | string) -%}
            {%- endfor -%}
        {%- elif value is not none -%}
            {%- do arguments.append(name ~ '=' ~ value) -%}
        {%- endif -%}
    {%- endfor -%}
    {#- these are of the rows that their query groups or looks at -#}
    {%- set place = query.path if kind in ['AGGREF', 'WINDOWFUNC', 'GROUPINGFUNC'] else '' -%}
    {{ return('{' ~ kind | lower ~ place ~ ' ' ~ arguments | join(' ') ~ '}') }}
{% endmacro %}


{#- The text of a column of an entry of a query's range table. -#}
{% macro text_of_column(entry, number, query, place, at) %}
    {%- if entry.scan -%}
        {%- set columns = entry.scan.columns -%}
        {{ return(entry.scan.alias ~ '.' ~ (in_place.readable(columns[number - 1]) if 0 < number <= columns | length else '*' if number == 0 else number)) }}
    {%- elif entry.query and number > 0 -%}
        {{ return(in_place.text_of_output(entry.query, number, at)) }}
    {%- elif entry.rtekind == '2' and number > 0 -%}
        {{ return(in_place.text_of(entry.joinaliasvars[number - 1], query, at)) }}
    {%- elif entry.rtekind == '9' and not query.groupingSets -%}
        {{ return(in_place.text_of(entry.groupexprs[number - 1], query, at)) }}
    {%- endif -%}
    {{ return('(column ' ~ query.path ~ place ~ '.' ~ number ~ ')') }}
{% endmacro %}


{#- The text of a query's column. -#}
{% macro text_of_output(query, number, at) %}
    {%- for branch in query.branches if at.startswith(branch.path) -%}
        {{ return(in_place.text_of_output(branch, number, at)) }}
    {%- endfor -%}
    {#- a column that is grouped by is null in the rows of other grouping sets -#}
    {%- if query.branches or query.groupingSets -%}{{ return('(column ' ~ query.path ~ number ~ ')') }}{%- endif -%}
    {%- set asked = number ~ ' ' ~ at -%}
    {%- if asked not in query.texts -%}
        {%- do query.texts.update({asked: in_place.text_of(query.targetList[number - 1].expr, query, at)}) -%}
    {%- endif -%}
    {{ return(query.texts[asked]) }}
{% endmacro %}


{#- A text without casts around it that change no equality: inside an expression, they may. -#}
{% macro without_casts(text) %}
    {{ return(modules.re.sub('(?:::[a-z ]+~)+$', '', text)) }}
{% endmacro %}


{#- Whether equal values are equal after a cast, and others are not: integers get wider, or a text is called another kind of text. -#}
{% macro is_lossless(cast) %}
    {#- int2, int4, int8, numeric; text, varchar -#}
    {%- set wider = {'21': ['23', '20', '1700'], '23': ['20', '1700'], '20': ['1700'], '1043': ['25'], '25': ['1043']} -%}
    {{ return(cast.funcresulttype in wider.get(in_place.type_of(cast.args[0]), [])) }}
{% endmacro %}


{#-
  Whether a value that is only called another type is of a domain of it, or of a type of PostgreSQL's own: citext has another =, and so
  has char(n), for which blanks at the end are nothing.
-#}
{% macro has_same_equality(node, query) %}
    {%- set types = [in_place.type_of(node.arg) or '0', node.resulttype] -%}
    {%- if types[0] != types[1] and '1042' in types -%}{{ return(false) }}{%- endif -%}
    {%- for type in types if type | int >= 16384 and 'd' ~ type not in query.names -%}{{ return(false) }}{%- endfor -%}
    {{ return(true) }}
{% endmacro %}


{#- The oid of an expression's type, if it is a column, a cast or a function. -#}
{% macro type_of(node) %}
    {{ return(node.get('vartype') or node.get('resulttype') or node.get('funcresulttype')) }}
{% endmacro %}


{#- The text of a constant: whole numbers and plain texts as people write them, others as PostgreSQL keeps them. -#}
{% macro text_of_constant(node) %}
    {%- if node.constisnull == 'true' -%}{{ return('null') }}{%- endif -%}
    {%- set bytes = node.constvalue.split() | map('int') | list -%}
    {%- if node.consttype in ['21', '23', '20'] and bytes[1:] | select('ne', 0) | list == [] and bytes[0] >= 0 -%}
        {{ return(bytes[0] | string) }}
    {%- elif node.consttype == '25' and bytes[4:] | select('lt', 32) | list == [] -%}
        {%- set letters = [] -%}
        {%- for byte in bytes[4:] -%}{%- do letters.append('%c' | format(byte)) -%}{%- endfor -%}
        {{ return("'" ~ letters | join ~ "'") }}
    {%- endif -%}
    {{ return('[' ~ node.consttype ~ ' ' ~ node.consttypmod ~ ' ' ~ node.constvalue ~ ']') }}
{% endmacro %}
