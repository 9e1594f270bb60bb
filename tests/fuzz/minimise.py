"""Makes a failing query, and the tables it fails over, smaller."""

import copy
import time

import pyarrow
from expressions import E, SQL_TYPES, sql_type
from trees import Select, Subquery

SECONDS_MAX = 15.0
PLAIN = {"bool": "true", "str": "'a'", "date": "DATE '2020-01-01'", "ts": "TIMESTAMP '2020-01-01 00:00:00'"}


def minimise(query: Select, fails) -> Select:
    """The smallest query found for which `fails` holds."""
    deadline = time.monotonic() + SECONDS_MAX
    changed = True
    while changed and time.monotonic() < deadline:
        changed = False
        number = 0
        while time.monotonic() < deadline:
            smaller = copy.deepcopy(query)
            edits = list(_edits(smaller, smaller))
            if number >= len(edits):
                break
            before = query.sql()
            edits[number]()
            if len(smaller.sql()) < len(before) and fails(smaller):
                query, changed = smaller, True
            else:
                number += 1
    return query


def minimise_rows(data, fails):
    """Fewer rows of an Arrow table, for which `fails(table)` still holds."""
    deadline = time.monotonic() + SECONDS_MAX
    size = data.num_rows // 2
    while size >= 1 and time.monotonic() < deadline:
        start = 0
        while start < data.num_rows and time.monotonic() < deadline:
            rest = [row for row in range(data.num_rows) if not start <= row < start + size]
            smaller = data.take(pyarrow.array(rest, pyarrow.int64()))
            if fails(smaller):
                data = smaller
            else:
                start += size
        size //= 2
    return data


def _edits(query: Select, root: Select):
    """What can be left out, as functions that do it."""
    if query.order:
        yield lambda: (query.order.clear(), setattr(query, "limit", None), setattr(query, "offset", None))
        yield lambda: (setattr(query, "limit", None), setattr(query, "offset", None))
        yield lambda: setattr(query, "offset", None)
        for place in range(len(query.order)):
            yield lambda place=place: query.order.pop(place)
            yield lambda place=place: query.order.__setitem__(place, (query.order[place][0], ""))
    if query.unions:
        yield query.unions.clear
    if query.sets != "{}":
        yield lambda: setattr(query, "sets", "{}")
    if query.distinct:
        yield lambda: setattr(query, "distinct", False)
    yield query.ctes.clear
    for place in reversed(range(len(query.joins))):
        yield lambda place=place: query.joins.pop(place)
        if not query.joins[place].hides:
            yield lambda place=place: setattr(query.joins[place], "word", "JOIN")
        if query.joins[place].using:
            yield lambda place=place: setattr(query.joins[place], "using", None)
        for part in range(len(query.joins[place].on)):
            yield lambda place=place, part=part: query.joins[place].on.pop(part)
    for parts in (query.having, query.where):
        yield parts.clear
        for place in range(len(parts)):
            yield lambda parts=parts, place=place: parts.pop(place)
    if len(query.items) > 1:
        for place in range(len(query.items)):
            yield lambda place=place: _drop_item(query, place)
    for inner in query.inner_queries() + [part.query for part in query.parts() if isinstance(part, Subquery)]:
        yield from _edits(inner, root)
    for part in query.parts():
        yield from _shorter(part, root)


def _drop_item(query, place):
    item = query.items.pop(place)
    query.group[:] = [key for key in query.group if key is not item]
    query.order[:] = [(p - (p > place + 1), words) for p, words in query.order if p != place + 1]
    for arm in query.unions:
        if arm.items is not query.items:
            arm.items.pop(place)


def _shorter(node, root):
    """The node replaced by a part of it, or by a constant."""
    for inner in _descendants(node):
        if inner.kind == node.kind:
            yield lambda inner=inner: _replace(root, node, inner)
    if node.args:
        yield lambda: _replace(root, node, constant(node.kind))
    for arg in node.args:
        yield from _shorter(arg, root)


def _descendants(node):
    for arg in node.args:
        yield arg
        if isinstance(arg, E):
            yield from _descendants(arg)


def constant(kind) -> E:
    if kind in PLAIN:
        return E(kind, PLAIN[kind])
    if kind in ("time", "bin"):
        return E(kind, f"CAST(NULL AS {SQL_TYPES[kind]})")
    return E(kind, "1" if kind == "i64" else f"CAST(1 AS {sql_type(kind)})")


def _replace(query, old, new):
    """Everywhere, by identity: a key of GROUP BY is also an item."""
    lists = [query.items, query.where, query.group, query.having] + [join.on for join in query.joins]
    for parts in lists:
        _replace_in(parts, old, new)
    for inner in query.inner_queries():
        _replace(inner, old, new)


def _replace_in(parts, old, new):
    for place, part in enumerate(parts):
        if part is old:
            parts[place] = new
            continue
        if isinstance(part, Subquery):
            _replace(part.query, old, new)
        _replace_in(part.args, old, new)
