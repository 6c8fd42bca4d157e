{#- What `changed_by` names: the inputs of a model that is built by key, and the keys whose rows a change of them makes stale. -#}

{#-
  The entries of `changed_by`, resolved: a list of {name, own_name, deferred_name, relation, key, columns, kind, tables, through, gives_key}. `key`
  maps columns of the model, or of the model that the rows are found `through`, to expressions over the input.

  `kind` says how the input's changes are known. `logged`: the materialization that writes it logs them. `tracked`: its rows
  are those of `tables`, which have triggers. `whole`: only whether it was written is known.

  Arguments:
    columns: the names of the model's columns.
-#}
{% macro changed_by(model_, columns) %}
    {%- set entries = config.get('changed_by') -%}
    {%- if not entries or entries is string or entries is mapping -%}
        {%- do exceptions.raise_compiler_error(
            this ~ (' has ' ~ entries ~ ' as changed_by, which must be a list: ' if entries else ' needs changed_by: ') ~ "what makes a key's row stale, as in [{'model': 'stg_orders', 'key': 'order_id'}]."
        ) -%}
    {%- endif -%}
    {%- set below, nodes, oids, found = in_place.nameable_inputs(), [], [], [] -%}
    {%- for entry in entries -%}
        {{ in_place.refuse_bad_entry(entry, below, columns) }}
        {%- set node = (below | selectattr('name', 'equalto', entry.model) | list)[0] -%}
        {%- do nodes.append(node) -%}
        {%- do oids.append(in_place.node_oid(node)) -%}
    {%- endfor -%}
    {%- set relations = in_place.relations_of('array[' ~ oids | join(', ') ~ ']') -%}
    {%- for entry in entries -%}
        {%- set node, relation = nodes[loop.index0], relations[loop.index0] -%}
        {%- set key = {entry.key: adapter.quote(entry.key)} if entry.key is string else entry.key -%}
        {%- if not relation -%}
            {%- do exceptions.raise_compiler_error(
                'changed_by names ' ~ entry.model ~ ', which does not exist in the warehouse yet. Build it first: dbt build --select +' ~ model.name
            ) -%}
        {%- endif -%}
        {%- set is_logged = in_place.is_logged(node) -%}
        {%- set tables = [] if is_logged else in_place.base_tables(relation, entry.model, key, node) -%}
        {%- do found.append({
            'name': entry.model,
            'own_name': node.relation_name,
            'deferred_name': (node.get('defer_relation') or {}).get('relation_name'),
            'relation': relation.relation,
            'oid': relation.oid,
            'schema': relation.schema,
            'identifier': relation.identifier,
            'key': key,
            'columns': in_place.as_list(entry.get('columns')),
            'kind': 'logged' if is_logged else 'tracked' if tables else 'whole',
            'tables': [dict(relation, alias=adapter.quote(entry.model), stamp=none, expressions=none)] if is_logged else tables,
            'through': entry.get('through'),
            'gives_key': 'through' in entry or not (model_.build_by | reject('in', key.keys()) | list),
        }) -%}
    {%- endfor -%}
    {{ in_place.refuse_missing_input_columns(entries, found) }}
    {%- for input in found if input.through -%}
        {%- do input.update({'through': in_place.resolve_through(input, found)}) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- Refuses an entry of `changed_by` that names columns which its input does not have. -#}
{% macro refuse_missing_input_columns(entries, inputs) %}
    {%- set trials = [] -%}
    {%- for input in inputs -%}
        {%- set key = entries[loop.index0].key -%}
        {%- set columns = in_place.table_columns(input.relation) | map(attribute='name') | list -%}
        {%- set missing = (([key] if key is string else []) + input.columns) | reject('in', columns) | list -%}
        {%- if missing -%}
            {%- do exceptions.raise_compiler_error(
                this ~ ': changed_by names ' ~ missing | join(', ') ~ ' for ' ~ input.name ~ ', which has no such column.'
                ~ (in_place.did_you_mean(missing[0], columns) or " If the key has another name there, map it, as in {'" ~ missing[0] ~ "': '…'}.") ~ ' Its columns: ' ~ columns | join(', ') ~ '. Nothing was changed.'
            ) -%}
        {%- endif -%}
        {%- if key is not string -%}
            {%- do trials.append('select ' ~ key.values() | join(', ') ~ ' from ' ~ input.relation ~ ' as ' ~ adapter.quote(input.name) ~ ' limit 0') -%}
        {%- endif -%}
    {%- endfor -%}
    {#- PostgreSQL says what is wrong with an expression, before anything is built -#}
    {%- if trials -%}{%- do run_query(trials | join(';\n')) -%}{%- endif -%}
{% endmacro %}


{#- The input through which another one's keys are found. -#}
{% macro resolve_through(input, inputs) %}
    {%- set others = inputs | selectattr('name', 'equalto', input.through) | selectattr('gives_key') | rejectattr('through') | list -%}
    {%- if not others -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by finds the rows that ' ~ input.name ~ " changes through '" ~ input.through ~ "', which needs an entry of its own that gives the key."
            ~ in_place.did_you_mean(input.through, inputs | map(attribute='name') | list)
        ) -%}
    {%- endif -%}
    {%- set columns = in_place.table_columns(others[0].relation) | map(attribute='name') | list -%}
    {%- set missing = input.key.keys() | reject('in', columns) | list -%}
    {%- if missing -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by joins ' ~ input.name ~ ' and ' ~ input.through ~ ' by ' ~ missing | join(', ') ~ ', which the latter does not have. Its columns: '
            ~ columns | join(', ') ~ '.'
        ) -%}
    {%- endif -%}
    {{ return(others[0]) }}
{% endmacro %}


{#- What `changed_by` and `static` can name: the nodes below the current model, and its sources as `source.table`. -#}
{% macro nameable_inputs() %}
    {%- set nodes, found = in_place.nodes_below(model.depends_on.nodes), [] -%}
    {%- set ids = model.depends_on.nodes | list -%}
    {%- for node in nodes -%}
        {%- do found.append(node) -%}
        {%- do ids.extend(node.depends_on.nodes or []) -%}
    {%- endfor -%}
    {%- for id in ids | unique if id in graph.sources -%}
        {%- set source = graph.sources[id] -%}
        {%- do found.append({
            'name': source.source_name ~ '.' ~ source.name,
            'schema': source.schema,
            'alias': source.identifier,
            'relation_name': source.relation_name,
            'resource_type': 'source',
            'config': {},
        }) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- Refuses an entry of `changed_by` that is misspelt, or names what the model does not read or have. -#}
{% macro refuse_bad_entry(entry, below, columns) %}
    {%- set example = "{'model': 'stg_orders', 'key': 'order_id'}" -%}
    {%- if entry is not mapping or not entry.get('model') or not entry.get('key') -%}
        {%- do exceptions.raise_compiler_error('changed_by has ' ~ entry ~ '. An entry names a model and a key, as in ' ~ example ~ '.') -%}
    {%- endif -%}
    {#- while dbt reads config(), ref() is the model itself -#}
    {%- if entry.model is not string or 'ref(' in entry.model or 'source(' in entry.model or '{{' in entry.model or entry.model in [model.name, this | string] -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by has the model ' ~ entry.model ~ ', and takes names as text, without ref() or source(): ' ~ example ~ ", or 'raw.orders' for a source."
        ) -%}
    {%- endif -%}
    {%- set unknown = entry.keys() | reject('in', ['model', 'key', 'columns', 'through']) | list -%}
    {%- if unknown -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by has ' ~ unknown | join(', ') ~ '. An entry has model, key, columns and through, as in ' ~ example ~ '.'
            ~ in_place.did_you_mean(unknown[0], ['model', 'key', 'columns', 'through'])
        ) -%}
    {%- endif -%}
    {%- if below | selectattr('name', 'equalto', entry.model) | list | length != 1 -%}
        {%- do exceptions.raise_compiler_error(
            "changed_by names '" ~ entry.model ~ "', which the model does not read." ~ in_place.did_you_mean(entry.model, below | map(attribute='name') | list)
            ~ ' It reads: ' ~ below | map(attribute='name') | sort | join(', ') ~ '.'
        ) -%}
    {%- endif -%}
    {%- if entry.key is not string and entry.key is not mapping -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by has the key ' ~ entry.key ~ ' for ' ~ entry.model ~ '. A key is a column, or maps columns of this model to expressions.'
        ) -%}
    {%- endif -%}
    {%- set missing = ([entry.key] if entry.key is string else entry.key.keys() | list) | reject('in', columns) | list -%}
    {%- if missing and not entry.get('through') -%}
        {%- do exceptions.raise_compiler_error(
            'changed_by maps ' ~ entry.model ~ ' to ' ~ missing | join(', ') ~ ', which this model does not have.'
            ~ (in_place.did_you_mean(missing[0], columns) or in_place.advice_for_missing_key(entry, missing[0])) ~ ' Columns of this model: ' ~ columns | join(', ') ~ '.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- What to do about a key of an entry that the model has no column for. -#}
{% macro advice_for_missing_key(entry, name) %}
    {%- set key = in_place.as_list(config.get('build_by') or config.get('unique_key')) -%}
    {%- set mapped = {key[0]: 'an expression over ' ~ name} if key | length == 1 else {key[0]: '…', key[1]: '…'} -%}
    {{ return(
        ' If the key is made of it, map the key to what it is there: ' ~ {'model': entry.model, 'key': mapped} ~ ', as in '
        ~ {'month': "date_trunc('month', ordered_on)::date"} ~ ". If a join uses it, select it, or find the rows 'through' a model that gives the key and has it."
    ) }}
{% endmacro %}


{#- Whether the materialization of a node logs the changes of its rows. -#}
{% macro is_logged(node) %}
    {{ return(node.config.materialized in in_place.materializations_with_rows() and node.resource_type != 'snapshot') }}
{% endmacro %}


{#- The columns of a table that these expressions name: as a whole, as a word, or in quotes. -#}
{% macro columns_in_use(relation, expressions) %}
    {%- set expressions = expressions | list -%}
    {%- set text, found = expressions | join(' '), [] -%}
    {%- set words = modules.re.findall('\\w+', text) -%}
    {%- for column in in_place.table_columns(relation) if column.name in words or column.name in expressions or adapter.quote(column.name) in text -%}
        {%- do found.append(column.name) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- The columns of the current model that the log of its changes has: those that other models' `changed_by` use. -#}
{% macro tracked_columns() %}
    {%- set words = [] -%}
    {%- for node in graph.nodes.values() if node.config.get('changed_by') -%}
        {%- for entry in node.config.changed_by if entry is mapping and entry.get('model') == model.name and entry.get('key') -%}
            {%- do words.extend([entry.key] if entry.key is string else entry.key.values()) -%}
            {%- do words.extend(entry.get('columns') or []) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(in_place.columns_in_use(this, words) if words else []) }}
{% endmacro %}
