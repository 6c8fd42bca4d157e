"""Models by key for test_in_place_property.py: SELECTs of the shapes that a build by key takes, each with its settings.

A shape reads relations that exist already, staging views or earlier models, so sets of models have chains, and group
keys that move. Each says in `changed_by` what its SELECT reads, as an author would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

# what a column holds, by its name: ids are joined and grouped by, the others are grouped by or added up
IDS = ("order_id", "customer_id", "product_id", "item_id")
GROUPS = ("customer_id", "order_id", "product_id", "status", "country", "category", "ordered_on")
MEASURES = ("amount", "quantity", "total", "n")


@dataclass(frozen=True)
class Relation:
    """What a model can read: a staging view, or another model.

    columns: the names of its columns.
    key: the columns that are unique and never null together.
    is_table: whether it is a table of the package, which logs old and new values of each column.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    is_table: bool = True

    @property
    def ref(self) -> str:
        return f"{{{{ ref('{self.name}') }}}}"


@dataclass(frozen=True, repr=False)
class Model(Relation):
    query: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        # as hypothesis prints it
        return f"\n-- {self.name}.sql\n{self.file}"

    @property
    def file(self) -> str:
        settings = {"materialized": "incremental_by_key", "schema": "marts"} | self.config
        return f"{{{{ config({', '.join(f'{name}={value!r}' for name, value in settings.items())}) }}}}\n{self.query}\n"

    @property
    def truth(self) -> str:
        """The SELECT as PostgreSQL runs it."""
        return re.sub(
            r"\{\{ ref\('(\w+)'\) \}\}",
            lambda found: f"{'staging' if found[1].startswith('stg_') else 'marts'}.{found[1]}",
            self.query,
        )


STAGING = (
    Relation(
        "stg_orders", ("order_id", "customer_id", "status", "amount", "ordered_on"), ("order_id",), is_table=False
    ),
    Relation("stg_items", ("item_id", "order_id", "product_id", "quantity"), ("item_id",), is_table=False),
    Relation("stg_customers", ("customer_id", "country"), ("customer_id",), is_table=False),
    Relation("stg_products", ("product_id", "category"), ("product_id",), is_table=False),
)


class UnfitError(Exception):
    """The relations at hand have no such shape."""


def _one(draw: Draw, found: list[Any]) -> Any:
    if not found:
        raise UnfitError
    return draw(st.sampled_from(found))


def _entry(draw: Draw, relation: Relation, key: Any, columns: set[str], **more: str) -> dict[str, Any]:
    """Return an entry of changed_by; it may name the columns that the model reads, if the relation has old values."""
    entry: dict[str, Any] = {"model": relation.name, "key": key, **more}
    if relation.is_table and draw(st.booleans()):
        used = [key] if isinstance(key, str) else list(key.values())
        entry["columns"] = sorted(columns - set(used)) or used
    return entry


def _by_key(relation: Relation) -> Any:
    return relation.key[0] if len(relation.key) == 1 else {name: name for name in relation.key}


def _names(draw: Draw, alias: str, relation: Relation) -> list[str]:
    """Return the relation's columns, its key among them."""
    others = [name for name in relation.columns if name not in relation.key]
    kept = [name for name in others if name in IDS or draw(st.booleans())]
    return [f"{alias}.{name}" for name in (*relation.key, *kept)]


def _bare(names: list[str]) -> tuple[str, ...]:
    return tuple(name.split(".")[1] for name in names)


def _filter(draw: Draw, alias: str, relation: Relation) -> tuple[str, set[str]]:
    """Return a condition on columns that may be null, and the columns that it reads."""
    conditions = {
        "status": f"{alias}.status is distinct from 'b'",
        "amount": f"{alias}.amount > 1",
        "n": f"{alias}.n > 1",
        "country": f"{alias}.country <> 'DE'",
    }
    usable = [name for name in conditions if name in relation.columns]
    if not usable or draw(st.booleans()):
        return "", set()
    name = draw(st.sampled_from(usable))
    return conditions[name], {name}


