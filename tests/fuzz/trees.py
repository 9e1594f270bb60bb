"""SELECTs as trees, so that a failing one can be made smaller part by part."""

import dataclasses

from expressions import E


@dataclasses.dataclass
class Source:
    """A table, a CTE, or a subquery, under an alias. `columns` are (name, kind, tame, exact)."""

    alias: str
    columns: list
    table: str | None = None
    query: object = None
    rows: int = 1  # about
    values: list = None  # rows of nodes, instead of a table
    lateral: bool = False

    def sql(self, duck=False):
        if self.values:
            rows = ", ".join("(" + ", ".join(value.sql(duck) for value in row) + ")" for row in self.values)
            return f"(VALUES {rows}) AS {self.alias}({', '.join(name for name, *_ in self.columns)})"
        inner = self.table if self.query is None else f"({self.query.sql(duck)})"
        return f"{'LATERAL ' if self.lateral else ''}{inner} AS {self.alias}"

    def nodes(self):
        return [E(kind, f"{self.alias}.{name}", tame=tame, exact=exact) for name, kind, tame, exact in self.columns]


@dataclasses.dataclass
class Join:
    word: str  # JOIN, LEFT JOIN, …
    source: Source
    on: list
    using: str | None = None

    @property
    def hides(self):
        return self.word.endswith(("SEMI JOIN", "ANTI JOIN"))

    def sql(self, duck=False):
        word = self.word.removeprefix("LEFT ") if duck and self.hides else self.word
        text = f" {word} {self.source.sql(duck)}"
        if self.using:
            return text + f" USING ({self.using})"
        if word != "CROSS JOIN":
            text += f" ON {' AND '.join(condition.sql(duck) for condition in self.on) or 'true'}"
        return text


@dataclasses.dataclass
class Subquery:
    """A predicate or value over another query; `text` has one `{}` for it, then those of `args`."""

    kind: str
    text: str
    query: object
    args: list = dataclasses.field(default_factory=list)
    tame: bool = True
    exact: bool = True
    duck: bool = True

    def sql(self, duck=False):
        return self.text.format(self.query.sql(duck), *(arg.sql(duck) for arg in self.args))

    def same_in_duck(self):
        return self.duck and self.query.same_in_duck() and all(arg.same_in_duck() for arg in self.args)


@dataclasses.dataclass
class Select:
    items: list
    source: Source | None
    joins: list = dataclasses.field(default_factory=list)
    where: list = dataclasses.field(default_factory=list)
    group: list = dataclasses.field(default_factory=list)
    sets: str = "{}"  # or ROLLUP({}) …; {1}: each key as a set
    having: list = dataclasses.field(default_factory=list)
    distinct: bool = False
    unions: list = dataclasses.field(default_factory=list)
    union_word: str = "UNION ALL"
    order: list = dataclasses.field(default_factory=list)  # (position from 1, " DESC NULLS LAST" …)
    limit: int | None = None
    offset: int | None = None
    ctes: list = dataclasses.field(default_factory=list)  # Source
    rows: int = 1  # about
    prefix: str = "o"  # of its columns' names

    def sql(self, duck=False):
        text = ""
        if self.ctes:
            text = "WITH " + ", ".join(f"{cte.table} AS ({cte.query.sql(duck)})" for cte in self.ctes) + " "
        text += self._body(duck)
        for other in self.unions:
            text += f" {self.union_word} {other._body(duck)}"
        if self.order:
            text += " ORDER BY " + ", ".join(f"{position}{words}" for position, words in self.order)
        if self.limit is not None:
            text += f" LIMIT {self.limit}"
        if self.offset is not None:
            text += f" OFFSET {self.offset}"
        return text

    def _body(self, duck):
        words = "SELECT DISTINCT " if self.distinct else "SELECT "
        text = words + ", ".join(f"{item.sql(duck)} AS {self.prefix}{number}" for number, item in enumerate(self.items, 1))
        if self.source is not None:
            text += f" FROM {self.source.sql(duck)}"
        for join in self.joins:
            text += join.sql(duck)
        for word, parts, glue in (("WHERE", self.where, " AND "), ("GROUP BY", self.group, ", "), ("HAVING", self.having, " AND ")):
            if parts:
                listed = [part.sql(duck) for part in parts]
                text += f" {word} " + (self._sets(listed) if word == "GROUP BY" else glue.join(listed))
        return text

    def _sets(self, keys):
        return self.sets.format(", ".join(keys), ", ".join(f"({key})" for key in keys))

    def parts(self):
        parts = [*self.items, *self.where, *self.group, *self.having]
        return parts + [condition for join in self.joins for condition in join.on]

    def inner_queries(self):
        sources = ([self.source] if self.source else []) + [join.source for join in self.joins] + self.ctes
        return [source.query for source in sources if source.query is not None] + self.unions

    def same_in_duck(self):
        return all(part.same_in_duck() for part in self.parts()) and all(q.same_in_duck() for q in self.inner_queries())

    def order_given(self):
        """What `compare.difference` must find ordered: the columns, and whether no LIMIT cuts through equal keys."""
        if not self.order:
            return None
        return [position - 1 for position, _ in self.order], self.limit is None and self.offset is None

    def literals(self):
        """Its constants, each once, in a fixed order."""
        found = {}
        for part in self.parts():
            _literals_of(part, found)
        return list(found.values()) + [literal for inner in self.inner_queries() for literal in inner.literals()]

    def columns(self):
        return [(f"o{number}", item.kind, item.tame, item.exact) for number, item in enumerate(self.items, 1)]


def _literals_of(node, found):
    if isinstance(node, Subquery):
        for literal in node.query.literals():
            found[id(literal)] = literal
    elif node.literal:
        found[id(node)] = node
        return
    for arg in node.args:
        _literals_of(arg, found)
