"""Whether two results are the same: multisets of rows, and lists of what the query orders by.

Most results are equal as Arrow tables, as they came or sorted; only others are looked at row by row.
"""

import collections
import decimal
import math

import pyarrow

RELATIVE = 1e-9
ABSOLUTE = 1e-9  # for what is the difference of large sums
SORTED_FROM_ROWS = 300  # below, rows are compared faster than sorted


def difference(wanted: pyarrow.Table, found: pyarrow.Table, order, loosely=False) -> str | None:
    """Why `found` is not `wanted`; None when it is. `order` is none, or (columns, whether all rows are there)."""
    if wanted.num_rows != found.num_rows:
        return f"{found.num_rows} rows, not {wanted.num_rows}"
    if wanted.num_columns != found.num_columns:
        return f"{found.num_columns} columns, not {wanted.num_columns}"
    if wanted.schema.types == found.schema.types:
        found = found.rename_columns(wanted.column_names)
        if wanted.equals(found) or (order is None and _equal_sorted(wanted, found)):
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


def _equal_sorted(wanted, found):
    if wanted.num_rows < SORTED_FROM_ROWS:
        return False
    keys = [(name, "ascending") for name in wanted.column_names]
    try:
        return wanted.sort_by(keys).equals(found.sort_by(keys))
    except pyarrow.ArrowException:
        return False  # a type that isn't sorted


def rows_of(table: pyarrow.Table, loosely=False) -> list[tuple]:
    """Rows of Python values; `loosely` brings types together that engines choose differently: dates with timestamps."""
    return list(zip(*(_column(column, loosely) for column in table.columns))) if table.num_columns else []


def _column(column, loosely):
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pyarrow.types.is_timestamp(kind) or pyarrow.types.is_time64(kind) or pyarrow.types.is_duration(kind):
        scale = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}[kind.unit]
        values = column.cast(pyarrow.int64()).to_pylist()
        return [None if value is None else value * scale for value in values]
    if pyarrow.types.is_date32(kind):
        scale = 86_400_000_000_000 if loosely else 1
        return [None if value is None else value * scale for value in column.cast(pyarrow.int32()).to_pylist()]
    if pyarrow.types.is_floating(kind):
        return ["NaN" if value != value else value for value in column.to_pylist()]
    return column.to_pylist()


def _difference_of_sets(wanted: list[tuple], found: list[tuple]) -> str | None:
    if wanted == found:
        return None
    missing = collections.Counter(wanted)
    missing.subtract(collections.Counter(found))
    lost = [row for row, count in missing.items() for _ in range(count) if count > 0]
    extra = [row for row, count in missing.items() for _ in range(-count) if count < 0]
    for want, find in zip(sorted(lost, key=_order), sorted(extra, key=_order)):
        if not _same_row(want, find):
            return f"{len(lost)} of {len(wanted)} rows differ, such as {find}, not {want}"
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
