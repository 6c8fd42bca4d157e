{#-
  Compares a contract with the table: exact types and constraints, beyond the column names. The macros create a temporary
  table from the contract, so PostgreSQL describes both sides in the same words.
-#}

{#-
  Returns the contract and how the table differs from it. `columns`: the contract's columns. `missing`: constraints that
  the table lacks. `gone`: names of the table's constraints that the contract no longer has. `not_null`: columns to set
  NOT NULL. `nullable`: columns that may drop NOT NULL. Without a contract, all are empty.

  Arguments:
    facts: in_place.table_facts().
-#}
{% macro compare_contract(model_, facts) %}
    {%- set contract = {'columns': [], 'missing': [], 'gone': [], 'not_null': [], 'nullable': []} -%}
    {%- do contract.update({'columns': facts.shape}) -%}
    {%- for row in facts.differences -%}
        {%- if row[0] == 'missing' -%}
            {#- PostgreSQL named unnamed constraints after the temporary table -#}
            {%- do contract.missing.append({
                'kind': row[1], 'name': row[2] | replace(model_.shape | replace('"', ''), this.identifier[:50]), 'definition': row[3]
            }) -%}
        {%- else -%}
            {%- do contract[row[0]].append(row[2]) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(contract) }}
{% endmacro %}


{#- Creates an empty temporary table with the columns and constraints of the contract. -#}
{% macro create_shape(model_) %}
    {% call statement('shape') %}
        drop table if exists pg_temp.{{ model_.shape }};
        create temporary table {{ model_.shape }} {{ get_table_columns_and_constraints() }}
    {% endcall %}
{% endmacro %}


{#- The types of the contract's columns by their names, as PostgreSQL writes them; empty without a contract. -#}
{% macro declared_types(model_) %}
    {%- set types = {} -%}
    {%- if config.get('contract').enforced -%}
        {{ in_place.create_shape(model_) }}
        {%- set query -%}select {{ in_place.columns_as_json("'pg_temp." ~ model_.shape ~ "'::regclass") }}{%- endset -%}
        {%- for column in fromjson(in_place.single_value(query)) -%}{%- do types.update({column.name: column.type}) -%}{%- endfor -%}
    {%- endif -%}
    {{ return(types) }}
{% endmacro %}


{#-
  Refuses rows whose columns are not the contract's, with dbt's own message.

  Arguments:
    wanted: the contract's columns; none if they are not known yet.
-#}
{% macro refuse_other_columns(model_, columns, wanted=none) %}
    {%- if not config.get('contract').enforced -%}{{ return('') }}{%- endif -%}
    {#- dbt, too, compares types without their lengths -#}
    {%- set sides = [] -%}
    {%- for side in [columns, wanted or []] -%}
        {%- set texts = [] -%}
        {%- for column in side -%}
            {%- do texts.append(column.name ~ ' ' ~ modules.re.sub('\\([\\d, -]+\\)', '', column.type)) -%}
        {%- endfor -%}
        {%- do sides.append(texts | sort) -%}
    {%- endfor -%}
    {%- if sides[0] != sides[1] -%}
        {{ get_assert_columns_equivalent('select * from ' ~ model_.stage) }}
    {%- endif -%}
{% endmacro %}


{#- Proves the new constraints for all rows before any row is written. The merge proves the constraints that the table had. -#}
{% macro prove_contract(model_, columns, contract) %}
    {%- if contract.missing or contract.not_null -%}
        {%- set names = in_place.column_list(columns | map(attribute='name') | list) -%}
        {% call statement('prove contract') %}
            insert into {{ model_.shape }} ({{ names }}) select {{ names }} from {{ model_.stage }}
        {% endcall %}
    {%- endif -%}
{% endmacro %}


{#-
  Adds the constraints that are new in the contract, now that all rows satisfy them. Validation takes no lock that blocks
  readers. Only building an index for a key does.
-#}
{% macro add_constraints(model_, contract) %}
    {%- if not (contract.missing or contract.not_null) -%}{{ return('') }}{%- endif -%}
    {%- set added, validated, settled = [], [], [] -%}
    {%- for constraint in contract.missing -%}
        {%- set clause = 'add constraint ' ~ adapter.quote(constraint.name) ~ ' ' ~ constraint.definition -%}
        {%- if constraint.kind == 'c' -%}
            {%- do added.append(clause ~ ' not valid') -%}
            {%- do validated.append('validate constraint ' ~ adapter.quote(constraint.name)) -%}
        {%- else -%}
            {%- do settled.append(clause) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name in contract.not_null -%}
        {#- PostgreSQL accepts such a constraint as proof and doesn't scan the table again -#}
        {%- set proof = adapter.quote(in_place.cut_name(this.identifier, 20) ~ '_' ~ local_md5(name)[:12] ~ '_not_null') -%}
        {%- do added.append('add constraint ' ~ proof ~ ' check (' ~ adapter.quote(name) ~ ' is not null) not valid') -%}
        {%- do validated.append('validate constraint ' ~ proof) -%}
        {%- do settled.append('alter column ' ~ adapter.quote(name) ~ ' set not null') -%}
        {%- do settled.append('drop constraint ' ~ proof) -%}
    {%- endfor -%}
    {%- set table = 'alter table ' ~ model_.relation ~ ' ' -%}
    {{ in_place.begin_transaction() }}
    {%- if added -%}
        {{ in_place.run_ddl('constraints', table ~ added | join(', ') ~ ';') }}
        {{ in_place.commit_and_begin() }}
        {% call statement('validate') %}
            {{ table ~ validated | join(', ') }}
        {% endcall %}
        {{ in_place.commit_and_begin() }}
    {%- endif -%}
    {%- if settled -%}
        {{ in_place.run_ddl('settle', (table ~ settled | join('; ' ~ table)) ~ ';') }}
    {%- endif -%}
    {%- do adapter.commit() -%}
{% endmacro %}


{#-
  Drops the constraints of an empty table that need an index; returns their `name` and `definition`. Those whose index has a
  fillfactor or a tablespace stay, because a constraint's definition does not show them; and so do all of a table with foreign
  keys (which a constraint of type custom can be), because these may depend on them.
-#}
{% macro drop_index_constraints(model_) %}
    {%- set query -%}
        select conname::text, pg_get_constraintdef(pg_constraint.oid)
        from pg_catalog.pg_constraint
        inner join pg_catalog.pg_class on pg_class.oid = conindid
        where
            conrelid = '{{ model_.relation }}'::regclass
            and contype in ('p', 'u', 'x')
            and reloptions is null
            and reltablespace = 0
            and not exists (select from pg_catalog.pg_constraint where conrelid = '{{ model_.relation }}'::regclass and contype = 'f')
        order by pg_constraint.oid
    {%- endset -%}
    {%- set dropped = [] -%}
    {%- for row in run_query(query) -%}
        {%- do dropped.append({'name': row[0], 'definition': row[1]}) -%}
    {%- endfor -%}
    {%- if dropped -%}
        {% call statement('drop constraints') %}
            alter table {{ model_.relation }}
            {% for each in dropped %} drop constraint {{ adapter.quote(each.name) }}{{ ', ' if not loop.last }}{% endfor %}
        {% endcall %}
    {%- endif -%}
    {{ return(dropped) }}
{% endmacro %}


{#- Adds what drop_index_constraints() dropped. -#}
{% macro add_index_constraints(model_, dropped) %}
    {%- if dropped -%}
        {% call statement('add constraints') %}
            -- a table with pending checks of a deferred constraint can't be altered
            set constraints all immediate;
            alter table {{ model_.relation }}
            {% for each in dropped %} add constraint {{ adapter.quote(each.name) }} {{ each.definition }}{{ ', ' if not loop.last }}{% endfor %}
        {% endcall %}
    {%- endif -%}
{% endmacro %}


{#-
  Refuses foreign keys. Each in-place table is written in its own transaction, in the order of the graph, and a row may leave
  before the rows that reference it. A foreign key would stop builds that are correct a moment later.
-#}
{% macro refuse_foreign_keys() %}
    {%- if 'foreign_key' in in_place.constraint_types() -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' has a foreign_key in its contract. In-place tables have no foreign keys: rows of two tables come and go in '
            ~ 'separate transactions. Give the column a relationships test.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- Refuses constraints on a view. dbt's own warning about them can be silenced for in-place tables. -#}
{% macro refuse_constraints() %}
    {%- if config.get('contract').enforced and in_place.constraint_types() -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ' has ' ~ in_place.constraint_types() | join(', ') ~ ' in its contract, but a view has no constraints. '
            ~ 'Give its columns tests instead.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- The constraint types in the contract, of the columns and of the model. -#}
{% macro constraint_types() %}
    {%- set constraints = model.constraints | list -%}
    {%- for column in model.columns.values() -%}
        {%- do constraints.extend(column.constraints) -%}
    {%- endfor -%}
    {{ return(constraints | map(attribute='type') | unique | list) }}
{% endmacro %}
