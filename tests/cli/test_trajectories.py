"""`ntkft trajectories`: from a table of perplexities to shares, a row for each token, and figures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tyro

from ntkft._errors import InputError
from ntkft.cli.trajectories import trajectories
from ntkft.trajectories import BAND, LEVEL, double_descent, group_curves, token_trends

CHECKPOINTS = [f"step{10 * i}" for i in range(1, 13)]


@pytest.fixture
def values() -> np.ndarray:
    """Forty tokens: ten that rise, ten that fall, ten that stay, ten that fall, rise and fall again."""
    x, noise = np.arange(12), np.random.default_rng(0).standard_normal((40, 12))
    means = [50 + 2 * x, 80 - 3 * x, np.full(12, 60), 60 * np.exp(0.5 * np.cos(x * 3 * np.pi / 11))]
    return np.repeat(np.stack(means), 10, axis=0) + 0.3 * noise


def write_csv(file: Path, values: np.ndarray, names: list[str] | None = None) -> Path:
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(([] if names is None else ["token"]) + CHECKPOINTS[: values.shape[1]])
        rows = values.tolist()
        writer.writerows(rows if names is None else [[name, *row] for name, row in zip(names, rows, strict=True)])
    return file


def printed(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_table_becomes_shares_and_the_library_agrees(tmp_path, values, capsys):
    np.save(tmp_path / "ppl.npy", values)
    trajectories(tmp_path / "ppl.npy", start=0.2, json=True)
    record = printed(capsys)
    trends = token_trends(values, start=0.2, level=LEVEL, band=BAND)
    descent = double_descent(values[:, trends.first :], tolerance=0.1)
    assert record["tokens"] == 40
    assert record["first_checkpoint"] == "3"
    assert record["counts"] == trends.counts
    assert record["fractions"] == trends.fractions
    assert record["double_descent"] == {
        "tolerance": 0.1,
        "count": int(descent.shows.sum()),
        "share": descent.share,
    }
    for group, curve in group_curves(values, trends.labels).items():
        np.testing.assert_allclose(record["curves"][group], curve, rtol=1e-14)
    assert record["counts"]["upward"] >= 10
    assert record["counts"]["downward"] >= 10


def test_csv_and_npy_say_the_same_and_figures_are_written(tmp_path, values, capsys):
    names = [f"word {i}" for i in range(39)] + ["a $ and\na line"]
    out = tmp_path / "out"
    table = write_csv(tmp_path / "ppl.csv", values, names)
    trajectories(table, start=0.0, name_column="token", out=out, json=True)
    named = printed(capsys)
    np.save(tmp_path / "ppl.npy", values)
    trajectories(tmp_path / "ppl.npy", start=0.0, json=True)
    plain = printed(capsys)
    assert named["checkpoints"] == CHECKPOINTS
    assert {**plain, "checkpoints": 0, "first_checkpoint": 0} == {**named, "checkpoints": 0, "first_checkpoint": 0}
    assert named["double_descent"]["count"] >= 10
    figures = {"trends.png", "groups.png", "double_descent.png"}
    assert {file.name for file in out.iterdir()} == figures | {"trajectories.json", "tokens.csv"}
    assert json.loads((out / "trajectories.json").read_text()) == named
    with (out / "tokens.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["token"] for row in rows] == names
    assert {trend: sum(row["trend"] == trend for row in rows) for trend in named["counts"]} == named["counts"]
    assert sum(float(row["descent_depth"]) > 0.1 for row in rows) == named["double_descent"]["count"]


def test_flags_are_read_and_people_get_a_table(tmp_path, values, capsys):
    np.save(tmp_path / "ppl.npy", values[:, :5])
    flags = [str(tmp_path / "ppl.npy"), "--start", "0.1", "--steps", "1,10,100,1000,5000", "--level", "0.01"]
    with pytest.raises(InputError, match=r"2 of 5 checkpoints are at or after the share 0.1 of training"):
        tyro.cli(trajectories, args=flags)
    tyro.cli(trajectories, args=[*flags[:2], "0.01", *flags[3:]])
    shown = " ".join(capsys.readouterr().out.split())
    assert "40 tokens, 3 checkpoints from '100' on" in shown
    assert "stagnated" in shown
    assert "double descent" not in shown  # three checkpoints cannot tell
    tyro.cli(trajectories, args=[*flags[:2], "0.01", *flags[3:], "--json"])
    assert printed(capsys)["double_descent"] is None
    tyro.cli(trajectories, args=flags[:3])
    assert "double descent (> 0.1)" in capsys.readouterr().out


def spoilt(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[3, 2] = value
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: spoilt(v, np.nan), r"'step30': this is not a finite number in row 4 \('nan'\)"),
        (lambda v: spoilt(v, np.inf), "'step30': this is not a finite number in row 4"),
        (lambda v: spoilt(v, 0), r"1 of 480 perplexities are not positive \(token 4 checkpoint 3"),
        (lambda v: spoilt(v, -1), "1 of 480 perplexities are not positive"),
        (lambda v: v[:, :2], "2 of 2 checkpoints are at or after the share 0.1 of training"),
        (lambda v: v[:0], "there are no rows"),
    ],
)
def test_bad_csv_tables_are_one_clear_error(tmp_path, values, change, message):
    with pytest.raises(InputError, match=message):
        trajectories(write_csv(tmp_path / "ppl.csv", change(values)), start=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: spoilt(v, np.nan), r"1 of 480 perplexities are NaN or infinite \(token 4 checkpoint 3"),
        (lambda v: v[:0], r"shape \[0, 12\]; wanted \[tokens, checkpoints\]"),
        (lambda v: v[0], r"holds float64 \[12\]; wanted numbers \[tokens, checkpoints\]"),
        (lambda v: v.astype("U8"), r"holds <U8 \[40, 12\]; wanted numbers"),
        (lambda v: v.astype(object), "cannot be read as an array"),
    ],
)
def test_bad_arrays_are_one_clear_error(tmp_path, values, change, message):
    np.save(tmp_path / "ppl.npy", change(values))
    with pytest.raises(InputError, match=message):
        trajectories(tmp_path / "ppl.npy", start=0.1)


def test_files_and_flags_that_do_not_fit_are_one_clear_error(tmp_path, values):
    with pytest.raises(InputError, match="there is no such file"):
        trajectories(tmp_path / "none.npy", start=0.1)
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    with pytest.raises(InputError, match="cannot be read as an array"):
        trajectories(tmp_path / "bad.npy", start=0.1)
    np.save(tmp_path / "ppl.npy", values)
    with pytest.raises(InputError, match=r"--name-column: .* is an array without names; leave the flag out"):
        trajectories(tmp_path / "ppl.npy", start=0.1, name_column="token")
    with pytest.raises(InputError, match="--steps: got '1,x'; wanted numbers with commas between them"):
        trajectories(tmp_path / "ppl.npy", start=0.1, steps="1,x")
    with pytest.raises(InputError, match=r"got steps \[2\] for 12 checkpoints"):
        trajectories(tmp_path / "ppl.npy", start=0.1, steps="1,2")
    table = write_csv(tmp_path / "ppl.csv", values, [f"w{i}" for i in range(40)])
    with pytest.raises(InputError, match=r"must be named by --name-column\): column 'token': this is not a finite"):
        trajectories(table, start=0.1)
    with pytest.raises(InputError, match="there is no column 'tokens'; the columns are 'token', 'step10'"):
        trajectories(table, start=0.1, name_column="tokens")
    (tmp_path / "names.csv").write_text("token\na\nb\n")
    with pytest.raises(InputError, match="there is no checkpoint; every column but --name-column is one"):
        trajectories(tmp_path / "names.csv", start=0.1, name_column="token")
