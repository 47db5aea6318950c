"""`ntkft select`: which of a table's models to fine-tune on all data, from what small training sets showed."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ntkft import scaling
from ntkft._errors import InputError
from ntkft.cli.console import emit, say, table
from ntkft.cli.loss_table import read_loss_table
from ntkft.report.record import to_json
from ntkft.scaling.accept_then_stop import FEWEST
from ntkft.scaling.selection import INTERVAL_LEVEL, Selector

_EQUAL = 1e-9
"""Scores whose relative spread is below this differ by rounding only."""
_NAMED = 5
"""Models that a status names."""


def select(
    source: Annotated[Path, tyro.conf.Positional],
    *,
    budget_fraction: str,
    method: Selector,
    target: float | None = None,
    paper_sign: bool = False,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Rank the models of a table by the loss they will have on a large training set, from small ones.

    Args:
        source: a .csv, .tsv, .jsonl or .parquet file with a row for each model: its name (config name, name or model),
            a column for each number of training examples, headed by it, with the loss, and optionally the number of
            parameters (size, parameters or params).
        budget_fraction: the methods see training sets up to this fraction of the target, such as 1/8 or 0.125.
        method: ats (Accept-then-Stop), subtuning (loss at the largest size seen), zeroshot (loss at 0 examples), size
            (larger is better), rectified or vanilla (that law fitted to each model), pooled (models fitted together,
            one exponent for all).
        target: examples of the large training set; the largest of the table when not given. Where the table has no
            such column there is nothing to judge the ranking by, and pear_corr and rel_acc are null.
        paper_sign: give the correlation of size the published sign, which is turned round; other methods are as
            published.
        out: folder for select.json.
        json: print the result as JSON.
    """
    curves = read_loss_table(source)
    size = max(curve.sizes[-1] for curve in curves) if target is None else target
    fraction = _fraction(budget_fraction)
    found = scaling.select(curves, method=method, budget=size * float(fraction), target=size)
    status = _status(found, [curve.up_to(found.budget) for curve in curves])
    record = selection_record(found, status, [curve.at(size) for curve in curves], paper_sign=paper_sign)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "select.json").write_text(to_json(record))
        say(f"wrote {out}/select.json")
    emit(record, as_json=json, tables=selection_tables(record, str(fraction)))


def selection_record(
    found: scaling.Selection, status: str, true_losses: Sequence[float | None], *, paper_sign: bool
) -> dict[str, Any]:
    """What a selector says and how good it was; no ranking of models without a score, none of equal scores."""
    ranking = [] if _all_equal(found.scores) else found.ranking[: int(np.isfinite(found.scores).sum())]
    pear_corr = rel_acc = float("nan")
    known = np.array([np.nan if loss is None else loss for loss in true_losses])
    if ranking and np.all(np.isfinite(known)):
        pear_corr, rel_acc = scaling.pearson(found.scores, known), scaling.relative_accuracy(found.scores, known)
    return {
        "method": found.method,
        "budget": found.budget,
        "target": found.target,
        "status": status,
        "pear_corr": -pear_corr if paper_sign and found.method == "size" else pear_corr,
        "rel_acc": rel_acc,
        "ranking": ranking,
        "predicted": found.predicted,
        "interval": found.interval,
        "interval_level": INTERVAL_LEVEL if found.interval else None,
        "scores": dict(zip(found.names, map(float, found.scores), strict=True)),
    }


def selection_tables(record: dict[str, Any], fraction: str) -> list:
    """A row for each ranked model, best first."""

    def row(place: int, name: str) -> tuple[str, ...]:
        low, high = record["interval"].get(name, (None, None))
        loss = record["predicted"].get(name)
        return (
            f"{place}. {name}",
            f"{record['scores'][name]:.4f}" if loss is None else f"{loss:.4f}",
            "" if low is None else f"{low:.4f}–{high:.4f}",
        )

    judged = "" if np.isnan(record["rel_acc"]) else f"; RelAcc {record['rel_acc']:.3f}"
    if not np.isnan(record["pear_corr"]):
        judged = f"; PearCorr {record['pear_corr']:+.3f}" + judged
    title = (
        f"{record['method']} for {record['target']:,.10g} examples, from {record['budget']:,.10g} ({fraction}): "
        f"{record['status']}{judged}"
    )
    score = "score" if not record["predicted"] else "loss"
    columns = ("model", score, f"{INTERVAL_LEVEL:.0%} interval" if record["interval"] else "")
    return [table(title, columns, [row(*each) for each in enumerate(record["ranking"], start=1)])]


def _status(found: scaling.Selection, shown: Sequence[scaling.LossCurve]) -> str:
    """That there is a ranking, or what the budget does not determine."""
    missing = [name for name, score in zip(found.names, found.scores, strict=True) if not np.isfinite(score)]
    points = min(len(curve.fine_tuned.sizes) for curve in shown)
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        return f"not identified: no score for {', '.join(missing[:_NAMED])}{more}; raise the budget"
    if _all_equal(found.scores):
        return "not identified: all scores are equal"
    if found.method == "ats" and points < FEWEST:
        return f"not identified: {points} points within the budget, a line without residuals; raise the budget"
    if found.method == "pooled" and not scaling.fit_pooled(shown).identified:
        return "ranked; the curves do not say how much they bend"
    return "ranked"


def _all_equal(scores: np.ndarray) -> bool:
    finite = scores[np.isfinite(scores)]
    return len(finite) > 1 and bool(np.ptp(finite) <= _EQUAL * np.max(np.abs(finite)))


def _fraction(text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 0 < value < 1:
        raise InputError(f"--budget-fraction: got {text!r}; wanted a number between 0 and 1, such as 1/8 or 0.125")
    return value
