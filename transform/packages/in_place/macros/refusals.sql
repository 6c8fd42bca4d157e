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
    {{ in_place.refuse_rounded_keys(model_, trial, inputs) }}
    {%- set opened = in_place.open_view(trial) -%}
    {%- set scans = in_place.reached_scans(model_, opened, inputs, columns) -%}
    {%- if config.get('by_difference') -%}
        {#- it has one input, and in_place.difference_settings() refused other shapes -#}
        {{ in_place.refuse_untold_columns(opened, scans) }}
        {{ return(none) }}
    {%- endif -%}
    {%- set full = in_place.plan_of('explain (format json, verbose) select * from ' ~ trial) -%}
    {%- set of_keys = in_place.plan_of(
        in_place.set_for_now('random_page_cost', 1.1) ~ '; explain (format json, verbose) ' ~ in_place.rows_by_key(model_, in_place.temp_name('changed'))
    ) -%}
    {{ in_place.refuse_deciding_inputs(model_, opened, scans, columns) }}
    {{ in_place.refuse_untold_columns(opened, scans) }}
    {%- set share = in_place.refuse_unreached_key(model_, opened, full, of_keys, inputs) -%}
    {{ in_place.refuse_unreached_scans(model_, scans, inputs) }}
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
  so the row would go when its key is built; and rows with another column by which they are looked up would not be found.
-#}
{% macro refuse_rounded_keys(model_, trial, inputs) %}
    {%- if not config.get('contract').enforced -%}{{ return('') }}{%- endif -%}
    {%- set names = model_.key | list -%}
    {%- for input in inputs if not input.through -%}{%- do names.extend(input.key.keys()) -%}{%- endfor -%}
    {{ in_place.create_shape(model_) }}
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
            and selected.attname::text = any({{ in_place.text_array(names | unique | list) }})
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
  Refuses a model in which an input that gives no key decides whether a row exists, what its key is, or what is in the column by which
  rows that it makes stale are found: rows that are not there yet, or not with that value, would be missed.

  Arguments:
    scans: see in_place.reached_scans(). Those that an entry reaches which gives the key may decide.
-#}
{% macro refuse_deciding_inputs(model_, opened, scans, names) %}
    {%- set deciding = in_place.rows_depend_on(opened.query).rows -%}
    {%- for scan in scans if not scan.gives_key -%}
        {%- for input in scan.entries -%}
            {%- set from = in_place.columns_from(scan, opened, model_.build_by, names) -%}
            {%- if from or scan.id in deciding -%}{{ in_place.refuse_part_of_key(model_, input) }}{%- endif -%}
            {%- for name in from if scan.id not in deciding -%}
                {%- do exceptions.raise_compiler_error(
                    this ~ ': the key ' ~ name ~ ' comes from ' ~ input.name ~ ', whose entry in changed_by gives no key. A change there gives '
                    ~ 'rows new keys, which would be missed. Map the key to expressions over ' ~ input.name ~ ', or take ' ~ name
                    ~ ' out of the key. Nothing was changed.'
                ) -%}
            {%- endfor -%}
            {%- if scan.id in deciding -%}
                {%- do exceptions.raise_compiler_error(
                    this ~ ': ' ~ input.name ~ ' decides which rows there are, and its entry in changed_by gives no key. Rows that are not in the '
                    ~ 'table yet would be missed. Use a left join and no condition on it, or find the rows \'through\' a model that gives the key '
                    ~ 'and holds ' ~ input.key.keys() | join(', ') ~ '. Nothing was changed.'
                ) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- set found = [] -%}
        {%- for input in scan.entries if not in_place.columns_from(scan, opened, input.key, names) -%}
            {%- do found.append(input) -%}
        {%- endfor -%}
        {%- if scan.entries and not found -%}
            {%- set input = scan.entries[0] -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': ' ~ in_place.columns_from(scan, opened, input.key, names)[0] ~ ', by which rows are found when ' ~ input.name ~ ' changes, comes from '
                ~ input.name ~ ' itself. Rows that find nothing there yet hold no value, and would be missed. Select it from the other side of the join. '
                ~ 'Nothing was changed.'
            ) -%}
        {%- endif -%}
        {%- do scan.update({'entries': found}) -%}
        {{ in_place.refuse_missed_windows(scan, opened) }}
    {%- endfor -%}
{% endmacro %}


