"""Random typed SQL expressions.

An expression is a tree whose nodes know their text for the server and, where it differs, for DuckDB. `duck=False` marks
what DuckDB means differently (README.md lists why): a query with such a node is compared between our variants only.
"""

import dataclasses
import random

from tables import DECIMALS, INTEGERS, decimal_of

SQL_TYPES = {
    "i8": "TINYINT", "i16": "SMALLINT", "i32": "INT", "i64": "BIGINT", "u8": "TINYINT UNSIGNED", "u16": "SMALLINT UNSIGNED",
    "u32": "INT UNSIGNED", "u64": "BIGINT UNSIGNED", "f32": "REAL", "f64": "DOUBLE", "bool": "BOOLEAN", "date": "DATE",
    "ts": "TIMESTAMP", "tz": "TIMESTAMP WITH TIME ZONE", "time": "TIME", "str": "VARCHAR", "bin": "BYTEA",
}  # fmt: skip
DUCK_TYPES = SQL_TYPES | {"u8": "UTINYINT", "u16": "USMALLINT", "u32": "UINTEGER", "u64": "UBIGINT", "bin": "BLOB"}
COMPARISONS = ["=", "<>", "<", "<=", ">", ">=", "=", "<", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]
DATE_PARTS = ["year", "month", "day", "quarter", "dow", "doy", "week"]
TIME_PARTS = ["hour", "minute"]
INTERVALS = ["1 day", "3 months", "1 year", "-40 days", "1 month", "-1 month", "2 weeks"]
PATTERNS = ["%", "a%", "%a", "%b%", "_", "__", "%_a%", "", "é%", "%漢%", "a_b", "%a%b%", "s1%", "key%", "% %", "A%", "%1", "_%_"]
PATTERNS_ESCAPED = ["%\\%%", "a\\_b", "\\\\%", "%\\"]


@dataclasses.dataclass
class E:
    """`text` has a `{}` for each argument."""

    kind: str
    text: str
    args: list = dataclasses.field(default_factory=list)
    duck: bool = True
    duck_text: str | None = None
    tame: bool = True
    exact: bool = True  # False: a float whose last bits are free
    literal: str = ""  # of what `Expressions.renew` makes another one

    def sql(self, duck=False):
        text = self.duck_text if duck and self.duck_text else self.text
        return text.format(*(arg.sql(duck) for arg in self.args)) if self.args else text.replace("{{", "{")

    def same_in_duck(self) -> bool:
        return self.duck and all(arg.same_in_duck() for arg in self.args)


def sql_type(kind, duck=False):
    if kind.startswith("d:"):
        return "DECIMAL({}, {})".format(*decimal_of(kind))
    return (DUCK_TYPES if duck else SQL_TYPES)[kind]


def cast(arg: E, kind: str, duck=True, try_=False) -> E:
    word = "TRY_CAST" if try_ else "CAST"
    ours, theirs = (f"{word}({{}} AS {sql_type(kind, of)})" for of in (False, True))
    return E(kind, ours, [arg], duck, theirs, arg.tame, arg.exact)


def quote(text: str) -> str:
    return "'" + text.replace("'", "''").replace("{", "").replace("}", "") + "'"


def is_integer(kind):
    return kind in INTEGERS


def is_decimal(kind):
    return kind.startswith("d:")


def is_float(kind):
    return kind in ("f32", "f64")


