"""Random queries."""

import copy
import dataclasses
import random

import correlated
from expressions import E, Expressions, cast, is_decimal, is_float, is_integer
from tables import decimal_of
from trees import Join, Select, Source, Subquery


CROSS_ROWS_MAX = 50_000  # joins without keys make no more


def with_other_literals(query: Select, rng: random.Random):
    """The same query with other constants: another statement of the same shape."""
    make = Expressions(rng, [])
    for literal in query.literals():
        make.renew(literal)


def visible_named(nodes, name):
    return [node for node in nodes if node.text.endswith(f".{name}")]


def is_one(query, visible, name):
    """Whether all visible columns of a name are merged into one, or are one."""
    return len(visible_named(visible, name)) == 1 + sum(join.using == name for join in query.joins)


def merged(query, visible):
    """The columns that USING merged, by their bare names."""
    names = {join.using for join in query.joins if join.using and is_one(query, visible, join.using)}
    for name in sorted(names):
        nodes = visible_named(visible, name)
        if len({node.kind for node in nodes}) == 1:
            yield E(nodes[0].kind, name, tame=all(node.tame for node in nodes))


class Queries:
    """One query, over `tables`, from `rng`."""

    def __init__(self, rng: random.Random, tables: list):
        self.rng = rng
        self.tables = tables
        self.aliases = 0
        self.ctes = []
        # Joins of a large table have a key, and are few: results stay small.
        self.large = any(table.data.num_rows > 1000 for table in tables)

    def make(self) -> Select:
        rng = self.rng
        if rng.random() < 0.55:
            return self.simple()
        if rng.random() < 0.12:
            name = "w1"
            inner = self.select(1)
            self.ctes.append(Source("", inner.columns(), table=name, query=inner, rows=inner.rows))
        query = self.select(2, top=True)
        query.ctes = self.ctes
        return query

    def simple(self) -> Select:
        """One table, few expressions: cheap to plan, so that many of them reach the kernels."""
        rng = self.rng
        query = Select([], self.source(0))
        make = Expressions(rng, query.source.nodes())
        if rng.random() < 0.5:
            query.where.append(make.condition(rng.choice([1, 1, 2])))
        form = rng.random()
        if form < 0.25:
            query.items = [self.aggregate_call(make) for _ in range(rng.randint(1, 2))]
        elif form < 0.4:
            self.aggregate(query, make)
        else:
            query.items = [make.any(rng.choice([1, 2, 2, 3])) for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.1:
            self.order(query, True)
        return query

    def alias(self):
        self.aliases += 1
        return f"a{self.aliases}"

    def source(self, depth, small=False) -> Source:
        rng = self.rng
        if self.ctes and not small and rng.random() < 0.6:
            cte = self.ctes[0]
            return Source(self.alias(), cte.columns, table=cte.table, rows=cte.rows)
        if depth > 0 and not small and rng.random() < 0.15:
            inner = self.select(depth - 1)
            return Source(self.alias(), inner.columns(), query=inner, rows=inner.rows)
        if rng.random() < 0.03:
            return self.values()
        tables = [table for table in self.tables if table.data.num_rows <= 33] if small else self.tables
        table = rng.choice(tables or self.tables)
        columns = [(column.name, column.kind, column.tame, True) for column in table.columns]
        return Source(self.alias(), columns, table=table.name, rows=table.data.num_rows)

    def values(self) -> Source:
        rng = self.rng
        make = Expressions(rng, [])
        kinds = ["i64", "str", rng.choice(["date", "ts", "f64", "d:15:2", "bool", "i32"])]
        rows = [[cast(make.literal(kind), kind) for kind in kinds] for _ in range(rng.randint(1, 5))]
        columns = [(name, kind, kind != "i64", True) for name, kind in zip(["k", "s", "c0"], kinds)]
        return Source(self.alias(), columns, rows=len(rows), values=rows)

    def select(self, depth, top=False) -> Select:
        rng = self.rng
        if top and rng.random() < 0.02:
            empty = Expressions(rng, [])
            return Select([empty.any() for _ in range(rng.randint(1, 3))], None)
        source = self.source(depth)
        query = Select([], source, rows=source.rows)
        visible = source.nodes()
        joins = [0, 0, 0, 1, 1, 2] if top and not self.large else [0, 0, 0, 1]
        for _ in range(rng.choice(joins) if depth > 0 or not self.large else 0):
            join = self.join(visible, depth, query)
            query.joins.append(join)
            if join.hides:
                continue
            product = query.rows * join.source.rows
            query.rows = min(product, max(query.rows, join.source.rows) * 8) if join.on else product
            visible = visible + join.source.nodes()
        if depth > 0 and rng.random() < 0.05 and query.rows * 3 < CROSS_ROWS_MAX:
            query.joins.append(correlated.lateral(self, visible))
            visible = visible + query.joins[-1].source.nodes()
        make = Expressions(rng, visible + list(merged(query, visible)))
        while rng.random() < 0.5 and len(query.where) < 3:
            query.where.append(self.predicate(make, depth))
        form = rng.random()
        if form < 0.4:
            self.aggregate(query, make)
        else:
            query.items = [self.value(make, depth) for _ in range(rng.randint(1, 5))]
            query.distinct = rng.random() < 0.12 and all(item.exact for item in query.items)
        if rng.random() < 0.07:
            self.union(query, make)
        self.order(query, top)
        return query

    def value(self, make, depth):
        rng = self.rng
        if depth > 0 and rng.random() < 0.07:
            return self.scalar_subquery(make, depth) if rng.random() < 0.4 else correlated.value(self, make)
        if depth > 0 and rng.random() < 0.015:
            return self.marked(make, depth)
        if rng.random() < 0.012 and make.columns:
            return self.window(make)
        return make.any(rng.choice([0, 0, 1, 2, 3]))

    def join(self, visible, depth, query) -> Join:
        rng, rows = self.rng, query.rows
        if rng.random() < 0.06:
            return self.half_join(visible, depth)
        word = rng.choice(["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "LEFT JOIN"])
        source = self.source(depth - 1, small=word == "CROSS JOIN")
        large = rows * source.rows > CROSS_ROWS_MAX
        if word == "CROSS JOIN":
            if not large:
                return Join(word, source, [])
            word = "JOIN"
        nodes = source.nodes()
        on = self.keys(visible, nodes)
        if rng.random() < 0.25:
            on.append(Expressions(rng, visible + nodes).condition(2))
        plain = len(on) == 1 and on[0].text == "({} = {})" and len(on[0].args) == 2
        name = on[0].args[0].text.split(".")[-1] if plain else ""
        single = name in ("k", "s") and len(visible_named(nodes, name)) == 1 and is_one(query, visible, name)
        if single and on[0].args[1].text.endswith(f".{name}") and rng.random() < 0.25:
            return Join(word, source, on, using=name)
        if large and not any(" = " in condition.text for condition in on):
            on = [E("bool", "false")]
        if not on:
            on = [E("bool", "false" if large else "true")]
        return Join(word, source, on)

    def half_join(self, visible, depth):
        """LEFT SEMI or LEFT ANTI JOIN, whose right side's columns are not seen by what follows."""
        rng = self.rng
        source = self.source(depth - 1, small=True)
        on = self.keys(visible, source.nodes()) or [E("bool", "true")]
        if rng.random() < 0.5:
            on.append(Expressions(rng, visible + source.nodes()).condition(1))
        return Join(rng.choice(["LEFT SEMI JOIN", "LEFT ANTI JOIN"]), source, on)

    def keys(self, left, right):
        """Equalities between the two sides; sometimes none."""
        rng = self.rng

        def named(nodes, name):
            return [node for node in nodes if node.text.endswith(f".{name}")]

        names = rng.choice([["k"], ["k"], ["k"], ["s"], ["k", "s"]])
        on = []
        for name in names:
            if (mine := named(left, name)) and (theirs := named(right, name)):
                on.append(E("bool", "({} = {})", [rng.choice(mine), rng.choice(theirs)]))
        if not on or rng.random() < 0.15:
            pairs = [(a, b) for a in left for b in right if a.kind == b.kind and a.exact and b.exact]
            if pairs and (on or not self.large):
                a, b = rng.choice(pairs)
                word = rng.choice(["=", "=", "=", "IS NOT DISTINCT FROM"])
                on.append(E("bool", f"({{}} {word} {{}})", [a, b]))
        return on

    def predicate(self, make, depth, sure=False):
        rng = self.rng
        if not sure and depth > 0 and rng.random() < 0.04:
            return self.marked(make, depth)
        if not sure and depth > 0 and rng.random() < 0.05:
            return correlated.compared(self, make)
        if not sure and (depth <= 0 or rng.random() < 0.82):
            return make.condition(rng.choice([1, 2, 3]))
        form = rng.random()
        inner = self.source(0)
        nodes = inner.nodes()
        if form < 0.5:
            on = self.keys(make.columns, nodes)
            if rng.random() < 0.3:
                on.append(Expressions(rng, nodes if rng.random() < 0.5 else nodes + make.columns).condition(1))
            query = Select([E("i64", "1")], inner, where=on, prefix="e")
            if rng.random() < 0.1:
                query.having.append(E("bool", f"(count(*) {rng.choice(['<', '>', '='])} {rng.randint(0, 3)})"))
            return Subquery("bool", rng.choice(["EXISTS ({})", "NOT EXISTS ({})"]), query)
        pairs = [(a, b) for a in make.columns for b in nodes if a.kind == b.kind and a.exact and b.exact]
        if not pairs:
            return make.condition(2)
        mine, theirs = rng.choice(pairs)
        query = Select([theirs], inner)
        if rng.random() < 0.5:
            query.where.append(Expressions(rng, nodes).condition(1))
        if rng.random() < 0.2:
            query.where += self.keys(make.columns, nodes)
        if rng.random() < 0.12 and theirs.kind not in ("bool", "bin", "time"):
            query.items = [E(theirs.kind, rng.choice(["min({})", "max({})"]), [theirs])]
        word = rng.choice(["IN", "IN", "NOT IN"])
        return Subquery("bool", f"({{1}} {word} ({{0}}))", query, [mine])

    def window(self, make) -> E:
        """A window function whose value does not depend on the order of equal rows."""
        rng = self.rng
        columns = [column for column in make.columns if column.exact and column.kind not in ("bin", "time")]
        if not columns:
            return make.any(1)
        part = rng.choice(columns)
        over = "PARTITION BY {}"
        key = rng.choice(columns)
        if rng.random() < 0.5:
            words = rng.choice(["", " DESC", " NULLS FIRST"])
            text = rng.choice(["rank()", "dense_rank()", "count(*)"])
            return E("i64", f"{text} OVER ({over} ORDER BY {{}}{words})", [part, key], tame=True)
        text = rng.choice(["count(*)", "count({})", "min({})", "max({})"])
        inner = [key] if "{}" in text else []
        kind = key.kind if text.startswith("m") else "i64"
        return E(kind, f"{text} OVER ({over})", [*inner, part], tame=key.tame)

    def marked(self, make, depth):
        """A subquery's truth as a value, or beside OR: a mark join."""
        found = self.predicate(make, depth, sure=True)
        if not isinstance(found, Subquery):
            return found
        other = make.condition(1)
        form = self.rng.choice(["({} OR {})", "({} OR {})", "(NOT ({} AND {}))"])
        return E("bool", form, [found, other])

    def scalar_subquery(self, make, depth):
        rng = self.rng
        inner = self.source(0)
        nodes = inner.nodes()
        item = self.aggregate_call(Expressions(rng, nodes))
        query = Select([item], inner)
        if rng.random() < 0.5 and make.columns:
            query.where += self.keys(make.columns, nodes)
        if rng.random() < 0.3:
            query.where.append(Expressions(rng, nodes).condition(1))
        return Subquery(item.kind, "({})", query, tame=item.tame, exact=item.exact)

    def aggregate(self, query, make):
        rng = self.rng
        keys = []
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            key = make.any(rng.choice([0, 0, 0, 1, 2]))
            if key.exact and not isinstance(key, Subquery) and ("." in key.sql() or key.text in ("k", "s")):
                keys.append(key)
        calls = [self.aggregate_call(make) for _ in range(rng.randint(0 if keys else 1, 4))]
        query.group = keys
        if keys and rng.random() < 0.08:
            query.sets = rng.choice(["ROLLUP({})", "CUBE({})", "GROUPING SETS (({}), ())", "GROUPING SETS ({1})", "GROUPING SETS ({1}, ())"])
        query.items = keys + calls
        if keys and rng.random() < 0.2:
            rng.shuffle(query.items)
        if rng.random() < 0.15 and (keys or calls):
            candidates = [item for item in query.items if item.exact]
            if candidates:
                query.having.append(Expressions(rng, candidates).comparison(0))
        if rng.random() < 0.1 and calls:
            query.items.append(self.over_aggregates(make, calls))

    def over_aggregates(self, make, calls):
        exact = [call for call in calls if call.exact]
        return Expressions(self.rng, exact).any(2) if exact else self.rng.choice(calls)

    def aggregate_call(self, make) -> E:
        rng = self.rng
        call = self.plain_call(make)
        if rng.random() < 0.12 and call.text.endswith(")"):
            return dataclasses.replace(call, text=call.text + " FILTER (WHERE {})", duck_text=call.duck_text and call.duck_text + " FILTER (WHERE {})", args=[*call.args, make.condition(1)])
        return call

    def plain_call(self, make) -> E:
        rng = self.rng
        word = rng.choice(["count*", "count", "countd", "sum", "sum", "avg", "min", "max", "min", "max", "bool", "stddev", "sumd"])
        if word == "count*":
            return E("i64", "count(*)")
        argument = make.any(rng.choice([0, 0, 1, 2]))
        if word in ("count", "countd"):
            if not argument.exact:
                return E("i64", "count({})", [argument])
            return E("i64", "count({})" if word == "count" else "count(DISTINCT {})", [argument])
        if word in ("min", "max") and rng.random() < 0.1 and not isinstance(argument, Subquery) and argument.kind not in ("f32", "f64"):
            side, way = rng.choice(["first", "last"]), rng.choice(["", " DESC", " NULLS FIRST"])
            ours, theirs = (f"{side}{tail}({{}} ORDER BY {{}}{way})" for tail in ("_value", ""))
            return E(argument.kind, ours, [argument, argument], True, theirs, tame=argument.tame, exact=argument.exact)
        if word in ("min", "max"):
            return E(argument.kind, f"{word}({{}})", [argument], tame=argument.tame, exact=argument.exact)
        if word == "bool":
            return E("bool", rng.choice(["bool_and({})", "bool_or({})"]), [make.condition(1)])
        return self.number_call(make, word)

    def number_call(self, make, word) -> E:
        rng = self.rng
        numbers = [c for c in make.columns if c.tame and c.exact and (is_integer(c.kind) or is_float(c.kind) or is_decimal(c.kind))]
        if not numbers:
            return E("i64", "count(*)")
        argument = rng.choice(numbers)
        if is_integer(argument.kind) and rng.random() < 0.3:
            argument = make.tame_integer(argument.kind, 2)
        if word in ("sum", "sumd"):
            text = "sum({})" if word == "sum" else "sum(DISTINCT {})"
            if is_integer(argument.kind):
                return E("u64" if argument.kind.startswith("u") else "i64", text, [argument], tame=False)
            if is_float(argument.kind):
                return E("f64", text, [argument], tame=False)
            precision, scale = decimal_of(argument.kind)
            return E(f"d:{min(38, precision + 10)}:{scale}", text, [argument], tame=False)
        if word == "avg":
            if is_decimal(argument.kind):
                precision, scale = decimal_of(argument.kind)
                return E(f"d:{min(38, precision + 4)}:{min(38, scale + 4)}", "avg({})", [argument], duck=False, tame=False)
            return E("f64", "avg({})", [argument], tame=False)
        text = rng.choice(["stddev({})", "stddev_pop({})", "var_samp({})", "var_pop({})"])
        inner = argument if argument.kind == "f64" else cast(argument, "f64", duck=not is_decimal(argument.kind))
        return E("f64", text, [inner], tame=False, exact=False)

    def union(self, query, make):
        """The same query again with other constants would be dull: another arm of the same kinds."""
        rng = self.rng
        if query.group or any(isinstance(item, Subquery) for item in query.items) or query.having:
            return
        arm = copy.copy(query)
        arm.unions, arm.ctes = [], []
        if not any("(" in item.text and "{" in item.text and item.text.split("(")[0] in AGGREGATES for item in query.items):
            arm.items = [make.make(item.kind, 1) for item in query.items]
        arm.where = [make.condition(1)]
        query.unions = [arm]
        query.union_word = "UNION ALL"
        if rng.random() < 0.3 and all(item.exact for item in query.items + arm.items):
            query.union_word = rng.choice(["UNION", "INTERSECT", "EXCEPT"])

    def order(self, query, top):
        rng = self.rng
        if rng.random() > (0.35 if top else 0.15):
            return
        positions = list(range(1, len(query.items) + 1))
        rng.shuffle(positions)
        words = ["", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST", " NULLS FIRST"]
        exact = all(item.exact for item in query.items) and all(i.exact for arm in query.unions for i in arm.items)
        if not exact:
            return
        query.order = [(position, rng.choice(words)) for position in positions]
        if top and len(positions) > 1 and rng.random() < 0.25:
            query.order = query.order[: rng.randint(1, len(positions) - 1)]  # what ties is free
        if rng.random() < 0.6 or not top:
            query.limit = rng.choice([0, 1, 3, 10, 10, 100])
            if rng.random() < 0.3:
                query.offset = rng.choice([0, 1, 5, 30])


AGGREGATES = ("count", "sum", "avg", "min", "max", "bool_and", "bool_or", "stddev", "stddev_pop", "var_samp", "var_pop")