{#-
  Refuses a model in which a window function gives what a scan has to rows that other values found, if the rows with these values may not come out:
  nothing in the table says then that they need the scan.
-#}
{% macro refuse_missed_windows(scan, opened) %}
    {%- for query in opened.queries if scan.entries and query.hasWindowFuncs == 'true' and not in_place.keeps_all_rows(query, opened.queries) -%}
        {%- for function in in_place.nodes_in(query.targetList, ['WINDOWFUNC']) if scan.id in in_place.values_depend_on([function], query) -%}
            {%- set window = query.windowClause | selectattr('winref', 'equalto', function.winref) | first -%}
            {%- set shared, usable = [], [] -%}
            {%- for expression in in_place.sorted_by(window.partitionClause or [], query) -%}
                {%- do shared.extend(in_place.equal_texts(in_place.without_casts(in_place.text_of(expression, query, scan.path)), scan.equations)) -%}
            {%- endfor -%}
            {%- for entry in scan.entries -%}
                {%- set columns = entry.key.keys() | list -%}
                {%- set others = [] -%}
                {%- for column in columns if scan.outputs[column] not in shared -%}{%- do others.append(column) -%}{%- endfor -%}
                {%- if not others -%}{%- do usable.append(entry) -%}{%- endif -%}
            {%- endfor -%}
            {%- if not usable -%}
                {%- set input = scan.entries[0] -%}
                {%- do exceptions.raise_compiler_error(
                    this ~ ': a window function gives values of ' ~ input.name ~ ' to other rows than those that hold ' ~ input.key.keys() | join(', ')
                    ~ ', and these may not come out. Rows would be missed when ' ~ input.name ~ " changes. Find them 'through' a model that gives the key and holds "
                    ~ input.key.keys() | join(', ') ~ ', or keep all rows. Nothing was changed.'
                ) -%}
            {%- endif -%}
            {%- do scan.update({'entries': usable}) -%}
        {%- endfor -%}
    {%- endfor -%}
{% endmacro %}


{#- Those of the model's columns that depend on a scan. -#}
{% macro columns_from(scan, opened, columns, names) %}
    {%- set found = [] -%}
    {%- for name in columns if scan.id in in_place.output_depends_on(opened.query, names.index(name) + 1) -%}
        {%- do found.append(name) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- Refuses an entry that gives a part of the key. -#}
{% macro refuse_part_of_key(model_, input) %}
    {%- set parts = input.key.keys() | list -%}
    {%- if not input.gives_key and not (parts | reject('in', model_.build_by) | list) -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': ' ~ input.name ~ ' gives ' ~ parts | join(', ') ~ ', a part of ' ~ model_.build_by | join(', ') ~ ', so rows with a new key '
            ~ 'would be missed. Map the whole key, or set build_by: ' ~ parts | join(', ') ~ '. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#-
  Refuses a model that reads more columns of an input than an entry's `columns`: changes of the others would be missed. One entry must have all
  that a scan reads, and give the key if one does: by another column, a row is not found if that is null or the row is new.
-#}
{% macro refuse_untold_columns(opened, scans) %}
    {%- set reads = in_place.column_reads(opened) -%}
    {#- of others, each change is known as a change of the row -#}
    {%- for scan in scans if scan.entries and scan.entries[0].kind == 'logged' -%}
        {%- set input = scan.entries[0] -%}
        {%- set all = in_place.table_columns(input.relation) | map(attribute='name') | list -%}
        {%- set read = all if '*' in reads[scan.id] else all | select('in', reads[scan.id]) | list -%}
        {%- set best = {'untold': all, 'entry': none} -%}
        {%- for entry in scan.entries if entry.gives_key or not scan.gives_key -%}
            {%- set told = in_place.columns_in_use(input.relation, entry.key.values() | list + entry.columns) if entry.columns else all -%}
            {%- set untold = read | reject('in', told) | list -%}
            {%- if untold | length < best.untold | length or best.entry is none -%}
                {%- do best.update({'untold': untold, 'entry': entry}) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- if best.untold -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ' reads ' ~ best.untold | join(', ') ~ ' of ' ~ input.name ~ ", whose changes would be missed: its entry in changed_by has 'columns': "
                ~ best.entry.columns ~ '. Add what is missing, or leave columns out. Nothing was changed.'
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}


{#- The tables that a view reads, as in_place.relations_of() gives them. -#}
{% macro tables_below(relation) %}
    {{ return(in_place.relations_of('array(' ~ in_place.relations_below(relation) ~ ')')) }}
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
