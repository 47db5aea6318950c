"""Tables from files: the ending of the name says how to read them, pyarrow does the reading.

CSV and TSV carry no types, so every column is read as text and what it means is decided where it is used; the same
rows therefore give the same task in every format. TSV is read without quoting: data sets for language processing are
written that way, and their sentences hold unpaired quote characters.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, json, parquet

from ntkft._errors import InputError


def read_file(path: Path) -> pa.Table:
    """All rows and columns of a `.tsv`, `.csv`, `.jsonl` or `.parquet` file.

    Raises `InputError` if the ending is another one, or the file is missing, empty or malformed.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"data {str(path)!r}: the name must end in one of {', '.join(READERS)}")
    if not path.is_file():
        raise InputError(f"data {str(path)!r}: there is no such file")
    if path.stat().st_size == 0:
        raise InputError(f"data {str(path)!r}: the file is empty")
    try:
        return read(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"data {str(path)!r}: cannot be read as {path.suffix}: {error}") from error


def _tsv(path: Path) -> pa.Table:
    return _delimited(path, csv.ParseOptions(delimiter="\t", quote_char=False))


def _csv(path: Path) -> pa.Table:
    return _delimited(path, csv.ParseOptions(newlines_in_values=True))


def _delimited(path: Path, parse: csv.ParseOptions) -> pa.Table:
    with csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    as_text = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return csv.read_csv(path, parse_options=parse, convert_options=as_text)


def _json_lines(path: Path) -> pa.Table:
    table = json.read_json(path)
    # pyarrow takes text like "2026-01-31" for a time; a column named in a schema keeps the characters.
    times = [field.with_type(pa.string()) for field in table.schema if pa.types.is_timestamp(field.type)]
    return json.read_json(path, parse_options=json.ParseOptions(explicit_schema=pa.schema(times))) if times else table


def _parquet(path: Path) -> pa.Table:
    return parquet.read_table(path)


READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".tsv": _tsv,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
"""The formats, by ending."""
