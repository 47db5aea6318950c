"""Tables of numbers: named columns of a file as arrays, refused once with every unusable cell named.

The analyses of whole experiments (losses by size, accuracy by loss, perplexity by checkpoint) start from such a table.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ntkft._errors import refuse
from ntkft.data import columns
from ntkft.data.files import read_file


def read_table(source: str | Path) -> pa.Table:
    """All rows and columns of a `.csv`, `.tsv`, `.jsonl` or `.parquet` file; see `read_file` for what is refused."""
    return read_file(Path(source))


def number_columns(table: pa.Table, names: Sequence[str], *, what: str) -> dict[str, Float[np.ndarray, " rows"]]:
    """The columns `names` as float64 arrays, in that order; `what` opens the message (the file's name).

    Raises one `InputError` for every column that is absent or there twice, and every cell that is empty, no number,
    NaN or infinite. Rows are counted from 1 below the header.
    """
    refuse(what, columns.check_columns(table, names))
    found, problems = {}, []
    for name in names:
        values, wrong = columns.numbers(table, name)
        found[name] = np.array(values, np.float64)
        problems += wrong
    refuse(what, problems)
    return found


def name_column(table: pa.Table, name: str, *, what: str) -> list[str]:
    """The column `name` as words, one for each row; raises `InputError` where it is absent or a cell is empty."""
    refuse(what, columns.check_columns(table, [name]))
    values, problems = columns.class_names(table, name)
    refuse(what, problems)
    return values
