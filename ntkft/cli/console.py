"""What a person sees: progress on standard error, results on standard output as tables or as JSON."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ntkft.report.record import to_json

_OUT = Console()
_ERR = Console(stderr=True)


def say(sentence: str) -> None:
    """One line about what is going on."""
    _ERR.print(sentence, highlight=False, markup=False)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with elapsed and remaining time; yields the callback `(done, total)` that moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_ERR) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def emit(record: Mapping[str, object], *, as_json: bool, tables: Sequence[Table] = ()) -> None:
    """Print the record as JSON, or the tables for people."""
    if as_json:
        sys.stdout.write(to_json(record) + "\n")
        return
    for table in tables:
        _OUT.print(table)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table with the first column on the left and numbers on the right."""
    result = Table(title=title, title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        result.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        result.add_row(*[str(cell) for cell in row])
    return result


def plain(record: Mapping[str, object]) -> dict:
    """A record as the JSON that `emit` writes, read back."""
    return json.loads(to_json(record))