def dimension_joined(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Rows of one relation with attributes of another, by a left join on a column that is not the key."""
    pairs = [
        (fact, other)
        for fact in relations
        for other in relations
        if len(other.key) == 1 and other.key[0] in fact.columns and other.key != fact.key and other is not fact
        if set(other.columns) - set(fact.columns)
    ]
    fact, other = _one(draw, pairs)
    (column,) = other.key
    names = _names(draw, "f", fact)
    if f"f.{column}" not in names:
        names.append(f"f.{column}")
    more = sorted(set(other.columns) - set(fact.columns))
    condition, read = _filter(draw, "f", fact)
    config: dict[str, Any] = {
        "unique_key": list(fact.key),
        "changed_by": [
            _entry(draw, fact, _by_key(fact), {*_bare(names), *read}),
            _entry(draw, other, column, {column, *more}),
        ],
        "indexes": [{"columns": [column]}],
    }
    selected = [*names, *(f"d.{each}" for each in more)]
    if "ordered_on" in fact.columns and draw(st.booleans()):
        selected = [each for each in selected if each != "f.ordered_on"]
        selected.append("coalesce(f.ordered_on, '2026-01-31'::date) as ordered_on")
        config["partition_by"] = {"column": "ordered_on", "grain": draw(st.sampled_from(["day", "month"]))}
        for entry in config["changed_by"][:1]:
            if "columns" in entry:
                entry["columns"] = sorted({*entry["columns"], "ordered_on"})
    # as authors write: import CTEs, and the join last
    query = (
        f"with f as (select * from {fact.ref}), d as (select * from {other.ref})\n"
        f"select {', '.join(selected)} from f left join d on d.{column} = f.{column}"
        + (f" where {condition}" if condition else "")
    )
    columns = tuple(each.split(" as ")[-1].split(".")[-1] for each in selected)
    return Model(name, columns, fact.key, True, query, config)


def aggregate(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Counts and sums by one or two columns, which may move and be null."""
    fact = _one(draw, [each for each in relations if _groups(each)])
    groups = draw(st.lists(st.sampled_from(_groups(fact)), min_size=1, max_size=2, unique=True))
    config: dict[str, Any] = {"unique_key": groups}
    conditions, read = [], set(groups)
    if draw(st.booleans()):
        conditions = [f"f.{each} is not null" for each in groups]
    else:
        config["null_keys"] = groups
    condition, more = _filter(draw, "f", fact)
    conditions += [condition] if condition else []
    read |= more
    measures = ["count(*) as n"]
    for measure in MEASURES:
        if measure in fact.columns and measure != "n" and draw(st.booleans()):
            measures.append(f"{draw(st.sampled_from(['sum', 'max']))}(f.{measure}) as {measure}")
            read.add(measure)
    key: Any = groups[0] if len(groups) == 1 else {each: each for each in groups}
    selected = [f"f.{each}" for each in groups]
    if groups == ["ordered_on"] and draw(st.booleans()):
        selected = ["date_trunc('month', f.ordered_on)::date as ordered_on"]
        key = {"ordered_on": "date_trunc('month', ordered_on)::date"}
    by = ", ".join(each.split(" as ")[0] for each in selected)
    having = " having count(*) > 1" if draw(st.booleans()) else ""
    entry: dict[str, Any] = {"model": fact.name, "key": key}
    if fact.is_table and draw(st.booleans()):
        entry["columns"] = sorted(read)
    config["changed_by"] = [entry]
    query = (
        f"select {', '.join([*selected, *measures])} from {fact.ref} as f"
        + (f" where {' and '.join(conditions)}" if conditions else "")
        + f" group by {by}{having}"
    )
    columns = (*groups, *(each.split(" as ")[1] for each in measures))
    never_null = "null_keys" not in config
    return Model(name, columns, tuple(groups) if never_null else (), True, query, config)


def _groups(relation: Relation) -> list[str]:
    return [name for name in GROUPS if name in relation.columns and relation.key != (name,)]


def totals_joined(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Rows of one relation with totals of another by the first one's key."""
    pairs = [
        (one, many)
        for one in relations
        for many in relations
        if len(one.key) == 1 and one.key[0] in many.columns and many.key != one.key and many is not one
    ]
    one, many = _one(draw, pairs)
    (key,) = one.key
    names = _names(draw, "o", one)
    side = draw(st.sampled_from(["left", "inner", "full"]))
    measure = next((each for each in MEASURES if each in many.columns), None)
    total = f"sum({measure})" if measure else "count(*)"
    others = [each for each in names if each != f"o.{key}"]
    selected = [f"coalesce(o.{key}, t.{key}) as {key}" if side == "full" else f"o.{key}", *others, "t.lines", "t.total"]
    selected = [each for each in selected if each not in {"o.total", "o.lines"}]
    joined = f"using ({key})" if side == "full" else f"on t.{key} = o.{key}"
    config = {
        "unique_key": key,
        "changed_by": [
            _entry(draw, one, key, set(_bare(names))),
            _entry(draw, many, key, {key, measure} if measure else {key}),
        ],
    }
    query = (
        f"with o as (select * from {one.ref}),\n"
        f"t as (select {key}, count(*) as lines, {total} as total from {many.ref} "
        f"where {key} is not null group by {key})\n"
        f"select {', '.join(selected)} from o {side} join t {joined}"
    )
    if side == "full":
        query = query.replace(f"coalesce(o.{key}, t.{key}) as {key}", key)
        selected[0] = f"x.{key}"
    return Model(name, tuple(each.split(".")[-1] for each in selected), one.key, True, query, config)


def window(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Rows numbered within a group; the rows of a group are built together, also those without one."""
    fact = _one(draw, [each for each in relations if _groups(each) and len(each.key) == 1])
    group = draw(st.sampled_from([each for each in _groups(fact) if each != fact.key[0]]))
    (key,) = fact.key
    config: dict[str, Any] = {
        "unique_key": [group, key],
        "build_by": group,
        "changed_by": [_entry(draw, fact, group, {group, key})],
    }
    condition = f" where f.{group} is not null"
    if draw(st.booleans()):
        condition = ""
        config["null_keys"] = group
    query = (
        f"select f.{group}, f.{key}, row_number() over (partition by f.{group} order by f.{key}) as n,\n"
        f"    lag(f.{key}) over (partition by f.{group} order by f.{key}) as before\n"
        f"from {fact.ref} as f{condition}"
    )
    return Model(name, (group, key, "n"), (key,), True, query, config)


def through(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Groups of one relation with attributes of another, which the model itself does not have a column for."""
    triples = [
        (fact, other, group)
        for fact in relations
        for other in relations
        if len(other.key) == 1 and other.key[0] in fact.columns and other is not fact and other.key != fact.key
        for group in _groups(fact)
        if group != other.key[0]
        for attribute in [next((each for each in other.columns if each not in fact.columns), None)]
        if attribute
    ]
    fact, other, group = _one(draw, triples)
    (column,) = other.key
    attribute = next(each for each in other.columns if each not in fact.columns)
    side = draw(st.sampled_from(["left", "inner"]))
    config = {
        "unique_key": group,
        "changed_by": [
            _entry(draw, fact, group, {group, column}),
            _entry(draw, other, column, {column, attribute}, through=fact.name),
        ],
    }
    query = (
        f"select f.{group}, count(*) as n, string_agg(distinct d.{attribute}::text, ',') as {attribute}s\n"
        f"from {fact.ref} as f {side} join {other.ref} as d on d.{column} = f.{column}\n"
        f"where f.{group} is not null group by f.{group}"
    )
    return Model(name, (group, "n"), (group,), True, query, config)


def neighbour(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Rows with a value of the next key's row: one relation read in two ways, with an entry for each."""
    fact = _one(draw, [each for each in relations if len(each.key) == 1 and each.key[0] in IDS])
    (key,) = fact.key
    value = next((each for each in fact.columns if each != key), key)
    names = [f"f.{key}", *(f"f.{each}" for each in fact.columns if each in IDS and each != key)]
    config = {
        "unique_key": key,
        "changed_by": [
            _entry(draw, fact, key, {*_bare(names), value}),
            _entry(draw, fact, {"next_id": key}, {*_bare(names), value}),
        ],
        "indexes": [{"columns": ["next_id"]}],
    }
    query = (
        f"select {', '.join(names)}, f.{key} + 1 as next_id, g.{value} as next_value\n"
        f"from {fact.ref} as f left join {fact.ref} as g on g.{key} = f.{key} + 1"
    )
    return Model(name, (*_bare(names), "next_id"), fact.key, True, query, config)


def siblings(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Rows with totals of their group: one relation read by its key, and by another column."""
    fact = _one(draw, [each for each in relations if len(each.key) == 1 and _groups(each)])
    (key,) = fact.key
    group = draw(st.sampled_from([each for each in _groups(fact) if each != key]))
    config = {
        "unique_key": key,
        "changed_by": [{"model": fact.name, "key": key}, {"model": fact.name, "key": group}],
        "indexes": [{"columns": [group]}],
    }
    query = (
        f"with g as (select {group} as whose, count(*) as n from {fact.ref} group by {group})\n"
        f"select f.{key}, f.{group}, g.n from {fact.ref} as f left join g on g.whose = f.{group}"
    )
    return Model(name, (key, group, "n"), fact.key, True, query, config)


def exists(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Rows that another relation has rows of, or has none of."""
    pairs = [
        (one, many)
        for one in relations
        for many in relations
        if len(one.key) == 1 and one.key[0] in many.columns and many is not one
    ]
    one, many = _one(draw, pairs)
    (key,) = one.key
    negated = draw(st.sampled_from(["", "not "]))
    config = {"unique_key": key, "changed_by": [{"model": one.name, "key": key}, {"model": many.name, "key": key}]}
    query = (
        f"select {', '.join(f'o.{each}' for each in one.columns)},\n"
        f"    (select count(*) from {many.ref} as m where m.{key} = o.{key}) as mine\n"
        f"from {one.ref} as o where {negated}exists (select from {many.ref} as m where m.{key} = o.{key})"
    )
    return Model(name, one.columns, one.key, True, query, config)


def stacked(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Counts of the rows of two relations together."""
    pairs = [
        (a, b, column)
        for a in relations
        for b in relations
        for column in IDS
        if a is not b and column in a.columns and column in b.columns
    ]
    first, second, column = _one(draw, pairs)
    config = {
        "unique_key": column,
        "changed_by": [{"model": first.name, "key": column}, {"model": second.name, "key": column}],
    }
    query = (
        f"with u as (select {column}, 1 as n from {first.ref} union all select {column}, 10 from {second.ref})\n"
        f"select {column}, sum(n) as n from u where {column} is not null group by {column}"
    )
    return Model(name, (column, "n"), (column,), True, query, config)


def first_of_group(draw: Draw, relations: list[Relation], name: str) -> Model:
    """The first row of each group."""
    fact = _one(draw, [each for each in relations if len(each.key) == 1 and _groups(each)])
    (key,) = fact.key
    group = draw(st.sampled_from([each for each in _groups(fact) if each != key]))
    config: dict[str, Any] = {
        "unique_key": group,
        "changed_by": [{"model": fact.name, "key": group}],
        "null_keys": group,
    }
    query = f"select distinct on ({group}) {group}, {key} from {fact.ref} order by {group}, {key}"
    return Model(name, (group, key), (), True, query, config)


def by_difference(draw: Draw, relations: list[Relation], name: str) -> Model:
    """Counts and sums by what changes add and take away."""
    facts = [
        each for each in relations if each.is_table and _groups(each) and set(each.columns) & {"amount", "quantity"}
    ]
    fact = _one(draw, facts)
    group = draw(st.sampled_from(_groups(fact)))
    measure = next(each for each in ("amount", "quantity") if each in fact.columns)
    config = {
        "unique_key": group,
        "by_difference": True,
        "changed_by": [{"model": fact.name, "key": group, "columns": [group, measure]}],
    }
    query = (
        f"select {group}, count(*) as n, sum({measure}) as {measure}, count({measure}) as known\n"
        f"from {fact.ref} where {group} is not null group by {group}"
    )
    return Model(name, (group, "n", measure), (group,), True, query, config)


SHAPES = (
    *(dimension_joined, aggregate, totals_joined, window, through, neighbour),
    *(siblings, exists, stacked, first_of_group, by_difference),
)


@st.composite
def model_sets(draw: Draw, shapes: Sequence[Callable[..., Model]] = SHAPES) -> list[Model]:
    """Draw a model of each shape, which read staging views and each other."""
    relations: list[Relation] = list(STAGING)
    models: list[Model] = []
    for shape in draw(st.permutations(shapes)):
        # chains: what was made last is read more often
        last = [*STAGING, *(each for each in models[-2:] if each.key)]
        try:
            model = shape(draw, draw(st.sampled_from([last, relations])), f"m{len(models)}_{shape.__name__}")
        except UnfitError:
            continue
        models.append(model)
        if model.key:
            relations.append(model)
    return models
