"""Tables of losses: a row for each model, a column for each number of training examples.

Columns whose header is a number hold the losses at that many examples. The names stand in `config name`, `name` or
`model`, numbers of parameters (optional) in `size`, `parameters` or `params`; other columns are left alone.
"""

from pathlib import Path

from ntkft._errors import InputError, refuse
from ntkft.data.tables import name_column, number_columns, read_table
from ntkft.scaling import LossCurve, loss_curve

NAMES = ("config name", "name", "model")
PARAMETERS = ("size", "parameters", "params")


def read_loss_table(source: Path) -> list[LossCurve]:
    """One curve for each row, in the order of the table; raises one `InputError` with all that is wrong with it."""
    table = read_table(source)
    sizes = {column: size for column in table.column_names if (size := _number(column)) is not None}
    names = [column for column in NAMES if column in table.column_names]
    if not sizes or not names:
        raise InputError(
            f"{source}: got the columns {', '.join(map(repr, table.column_names))}; wanted the names of the models in "
            f"one of {', '.join(map(repr, NAMES))}, and losses in columns headed by numbers of examples, such as 200"
        )
    rows = name_column(table, names[0], what=str(source))
    losses = number_columns(table, list(sizes), what=str(source))
    given = [column for column in PARAMETERS if column in table.column_names]
    parameters = number_columns(table, given[:1], what=str(source)) if given else {}
    curves: list[LossCurve] = []
    twice = sorted({name for name in rows if rows.count(name) > 1})
    problems = [f"model {name!r} is there {rows.count(name)} times; wanted one row for each" for name in twice]
    for row, name in enumerate(rows):
        measured = [float(column[row]) for column in losses.values()]
        count = float(parameters[given[0]][row]) if given else None
        try:
            curves.append(loss_curve(name, list(sizes.values()), measured, count))
        except InputError as error:
            problems.append(str(error))
    refuse(str(source), problems)
    return curves


def _number(column: str) -> float | None:
    try:
        return float(column)
    except ValueError:
        return None
