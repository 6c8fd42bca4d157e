{#-
  Views and materialized views whose definition changes, and seeds whose columns change. The macros compare definitions as
  PostgreSQL prints them, so a comment or a line break is not a change.

  If the new one can't replace the old one in place, the old one is set aside under another name. Other models that read it
  keep reading it until they are built, in this run or a later one. The last of them drops it.
-#}

{#- Creates a temporary view of that SQL; returns its name. -#}
{% macro create_trial_view(definition) %}
    {%- set name = in_place.temp_name('trial') -%}
    {%- do in_place.memory().columns.pop('pg_temp.' ~ name, none) -%}
    {% call statement('define') %}
        {{ in_place.define_trial_view(definition) }}
    {% endcall %}
    {{ return('pg_temp.' ~ name) }}
{% endmacro %}


{#- SQL that creates it; the caller drops it. -#}
{% macro define_trial_view(definition) -%}
    {{- in_place.refuse_aliased_ref() }}
    {%- set name = in_place.temp_name('trial') -%}
    drop view if exists pg_temp.{{ name }};
    create temporary view {{ name }} as (
        {{ definition }}
    )
{%- endmacro %}


{#- Whether the relation exists with that definition. -#}
{% macro has_definition(relation, definition) %}
    {%- set trial = 'pg_temp.' ~ in_place.temp_name('trial') -%}
    {%- set query -%}
        {{ in_place.define_trial_view(definition) }};
        select coalesce(
            pg_get_viewdef(to_regclass('{{ relation }}')) = pg_get_viewdef('{{ trial }}'::regclass), false
        )
    {%- endset -%}
    {%- set same = in_place.single_value(query) -%}
    {% call statement('defined') %}
        drop view {{ trial }}
    {% endcall %}
    {{ return(same) }}
{% endmacro %}


{#- Wraps a statement for PL/pgSQL, so that PL/pgSQL's own names don't apply in it. -#}
{% macro plpgsql_execute(statement_) -%}
    {%- set tag = in_place.dollar_tag(statement_) -%}
    execute {{ tag }}{{ statement_ }}{{ tag }};
{%- endmacro %}


{#-
  Sets the old one aside, creates the new one, and copies the old owner and grants to it.

  Arguments:
    lost: what the old one loses, for the error if something that is not a model depends on it.
    create: SQL that creates the new one.
-#}
{% macro replace_relation(relation, lost, create) %}
    {%- set models = [] -%}
    {%- for node in graph.nodes.values() if node.resource_type in ['model', 'seed'] -%}
        {%- do models.append(node.schema ~ '.' ~ in_place.cut_name(node.alias, 49)) -%}
    {%- endfor -%}
    {%- set others = [] -%}
    {%- set query -%}
        select distinct nspname::text, relname::text
        from pg_catalog.pg_depend
        inner join pg_catalog.pg_rewrite on pg_rewrite.oid = objid
        inner join pg_catalog.pg_class on pg_class.oid = ev_class
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where
            classid = 'pg_rewrite'::regclass
            and refclassid = 'pg_class'::regclass
            and refobjid = '{{ relation }}'::regclass
            and ev_class <> refobjid
        order by 1, 2
    {%- endset -%}
    {%- for row in run_query(query) -%}
        {%- set is_model = row[0] ~ '.' ~ in_place.cut_name(row[1].split('__old_')[0], 49) in models -%}
        {%- if not is_model and row[0] not in in_place.developer_schemas() -%}
            {%- do others.append(row[0] ~ '.' ~ row[1]) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if others -%}
        {%- do exceptions.raise_compiler_error(
            relation ~ ' is to change (' ~ lost | join(', ') ~ '), but other views depend on it: ' ~ others | join(', ')
            ~ '. No model makes them. Drop them, or remove their dependency, then run this again. Nothing was changed.'
        ) -%}
    {%- endif -%}
    {%- set aside = relation.incorporate(path={
        'identifier': in_place.cut_name(relation.identifier, 49) ~ '__old_' ~ local_md5(invocation_id ~ relation.identifier)[:8]
    }) -%}
    {%- set ddl -%}
        alter table {{ relation }} rename to {{ adapter.quote(aside.identifier) }};
        {{ create }}
        {{ in_place.copy_owner_and_grants(aside, relation) }}
        {{ in_place.drop_set_aside(relation, aside) }}
    {%- endset -%}
    {{ in_place.run_ddl('replace', ddl, declare='granting text;') }}
{% endmacro %}


{#-
  Schemas with another DBT_SCHEMA_PREFIX. A developer's relations there depend on this project's by deferral, and must not
  block changes: they read what was set aside until the developer's next build.
-#}
{% macro developer_schemas() %}
    {%- set prefix, bases = env_var('DBT_SCHEMA_PREFIX', '') | length, [] -%}
    {%- for node in graph.nodes.values() if node.resource_type in ['model', 'seed', 'snapshot'] -%}
        {%- do bases.append(node.schema[prefix:]) -%}
    {%- endfor -%}
    {%- set query -%}
        with bases as (
            select unnest(array['{{ bases | unique | join("', '") }}']) as base
        )
        select nspname::text
        from pg_catalog.pg_namespace
        cross join bases
        where
            right(nspname, length(base)) = base
            and nspname <> base
            and exists (
                select
                from pg_catalog.pg_class
                inner join pg_catalog.pg_namespace as beside on beside.oid = relnamespace
                where
                    relname in ('_tidemark_models', '_tidemark_model_runs')
                    and relkind = 'r'
                    and beside.nspname in (
                        select left(pg_namespace.nspname, -length(bases.base)) || other.base from bases as other
                    )
            )
    {%- endset -%}
    {{ return(in_place.first_column(query)) }}
{% endmacro %}


{#- on-run-start and on-run-end: drops what was set aside and has no readers left. -#}
{% macro drop_unread_relations() %}
    {%- if not execute or flags.WHICH not in ['run', 'build', 'snapshot', 'seed'] -%}{{ return('') }}{%- endif -%}
    {%- set query -%}
        select nspname::text, relname::text, relkind::text
        from pg_catalog.pg_class
        inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where
            relname ~ '__old_[0-9a-f]{8}$'
            and relkind in ('v', 'm', 'r')
            and pg_has_role(relowner, 'usage')
            and not exists (
                select
                from pg_catalog.pg_depend
                inner join pg_catalog.pg_rewrite on pg_rewrite.oid = objid
                where
                    classid = 'pg_rewrite'::regclass
                    and refclassid = 'pg_class'::regclass
                    and refobjid = pg_class.oid
                    and ev_class <> refobjid
            )
    {%- endset -%}
    {%- set relics = run_query(query) -%}
    {%- if not relics | length -%}{{ return('') }}{%- endif -%}
    {%- set ours = [] -%}
    {%- for node in graph.nodes.values() if node.resource_type in ['model', 'seed'] -%}
        {%- do ours.append(node.schema ~ '.' ~ in_place.cut_name(node.alias, 49)) -%}
    {%- endfor -%}
    do $tidemark$
    begin
        perform set_config('lock_timeout', '{{ var("in_place_lock_timeout", "500ms") }}', true);
        {%- for row in relics if row[0] ~ '.' ~ row[1][:-14] in ours %}
            begin
                drop {{ {'m': 'materialized view', 'v': 'view', 'r': 'table'}[row[2]] }} if exists
                    {{ adapter.quote(row[0]) }}.{{ adapter.quote(row[1]) }};
            exception when dependent_objects_still_exist or lock_not_available then null;
            end;
        {%- endfor %}
        perform set_config('lock_timeout', '0', true);
    end
    $tidemark$;
{% endmacro %}


{#- Part of PL/pgSQL that declares `granting`: copies owner and grants, also per column, from one relation to another. -#}
{% macro copy_owner_and_grants(from_, to) %}
    for granting in
        select format('alter table {{ to }} owner to %s', theirs.relowner::regrole)
        from pg_catalog.pg_class as theirs
        inner join pg_catalog.pg_class as ours on ours.relowner <> theirs.relowner
        where theirs.oid = '{{ from_ }}'::regclass and ours.oid = '{{ to }}'::regclass
    loop
        execute granting;
    end loop;
    for granting in
        with granted as (
            select oid = '{{ to }}'::regclass as is_new, acl.grantee, acl.privilege_type, acl.is_grantable, null as attname
            from pg_catalog.pg_class
            cross join lateral aclexplode(coalesce(relacl, acldefault('r', relowner))) as acl
            where oid in ('{{ from_ }}'::regclass, '{{ to }}'::regclass)
            union all
            select false, acl.grantee, acl.privilege_type, acl.is_grantable, attname
            from pg_catalog.pg_attribute
            cross join lateral aclexplode(attacl) as acl
            where attrelid = '{{ from_ }}'::regclass and attname in (
                select attname from pg_catalog.pg_attribute where attrelid = '{{ to }}'::regclass
            )
        )
        select format(
            case when is_new then 'revoke %s %s on {{ to }} from %s' else 'grant %s %s on {{ to }} to %s %s' end,
            privilege_type,
            '(' || quote_ident(attname) || ')',
            case grantee when 0 then 'public' else grantee::regrole::text end,
            case when is_grantable then 'with grant option' end
        )
        from granted
        where not exists (
            select from granted as other
            where other.is_new <> granted.is_new
                and (other.grantee, other.privilege_type, other.is_grantable)
                = (granted.grantee, granted.privilege_type, granted.is_grantable)
                and other.attname is not distinct from granted.attname
        )
        order by is_new desc
    loop
        execute granting;
    end loop;
{% endmacro %}


{#-
  Part of PL/pgSQL: drops `aside`, and the set-aside relations below the relation, nearest first, if nothing depends on
  them any more. Render it before the relation is replaced.
-#}
{% macro drop_set_aside(relation, aside=none) %}
    {%- set query -%}
        with recursive below (oid, depth) as (
            select '{{ relation }}'::regclass::oid, 0
            union all
            select refobjid, depth + 1
            from below
            inner join pg_catalog.pg_rewrite on ev_class = below.oid
            inner join pg_catalog.pg_depend
                on objid = pg_rewrite.oid and classid = 'pg_rewrite'::regclass
                and refclassid = 'pg_class'::regclass and refobjid <> below.oid
        )
        select oid::regclass::text, max(relkind::text)
        from below
        inner join pg_catalog.pg_class using (oid)
        where depth > 0 and relname ~ '__old_[0-9a-f]{8}$'
        group by oid
        order by max(depth)
    {%- endset -%}
    {%- set relics = run_query(query) -%}
    {%- set drops, kinds = [], {'m': 'materialized view ', 'v': 'view ', 'r': 'table '} -%}
    {%- if aside -%}
        {%- do drops.append(aside.type | replace('_', ' ') ~ ' ' ~ aside) -%}
    {%- endif -%}
    {%- for row in relics if row[1] in kinds -%}
        {%- do drops.append(kinds[row[1]] ~ row[0]) -%}
    {%- endfor -%}
    {%- for drop in drops %}
        -- skip if another model that is being replaced reads it, or another role owns it; drop_unread_relations tries again
        begin
            drop {{ drop }};
        exception when dependent_objects_still_exist or lock_not_available or insufficient_privilege then null;
        end;
    {%- endfor -%}
{% endmacro %}
