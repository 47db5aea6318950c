"""From the columns of a table to texts, class names and numbers, with every unusable row named.

Each function returns the values and the list of what is wrong with them, so that the caller can refuse a table once,
with all its problems. Rows are counted from 1, a header not included.
"""

import math
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from ntkft.data._listing import listing


def check_columns(table: pa.Table, columns: Sequence[str]) -> list[str]:
    """What keeps `columns` from being read: a name that occurs not once, or a table without rows."""
    there = ", ".join(map(repr, table.column_names))
    problems = [
        f"there is no column {name!r}; the columns are {there}"
        if name not in table.column_names
        else f"column {name!r} occurs several times; the columns are {there}"
        for name in columns
        if table.column_names.count(name) != 1
    ]
    return problems if table.num_rows else [*problems, "there are no rows"]


def texts(table: pa.Table, column: str) -> tuple[list[str], list[str]]:
    """Texts as they stand; refused where missing or blank, or where the column is not text."""
    kind = _value_type(table, column)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        return [], [f"column {column!r} holds {kind}; wanted text"]
    values = table.column(column).to_pylist()
    return [value or "" for value in values], [
        *_bad_rows(column, values, lambda value: value is None, "the text is missing"),
        *_bad_rows(column, values, lambda value: value is not None and not value.strip(), "the text is empty"),
    ]


def drop_empty(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The rows whose texts in these columns are all there and not blank; other types are left to `texts`."""
    rows = zip(*[table.column(name).to_pylist() for name in names], strict=True)
    return table.filter(pa.array([not any(_is_blank(text) for text in row) for row in rows], pa.bool_()))


def class_names(table: pa.Table, column: str) -> tuple[list[str], list[str]]:
    """Labels as words (`1` and `"1"` are the same class); refused where missing."""
    kind = _value_type(table, column)
    if pa.types.is_nested(kind):
        return [], [f"column {column!r} holds {kind}; wanted one label a row"]
    values = table.column(column).to_pylist()
    return [str(value) for value in values], _bad_rows(column, values, _is_missing, "the label is missing")


def numbers(table: pa.Table, column: str) -> tuple[list[float], list[str]]:
    """Finite floats; refused where missing, not a number or infinite."""
    values = table.column(column).to_pylist()
    return [_to_float(value) for value in values], [
        *_bad_rows(column, values, _is_missing, "the number is missing"),
        *_bad_rows(column, values, _is_not_a_number, "this is not a finite number"),
    ]


def _value_type(table: pa.Table, column: str) -> pa.DataType:
    kind = table.schema.field(column).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or value != value  # NaN: how pandas writes a gap


def _is_not_a_number(value: object) -> bool:
    return not _is_missing(value) and not math.isfinite(_to_float(value))


def _to_float(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _bad_rows(column: str, values: list, is_bad: Callable[[Any], bool], complaint: str) -> list[str]:
    bad = [f"{row} ({reprlib.repr(value)})" for row, value in enumerate(values, start=1) if is_bad(value)]
    return [f"column {column!r}: {complaint} in row {listing(bad)}"] if bad else []


def _is_blank(text: object) -> bool:
    return text is None or (isinstance(text, str) and not text.strip())
