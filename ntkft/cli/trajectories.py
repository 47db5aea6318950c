"""`ntkft trajectories`: how the perplexity of every token moves over the checkpoints of one training run."""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float

from ntkft._errors import InputError
from ntkft.cli.console import emit, say, table
from ntkft.data import tables
from ntkft.plots import trajectories as figures
from ntkft.plots.style import save
from ntkft.report.record import to_json
from ntkft.trajectories import (
    BAND,
    LEVEL,
    TOLERANCE,
    DoubleDescent,
    TokenTrends,
    double_descent,
    group_curves,
    token_trends,
)


def trajectories(
    perplexities: Annotated[Path, tyro.conf.Positional],
    *,
    start: float = 0.0,
    steps: str | None = None,
    level: float = LEVEL,
    band: float = BAND,
    tolerance: float = TOLERANCE,
    name_column: str | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Trends and double descents of tokens, from their perplexities at the checkpoints of one training run.

    Args:
        perplexities: a row for each token, a column for each checkpoint in order of training: .npy, or .csv, .tsv,
            .jsonl, .parquet with the names of the checkpoints above.
        start: share of training at which the series begin: 0 takes the whole table; the paper uses 0.1.
        steps: training steps of the checkpoints, such as 1,10,100,1000. Equally spaced when not given.
        level: level of the t-test of a trend.
        band: a stagnated token begins and ends within this relative distance of its geometric mean.
        tolerance: in log perplexity, what a token must fall, rise and fall again to show double descent; not told
            apart (null) with three checkpoints.
        name_column: column with the names of the tokens; every other column is a checkpoint.
        out: folder for trajectories.json, tokens.csv and figures.
        json: print the result as JSON.
    """
    values, tokens, checkpoints = _read(perplexities, name_column)
    given = None if steps is None else _steps(steps)
    trends = token_trends(values, start=start, level=level, band=band, steps=given)
    if steps is not None:
        checkpoints = [each.strip() for each in steps.split(",")]
    series = values[:, trends.first :]
    # Falling, rising and falling again takes four checkpoints; a trend takes three.
    descent = double_descent(series, tolerance=tolerance) if series.shape[1] > 3 else None
    curves = group_curves(values, trends.labels)
    record = {
        "tokens": len(values),
        "checkpoints": checkpoints,
        "start": start,
        "first_checkpoint": checkpoints[trends.first],
        "level": level,
        "band": band,
        "fractions": trends.fractions,
        "counts": trends.counts,
        "double_descent": None
        if descent is None
        else {"tolerance": descent.tolerance, "count": int(descent.shows.sum()), "share": descent.share},
        "curves": curves,
    }
    if out is not None:
        save(figures.trend_fractions({perplexities.stem: trends.fractions}), out / "trends.png")
        save(figures.group_perplexity(curves, trends.counts, checkpoints, first=trends.first), out / "groups.png")
        if descent is not None:
            drawn = figures.double_descent_tokens(values, descent, tokens, checkpoints, first=trends.first)
            save(drawn, out / "double_descent.png")
        _write_tokens(out / "tokens.csv", tokens, trends, descent)
        (out / "trajectories.json").write_text(to_json(record))
        say(f"wrote {out}/trajectories.json, tokens.csv and figures")
    emit(record, as_json=json, tables=[_summary(record, trends, descent)])


def _read(source: Path, names: str | None) -> tuple[Float[np.ndarray, "t s"], list[str], list[str]]:
    """Perplexities `[t, s]`, names of the tokens and of the checkpoints; both are numbers from 1 where not given."""
    if source.suffix.lower() == ".npy":
        if names is not None:
            raise InputError(f"--name-column: {source} is an array without names; leave the flag out")
        values = _read_array(source)
        return values, _numbers(values.shape[0]), _numbers(values.shape[1])
    rows = tables.read_table(source)
    tokens = _numbers(rows.num_rows) if names is None else tables.name_column(rows, names, what=str(source))
    checkpoints = [column for column in rows.column_names if column != names]
    if not checkpoints:
        raise InputError(f"{source}: there is no checkpoint; every column but --name-column is one")
    what = f"{source} (a column that is no checkpoint must be named by --name-column)"
    columns = tables.number_columns(rows, checkpoints, what=what)
    return np.stack(list(columns.values()), axis=1), tokens, checkpoints


def _read_array(source: Path) -> np.ndarray:
    if not source.is_file():
        raise InputError(f"{source}: there is no such file")
    try:
        values = np.load(source, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{source}: cannot be read as an array: {error}") from error
    if values.dtype.kind not in "iuf" or values.ndim != 2:
        got = f"{values.dtype} {list(values.shape)}"
        raise InputError(f"{source}: holds {got}; wanted numbers [tokens, checkpoints]")
    return values.astype(np.float64)


def _steps(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise InputError(f"--steps: got {text!r}; wanted numbers with commas between them, such as 1,10,100") from None


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def _write_tokens(file: Path, tokens: list[str], trends: TokenTrends, descent: DoubleDescent | None) -> None:
    """One row for each token: what the counts count."""
    depths = [""] * len(tokens) if descent is None else descent.depth.tolist()
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["token", "trend", "slope", "p_value", "descent_depth"])
        writer.writerows(
            zip(tokens, trends.labels, trends.slopes.tolist(), trends.p_values.tolist(), depths, strict=True)
        )


def _summary(record: dict, trends: TokenTrends, descent: DoubleDescent | None):
    used = len(record["checkpoints"]) - trends.first
    rows = [(trend, f"{count:,}", f"{trends.fractions[trend]:.1%}") for trend, count in trends.counts.items()]
    if descent is not None:
        rows.append((f"double descent (> {descent.tolerance:g})", f"{descent.shows.sum():,}", f"{descent.share:.1%}"))
    title = f"{len(trends.labels):,} tokens, {used} checkpoints from {record['first_checkpoint']!r} on"
    return table(title, ("trend", "tokens", "share"), rows)
