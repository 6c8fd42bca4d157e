{#-
  Takes the WITH out of a view's SQL. PostgreSQL plans a view that has one separately: a join by another column than the key
  of a build then reads all rows of the view. It has no such limit for a subquery in FROM, which gives the same rows.
-#}

{#- The SQL with subqueries for its WITH. Unchanged if a part of it is recursive, is materialized, or is not read exactly once. -#}
{% macro inlined(definition) %}
    {%- if not modules.re.search('(?i)\\bwith\\b', definition) -%}{{ return(definition) }}{%- endif -%}
    {#- with an empty search path, PostgreSQL writes each table with its schema, so a name alone is a part of the WITH -#}
    {%- set query -%}
        {{ in_place.define_trial_view(definition) }};
        {{ in_place.set_for_now('search_path', "''") }};
        select pg_get_viewdef('pg_temp.{{ in_place.temp_name('trial') }}'::regclass)
    {%- endset -%}
    {%- set written = in_place.single_value(query) -%}
    {% call statement('path') %}
        {{ in_place.set_back('search_path') }}
    {% endcall %}
    {{ return(in_place.without_with(written) or definition) }}
{% endmacro %}


{#- Refuses SQL that inlined() made if it reads other tables or has other columns than the model's: that would be a fault of this package. -#}
{% macro refuse_other_view(definition) %}
    {%- if definition == sql -%}{{ return('') }}{%- endif -%}
    {%- set wanted = in_place.signature(in_place.create_trial_view(sql)) -%}
    {%- set found = in_place.signature(in_place.create_trial_view(definition)) -%}
    {%- if wanted != found -%}
        {%- do exceptions.raise_compiler_error(
            this ~ ': in_place could not take the WITH out of this view. Write it without, and please report this. Nothing was changed.'
        ) -%}
    {%- endif -%}
{% endmacro %}


{#- A SELECT as pg_get_viewdef() prints it, without its WITH; none if it can't be taken out. -#}
{% macro without_with(written) %}
    {%- set tokens = modules.re.findall('\'(?:[^\']|\'\')*\'|"(?:[^"]|"")*"|\\w+|\\s+|.', written.strip().rstrip(';'), modules.re.S) -%}
    {%- if tokens[0] != 'WITH' or 'RECURSIVE' in tokens[:3] -%}{{ return(none) }}{%- endif -%}
    {#- parts: the names and tokens of the WITH, and last the SELECT itself, whose name is none -#}
    {%- set parts, reading = [], {'name': none, 'body': [], 'depth': 0, 'is_select': false} -%}
    {%- for token in tokens[1:] -%}
        {%- if reading.is_select -%}
            {%- do reading.body.append(token) -%}
        {%- elif reading.depth == 0 and token == '(' -%}
            {%- do reading.update({'depth': 1}) -%}
        {%- elif reading.depth == 1 and token == ')' -%}
            {%- do parts.append([reading.name, reading.body]) -%}
            {%- do reading.update({'name': none, 'body': [], 'depth': 0}) -%}
        {%- elif reading.depth -%}
            {%- do reading.body.append(token) -%}
            {%- do reading.update({'depth': reading.depth + (token == '(') | int - (token == ')') | int}) -%}
        {%- elif reading.name is none and token not in [',', 'AS', 'NOT', 'MATERIALIZED'] and token.strip() -%}
            {%- if token in ['SELECT', 'VALUES'] or not modules.re.match('[a-z_"]', token) -%}
                {%- do reading.update({'is_select': true, 'body': [token]}) -%}
            {%- else -%}
                {%- do reading.update({'name': token}) -%}
            {%- endif -%}
        {%- elif reading.name is not none and token in ['MATERIALIZED', 'SEARCH', 'CYCLE'] and not reading.get('is_not') -%}
            {{ return(none) }}
        {%- endif -%}
        {%- if reading.name is not none and token == 'NOT' -%}{%- do reading.update({'is_not': true}) -%}{%- endif -%}
    {%- endfor -%}
    {%- do parts.append([none, reading.body]) -%}

    {%- set bodies, reads = {}, {} -%}
    {%- for name, body in parts -%}
        {%- set inlined = [] -%}
        {%- for token in body -%}
            {%- set after = body[loop.index:loop.index + 2] -%}
            {%- if token in bodies and after[:1] != ['.'] -%}
                {%- do reads.update({token: reads.get(token, 0) + 1}) -%}
                {#- PostgreSQL prints its key words in capitals, so what follows in other letters is an alias -#}
                {%- set has_alias = after | length == 2 and not after[0].strip() and modules.re.match('[a-z_"]', after[1]) -%}
                {%- do inlined.append('(' ~ bodies[token] ~ ')' ~ ('' if has_alias else ' ' ~ token)) -%}
            {%- else -%}
                {%- do inlined.append(token) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- do bodies.update({name: inlined | join}) -%}
    {%- endfor -%}
    {%- for name in bodies if name is not none and reads.get(name) != 1 -%}
        {{ return(none) }}
    {%- endfor -%}
    {{ return(bodies[none]) }}
{% endmacro %}


{#- The columns of a view and the relations that it reads, to compare two views by. -#}
{% macro signature(trial) %}
    {%- set columns = in_place.table_columns(trial) -%}
    {%- set relations = in_place.first_column('select oid::text from (' ~ in_place.relations_below(trial) ~ ') as below order by 1') -%}
    {{ return([columns, relations | list]) }}
{% endmacro %}
