{#-
  By what columns a model reads its inputs. A table that is read twice, by its key and by another column, makes other rows stale by
  each of them, and so needs an entry of `changed_by` for each. The tree of the SELECT has every scan of a table, and the equations that
  its rows satisfy.
-#}

{#-
  The scans of inputs in the model's SELECT, each with the entries of `changed_by` that reach it. An entry says which keys a changed
  row makes stale. It is right for a scan if the scan's rows are found by an equation of the entry's key with a column of the model, or
  with a row that the key is found `through`.

  Arguments:
    opened: the model's temporary view, opened; see query_parts.sql.

  Returns:
    A list of the scans with {name, own, entries, gives_key, equations, outputs, views, sets}. `own` are the entries for the table, `entries` the
    inputs of those that reach the scan; `equations` hold for its rows; `outputs` has the texts of the model's columns, by name; `sets` has how
    many set-returning functions each SELECT list with such functions around it calls.
-#}
{% macro reached_scans(model_, opened, inputs, names) %}
    {%- set entries, scans, views = in_place.entries_with_expressions(model_, inputs), [], {} -%}
    {%- set whole = inputs | selectattr('kind', 'equalto', 'whole') | map(attribute='oid') | list -%}
    {%- set is_split = opened.queries | selectattr('branches') | list | length > 0 -%}
    {%- for scan in opened.scans -%}
        {%- set own = [] -%}
        {%- for entry in entries if scan.oid in entry.relations -%}{%- do own.append(entry) -%}{%- endfor -%}
        {#- all rows are computed if a view whose rows have no log was written -#}
        {%- if own and not in_place.views_around(scan, opened) | select('in', whole) | list -%}
            {#- only a branch of UNION sees columns in its own way -#}
            {%- set at = scan.path if is_split else '' -%}
            {%- if at not in views -%}
                {%- set outputs = {} -%}
                {%- for name in names -%}
                    {%- do outputs.update({name: in_place.without_casts(in_place.text_of_output(opened.query, loop.index, at))}) -%}
                {%- endfor -%}
                {%- do views.update({at: {'equations': in_place.equations_of(opened, at), 'outputs': outputs}}) -%}
            {%- endif -%}
            {%- do scans.append(dict(
                scan,
                own=own,
                entries=[],
                name=scan.alias.split('#')[0],
                outputs=views[at].outputs,
                equations=in_place.equations_for(scan, views[at].equations, opened.scans),
                views=in_place.views_around(scan, opened),
                sets=in_place.sets_around(scan, opened),
            )) -%}
        {%- endif -%}
    {%- endfor -%}
    {#- an entry with `through` is right if the scan that it goes through is reached by that one's entry, so it comes last -#}
    {%- for is_through in [false, true] -%}
        {%- for scan in scans -%}
            {%- for entry in scan.own if (entry.input.through is not none) == is_through and in_place.reaches(entry, scan, scans) -%}
                {%- do scan.entries.append(entry.input) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for scan in scans -%}{%- do scan.update({'gives_key': scan.entries | selectattr('gives_key') | list | length > 0}) -%}{%- endfor -%}
    {{ return(scans) }}
{% endmacro %}


{#- Refuses a model with a scan of an input that no entry of `changed_by` reaches: changes there would be missed. -#}
{% macro refuse_unreached_scans(model_, scans, inputs) %}
    {#- it computes all rows at each build -#}
    {%- if config.get('time_dependent') -%}{{ return('') }}{%- endif -%}
    {%- for scan in scans if not scan.entries -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' reads ' ~ scan.own[0].input.name ~ ' (' ~ scan.name ~ ') ' ~ in_place.advice_for_scan(model_, scan) ~ ' Nothing was changed.'
        ) -%}
    {%- endfor -%}
{% endmacro %}


{#- The oids of the views that a scan is in. -#}
{% macro views_around(scan, opened) %}
    {%- set found = [] -%}
    {%- for view in opened.views if scan.path.startswith(view.path) -%}{%- do found.append(view.oid) -%}{%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- The set-returning functions in expressions; those in the arguments of others come after these. -#}
{% macro sets_in(expressions) %}
    {%- set found = [] -%}
    {%- for node in in_place.nodes_in(expressions, ['FUNCEXPR', 'OPEXPR']) if 'true' in [node.funcretset, node.opretset] -%}
        {%- do found.append(node) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- How many set-returning functions each SELECT list with such functions around a scan calls. -#}
{% macro sets_around(scan, opened) %}
    {%- set found = [] -%}
    {%- for query in opened.queries if query.hasTargetSRFs == 'true' and scan.path.startswith(query.path) -%}
        {%- do found.append(in_place.sets_in(query.targetList) | length) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#-
  Whether an entry calls set-returning functions otherwise than the model. The entry calls all of them in one SELECT list, which pairs their
  values: of two lists, the model has each pair. Where one of a list ends before another, its value is null, which an entry without the other lacks.
-#}
{% macro pairs_otherwise(entry, scan) %}
    {%- if not entry.sets -%}{{ return(false) }}{%- endif -%}
    {#- each in the arguments of the one before it -#}
    {%- set is_chain = entry.sets == range(entry.sets | length) | reverse | list -%}
    {%- if scan.sets | length > 1 and not is_chain -%}{{ return(true) }}{%- endif -%}
    {%- for column in entry.columns if scan.sets and scan.sets | max > 1 -%}
        {%- if column in in_place.as_list(config.get('null_keys')) or modules.re.search(in_place.hides_null(), scan.outputs[column] or '') -%}
            {{ return(true) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#- A pattern for a text that may be another value than null for null. -#}
{% macro hides_null() %}
    {{ return('coalesce\\(|\\{|' ~ in_place.mark_of_not_strict()) }}
{% endmacro %}


{#- Whether an entry gives the keys that a row of this scan makes stale. -#}
{% macro reaches(entry, scan, scans) %}
    {%- if in_place.pairs_otherwise(entry, scan) -%}{{ return(false) }}{%- endif -%}
    {%- for expressions in entry.relations[scan.oid] -%}
        {%- set equal = {} -%}
        {%- for column, expression in expressions.items() -%}
            {%- do equal.update({column: in_place.equal_texts(expression | replace('\ue040.', scan.alias ~ '.'), scan.equations)}) -%}
        {%- endfor -%}
        {%- if entry.input.through is not none -%}
            {#- the keys are found in the relation itself: a table is one, and what reads it by a view with a condition is another -#}
            {%- for other in scans if entry.input.through in other.entries and in_place.is_together(scan, other) and entry.input.through.oid in [other.oid] + other.views -%}
                {%- for columns in entry.through_relations.get(other.oid, []) -%}
                    {%- set missing = [] -%}
                    {%- for column in entry.columns if columns[column] | replace('\ue040.', other.alias ~ '.') not in equal[column] -%}
                        {%- do missing.append(column) -%}
                    {%- endfor -%}
                    {%- if not missing -%}{{ return(true) }}{%- endif -%}
                {%- endfor -%}
            {%- endfor -%}
        {%- else -%}
            {%- set missing = [] -%}
            {%- for column in entry.columns -%}
                {%- set output = scan.outputs[column] -%}
                {#- a constant may be null where it is read, so only the same one is equal -#}
                {%- if output not in (equal[column] if '#' in output or '(column /' in output else equal[column][:1])
                    or (entry.input.gives_key and in_place.hides_a_missing_side(column, scan)) -%}
                    {%- do missing.append(column) -%}
                {%- endif -%}
            {%- endfor -%}
            {%- if not missing -%}{{ return(true) }}{%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#-
  Whether a column of the key is another value than null, or may be null, where the side of an outer join that a scan is in is missing. A row
  that appears there takes a row from that key, too.
-#}
{% macro hides_a_missing_side(column, scan) %}
    {%- set output = scan.outputs[column] -%}
    {%- if not scan.missing or scan.alias ~ '.' not in output or (modules.re.search(in_place.hides_null(), output) is none and column not in in_place.as_list(config.get('null_keys'))) -%}
        {{ return(false) }}
    {%- endif -%}
    {#- what USING gives is the same with both sides -#}
    {{ return(output not in scan.equations | map(attribute='left')) }}
{% endmacro %}


{#- Whether a row of the first scan meets rows of the other: the other is not in a subquery for a value or a branch of UNION that the first is outside of. -#}
{% macro is_together(scan, other) %}
    {%- set scopes = modules.re.findall('[us]\\d+/', other.path) -%}
    {%- if not scopes -%}{{ return(true) }}{%- endif -%}
    {{ return(scan.path.startswith(other.path[:other.path.rindex(scopes[-1]) + scopes[-1] | length])) }}
{% endmacro %}


{#- What an error says of a scan that no entry reaches. -#}
{% macro advice_for_scan(model_, scan) %}
    {%- set own, said = '(?<![\\w.#])' ~ modules.re.escape(scan.alias) ~ '\\.', [] -%}
    {%- for equation in scan.equations -%}
        {%- for mine, other in [(equation.left, equation.right), (equation.right, equation.left)] -%}
            {%- if modules.re.search(own, mine) and not modules.re.search(own, other) and modules.re.search('#\\d+\\.', other) and not modules.re.search('[{\\[]', mine ~ other) -%}
                {%- do said.append([modules.re.sub(own ~ '|~|' ~ in_place.mark_of_not_strict(), '', mine), in_place.without_numbers(other), in_place.equal_texts(other, scan.equations)]) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- for column in model_.build_by -%}
        {%- set mine = modules.re.sub(own ~ '|~|' ~ in_place.mark_of_not_strict(), '', scan.outputs[column]) -%}
        {%- if mine != scan.outputs[column] and not modules.re.search('#\\d+\\.|[{\\[]', mine) -%}
            {%- do said.append([mine, column, [scan.outputs[column]]]) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for entry in scan.own if in_place.pairs_otherwise(entry, scan) -%}
        {{ return(
            'by set-returning functions that it calls at several levels, or beside others where a part of the key may be null. The entry of changed_by '
            ~ 'calls them side by side, so changes would be missed. Give the inner level a model of its own, with one function in its SELECT, and read that.'
        ) }}
    {%- endfor -%}
    {%- if not said -%}
        {{ return('by no equation that a build could follow from a changed row to the key, so changes would be missed. Join it with = by the key, or by a column of the model; for a value in a list, write exists. Otherwise use in_place_table.') }}
    {%- endif -%}
    {%- set name, how = scan.own[0].input.name, said[0][0] ~ ' = ' ~ said[0][1] -%}
    {%- set columns = {} -%}
    {%- for mine, other, equal in said -%}
        {%- for column, output in scan.outputs.items() if output in equal and column not in columns -%}
            {%- do columns.update({column: mine}) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- set keys = {} -%}
    {%- for column in model_.build_by if column in columns -%}{%- do keys.update({column: columns[column]}) -%}{%- endfor -%}
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


{#- A text as people read it: without the numbers of scans, and without brackets around it. -#}
{% macro without_numbers(text) %}
    {%- set text = modules.re.sub('#\\d+|~|' ~ in_place.mark_of_not_strict(), '', text) -%}
    {{ return(text[1:-1] if modules.re.fullmatch('\\([^()]*\\)', text) else text) }}
{% endmacro %}


{#-
  The entries of `changed_by` with their keys over the tables themselves: a list of {input, columns, relations, through_relations}.
  `relations` has for each table of the input, by its oid, a list of {column: text}, in which a private use character, that no text has, is the table's alias.
  `through_relations` has the columns of the other model likewise. `sets` has an item for each set-returning function in the key: how many others
  are in its arguments.
-#}
{% macro entries_with_expressions(model_, inputs) %}
    {%- set found = [] -%}
    {%- for input in inputs if input.kind != 'whole' -%}
        {%- set columns = model_.build_by if input.gives_key and not input.through else input.key.keys() | list -%}
        {%- set expressions, others, sets = {}, {}, [] -%}
        {%- for column in columns -%}{%- do expressions.update({column: input.key[column]}) -%}{%- endfor -%}
        {%- if input.through -%}{%- for column in columns -%}{%- do others.update({column: adapter.quote(column)}) -%}{%- endfor -%}{%- endif -%}
        {%- do found.append({
            'input': input,
            'columns': columns,
            'relations': in_place.expressions_below(input, expressions, sets),
            'through_relations': in_place.expressions_below(input.through, others, []) if input.through else {},
            'sets': sets,
        }) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#-
  What expressions over an input are over the tables below it: lists of {column: text}, by the tables' oids.

  Arguments:
    sets: a list that gets an item for each set-returning function in them; see in_place.entries_with_expressions().
-#}
{% macro expressions_below(input, expressions, sets) %}
    {%- set view, found = in_place.temp_name('entry'), {} -%}
    {% call statement('entry') %}
        drop view if exists pg_temp.{{ view }};
        create temporary view {{ view }} as
        select {% for column, expression in expressions.items() %}{{ expression }} as {{ adapter.quote(column) }}{{ ', ' if not loop.last }}{% endfor %}
        from {{ input.relation }} as {{ adapter.quote(input.name) }}
    {% endcall %}
    {%- set opened = in_place.open_view('pg_temp.' ~ view) -%}
    {%- for node in in_place.sets_in(opened.query.targetList) -%}{%- do sets.append(in_place.sets_in(node.args) | length) -%}{%- endfor -%}
    {%- for scan in opened.scans -%}
        {%- set own = {} -%}
        {%- for column in expressions -%}
            {%- set text = in_place.without_casts(in_place.text_of_output(opened.query, loop.index, scan.path)) -%}
            {%- set text = modules.re.sub('(?<![\\w.#])' ~ modules.re.escape(scan.alias) ~ '\\.', '\ue040.', text) -%}
            {#- a column of another table's -#}
            {%- if not modules.re.search('#\\d+\\.', text) -%}{%- do own.update({column: text}) -%}{%- endif -%}
        {%- endfor -%}
        {%- if own | length == expressions | length -%}{%- do found.setdefault(scan.oid, []).append(own) -%}{%- endif -%}
    {%- endfor -%}
    {% call statement('entry') %}drop view pg_temp.{{ view }}{% endcall %}
    {{ return(found) }}
{% endmacro %}
