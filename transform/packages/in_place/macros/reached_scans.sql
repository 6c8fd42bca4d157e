{#-
  By what columns a model reads its inputs. A table that is read twice, by its key and by another column, makes other rows stale by
  each of them, and so needs an entry of `changed_by` for each. PostgreSQL's plan for one key shows every scan of a table, and
  the equations that its rows satisfy.

  Identifiers lose their quotes here, so that texts of a plan can be compared.
-#}

{#-
  The scans of inputs in the plan for one key, each with the entries of `changed_by` that reach it: a list of {alias, name, relation,
  path, scope, own, entries, gives_key}. `name` is the alias in the plan; each scan of a CTE has its own alias of a table. An entry says which keys a changed row makes stale. It is right for a scan if the scan's rows are found by
  an equation of the entry's key with this build's key, with a column of the model, or with a row that the key is found `through`.

  Arguments:
    plan: the plan for one key, comparable; see in_place.comparable_plan().

  Returns:
    {scans, equations, outputs}.
-#}
{% macro reached_scans(model_, plan, inputs, names) %}
    {%- set entries = in_place.entries_with_expressions(model_, inputs) -%}
    {%- set found = {'equations': [], 'scans': [], 'parts': {}} -%}
    {{ in_place.collect_parts(plan, found.parts) }}
    {{ in_place.collect_equations(plan, '/', '/', [], found) }}
    {%- set outputs = {} -%}
    {%- for name, output in zip(names, plan.get('Output', [])) -%}{%- do outputs.update({name: in_place.plain(output)}) -%}{%- endfor -%}
    {%- set scans = [] -%}
    {%- for scan in found.scans -%}
        {%- set own = [] -%}
        {%- for entry in entries if scan.relation in entry.relations -%}{%- do own.append(entry) -%}{%- endfor -%}
        {%- if own -%}{%- do scans.append(dict(scan, own=own, entries=[])) -%}{%- endif -%}
    {%- endfor -%}
    {#- an entry with `through` is right if the scan that it goes through is reached by that one's entry, so it comes last -#}
    {%- for is_through in [false, true] -%}
        {%- for scan in scans -%}
            {%- for entry in scan.own if (entry.input.through is not none) == is_through and in_place.reaches(entry, scan, scans, found.equations, outputs) -%}
                {%- do scan.entries.append(entry.input) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for scan in scans -%}
        {%- do scan.update({'name': scan.alias.split('#')[0], 'gives_key': scan.entries | selectattr('gives_key') | list | length > 0}) -%}
    {%- endfor -%}
    {{ return({'scans': scans, 'equations': found.equations, 'outputs': outputs}) }}
{% endmacro %}


{#- Refuses a model with a scan of an input that no entry of `changed_by` reaches: changes there would be missed. -#}
{% macro refuse_unreached_scans(model_, reached, inputs) %}
    {%- if inputs | selectattr('kind', 'equalto', 'whole') | list or config.get('time_dependent') -%}
        {#- all rows are computed if anything changed -#}
        {{ return('') }}
    {%- endif -%}
    {%- for scan in reached.scans if not scan.entries -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' reads ' ~ scan.own[0].input.name ~ ' (' ~ scan.name ~ ' in its plan) '
            ~ in_place.advice_for_scan(model_, scan, reached) ~ ' Nothing was changed.'
        ) -%}
    {%- endfor -%}
{% endmacro %}


{#- Whether an entry gives the keys that a row of this scan makes stale. -#}
{% macro reaches(entry, scan, scans, equations, outputs) %}
    {%- for expressions in entry.relations[scan.relation] -%}
        {%- set equal = {} -%}
        {%- for column, expression in expressions.items() -%}
            {%- do equal.update({column: in_place.equal_texts(expression | replace('@.', scan.alias ~ '.'), scan.path, equations)}) -%}
        {%- endfor -%}
        {%- if entry.input.through is not none -%}
            {%- for other in scans if entry.input.through in other.entries and scan.path.startswith(other.scope) -%}
                {%- for columns in entry.through_relations.get(other.relation, []) -%}
                    {%- set missing = [] -%}
                    {%- for column in entry.columns if columns[column] | replace('@.', other.alias ~ '.') not in equal[column] -%}{%- do missing.append(column) -%}{%- endfor -%}
                    {%- if not missing -%}{{ return(true) }}{%- endif -%}
                {%- endfor -%}
            {%- endfor -%}
        {%- else -%}
            {%- set missing = [] -%}
            {%- for column in entry.columns -%}
                {%- if (('in_place_keys.' ~ column) if entry.input.gives_key else outputs[column]) not in equal[column] -%}{%- do missing.append(column) -%}{%- endif -%}
            {%- endfor -%}
            {%- if not missing -%}{{ return(true) }}{%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#- What an error says of a scan that no entry reaches. -#}
{% macro advice_for_scan(model_, scan, reached) %}
    {%- set equations, outputs = reached.equations, reached.outputs -%}
    {%- set own, said = '(?<![\\w.])' ~ modules.re.escape(scan.alias) ~ '\\.', [] -%}
    {%- for equation in equations if in_place.holds_for(equation, scan.path) -%}
        {%- for mine, other in [(equation.left, equation.right), (equation.right, equation.left)] -%}
            {%- if modules.re.search(own, mine) and not modules.re.search(own, other) and not modules.re.search('SubPlan', other) -%}
                {%- do said.append([modules.re.sub(own, '', mine), other, in_place.equal_texts(other, scan.path, equations)]) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- if not said -%}
        {{ return('by no equation that a build could follow from a changed row to the key, so changes would be missed. Join it with = by the key, or by a column of the model.') }}
    {%- endif -%}
    {%- set name, how = scan.own[0].input.name, said[0][0] ~ ' = ' ~ said[0][1] -%}
    {%- set keys, columns = {}, {} -%}
    {%- for mine, other, equal in said -%}
        {%- for column in model_.build_by if 'in_place_keys.' ~ column in equal -%}{%- do keys.update({column: mine}) -%}{%- endfor -%}
        {%- for column, output in outputs.items() if output in equal and column not in keys -%}{%- do columns.update({column: mine}) -%}{%- endfor -%}
    {%- endfor -%}
    {%- set key = keys if keys | length == model_.build_by | length else columns -%}
    {%- if key -%}
        {%- set column = key.keys() | first -%}
        {%- set key = column if key == {column: column} else key -%}
        {{ return('by ' ~ how ~ ', and no entry of changed_by for it has that, so changes would be missed. Add ' ~ {'model': name, 'key': key} ~ '.') }}
    {%- endif -%}
    {{ return(
        'by ' ~ how ~ ', and no entry of changed_by for it has that, so changes would be missed. Select ' ~ said[0][1] ~ " as a column with an index, "
        ~ "and add {'model': '" ~ name ~ "', 'key': {'the column': '" ~ said[0][0] ~ "'}}."
    ) }}
{% endmacro %}


{#-
  The entries of `changed_by` with their keys as PostgreSQL writes them over the tables themselves: a list of {input, columns,
  relations, through_relations}. `relations` has for each table of the input, by its name, a list of {column: expression}, in
  which `@` is the table's alias. `through_relations` has the columns of the other model likewise.
-#}
{% macro entries_with_expressions(model_, inputs) %}
    {%- set found = [] -%}
    {%- for input in inputs if input.kind != 'whole' -%}
        {%- set columns = model_.build_by if input.gives_key and not input.through else input.key.keys() | list -%}
        {%- set expressions, others = {}, {} -%}
        {%- for column in columns -%}{%- do expressions.update({column: input.key[column]}) -%}{%- endfor -%}
        {%- if input.through -%}{%- for column in columns -%}{%- do others.update({column: adapter.quote(column)}) -%}{%- endfor -%}{%- endif -%}
        {%- do found.append({
            'input': input,
            'columns': columns,
            'relations': in_place.expressions_below(input, expressions),
            'through_relations': in_place.expressions_below(input.through, others) if input.through else {},
        }) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- What expressions over an input are over the tables below it, and over the partitions of these, by name. -#}
{% macro expressions_below(input, expressions) %}
    {%- set explain -%}
        -- a parallel plan has further nodes
        {{ in_place.set_for_now('max_parallel_workers_per_gather', 0) }};
        explain (verbose, format json)
        select {% for column, expression in expressions.items() %}{{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}{% endfor %}
        -- a subquery, because PostgreSQL writes columns without their table if it plans only one relation
        from (select * from {{ input.relation }}) as {{ adapter.quote(input.name) }}
    {%- endset -%}
    {%- set nodes, found = [], {} -%}
    {{ in_place.collect_nodes(in_place.without_quotes(in_place.plan_of(explain)), nodes) }}
    {%- for node in nodes if node.get('Relation Name') and node.get('Output') | length == expressions | length -%}
        {%- set own = {} -%}
        {%- for column in expressions -%}
            {%- do own.update({column: in_place.plain(modules.re.sub('(?<![\\w.])' ~ modules.re.escape(node['Alias']) ~ '\\.', '@.', node['Output'][loop.index0]))}) -%}
        {%- endfor -%}
        {%- do found.setdefault(node['Schema'] ~ '.' ~ node['Relation Name'], []).append(own) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- A plan without the quotes of identifiers. -#}
{% macro without_quotes(plan) %}
    {{ return(fromjson(tojson(plan) | replace('\\"', ''))) }}
{% endmacro %}


{#-
  A plan to compare texts in: without quotes, and with one scan of each partitioned table, whose alias is that of the table. Parts of
  the plan above the scans name the table, and each partition has that name and a number.
-#}
{% macro comparable_plan(plan) %}
    {%- set plan, nodes, scans = in_place.without_quotes(plan), [], [] -%}
    {{ in_place.collect_nodes(plan, nodes) }}
    {%- set roots = in_place.partition_roots(nodes) -%}
    {%- if not roots -%}{{ return(plan) }}{%- endif -%}
    {%- set aliases = nodes | selectattr('Alias', 'defined') | map(attribute='Alias') | list -%}
    {%- for node in nodes if node['Node Type'] in ['Append', 'Merge Append'] -%}
        {%- set found = [] -%}
        {%- for child in node.get('Plans', []) -%}{%- do found.append(roots.get(child.get('Schema', '') ~ '.' ~ child.get('Relation Name', ''), loop.index)) -%}{%- endfor -%}
        {%- if found | unique | list | length == 1 and found[0] is string -%}{%- do node.update({'Plans': node['Plans'][:1]}) -%}{%- endif -%}
    {%- endfor -%}
    {%- set nodes, written, taken = [], {'plan': tojson(plan)}, [] -%}
    {{ in_place.collect_nodes(plan, nodes) }}
    {%- for node in nodes if node.get('Schema', '') ~ '.' ~ node.get('Relation Name', '') in roots -%}
        {%- set stem = modules.re.sub('_\\d+$', '', node['Alias']) -%}
        {%- set names = modules.re.findall('(?<![\\w.])(' ~ modules.re.escape(stem) ~ '(?:_\\d+)?)\\.\\w', written.plan) | unique | reject('in', aliases + taken) | list -%}
        {%- if names -%}
            {#- of several, each is one scan's: PostgreSQL numbers the tables in the order of the scans -#}
            {%- do taken.append(names[0]) if names | length > 1 -%}
            {%- do written.update({'plan': modules.re.sub('(?<![\\w.])' ~ modules.re.escape(node['Alias']) ~ '(?=[."])', names[0], written.plan)}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(fromjson(written.plan)) }}
{% endmacro %}


{#- The tables that the scanned partitions belong to, by the partitions' names. -#}
{% macro partition_roots(nodes) %}
    {%- set names, roots = [], {} -%}
    {%- for node in nodes if node.get('Relation Name') -%}{%- do names.append(in_place.text_literal(node['Schema'] ~ '.' ~ node['Relation Name'])) -%}{%- endfor -%}
    {%- if not names -%}{{ return(roots) }}{%- endif -%}
    {%- set query -%}
        select concat(nspname, '.', relname), pg_partition_root(pg_class.oid)::oid::text
        from pg_catalog.pg_class
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where relispartition and relkind = 'r' and concat(nspname, '.', relname) in ({{ names | unique | join(', ') }})
    {%- endset -%}
    {%- for row in run_query(query) -%}{%- do roots.update({row[0]: 'of ' ~ row[1]}) -%}{%- endfor -%}
    {{ return(roots) }}
{% endmacro %}


{#- Collects the parts of a plan that others refer to by name: CTEs, and subplans. -#}
{% macro collect_parts(node, parts) %}
    {%- if node.get('Subplan Name') -%}{%- do parts.update({node['Subplan Name']: node}) -%}{%- endif -%}
    {%- for child in node.get('Plans', []) -%}{{ in_place.collect_parts(child, parts) }}{%- endfor -%}
{% endmacro %}


{#-
  Collects a plan's scans of tables, and the equations between expressions that hold for their rows.

  Arguments:
    path: where the node is in the plan, such as `/0/1/`.
    scope: the path below which this node's equations hold: they say nothing of rows outside a subplan or a branch of UNION ALL.
    kept: paths of the sides of outer joins whose rows stay if they find no match, and for which these equations don't hold.
    found: {equations, scans, parts}, to which this adds.
-#}
{% macro collect_equations(node, path, scope, kept, found) %}
    {%- set children = [] -%}
    {%- for child in node.get('Plans', []) if not child.get('Subplan Name', '').startswith('CTE ') -%}
        {%- do children.append({'node': child, 'path': path ~ loop.index ~ '/', 'side': child['Parent Relationship']}) -%}
    {%- endfor -%}
    {%- if node['Node Type'] == 'CTE Scan' and 'CTE ' ~ node['CTE Name'] in found.parts -%}
        {%- do children.append({'node': in_place.with_own_aliases(found.parts['CTE ' ~ node['CTE Name']], path), 'path': path ~ '0/', 'side': 'Subquery'}) -%}
    {%- endif -%}
    {#- the sides of an outer join whose rows stay without a match -#}
    {%- set sides = {'Left': ['Outer'], 'Anti': ['Outer'], 'Right': ['Inner'], 'Right Anti': ['Inner'], 'Full': ['Outer', 'Inner']}.get(node.get('Join Type'), []) -%}
    {%- set stays = [] -%}
    {%- for child in children if child.side in sides -%}{%- do stays.append(child.path) -%}{%- endfor -%}

    {%- for name in ['Index Cond', 'Recheck Cond', 'Filter', 'Hash Cond', 'Merge Cond', 'Join Filter'] if node.get(name) and node['Node Type'] != 'Bitmap Index Scan' -%}
        {%- for condition in in_place.split_outside_brackets(in_place.plain(node[name]), ' AND ') -%}
            {{ in_place.add_equation(in_place.plain(condition), scope, kept + (stays if name in ['Hash Cond', 'Merge Cond', 'Join Filter'] else []), found) }}
        {%- endfor -%}
    {%- endfor -%}
    {%- for text in node.get('Output', []) + [node.get('Filter') or '', node.get('Join Filter') or ''] if 'SubPlan' in text -%}
        {%- for condition in modules.re.findall('ANY \\((.+? = \\((?:hashed )?SubPlan \\d+\\)\\.col\\d+)\\)', text) -%}
            {{ in_place.add_equation(condition, scope, kept, found) }}
        {%- endfor -%}
    {%- endfor -%}
    {%- if node.get('Relation Name') -%}
        {%- do found.scans.append({'alias': node['Alias'], 'relation': node['Schema'] ~ '.' ~ node['Relation Name'], 'path': path, 'scope': scope}) -%}
    {%- elif node['Node Type'] in ['Subquery Scan', 'CTE Scan'] and children -%}
        {{ in_place.add_columns_of_subquery(node, children[-1].node, scope, kept, found) }}
    {%- endif -%}

    {%- for child in children -%}
        {%- set is_apart = child.side in ['SubPlan', 'InitPlan'] or (child.side == 'Member' and children | length > 1) -%}
        {%- if child.side == 'Member' and not loop.first -%}
            {#- what is above a UNION ALL names the columns of its first branch -#}
            {%- for first, output in zip(children[0].node.get('Output', []), child.node.get('Output', [])) -%}
                {%- do found.equations.append({'left': in_place.plain(first), 'right': in_place.plain(output), 'scope': child.path, 'kept': []}) -%}
            {%- endfor -%}
        {%- elif child.side in ['SubPlan', 'InitPlan'] -%}
            {%- for output in child.node.get('Output', []) -%}
                {%- for kind in ['hashed ', ''] -%}
                    {%- do found.equations.append({'left': '(' ~ kind ~ child.node['Subplan Name'] ~ ').col' ~ loop.index, 'right': in_place.plain(output), 'scope': child.path, 'kept': []}) -%}
                {%- endfor -%}
            {%- endfor -%}
        {%- endif -%}
        {{ in_place.collect_equations(child.node, child.path, child.path if is_apart else scope, kept + (stays | reject('equalto', child.path) | list), found) }}
    {%- endfor -%}
{% endmacro %}


{#- Adds a condition to what is found, if it is an equation. -#}
{% macro add_equation(condition, scope, kept, found) %}
    {%- set sides = in_place.split_outside_brackets(condition, ' = ') -%}
    {%- if sides | length == 2 and not sides[1].startswith(('ANY ', 'ALL ')) -%}
        {%- do found.equations.append({'left': in_place.plain(sides[0]), 'right': in_place.plain(sides[1]), 'scope': scope, 'kept': kept}) -%}
    {%- endif -%}
{% endmacro %}


{#-
  Adds what the columns of a subquery are below it. A plan does not say it: columns of the same name, and what is left if it is one
  column or if both have as many.
-#}
{% macro add_columns_of_subquery(node, below, scope, kept, found) %}
    {%- set alias = node['Alias'] -%}
    {%- set columns, left = node.get('Output', []), [] -%}
    {%- set outputs, used = below.get('Output', []), [] -%}
    {%- for column in columns if column.startswith(alias ~ '.') -%}
        {%- set name = column[alias | length + 1:] -%}
        {%- set same = [] -%}
        {%- for output in outputs if modules.re.search('^\\(?[\\w#]+\\.' ~ modules.re.escape(name) ~ '\\)?$', output) -%}{%- do same.append(output) -%}{%- endfor -%}
        {%- if same -%}
            {%- do used.append(same[0]) -%}
            {%- do found.equations.append({'left': column, 'right': in_place.plain(same[0]), 'scope': scope, 'kept': kept}) -%}
        {%- else -%}
            {%- do left.append(column) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set others = outputs | reject('in', used) | list -%}
    {%- for column in left -%}
        {%- if columns | length == outputs | length -%}
            {%- do found.equations.append({'left': column, 'right': in_place.plain(outputs[columns.index(column)]), 'scope': scope, 'kept': kept}) -%}
        {%- elif left | length == 1 and others | length == 1 -%}
            {%- do found.equations.append({'left': column, 'right': in_place.plain(others[0]), 'scope': scope, 'kept': kept}) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- A copy of a CTE's plan for one of the scans of it, with aliases of its own. -#}
{% macro with_own_aliases(node, path) %}
    {%- set nodes, written = [], {'plan': tojson(node)} -%}
    {{ in_place.collect_nodes(node, nodes) }}
    {%- for alias in nodes | selectattr('Alias', 'defined') | map(attribute='Alias') | unique -%}
        {%- do written.update({'plan': modules.re.sub('(?<![\\w.])' ~ modules.re.escape(alias) ~ '(?=\\.\\w)', alias ~ '#' ~ path | replace('/', ''), written.plan)}) -%}
        {%- do written.update({'plan': written.plan | replace('"Alias": "' ~ alias ~ '"', '"Alias": "' ~ alias ~ '#' ~ path | replace('/', '') ~ '"')}) -%}
    {%- endfor -%}
    {{ return(fromjson(written.plan)) }}
{% endmacro %}


{#- Whether an equation holds for the rows of a scan. -#}
{% macro holds_for(equation, path) %}
    {%- for kept in equation.kept if path.startswith(kept) -%}{{ return(false) }}{%- endfor -%}
    {{ return(path.startswith(equation.scope)) }}
{% endmacro %}


{#- The expressions that equal this one for the rows of a scan, itself included. -#}
{% macro equal_texts(expression, path, equations) %}
    {%- set equal = [expression] -%}
    {%- set usable = [] -%}
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


{#- An expression of a plan without the brackets around it, and without casts that change no equality. -#}
{% macro plain(text) %}
    {%- set casts = '::(?:text|character varying|bpchar|numeric|bigint)' -%}
    {%- set text = modules.re.sub('\\(([\\w#.]+)\\)' ~ casts ~ '(?![\\w(\\[])', '\\1', text) -%}
    {%- if not text.startswith('(') -%}{{ return(text) }}{%- endif -%}
    {%- set state = {'depth': 0, 'at': 0} -%}
    {%- for token in modules.re.findall('\'(?:[^\']|\'\')*\'|.', text, modules.re.S) if state.depth or not state.at -%}
        {%- do state.update({'depth': state.depth + (token == '(') | int - (token == ')') | int, 'at': state.at + token | length}) -%}
    {%- endfor -%}
    {#- the bracket at the start ends before `at` -#}
    {%- if modules.re.fullmatch('(?:' ~ casts ~ ')?', text[state.at:]) -%}{{ return(in_place.plain(text[1:state.at - 1])) }}{%- endif -%}
    {{ return(text) }}
{% endmacro %}


{#- The parts of a text between the separators that are outside brackets and literals. -#}
{% macro split_outside_brackets(text, separator) %}
    {%- set parts, state = [], {'depth': 0, 'part': ''} -%}
    {%- for token in modules.re.findall('\'(?:[^\']|\'\')*\'|' ~ separator ~ '|.', text, modules.re.S) -%}
        {%- if token == separator and state.depth == 0 -%}
            {%- do parts.append(state.part) -%}
            {%- do state.update({'part': ''}) -%}
        {%- else -%}
            {%- do state.update({'depth': state.depth + (token == '(') | int - (token == ')') | int, 'part': state.part ~ token}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(parts + [state.part]) }}
{% endmacro %}