class Expressions:
    """Makes expressions over `columns`, which are nodes themselves."""

    def __init__(self, rng: random.Random, columns: list):
        self.rng = rng
        self.columns = columns

    def of_kind(self, kind, tame=False):
        return [column for column in self.columns if column.kind == kind and (column.tame or not tame)]

    def any(self, depth=3) -> E:
        """Mostly of the kind of a column that there is."""
        rng = self.rng
        if self.columns and rng.random() < 0.75:
            kind = rng.choice(self.columns).kind
        else:
            kind = rng.choice(["i64", "f64", "bool", "str", "date", "ts", "i32", "d:15:2"])
        return self.make(kind, depth)

    def make(self, kind, depth) -> E:
        rng = self.rng
        if depth <= 0 or rng.random() < 0.25:
            return self.leaf(kind)
        if rng.random() < 0.18:
            return self.conditional(kind, depth - 1)
        if is_integer(kind):
            return self.integer(kind, depth - 1)
        if is_float(kind):
            return self.float(kind, depth - 1)
        if is_decimal(kind):
            return self.decimal(kind, depth - 1)
        if kind == "tz":
            return self.zoned(depth - 1)
        makers = {"bool": self.condition, "str": self.string, "date": self.date, "ts": self.timestamp}
        return makers.get(kind, lambda depth: self.leaf(kind))(depth - 1)

    def leaf(self, kind) -> E:
        rng = self.rng
        if (found := self.of_kind(kind)) and rng.random() < 0.8:
            return rng.choice(found)
        if is_integer(kind):
            others = [column for column in self.columns if is_integer(column.kind) and fits(column.kind, kind)]
            if others and rng.random() < 0.6:
                return cast(rng.choice(others), kind)
        return self.literal(kind)

    def renew(self, node: E):
        """Another constant in the place of one."""
        other = self.pattern(node.literal) if node.literal.startswith("pattern") else self.literal(node.kind)
        node.text, node.duck_text, node.args = other.text, other.duck_text, other.args

    def pattern(self, form="pattern") -> E:
        patterns = PATTERNS_ESCAPED if form == "pattern escaped" else PATTERNS
        return E("str", quote(self.rng.choice(patterns)), literal=form)

    def literal(self, kind) -> E:
        made = self.constant(kind)
        made.literal = "value"
        return made

    def constant(self, kind) -> E:
        rng = self.rng
        if rng.random() < 0.05:
            return time_literal("NULL") if kind == "time" else cast(E(kind, "NULL"), kind)
        if is_integer(kind):
            _, lowest, highest = INTEGERS[kind]
            top = min(highest, rng.choice([1, 3, 10, 100, 1000]))
            text = str(rng.choice([lowest + 1, highest])) if rng.random() < 0.02 else str(rng.randint(0 if kind.startswith("u") else -top, top))
            return E(kind, text if not text.startswith("-") else f"({text})") if kind == "i64" else cast(E(kind, text), kind)
        if is_float(kind):
            return cast(E(kind, str(rng.randint(-400, 400) / 4)), kind)
        if is_decimal(kind):
            precision, scale = decimal_of(kind)
            digits = rng.randint(0, 10 ** min(precision, 4) - 1)
            text = f"{digits:0{scale + 1}}"
            text = text[:-scale] + "." + text[-scale:] if scale else text
            return cast(E(kind, quote(text)), kind)
        if kind == "bool":
            return E(kind, rng.choice(["true", "false"]))
        if kind == "date":
            return E(kind, f"DATE '{rng.randint(1950, 2050)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}'")
        if kind == "ts":
            return E(kind, f"TIMESTAMP '{rng.randint(1960, 2040)}-0{rng.randint(1, 9)}-11 {rng.randint(10, 23)}:30:00'")
        if kind == "tz":
            text = f"{rng.randint(1960, 2040)}-0{rng.randint(1, 9)}-11T{rng.randint(10, 23)}:30:00{rng.choice(['Z', '+02:00', '-05:30'])}"
            return E(kind, f"TIMESTAMPTZ '{text}'")
        if kind == "time":
            return time_literal(f"'{rng.randint(10, 23)}:15:00'")
        if kind == "str":
            return E(kind, quote(rng.choice(["", "a", "ab", "s1", "s0", "é", "漢字", "zz", "key 1 of a longer kind", " "])))
        return cast(E(kind, quote(rng.choice(["", "a", "ab", "s1"]))), kind)

    def conditional(self, kind, depth) -> E:
        rng = self.rng
        form = rng.random()
        if form < 0.45:
            branches = rng.randint(1, 3)
            args = [part for _ in range(branches) for part in (self.condition(depth - 1), self.make(kind, depth - 1))]
            otherwise = rng.random() < 0.7
            text = "CASE" + " WHEN {} THEN {}" * branches + (" ELSE {}" if otherwise else "") + " END"
            if otherwise:
                args.append(self.make(kind, depth - 1))
            return joined(kind, text, args)
        if form < 0.6 and self.columns:
            operand = rng.choice(self.columns)
            branches = rng.randint(1, 3)
            args = [operand]
            for _ in range(branches):
                args += [self.literal(operand.kind), self.make(kind, depth - 1)]
            args.append(self.make(kind, depth - 1))
            return joined(kind, "CASE {}" + " WHEN {} THEN {}" * branches + " ELSE {} END", args)
        if form < 0.85:
            args = [self.make(kind, depth - 1) for _ in range(rng.randint(2, 3))]
            return joined(kind, "coalesce(" + ", ".join(["{}"] * len(args)) + ")", args)
        if form < 0.9 and kind not in ("bin", "time"):
            args = [self.make(kind, depth - 1) for _ in range(rng.randint(2, 3))]
            # Of equal zeros which one shows is free; DuckDB's NaN is the greatest too.
            return joined(kind, rng.choice(["greatest", "least"]) + "(" + ", ".join(["{}"] * len(args)) + ")", args)
        one, other = self.make(kind, depth - 1), self.make(kind, depth - 1)
        # DuckDB 2.0 takes nullif(x, x) of a NOT NULL column for never NULL.
        return dataclasses.replace(joined(kind, "nullif({}, {})", [one, other]), duck=one.sql() != other.sql())

    def integer(self, kind, depth) -> E:
        rng = self.rng
        form = rng.random()
        if kind in ("i32", "i64"):
            if form < 0.12:
                part = rng.choice(DATE_PARTS)
                operand = self.make(rng.choice(["date", "ts", "tz"]), depth)
                return cast(E("i32", f"extract({part} FROM {{}})", [operand]), kind)
            if form < 0.18:
                part = rng.choice(TIME_PARTS)
                return cast(E("i32", f"extract({part} FROM {{}})", [self.make("ts", depth)]), kind)
            if form < 0.26:
                text = rng.choice(["length({})", "character_length({})", "strpos({}, 'a')", "octet_length({})", "ascii({})"])
                same = not text.startswith(("octet", "ascii"))
                return cast(E("i32", text, [self.make("str", depth)], same), kind)
            if form < 0.29 and kind == "i64":
                return E("i64", "({} - {})", [self.make("date", depth), self.make("date", depth)])
            if form < 0.32:
                return cast(self.condition(depth), kind)
            if form < 0.36:
                return cast(self.tame_decimal(), kind, duck=False)
            if form < 0.4:
                return cast(self.tame_float(), kind, duck=False)
            if form < 0.43:
                return cast(self.make("str", depth), kind, duck=False, try_=True)
        if kind not in ("i32", "i64") and form < 0.4:
            return self.leaf(kind)
        left, right = self.tame_integer(kind, depth), self.tame_integer(kind, depth)
        if rng.random() < 0.03:
            left = self.make(kind, depth)
        op = rng.choice(["+", "-", "*", "+", "-", "/", "%", "&", "|", "#", "neg", "abs"])
        if op == "neg" and not kind.startswith("u"):
            return E(kind, "(- {})", [left], tame=False)
        if op in ("abs", "neg"):
            return E(kind, "abs({})", [left])
        if op in "/%":
            if rng.random() < 0.9:
                right = E(kind, "nullif({}, {})", [right, cast(E(kind, "0"), kind)])
            return E(kind, f"({{}} {op} {{}})", [left, right])
        if op in "&|#":
            word = {"#": "^"}.get(op, op)
            return E(kind, f"({{}} {word} {{}})", [left, right], op != "#", tame=op == "&")
        return E(kind, f"({{}} {op} {{}})", [left, right], tame=False)

    def tame_integer(self, kind, depth) -> E:
        """Small enough to add or to multiply; not always."""
        rng = self.rng
        if found := self.of_kind(kind, tame=True):
            if rng.random() < 0.6:
                return rng.choice(found)
        others = [c for c in self.columns if is_integer(c.kind) and c.tame and fits(c.kind, kind)]
        if others and rng.random() < 0.6:
            return cast(rng.choice(others), kind)
        if depth > 0 and rng.random() < 0.3:
            return self.conditional_tame(kind)
        return self.literal(kind)

    def conditional_tame(self, kind) -> E:
        args = [self.condition(1), self.tame_integer(kind, 0), self.tame_integer(kind, 0)]
        return joined(kind, "CASE WHEN {} THEN {} ELSE {} END", args)

    def tame_float(self) -> E:
        found = self.of_kind("f64", tame=True)
        return self.rng.choice(found) if found else self.literal("f64")

    def tame_decimal(self) -> E:
        found = [column for column in self.columns if is_decimal(column.kind) and column.tame]
        return self.rng.choice(found) if found else self.literal("d:15:2")

    def float(self, kind, depth) -> E:
        rng = self.rng
        form = rng.random()
        if form < 0.2:
            return self.leaf(kind)
        if form < 0.35:
            return cast(self.make(rng.choice(["i32", "i64", "i16"]), depth), kind)
        if form < 0.42:
            return cast(self.tame_decimal(), kind, duck=False)
        if form < 0.5:
            text = rng.choice(["abs({})", "floor({})", "ceil({})", "(- {})"])
            return E(kind, text, [self.make(kind, depth)])
        if form < 0.55 and kind == "f64":
            text = rng.choice(["sqrt(abs({}))", "exp({})", "ln(abs({}))", "sin({})", "power({}, 2)"])
            return E(kind, text, [self.tame_float()], duck=False, exact=False)
        left, right = self.make(kind, depth), self.make(kind, depth)
        op = rng.choice(["+", "-", "*", "+", "-", "/"])
        exact = left.exact and right.exact
        if op == "/":
            return E(kind, "({} / {})", [left, right], duck=False, tame=False, exact=exact)
        return E(kind, f"({{}} {op} {{}})", [left, right], tame=False, exact=exact)

    def decimal(self, kind, depth) -> E:
        """Arithmetic gives a type of its own, which a cast brings back; only where it cannot be too large."""
        rng = self.rng
        form = rng.random()
        found = [column for column in self.columns if is_decimal(column.kind) and column.tame]
        if form < 0.3 or not found:
            return self.leaf(kind)
        wide = kind if decimal_of(kind)[0] - decimal_of(kind)[1] >= 15 else "d:38:10"
        if form < 0.4:
            inner = cast(self.make(rng.choice(["i32", "i16", "i64"]), depth), "d:38:6", duck=False)
            return cast(inner, wide, duck=False) if wide == kind else cast(inner, kind, duck=False)
        left, right = rng.choice(found), rng.choice(found)
        op = rng.choice(["+", "-", "*", "+", "-", "/", "%", "neg"])
        if op == "neg":
            return E(left.kind, "(- {})", [left])
        if op in "/%":
            right = E(right.kind, "nullif({}, {})", [right, cast(E(right.kind, "0"), right.kind)])
            return cast(E(wide, f"({{}} {op} {{}})", [left, right], duck=False), wide, duck=False)
        if op == "*" and decimal_of(left.kind)[1] + decimal_of(right.kind)[1] > 20:
            return left
        return cast(E(wide, f"({{}} {op} {{}})", [left, right]), wide, duck=decimal_of(wide)[1] >= 20)

    def string(self, depth) -> E:
        rng = self.rng
        one = self.make("str", depth)
        form = rng.choice(["case", "sub", "trim", "concat", "pipe", "left", "replace", "reverse", "pad", "cast", "repeat", "split", "more"])
        if form == "case":
            return E("str", rng.choice(["upper({})", "lower({})"]), [one])
        if form == "sub":
            start, size = rng.randint(1, 4), rng.randint(0, 5)
            return E("str", rng.choice([f"substr({{}}, {start}, {size})", f"substr({{}}, {start})"]), [one])
        if form == "trim":
            return E("str", rng.choice(["trim({})", "ltrim({})", "rtrim({})"]), [one])
        if form == "concat":
            return E("str", "concat({}, {})", [one, self.make("str", depth)])
        if form == "pipe":
            return E("str", "({} || {})", [one, self.make("str", depth)])
        if form == "left":
            return E("str", f"{rng.choice(['left', 'right'])}({{}}, {rng.randint(0, 5)})", [one])
        if form == "replace":
            old, new = rng.choice([("a", "xy"), ("a", ", b"), ("a, b", ""), (", ", "a"), ("a", "")])
            return E("str", f"replace({{}}, '{old}', '{new}')", [one])
        if form == "reverse":
            return E("str", "reverse({})", [one], duck=False)
        if form == "pad":
            return E("str", f"{rng.choice(['lpad', 'rpad'])}({{}}, {rng.randint(0, 9)}, '*')", [one])
        if form == "repeat":
            return E("str", f"repeat({{}}, {rng.randint(0, 2)})", [one])
        if form == "more":
            text = rng.choice(["btrim({})", "concat_ws('-', {}, {})", "translate({}, 'ab', 'x')", "initcap({})", "substring({} FROM 2 FOR 3)"])
            args = [one, self.make("str", depth)] if text.count("{}") == 2 else [one]
            theirs = {"btrim({})": "trim({})", "substring({} FROM 2 FOR 3)": "substring({}, 2, 3)"}.get(text)
            return E("str", text, args, not text.startswith("initcap"), theirs)
        if form == "split":
            return E("str", f"split_part({{}}, 'a', {rng.randint(1, 2)})", [one], duck=False)
        kind = rng.choice(["i64", "date", "i32", "bool", "ts", "d:15:2", "f64"])
        return cast(self.make(kind, depth), "str", duck=kind not in ("ts", "d:15:2", "f64"))

    def date(self, depth) -> E:
        rng = self.rng
        form = rng.random()
        one = self.make("date", depth)
        if form < 0.35:
            text = f"({{}} {rng.choice('+-')} INTERVAL '{rng.choice(INTERVALS)}')"
            return E("date", text, [one], duck_text=f"CAST({text} AS DATE)")
        if form < 0.5:
            return E("date", f"({{}} {rng.choice('+-')} {rng.randint(0, 400)})", [one])
        if form < 0.65:
            return cast(self.make(rng.choice(["ts", "ts", "tz"]), depth), "date")
        return self.leaf("date")

    def timestamp(self, depth) -> E:
        rng = self.rng
        form = rng.random()
        if form < 0.3:
            span = rng.choice(INTERVALS + ["5 hours", "90 minutes", "1 second"])
            return E("ts", f"({{}} {rng.choice('+-')} INTERVAL '{span}')", [self.make("ts", depth)])
        if form < 0.5:
            part = rng.choice(["year", "month", "day", "hour", "week", "quarter", "minute"])
            return E("ts", f"date_trunc('{part}', {{}})", [self.make("ts", depth)])
        if form < 0.6:
            return cast(self.make("date", depth), "ts")
        if form < 0.65:
            return cast(self.make("tz", depth), "ts")
        return self.leaf("ts")

    def zoned(self, depth) -> E:
        """An instant; the session's zone is UTC, so that a local time is one too."""
        rng = self.rng
        form = rng.random()
        if form < 0.3:
            span = rng.choice([*INTERVALS, "5 hours", "90 minutes"])
            return E("tz", f"({{}} {rng.choice('+-')} INTERVAL '{span}')", [self.make("tz", depth)])
        if form < 0.5:
            return E("tz", f"date_trunc('{rng.choice(['year', 'month', 'day', 'hour', 'week'])}', {{}})", [self.make("tz", depth)])
        if form < 0.65:
            return cast(self.make("ts", depth), "tz")
        return self.leaf("tz")

    def condition(self, depth=3) -> E:
        rng = self.rng
        form = rng.random()
        if depth > 0 and form < 0.2:
            op = rng.choice(["AND", "OR"])
            return E("bool", f"({{}} {op} {{}})", [self.condition(depth - 1), self.condition(depth - 1)])
        if depth > 0 and form < 0.26:
            return E("bool", "(NOT {})", [self.condition(depth - 1)])
        booleans = self.of_kind("bool")
        if form < 0.34 and booleans:
            word = rng.choice(["{}", "({} IS TRUE)", "({} IS NOT TRUE)", "({} IS FALSE)", "({} IS UNKNOWN)", "({} = true)"])
            return E("bool", word.replace("UNKNOWN", "NULL"), [rng.choice(booleans)])
        if form < 0.45:
            return E("bool", rng.choice(["({} IS NULL)", "({} IS NOT NULL)"]), [self.any(depth - 1)])
        if form < 0.57:
            return self.like(depth)
        if form < 0.65:
            return self.in_list(self.make(self.ordered_kind(), depth - 1))
        if form < 0.7:
            operand = self.make(self.ordered_kind(), 0)
            both = rng.choice(["({} AND {})", "({} OR {})", "(NOT ({} AND {}))", "(NOT ({} OR {}))"])
            return E("bool", both, [self.in_list(operand), self.in_list(operand)])
        if form < 0.78:
            kind = self.ordered_kind()
            low, high = self.literal(kind), self.literal(kind)
            return joined("bool", rng.choice(["({} BETWEEN {} AND {})", "({} NOT BETWEEN {} AND {})"]), [self.make(kind, depth - 1), low, high])
        return self.comparison(depth)

    def ordered_kind(self):
        return self.rng.choice(self.columns).kind if self.columns else "i64"

    def comparison(self, depth) -> E:
        rng = self.rng
        kind = self.ordered_kind()
        left = self.make(kind, depth - 1)
        other, duck = kind, True
        if is_integer(kind) and rng.random() < 0.3:
            other = rng.choice(list(INTEGERS))
        elif (is_integer(kind) or is_decimal(kind)) and rng.random() < 0.2:
            other, duck = rng.choice(["f64", "d:12:2", "d:18:9", "d:38:0"]), False
        right = self.literal(other) if rng.random() < 0.6 else self.make(other, depth - 1)
        if rng.random() < 0.2:
            left, right = right, left
        return E("bool", f"({{}} {rng.choice(COMPARISONS)} {{}})", [left, right], duck)

    def like(self, depth) -> E:
        rng = self.rng
        escaped = rng.random() < 0.08
        pattern = self.pattern("pattern escaped" if escaped else "pattern")
        word = rng.choice(["LIKE", "LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"])
        if rng.random() < 0.15:
            return E("bool", "starts_with({}, {})", [self.make("str", depth - 1), self.make("str", 0)])
        return E("bool", f"({{}} {word} {{}})", [self.make("str", depth - 1), pattern], duck=not escaped)

    def in_list(self, operand) -> E:
        rng = self.rng
        kind = operand.kind
        size = rng.choice([1, 2, 2, 3, 3, 5, 5, 20])
        columns = self.of_kind(kind) if rng.random() < 0.1 else []
        args = [operand] + [rng.choice(columns) if columns else self.literal(kind) for _ in range(size)]
        if kind == "bool":
            args = args[:3]
        word = rng.choice(["IN", "IN", "NOT IN"])
        return joined("bool", f"({{}} {word} (" + ", ".join(["{}"] * (len(args) - 1)) + "))", args)


def time_literal(text) -> E:
    """A time of day; the server reads the files' microseconds as nanoseconds too."""
    return E("time", f"CAST({text} AS TIME)")


def joined(kind, text, args) -> E:
    exact = all(arg.exact for arg in args)
    return E(kind, text, args, tame=all(arg.tame for arg in args if arg.kind == kind), exact=exact)


def fits(narrow, wide) -> bool:
    _, low, high = INTEGERS[narrow]
    _, lowest, highest = INTEGERS[wide]
    return lowest <= low and high <= highest


def a_decimal(rng):
    return "d:{}:{}".format(*rng.choice(DECIMALS))
