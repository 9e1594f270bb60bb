"""Tables of random shape from a seed: what queries of the fuzzer run over.

A table is an Arrow table, written as one or several Parquet files. Its columns know more than their type: `tame` ones hold
small numbers, so that arithmetic over them rarely overflows and sums of floats are exact in any order.
"""

import dataclasses
import datetime
import decimal
import pathlib
import random

import pyarrow
import pyarrow.parquet

ROW_COUNTS = [0, 1, 2, 5, 31, 32, 33, 64, 100, 200, 500, 800]
ROW_COUNTS_LARGE = [2047, 2049, 5000, 33000, 70000]
DECIMALS = [(3, 0), (4, 2), (9, 4), (12, 2), (15, 2), (18, 0), (18, 9), (19, 3), (28, 6), (38, 0), (38, 10), (38, 38)]
INTEGERS = {
    "i8": (pyarrow.int8(), -(2**7), 2**7 - 1),
    "i16": (pyarrow.int16(), -(2**15), 2**15 - 1),
    "i32": (pyarrow.int32(), -(2**31), 2**31 - 1),
    "i64": (pyarrow.int64(), -(2**63), 2**63 - 1),
    "u8": (pyarrow.uint8(), 0, 2**8 - 1),
    "u16": (pyarrow.uint16(), 0, 2**16 - 1),
    "u32": (pyarrow.uint32(), 0, 2**32 - 1),
    "u64": (pyarrow.uint64(), 0, 2**64 - 1),
}
NOT_NATIVE = ("tz", "time", "u8", "u16", "u32", "u64")  # a table of the server's has no such type, or another one
ALPHABETS = ["ab", "aAbBzZ", "abcdefghijklmnopqrstuvwxyz 0123456789", "aé漢😀Éü", "a%_\\ b"]
WORDS = ["", " ", "a", "A", "aa", "ab", "abc", "é", "É", "漢字", "😀", "a%b", "a_b", "x y", "trailing ", "12", "-7", "3.5"]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), float("-inf"), 1e-300, 1e300, -1e300, 5e-324, 3.4e38, 0.1]


@dataclasses.dataclass(frozen=True)
class Column:
    """`kind` is one of the short names of types: i8…u64, f32, f64, d:<precision>:<scale>, bool, date, ts, time, str, bin."""

    name: str
    kind: str
    tame: bool


