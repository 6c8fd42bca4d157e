{#-
  What incremental_by_key refuses: models whose rows may change although `changed_by` gives no key for them, and models whose
  keys PostgreSQL can't push down. Each is checked before anything is written, and again when anything that it follows from changed: see preparation.sql.
-#}

{#-
  Checks the current model against its temporary view `trial`, the names of its columns and its resolved inputs.

  Returns:
    What one key costs, as a share of the model's plan; none for a model that is built by difference.
-#}
{% macro refuse_by_key(model_, trial, columns, inputs) %}
    {%- set query -%}
        select {{ in_place.unlisted_inputs(trial, inputs) }}, {{ in_place.unstable_part(trial) }}
    {%- endset -%}
    {%- set unlisted, unstable = run_query(query)[0].values() -%}
    {{ in_place.refuse_unlisted_inputs(unlisted) }}
    {{ in_place.refuse_clock(unstable) }}
    {{ in_place.refuse_rounded_keys(model_, trial) }}
    {%- set full = in_place.plan_of('explain (format json, verbose) select * from ' ~ trial) -%}
    {%- if config.get('by_difference') -%}
        {#- it has one input, and in_place.difference_settings() refused other shapes -#}
        {{ in_place.refuse_untold_columns(inputs, full) }}
        {{ return(none) }}
    {%- endif -%}
    {%- set of_keys = in_place.plan_of(
        in_place.set_for_now('random_page_cost', 1.1) ~ '; explain (format json, verbose) ' ~ in_place.rows_by_key(model_, in_place.temp_name('changed'))
    ) -%}
    {%- set plan = in_place.comparable_plan(in_place.plan_of_one_key(of_keys)) -%}
    {%- set reached = in_place.reached_scans(model_, plan, inputs, columns) -%}
    {{ in_place.refuse_deciding_inputs(model_, inputs, plan, columns, reached.scans) }}
    {{ in_place.refuse_untold_columns(inputs, full) }}
    {%- set share = in_place.refuse_unreached_key(model_, full, of_keys, inputs) -%}
    {{ in_place.refuse_unreached_scans(model_, reached, inputs) }}
    {{ return(share) }}
{% endmacro %}


{#- An SQL expression for the relations that the model reads and that are neither in `changed_by` nor `static`; null if there are none. -#}
{% macro unlisted_inputs(trial, inputs) -%}
    {%- set listed, oids = inputs | map(attribute='relation') | list, [] -%}
    {%- for name in config.get('static') or [] -%}
        {%- set nodes = in_place.nameable_inputs() | selectattr('name', 'equalto', name) | list -%}
        {%- if nodes | length != 1 -%}
            {%- do exceptions.raise_compiler_error(
                "static names '" ~ name ~ "', which the model does not read." ~ in_place.did_you_mean(name, in_place.nameable_inputs() | map(attribute='name') | list)
            ) -%}
        {%- endif -%}
        {%- do oids.append(in_place.node_oid(nodes[0])) -%}
    {%- endfor -%}
    {%- for relation in (in_place.relations_of('array[' ~ oids | join(', ') ~ ']') if oids else []) if relation -%}
        {%- do listed.append(relation.relation) -%}
    {%- endfor -%}
    (
        select string_agg(read.oid::regclass::text, ', ' order by read.oid::regclass::text)
        from ({{ in_place.relations_below(trial) }}) as read
        where read.oid not in (
            select 0::oid
            {%- for relation in listed %}
                union all
                select '{{ relation }}'::regclass::oid
                union all
                select below.oid from ({{ in_place.relations_below(relation) }}) as below
            {%- endfor %}
        )
    )
{%- endmacro %}


{#- Refuses a model that reads such relations: their changes would be missed. -#}
{% macro refuse_unlisted_inputs(unlisted) %}
    {%- if unlisted -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' reads ' ~ unlisted ~ ', whose changes would be missed. Add it to changed_by with the key that it makes stale, '
            ~ 'or to static if its rows never change. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- An SQL expression for what makes the model's rows change with the clock or the session; null if nothing does. -#}
{% macro unstable_part(trial) -%}
    (
        select coalesce(
            nullif(trim(trailing '(' from substring(pg_get_viewdef(oid) from '({{ in_place.unstable_pattern() }})')), ''),
            'the clock or the session'
        )
        from ({{ in_place.views_below(trial) }}) as views
        where pg_get_viewdef(oid) ~ '{{ in_place.unstable_pattern() }}'
        limit 1
    )
{%- endmacro %}


{#- Refuses a model whose rows change with the clock or the session: no input changes then. -#}
{% macro refuse_clock(unstable) %}
    {%- if unstable and not config.get('time_dependent') -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' depends on ' ~ unstable ~ ', so its rows change when no input does. Take it out, '
            ~ 'or set time_dependent: true, which computes all rows at each build. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#-
  Refuses a contract whose type of a key rounds or cuts what the SELECT gives: the SELECT has no row with the key that the table has,
  so the row would go when its key is built.
-#}
{% macro refuse_rounded_keys(model_, trial) %}
    {%- if not config.get('contract').enforced -%}{{ return('') }}{%- endif -%}
    {% call statement('shape') %}
        drop table if exists pg_temp.{{ model_.shape }};
        create temporary table {{ model_.shape }} {{ get_table_columns_and_constraints() }}
    {% endcall %}
    {%- set query -%}
        select
            quote_ident(selected.attname),
            format_type(selected.atttypid, selected.atttypmod),
            format_type(wanted.atttypid, wanted.atttypmod)
        from pg_catalog.pg_attribute as selected
        inner join pg_catalog.pg_attribute as wanted
            on wanted.attrelid = 'pg_temp.{{ model_.shape }}'::regclass and wanted.attname = selected.attname
        where
            selected.attrelid = '{{ trial }}'::regclass
            and selected.attname::text = any({{ in_place.text_array(model_.key) }})
            and (wanted.atttypid, wanted.atttypmod) <> (selected.atttypid, selected.atttypmod)
            -- it holds every value of the other one
            and not (
                wanted.atttypmod = -1
                and (
                    wanted.atttypid = selected.atttypid
                    or (selected.atttypid::regtype::text, wanted.atttypid::regtype::text) in (
                        ('smallint', 'integer'), ('smallint', 'bigint'), ('integer', 'bigint'), ('character varying', 'text')
                    )
                )
            )
    {%- endset -%}
    {%- for name, selected, wanted in run_query(query).rows -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': the key ' ~ name ~ ' is ' ~ selected ~ ' in the SELECT and ' ~ wanted ~ ' in the contract, which rounds or cuts values, so '
            ~ 'a build would not find the rows of a changed key. Cast it in the SELECT: ' ~ name ~ '::' ~ wanted ~ '. Nothing was changed.'
        ) -%}
    {%- endfor -%}
{% endmacro %}


{#-
  Refuses a model in which an input decides whether a row exists, or what its key is, and gives no key: the rows that it
  makes stale are found by the values that the table's rows hold, so rows that are not there yet would be missed.

  Arguments:
    plan: the plan for one key, comparable.
    scans: see in_place.reached_scans(). Those that another entry reaches and that gives the key may decide.
-#}
{% macro refuse_deciding_inputs(model_, inputs, plan, names, scans) %}
    {%- for input in inputs if not input.gives_key -%}
        {%- set parts = input.key.keys() | list -%}
        {%- if not (parts | reject('in', model_.build_by) | list) -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': ' ~ input.name ~ ' gives ' ~ parts | join(', ') ~ ', a part of ' ~ model_.build_by | join(', ') ~ ', so rows with a new key '
                ~ 'would be missed. Map the whole key, or set build_by: ' ~ parts | join(', ') ~ '. Nothing was changed.'
            ) -%}
        {%- endif -%}
        {%- set tables = in_place.names_in_plans([input] + (in_place.tables_below(input.relation) if input.kind != 'logged' else [])) -%}
        {%- set aliases, giving = [], [] -%}
        {%- set others = scans | rejectattr('gives_key') | map(attribute='name') | list -%}
        {%- for scan in scans if scan.name not in others -%}{%- do giving.append(scan.name) -%}{%- endfor -%}
        {%- set decides = in_place.decides_rows(plan, tables, aliases, giving) -%}
        {%- set pattern = '(^|[^\\w"])(' ~ aliases | unique | map('replace', '$', '\\$') | join('|') ~ ')\\.' -%}
        {%- if aliases and not decides -%}
            {%- set decides = in_place.is_in_filter(plan, pattern, tables) -%}
            {%- for name in names if name in model_.build_by and not decides -%}
                {%- set output = (plan['Output'] or [])[names.index(name)] -%}
                {%- if output and modules.re.search(pattern, output) -%}
                    {%- do exceptions.raise_compiler_error(
                        this ~ ': the key ' ~ name ~ ' comes from ' ~ input.name ~ ', whose entry in changed_by gives no key. A change there gives '
                        ~ 'rows new keys, which would be missed. Map the key to expressions over ' ~ input.name ~ ', or take ' ~ name
                        ~ ' out of the key. Nothing was changed.'
                    ) -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
        {%- if decides -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': ' ~ input.name ~ ' decides which rows there are, and its entry in changed_by gives no key. Rows that are not in the '
                ~ 'table yet would be missed. Use a left join and no condition on it, or find the rows \'through\' a model that gives the key '
                ~ 'and holds ' ~ input.key.keys() | join(', ') ~ '. Nothing was changed.'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- Refuses a model that reads more columns of an input than its entry's `columns`: changes of the others would be missed. -#}
{% macro refuse_untold_columns(inputs, plan) %}
    {%- set nodes = [] -%}
    {{ in_place.collect_nodes(plan, nodes) }}
    {%- for input in inputs if input.columns -%}
        {%- set names, aliases, texts = [], [], [] -%}
        {%- set parts -%}
            select relname::text
            from (
                select '{{ input.relation }}'::regclass::oid as oid
                union
                select relid::oid from pg_partition_tree('{{ input.relation }}'::regclass)
            ) as parts
            inner join pg_catalog.pg_class using (oid)
        {%- endset -%}
        {%- set names = in_place.first_column(parts) | list -%}
        {%- for node in nodes if node.get('Relation Name') in names -%}
            {#- a partition's alias is its table's and a number -#}
            {%- do aliases.extend([node['Alias'], modules.re.sub('_\\d+$', '', node['Alias'])]) -%}
        {%- endfor -%}
        {%- for node in nodes -%}
            {%- for name in ['Index Cond', 'Filter', 'Recheck Cond', 'Hash Cond', 'Join Filter', 'Merge Cond'] -%}{%- do texts.append(node.get(name) or '') -%}{%- endfor -%}
            {#- a scan, and what passes its rows on, may print columns that nobody needs -#}
            {%- if loop.first or 'Join' in node['Node Type'] or node['Node Type'] in ['Nested Loop', 'Aggregate', 'WindowAgg'] -%}
                {%- do texts.extend(node.get('Output', [])) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- set read = modules.re.findall('(?<![\\w"])(?:' ~ aliases | unique | map('replace', '$', '\\$') | join('|') ~ ')\\."?(\\w+)', texts | join(' ')) if aliases else [] -%}
        {%- set told = in_place.columns_in_use(input.relation, input.key.values() | list + input.columns) -%}
        {%- set untold = in_place.columns_in_use(input.relation, read) | reject('in', told) | list -%}
        {%- if untold -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ' reads ' ~ untold | join(', ') ~ ' of ' ~ input.name ~ ", whose changes would be missed: its entry in changed_by has 'columns': "
                ~ input.columns ~ '. Add what is missing, or leave columns out. Nothing was changed.'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- The tables that a view reads, as in_place.relations_of() gives them. -#}
{% macro tables_below(relation) %}
    {{ return(in_place.relations_of('array(' ~ in_place.relations_below(relation) ~ ')')) }}
{% endmacro %}


{#- The names that plans have for tables and their partitions, as the keys of a mapping. -#}
{% macro names_in_plans(tables) %}
    {%- set names = {} -%}
    {%- set query -%}
        select concat(nspname, '.', relname)
        from (
            select unnest(array[{{ tables | map(attribute='oid') | join(', ') }}]::oid[]) as oid
            {% for table in tables -%}
                union
                select relid::oid from pg_partition_tree({{ table.oid }})
            {%- endfor %}
        ) as tables
        inner join pg_catalog.pg_class using (oid)
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
    {%- endset -%}
    {%- for name in in_place.first_column(query) -%}{%- do names.update({name: true}) -%}{%- endfor -%}
    {{ return(names) }}
{% endmacro %}


{#-
  Whether a part of a comparable plan gives rows by what is in one of these tables. Appends the tables' names in the plan to `aliases`.

  Arguments:
    but_not: aliases of scans that don't count.
-#}
{% macro decides_rows(node, tables, aliases, but_not) %}
    {%- if node.get('Relation Name') and node['Schema'] ~ '.' ~ node['Relation Name'] in tables and node['Alias'] not in but_not -%}
        {%- do aliases.append(node['Alias']) -%}
        {{ return(true) }}
    {%- endif -%}
    {%- set decides = [] -%}
    {%- for child in node.get('Plans', []) -%}
        {%- set side = child['Parent Relationship'] -%}
        {%- set found = in_place.decides_rows(child, tables, aliases, but_not) -%}
        {%- set is_nullable = (node.get('Join Type') == 'Left' and side == 'Inner') or (node.get('Join Type') == 'Right' and side == 'Outer')
            or side in ['SubPlan', 'InitPlan'] -%}
        {%- if found and not is_nullable -%}{%- do decides.append(true) -%}{%- endif -%}
        {%- if found and side in ['SubPlan', 'InitPlan'] -%}{%- do aliases.append(child['Subplan Name']) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(decides | length > 0) }}
{% endmacro %}


{#- Whether a filter above the tables' scans has a column of these tables. -#}
{% macro is_in_filter(node, pattern, tables) %}
    {%- set filter = node.get('Filter') or '' -%}
    {%- if filter and not node.get('Relation Name') and modules.re.search(pattern, filter) -%}{{ return(true) }}{%- endif -%}
    {%- if modules.re.search('SubPlan \\d', filter) and modules.re.search(pattern, '(' ~ modules.re.search('SubPlan \\d+', filter).group(0) ~ '.') -%}
        {{ return(true) }}
    {%- endif -%}
    {%- for child in node.get('Plans', []) -%}
        {%- if in_place.is_in_filter(child, pattern, tables) -%}{{ return(true) }}{%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{% endmacro %}


{#-
  For --empty and --sample, dbt makes a subquery of ref() and source() and gives it an alias, because PostgreSQL 15 requires one.
  A second alias after that is a syntax error.
-#}
{% macro refuse_aliased_ref() %}
    {%- set aliased = modules.re.search('_dbt_(?:limit|et_filter)_subq_(\\S+)\\s+as\\s+(\\S+)', model.compiled_code or '', modules.re.IGNORECASE) -%}
    {%- if in_place.is_sampled() and aliased -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' gives ' ~ aliased.group(1) ~ ' the alias ' ~ aliased.group(2) ~ ' where it reads it, and with --empty and --sample dbt gives it an alias '
            ~ "of its own. Read it in a CTE: with " ~ aliased.group(2) ~ " as (select * from {{ ref('" ~ aliased.group(1) ~ "') }}). Nothing was changed."
        ) -%}
    {%- endif -%}
{% endmacro %}
