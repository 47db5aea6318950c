"""`ntkft emergence`: whether the scores of a table have a threshold in the loss, beside the line that needs none.

A row is a model: its loss on one validation text, and its score. Losses of models trained on different corpora say
different things about the same score, so nothing is ever pooled over the groups of `--by`: with it all numbers are
those of the groups, and without it the table is taken for one group.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ntkft import plots
from ntkft._errors import InputError
from ntkft.cli.console import emit, say, table
from ntkft.data.tables import name_column, number_columns, read_table
from ntkft.emergence import Threshold, chance_normalised, find_threshold
from ntkft.plots.emergence import Points, score_over_loss, scores_over_loss
from ntkft.report.record import to_json

_NAMED = 5
"""Rows that an error names."""


def emergence(
    source: Annotated[Path, tyro.conf.Positional],
    *,
    loss: str,
    score: str,
    by: str | None = None,
    chance: float | None = None,
    level: float = 0.95,
    draws: int = 999,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Find the loss below which a score leaves chance, where a straight line does not do as well.

    Args:
        source: a .csv, .tsv, .jsonl or .parquet file with a row for each model.
        loss: column of the losses.
        score: column of the scores, higher is better.
        by: column of groups with losses of their own (training corpora, tasks): one result for each, none over all.
        chance: accuracy of a guess, 0.25 for four options; scores are then (score − chance)/(1 − chance). When not
            given, the scores are taken to be 0 at chance.
        level: of the interval of η.
        draws: bootstrap samples of the models, and simulated lines.
        seed: of both.
        out: folder for emergence.json and emergence.png.
        json: print the result as JSON.
    """
    groups = read_groups(source, loss, score, by, chance)
    found: dict[str, Points] = {
        name: (losses, scores, find_threshold(losses, scores, level=level, draws=draws, seed=seed))
        for name, (losses, scores) in groups.items()
    }
    record = emergence_record(found, grouped=by is not None)
    if out is not None:
        title = f"{score} over {loss}"
        figure = scores_over_loss(found, title) if by is not None else score_over_loss(*found[source.name], title)
        plots.save(figure, out / "emergence.png")
        (out / "emergence.json").write_text(to_json(record))
        say(f"wrote {out}/emergence.json, emergence.png")
    emit(record, as_json=json, tables=emergence_tables(found, score, loss, level))


def read_groups(
    source: Path, loss: str, score: str, by: str | None, chance: float | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Group → losses and normalised scores; the file's own name when there is one group.

    Raises `InputError` for whatever cannot be read, losses that are not above 0, and accuracies outside 0 … 1.
    """
    rows, what = read_table(source), source.name
    columns = number_columns(rows, [loss, score], what=what)
    losses, scores = columns[loss], columns[score]
    if (bad := np.flatnonzero(losses <= 0)).size:
        rows_named = ", ".join(str(row + 1) for row in bad[:_NAMED]) + (", …" if bad.size > _NAMED else "")
        values = ", ".join(f"{value:g}" for value in losses[bad[:_NAMED]])
        raise InputError(
            f"{what}: column {loss!r}: the loss is not above 0 in row {rows_named} ({values}); "
            "mend or leave out these models, or name another column with --loss"
        )
    if chance is not None:
        scores = chance_normalised(scores, chance)
    if by is None:
        return {what: (losses, scores)}
    names = np.array(name_column(rows, by, what=what))
    return {str(name): (losses[names == name], scores[names == name]) for name in dict.fromkeys(names.tolist())}


def emergence_record(found: dict[str, Points], *, grouped: bool) -> dict[str, Any]:
    """One result with an empty `by`; or for groups `by`, and nothing that would be pooled over them."""
    records = {name: asdict(threshold) for name, (_, _, threshold) in found.items()}
    if not grouped:
        (record,) = records.values()
        return record | {"by": {}}
    pooled = dict.fromkeys(("eta", "interval", "delta_aic", "spearman"))
    reason = "losses of different groups are not pooled; see each group"
    return pooled | {"status": "not identified", "reason": reason, "by": records}


def emergence_tables(found: dict[str, Points], score: str, loss: str, level: float) -> list:
    """A row for each group."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    def row(name: str, result: Threshold) -> tuple[str, ...]:
        ends = "" if result.interval is None else f" ({result.interval[0]:.3f}–{result.interval[1]:.3f})"
        return (
            name,
            str(result.n),
            number(result.spearman, "+.3f"),
            number(result.delta_aic, "+.1f"),
            number(result.delta_aic_exponential, "+.1f"),
            number(result.eta, ".3f") + ends,
            result.status if result.delta_aic is not None else f"{result.status}: {result.reason}",
        )

    title = f"{score} over {loss}; ΔAIC = AIC(line or exponential) − AIC(hinge); η with {level:.0%} interval"
    columns = ("", "n", "Spearman", "ΔAIC line", "ΔAIC exp.", "η", "result")
    return [table(title, columns, [row(name, result) for name, (_, _, result) in found.items()])]
