"""Whether two results are the same: multisets of rows, and lists of what the query orders by.

Most results are equal as Arrow tables, as they came or sorted; only others are looked at row by row.
"""

import collections
import decimal
import math

import pyarrow
from pyarrow import compute

RELATIVE = 1e-9
ABSOLUTE = 1e-9  # for what is the difference of large sums
SORTED_FROM_CELLS = 300  # below, rows are compared faster than columns
NOT_A_NUMBER = 1.2345678901234567e300  # stands for NaN, which no comparison of Arrow's takes for itself
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}


def difference(wanted: pyarrow.Table, found: pyarrow.Table, order, loosely=False) -> str | None:
    """Why `found` is not `wanted`; None when it is. `order` is none, or (columns, whether all rows are there)."""
    if wanted.num_rows != found.num_rows:
        return f"{found.num_rows} rows, not {wanted.num_rows}"
    if wanted.num_columns != found.num_columns:
        return f"{found.num_columns} columns, not {wanted.num_columns}"
    if wanted.num_rows * wanted.num_columns >= SORTED_FROM_CELLS and _equal_as_columns(wanted, found, order, loosely):
        return None
    wants, finds = rows_of(wanted, loosely), rows_of(found, loosely)
    if order is None:
        return _difference_of_sets(wants, finds)
    columns, whole = order
    for number, (want, find) in enumerate(zip(wants, finds)):
        keys = [(want[column], find[column]) for column in columns]
        if not all(_same(*pair) for pair in keys):
            return f"row {number}: {find}, not {want}"
    return _difference_of_sets(wants, finds) if whole and len(columns) < wanted.num_columns else None


def _equal_as_columns(wanted, found, order, loosely):
    """Whether they are the same for sure, as they came or sorted."""
    try:
        wanted, found = (_canonical(table, loosely) for table in (wanted, found))
        if wanted.schema.types != found.schema.types:
            return False
        if wanted.equals(found):
            return True
        keys = [(name, "ascending") for name in wanted.column_names]
        return order is None and wanted.sort_by(keys).equals(found.sort_by(keys))
    except pyarrow.ArrowException:
        return False  # what has no such form is compared row by row


def _canonical(table, loosely):
    columns = [_canonical_column(column, loosely) for column in table.columns]
    return pyarrow.table(columns, names=[str(number) for number in range(len(columns))])


def _canonical_column(column, loosely):
    kind, types = column.type, pyarrow.types
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_timestamp(kind) or types.is_time64(kind) or types.is_duration(kind):
        return compute.multiply_checked(column.cast(pyarrow.int64()), NANOSECONDS[kind.unit])
    if types.is_date32(kind):
        return compute.multiply_checked(column.cast(pyarrow.int32()).cast(pyarrow.int64()), 86_400_000_000_000 if loosely else 1)
    if types.is_integer(kind) and loosely:
        return column.cast(pyarrow.decimal128(38, 0))
    if types.is_decimal(kind):
        return column.cast(pyarrow.decimal128(38, kind.scale))
    if types.is_floating(kind):
        column = column.cast(pyarrow.float64())
        return compute.if_else(compute.is_nan(column), NOT_A_NUMBER, column)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return column.cast(pyarrow.string())
    return column


def rows_of(table: pyarrow.Table, loosely=False) -> list[tuple]:
    """Rows of Python values; `loosely` brings types together that engines choose differently: dates with timestamps."""
    return list(zip(*(_column(column, loosely) for column in table.columns))) if table.num_columns else []


def _column(column, loosely):
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pyarrow.types.is_timestamp(kind) or pyarrow.types.is_time64(kind) or pyarrow.types.is_duration(kind):
        scale = NANOSECONDS[kind.unit]
        values = column.cast(pyarrow.int64()).to_pylist()
        return [None if value is None else value * scale for value in values]
    if pyarrow.types.is_date32(kind):
        scale = 86_400_000_000_000 if loosely else 1
        return [None if value is None else value * scale for value in column.cast(pyarrow.int32()).to_pylist()]
    if pyarrow.types.is_floating(kind):
        return ["NaN" if value != value else value for value in column.to_pylist()]
    return column.to_pylist()


# Rows that are looked through for one that is the same.
NEAR_ROWS = 1000


def _difference_of_sets(wanted: list[tuple], found: list[tuple]) -> str | None:
    if wanted == found:
        return None
    missing = collections.Counter(wanted)
    missing.subtract(collections.Counter(found))
    lost = [row for row, count in missing.items() for _ in range(count) if count > 0]
    extra = [row for row, count in missing.items() for _ in range(-count) if count < 0]
    extra.sort(key=_order)
    for place, want in enumerate(sorted(lost, key=_order)):
        # Floats that differ in their last bits may have sorted otherwise.
        near = (at for at in range(place, min(len(extra), place + NEAR_ROWS)) if _same_row(want, extra[at]))
        match = next(near, None)
        if match is None:
            return f"{len(lost)} of {len(wanted)} rows differ, such as {extra[place]}, not {want}"
        extra[place], extra[match] = extra[match], extra[place]
    return None


def _order(row):
    """Floats last, and roughly: their last bits are free."""
    exact = [(value is not None, str(type(value)), str(value)) for value in row if not isinstance(value, float)]
    return exact, [(value is not None, value or 0.0) for value in row if isinstance(value, float)]


def _same_row(wanted, found):
    return all(_same(want, find) for want, find in zip(wanted, found))


def _same(wanted, found):
    if isinstance(wanted, float) and isinstance(found, (float, int, decimal.Decimal)):
        found = float(found)
        return wanted == found or math.isclose(wanted, found, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return wanted == found