@dataclasses.dataclass
class Table:
    name: str
    columns: list
    data: pyarrow.Table
    files: int
    rows_per_group: int
    native: bool  # copied into a table of the server's own
    dictionary: bool

    def nan_beside_one_value(self):
        """Whether a file has a column of floats that are NaN or all the same (B18)."""
        step = max(1, -(-self.data.num_rows // self.files))
        for number in range(self.files):
            for column in self.data.slice(number * step, step).columns:
                if pyarrow.types.is_floating(column.type):
                    values = set(column.drop_null().to_pylist())
                    numbers = {value for value in values if value == value}
                    if len(numbers) == 1 and len(values) > 1:
                        return True
        return False

    def write(self, folder: pathlib.Path):
        """Parquet files in `folder`; their rows together are the table's."""
        folder.mkdir(parents=True)
        rows = self.data.num_rows
        step = max(1, -(-rows // self.files))
        for number in range(self.files):
            pyarrow.parquet.write_table(
                self.data.slice(number * step, step),
                folder / f"{number}.parquet",
                row_group_size=self.rows_per_group,
                use_dictionary=self.dictionary,
            )


def arrow_type(kind: str) -> pyarrow.DataType:
    if kind in INTEGERS:
        return INTEGERS[kind][0]
    if kind.startswith("d:"):
        return pyarrow.decimal128(*decimal_of(kind))
    return {
        "f32": pyarrow.float32(),
        "f64": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "date": pyarrow.date32(),
        "ts": pyarrow.timestamp("us"),
        "tz": pyarrow.timestamp("us", "UTC"),
        "time": pyarrow.time64("us"),
        "str": pyarrow.string(),
        "bin": pyarrow.binary(),
    }[kind]


def decimal_of(kind: str) -> tuple[int, int]:
    _, precision, scale = kind.split(":")
    return int(precision), int(scale)


def make_tables(rng: random.Random, prefix: str, count: int = 4) -> list[Table]:
    """Tables that can be joined: all have the keys k (an integer) and s (a string) over one small domain."""
    domain = rng.choice([3, 10, 50, 400])
    large = rng.random() < 0.06
    domain = max(domain, 400) if large else domain  # joins stay small
    return [_table(rng, f"{prefix}t{number}", domain, large and number == 0) for number in range(count)]


def _table(rng, name, domain, large) -> Table:
    rows = rng.choice(ROW_COUNTS_LARGE) if large else rng.choice([count for count in ROW_COUNTS if count <= domain * 20])
    columns = [Column("k", rng.choice(["i64", "i64", "i32", "i16", "u32", "u64"]), True), Column("s", "str", False)]
    kinds = ["i8", "i16", "i32", "i64", "i64", "u8", "u16", "u32", "u64", "f32", "f64", "f64", "bool", "bool", "date", "date"]
    kinds += ["ts", "ts", "tz", "time", "str", "str", "str", "bin", "decimal", "decimal"]
    for number in range(rng.choice([2, 3, 4, 5, 6, 9])):
        kind = rng.choice(kinds)
        if kind == "decimal":
            kind = "d:{}:{}".format(*rng.choice(DECIMALS))
        columns.append(Column(f"c{number}", kind, rng.random() < 0.7))
    arrays = [_key(rng, columns[0].kind, rows, domain, rng.random() < 0.25), _string_key(rng, rows, domain)]
    arrays += [_column(rng, column, rows) for column in columns[2:]]
    arrays = [pyarrow.array(values, arrow_type(column.kind)) for values, column in zip(arrays, columns)]
    native = rng.random() < 0.25 and not any(column.kind in NOT_NATIVE for column in columns)
    if not native:
        arrays = [array.cast(_other_type(rng, array.type)) for array in arrays]
    fields = [pyarrow.field(c.name, a.type, nullable=a.null_count > 0 or rng.random() < 0.5) for c, a in zip(columns, arrays)]
    return Table(
        name,
        columns,
        pyarrow.table(arrays, schema=pyarrow.schema(fields)),
        files=rng.choice([1, 1, 2, 3]),
        rows_per_group=rng.choice([10, 64, 1000, 100_000]) if rows <= 500 else rng.choice([1000, 5000, 100_000]),
        native=native,
        dictionary=rng.random() < 0.7,
    )


def _other_type(rng, kind):
    """Sometimes another Arrow type that holds the same values."""
    if kind == pyarrow.string() and rng.random() < 0.25:
        return rng.choice([pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())])
    if kind == pyarrow.timestamp("us") and rng.random() < 0.25:
        return pyarrow.timestamp("ns")
    return kind


def _nulls(rng, values):
    pattern = rng.choice(["none", "none", "some", "some", "many", "runs", "all"])
    if pattern == "none" or (pattern == "all" and rng.random() < 0.5):
        return values
    if pattern == "all":
        return [None] * len(values)
    if pattern == "runs":
        out, null = [], False
        for value in values:
            if rng.random() < 0.1:
                null = not null
            out.append(None if null else value)
        return out
    part = {"some": 0.1, "many": 0.7}[pattern]
    return [None if rng.random() < part else value for value in values]


def _key(rng, kind, rows, domain, unique):
    """Dense, sparse or skewed; with duplicates unless `unique`, and values that other tables lack."""
    low = 0 if kind.startswith("u") else rng.choice([0, 0, -2, 100_000_000 if kind in ("i32", "i64") else 0])
    form = rng.choice(["dense", "dense", "sparse", "skew"] if rows <= 200 else ["dense", "sparse"])
    if unique and rows < 30_000:
        keys = rng.sample(range(max(domain, rows)), rows)
    elif form == "skew":
        keys = [0 if rng.random() < 0.7 else rng.randrange(domain) for _ in range(rows)]
    else:
        keys = [rng.randrange(domain) for _ in range(rows)]
    if low == 100_000_000 and rng.random() < 0.8:
        low = 0
    values = [low + key * (37 if form == "sparse" and kind != "i16" else 1) for key in keys]
    return values if rng.random() < 0.5 else _nulls(rng, values)


def _string_key(rng, rows, domain):
    long = rng.random() < 0.3
    names = [f"key {number} of a longer kind" if long else f"s{number}" for number in range(domain)] + [""]
    return _nulls(rng, [rng.choice(names) for _ in range(rows)])


def _column(rng, column, rows):
    pool = None
    draw = _drawer(rng, column)
    if rng.random() < 0.4:
        pool = [draw() for _ in range(rng.choice([1, 2, 5, 40]))]
    values = [rng.choice(pool) if pool else draw() for _ in range(rows)]
    if rng.random() < 0.1:
        values.sort(key=lambda value: (value != value, value))
    return _nulls(rng, values)


def _drawer(rng, column):
    kind = column.kind
    if kind in INTEGERS:
        return _integers(rng, kind, column.tame)
    if kind in ("f32", "f64"):
        if column.tame:
            return lambda: rng.randint(-4000, 4000) / 4
        tops = FLOATS if kind == "f64" else [value for value in FLOATS if abs(value) < 1e38 or value != value]
        return lambda: rng.choice(tops) if rng.random() < 0.5 else rng.uniform(-1e6, 1e6)
    if kind.startswith("d:"):
        precision, scale = decimal_of(kind)
        digits = min(precision, 4) if column.tame else precision
        top = 10**digits - 1
        return lambda: decimal.Decimal(rng.choice([0, top, -top]) if rng.random() < 0.05 else rng.randint(-top, top)).scaleb(
            -scale, decimal.Context(prec=60)
        )
    if kind == "bool":
        part = rng.choice([0.5, 0.05, 0.95])
        return lambda: rng.random() < part
    if kind == "date":
        first = datetime.date(1970, 1, 1)
        low, high = rng.choice([(-20000, 40000), (8000, 9000), (-3, 3)])
        return lambda: first + datetime.timedelta(days=rng.randint(low, high))
    if kind in ("ts", "tz"):
        step = rng.choice([1, 1_000_000, 3_600_000_000])
        top = rng.choice([10**15, 10**12, 2 * 10**15]) // step
        return lambda: rng.randint(-top, top) * step
    if kind == "time":
        return lambda: rng.randrange(86_400_000_000)
    alphabet = rng.choice(ALPHABETS)
    size = rng.choice([1, 3, 12, 13, 40])
    text = lambda: rng.choice(WORDS) if rng.random() < 0.2 else "".join(rng.choices(alphabet, k=rng.randint(0, size)))  # noqa: E731
    return text if kind == "str" else lambda: text().encode()


def _integers(rng, kind, tame):
    _, low, high = INTEGERS[kind]
    if tame:
        top = rng.choice([1, 5, 100, 1000, 100_000])
        low, high = max(low, -top), min(high, top)
    return lambda: rng.choice([low, high, 0, 1]) if rng.random() < 0.05 else rng.randint(low, high)
