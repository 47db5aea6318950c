"""`ntkft law`: the rectified and the vanilla law fitted to a table of losses, and how well the data determine them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ntkft import plots
from ntkft._errors import InputError
from ntkft.cli.console import emit, progress, say, table
from ntkft.cli.loss_table import read_loss_table
from ntkft.plots.scaling import law_fits
from ntkft.plots.style import SERIES
from ntkft.report.record import to_json
from ntkft.scaling import Fit, LossCurve, Rectified, Vanilla, bootstrap_fit, fit_rectified, fit_vanilla

_FEWEST = 6
"""Points of an interval: two more than the law has parameters."""
_NAMED = 5
"""Curves that an error names."""


def law(
    source: Annotated[Path, tyro.conf.Positional],
    *,
    curve: str | None = None,
    draws: int = 200,
    level: float = 0.9,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Fit loss by training-set size: L(D) = B/(D_l + D^β) + E, beside the vanilla law (B/D^β + E)^α.

    Both are least squares of log L over the points with D > 0, as the published figures are; the loss at D = 0 is left
    to `ntkft select`. Means are over the curves that a law could be fitted to. A parameter is not identified where its
    interval spans more than a factor of ten: then trust what the law says between the data, not the parameter.

    Args:
        source: a .csv, .tsv, .jsonl or .parquet file with a row for each model: its name (config name, name or model)
            and a column for each number of training examples, headed by it, with the loss.
        curve: fit this model alone.
        draws: bootstrap samples behind the intervals, a refit each; 0 for fits without intervals.
        level: of the intervals.
        seed: of the draws.
        out: folder for law.json, and laws.png with the first nine curves that were fitted.
        json: print the result as JSON.
    """
    curves = [found.fine_tuned for found in _chosen(read_loss_table(source), source, curve)]
    if draws < 0:
        raise InputError(f"--draws: got {draws}; wanted bootstrap samples, or 0 for no intervals")
    fits, rivals, rows = [], [], []
    with progress("fitting") as done:
        for position, points in enumerate(curves, start=1):
            fits.append(fit_rectified(points))
            rivals.append(fit_vanilla(points))
            rows.append(curve_record(points, fits[-1], rivals[-1], draws=draws, level=level, seed=seed))
            done(position, len(curves))
    record = law_record(rows) | {"level": level, "draws": draws, "seed": seed}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "law.json").write_text(to_json(record))
        drawn = [place for place, fit in enumerate(fits) if fit.law is not None][: len(SERIES)]
        if drawn:
            title = source.name if len(drawn) == len(curves) else f"{source.name}: {len(drawn)} of {len(curves)} models"
            shown = [curves[i] for i in drawn], [fits[i] for i in drawn], [rivals[i] for i in drawn]
            plots.save(law_fits(*shown, title), out / "laws.png")
        say(f"wrote {out}/law.json" + (", laws.png" if drawn else "; there is no law to draw"))
    emit(record, as_json=json, tables=law_tables(record))


def curve_record(
    curve: LossCurve, fit: Fit[Rectified], other: Fit[Vanilla], *, draws: int, level: float, seed: int
) -> dict[str, Any]:
    """Both fits of one curve, and the interval of the rectified law.

    Parameters, knee, steepest and the interval are None where there are none; `status` says why. `not_identified` names
    the parameters that the interval found so, None where there is no interval to tell.
    """
    record: dict[str, Any] = {"name": curve.name, "points": fit.points, "status": fit.status}
    record |= _parameters(fit, Rectified) | {"log_rmsd": fit.log_rmsd}
    record |= {"knee": None, "steepest": None, "interval": None, "not_identified": None}
    if fit.law is not None:
        record |= {"knee": fit.law.knee, "steepest": fit.law.steepest}
        if fit.points < _FEWEST:
            record["status"] += f"; no interval: {fit.points} points, {_FEWEST} wanted"
        elif draws:
            found = bootstrap_fit(curve, size=curve.sizes[-1], draws=draws, level=level, seed=seed)
            assert found is not None  # fitted above
            record |= {"interval": found.parameters, "not_identified": found.not_identified}
    record["vanilla"] = _parameters(other, Vanilla) | {"log_rmsd": other.log_rmsd, "status": other.status}
    return record


def law_record(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The curves, and the mean log-RMSD of each law over those that it was fitted to (NaN where there are none)."""
    errors = {
        "rectified": [row["log_rmsd"] for row in rows if row["B"] is not None],
        "vanilla": [row["vanilla"]["log_rmsd"] for row in rows if row["vanilla"]["B"] is not None],
    }
    means = {name: float(np.mean(values)) if values else float("nan") for name, values in errors.items()}
    return {"mean_log_rmsd": means, "curves": list(rows)}


def law_tables(record: dict[str, Any]) -> list:
    """A row for each curve; B and D_l, which say little alone, are left to the JSON."""
    means = record["mean_log_rmsd"]

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    def row(found: dict[str, Any]) -> tuple[str, ...]:
        if found["B"] is None:
            return found["name"], *[""] * 5, found["status"]
        wide = found["not_identified"]
        return (
            found["name"],
            number(found["log_rmsd"], ".4f"),
            number(found["vanilla"]["log_rmsd"], ".4f"),
            *[number(found[name], ".3g") for name in ("beta", "E", "knee")],
            "unknown" if wide is None else ", ".join(wide),
        )

    title = (
        f"L(D) = B/(D_l + D^β) + E on D > 0; mean log-RMSD {means['rectified']:.5f}, vanilla law {means['vanilla']:.5f}"
    )
    columns = ("curve", "log-RMSD", "vanilla", "β", "E", "knee", "not identified")
    return [table(title, columns, [row(found) for found in record["curves"]])]


def _chosen(curves: list[LossCurve], source: Path, name: str | None) -> list[LossCurve]:
    """All curves, or the one of this name."""
    chosen = [found for found in curves if name is None or found.name == name]
    if not chosen:
        more = f" and {len(curves) - _NAMED} more" if len(curves) > _NAMED else ""
        there = ", ".join(found.name for found in curves[:_NAMED])
        raise InputError(f"--curve: {source} has no model {name!r}; it has {there}{more}")
    return chosen


def _parameters(fit: Fit, law: type[Rectified] | type[Vanilla]) -> dict[str, float | None]:
    """Its parameters by name, all None where nothing was fitted."""
    return dict.fromkeys(law.__dataclass_fields__) if fit.law is None else asdict(fit.law)
