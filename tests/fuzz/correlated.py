"""Subqueries that read the outer query's columns: as values, beside a comparison, and as LATERAL joins."""

from expressions import E, Expressions
from trees import Join, Select, Source, Subquery

VALUES_MAX = 3  # rows of a LATERAL join for each row beside it


def related(queries, outer, inner):
    """Conditions between the two: equalities, and, over small tables, any."""
    rng, nodes = queries.rng, inner.nodes()
    where = queries.keys(outer, nodes) if outer and rng.random() < 0.7 else []
    if not queries.large and rng.random() < (0.25 if where else 0.6):
        where.append(Expressions(rng, nodes + outer).condition(1))
    if rng.random() < 0.25:
        where.append(Expressions(rng, nodes).condition(1))
    return where


def of_inner(node, inner):
    """Whether it reads the inner query: an aggregate over outer columns alone would be the outer query's."""
    return f"{inner.alias}." in node.sql()


def aggregate(queries, outer, inner):
    """A call over inner columns, sometimes beside outer ones."""
    rng, nodes = queries.rng, inner.nodes()
    if rng.random() < 0.2:
        call = queries.aggregate_call(Expressions(rng, nodes + outer))
        if call.text == "count(*)" or of_inner(call.args[0] if call.args else call, inner):
            return call
    return queries.aggregate_call(Expressions(rng, nodes))


def value(queries, make):
    """A scalar subquery: an aggregate, or the first of its values in their own order."""
    rng, inner = queries.rng, queries.source(0)
    outer = make.columns
    query = Select([], inner, where=related(queries, outer, inner))
    if rng.random() < 0.3:
        item = Expressions(rng, inner.nodes() + (outer if rng.random() < 0.3 else [])).any(rng.choice([0, 0, 1, 2]))
        if item.exact:
            query.items = [item]
            query.order, query.limit = [(1, rng.choice(["", " DESC", " NULLS FIRST"]))], 1
            query.offset = rng.choice([None, None, None, 0, 1])
            query.distinct = rng.random() < 0.1
    if not query.items:
        item = aggregate(queries, outer, inner)
        query.items = [item]
        if rng.random() < 0.1:
            query.having.append(E("bool", f"(count(*) {rng.choice(['<', '>', '='])} {rng.randint(0, 3)})"))
    return Subquery(item.kind, "({})", query, tame=item.tame, exact=item.exact)


def compared(queries, make):
    """A column beside a scalar subquery of its kind."""
    found = value(queries, make)
    mine = [node for node in make.columns if node.kind == found.kind and node.exact and found.exact]
    if not mine:
        return E("bool", "({} IS NOT NULL)", [found])
    word = queries.rng.choice(["=", "<", "<=", ">", "<>", "IS NOT DISTINCT FROM"])
    return E("bool", f"({{}} {word} {{}})", [queries.rng.choice(mine), found])


def lateral(queries, visible):
    """A join whose right side reads the left side's columns."""
    rng, inner = queries.rng, queries.source(0)
    query = Select([], inner, where=related(queries, visible, inner), prefix="l")
    make = Expressions(rng, inner.nodes() + (visible if rng.random() < 0.3 else []))
    form = rng.random()
    if form < 0.35:
        query.items = [aggregate(queries, visible, inner) for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.5:
            key = rng.choice(inner.nodes())
            query.items.append(key)
            query.group = [key]
    else:
        query.items = [make.any(rng.choice([0, 0, 1])) for _ in range(rng.randint(1, 3))]
        exact = all(item.exact for item in query.items)
        if form < 0.7 and exact:
            query.order = [(place, rng.choice(["", " DESC"])) for place in range(1, len(query.items) + 1)]
            query.limit = rng.randint(0, VALUES_MAX)
        query.distinct = exact and rng.random() < 0.1
    columns = [(f"l{place}", item.kind, item.tame, item.exact) for place, item in enumerate(query.items, 1)]
    source = Source(queries.alias(), columns, query=query, rows=VALUES_MAX, lateral=True)
    word = rng.choice(["CROSS JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN"])
    return Join(word, source, [] if word == "CROSS JOIN" else [E("bool", "true")])
