"""`ntkft law`: parameters of curves that follow the law, and never a number that a table does not determine."""

import json

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.cli.app import main
from ntkft.cli.law import law
from ntkft.scaling import Rectified, bootstrap_fit, loss_curve

SIZES = np.array([0, *(200 * 2**i for i in range(14))])
LAWS = {
    "bends early": Rectified(B=900.0, D_l=260.0, beta=0.5, E=1.2),
    "bends late": Rectified(B=3000.0, D_l=1000.0, beta=0.6, E=0.4),
}


def write(path, rows):
    """A table of name → losses at `SIZES`."""
    lines = [",".join(["model", *map(str, SIZES)])]
    lines += [",".join([name, *map(repr, map(float, losses))]) for name, losses in rows.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def exact(tmp_path):
    """Curves that follow the law, but for D = 0, where the loss is none of it."""
    losses = {name: law_.at(SIZES) * np.where(SIZES == 0, 1.5, 1) for name, law_ in LAWS.items()}
    return write(tmp_path / "exact.csv", losses)


@pytest.fixture
def noisy(tmp_path):
    generator = np.random.default_rng(0)
    noise = np.exp(0.005 * generator.standard_normal((len(LAWS), len(SIZES))))
    losses = {name: law_.at(SIZES) * e for (name, law_), e in zip(LAWS.items(), noise, strict=True)}
    return write(tmp_path / "noisy.csv", losses)


def record(capsys, *arguments, **options):
    law(*arguments, **options, json=True)
    return json.loads(capsys.readouterr().out)


def test_the_law_behind_the_points_is_recovered_without_the_loss_at_zero(exact, capsys):
    found = record(capsys, exact, draws=0)
    assert [row["name"] for row in found["curves"]] == list(LAWS)
    for row, (name, true) in zip(found["curves"], LAWS.items(), strict=True):
        assert row["status"] == "fitted", name
        assert row["points"] == 14
        # The optimiser stops at 1e-8 relative in its own coordinates; B and D_l are their exponentials.
        for parameter in ("B", "D_l", "beta", "E", "knee", "steepest"):
            assert row[parameter] == pytest.approx(getattr(true, parameter), rel=1e-4)
        assert row["log_rmsd"] < 1e-8
        assert row["interval"] is None
        assert row["not_identified"] is None
        assert row["vanilla"]["status"] == "fitted"
        assert row["vanilla"]["log_rmsd"] > 0.01
    assert found["mean_log_rmsd"]["rectified"] == pytest.approx(np.mean([r["log_rmsd"] for r in found["curves"]]))
    vanilla = [row["vanilla"]["log_rmsd"] for row in found["curves"]]
    assert found["mean_log_rmsd"]["vanilla"] == pytest.approx(np.mean(vanilla))


def test_intervals_are_those_of_the_library_and_of_one_curve_alone(noisy, capsys):
    found = record(capsys, noisy, curve="bends late", draws=20, level=0.8, seed=3)
    (row,) = found["curves"]
    assert (found["draws"], found["level"], found["seed"]) == (20, 0.8, 3)
    losses = np.genfromtxt(noisy, delimiter=",", skip_header=1)[1, 2:]
    expected = bootstrap_fit(loss_curve("", SIZES[1:], losses), size=1, draws=20, level=0.8, seed=3)
    assert expected is not None
    assert {name: tuple(ends) for name, ends in row["interval"].items()} == expected.parameters
    assert row["not_identified"] == list(expected.not_identified)
    for name, (low, high) in row["interval"].items():
        assert low <= row[name] <= high
    both = record(capsys, noisy, draws=20, level=0.8, seed=3)
    assert both["curves"][1] == row


def test_a_folder_gets_the_record_and_people_a_table(noisy, tmp_path, capsys):
    law(noisy, draws=5, out=tmp_path / "new" / "out")
    assert "mean log-RMSD" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "new" / "out" / "law.json").read_text())["curves"]) == 2
    assert (tmp_path / "new" / "out" / "laws.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("model,0,200,400\na,4,3,2\n", "not identified: 2 points for 4 parameters"),
        ("model,0,1,2,4,8,16\na,4,3,3,3,3,3\n", "not identified: all losses are equal"),
        ("model,0\na,4\n", "not identified: 0 points for 4 parameters"),
    ],
    ids=["two points", "equal losses", "zero-shot alone"],
)
def test_a_curve_that_determines_no_law_says_so_and_has_no_numbers(tmp_path, capsys, text, status):
    path = tmp_path / "few.csv"
    path.write_text(text)
    found = record(capsys, path, out=tmp_path / "out")
    (row,) = found["curves"]
    assert row["status"] == row["vanilla"]["status"] == status
    assert all(row[name] is None for name in row if name not in ("name", "points", "status", "vanilla"))
    assert all(value is None for name, value in row["vanilla"].items() if name != "status")
    assert found["mean_log_rmsd"] == {"rectified": None, "vanilla": None}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["law.json"]
    law(path)
    assert "not identified" in capsys.readouterr().out


def test_the_mean_is_over_curves_that_were_fitted(tmp_path, capsys):
    rows = {"a": LAWS["bends early"].at(SIZES), "flat": np.full(len(SIZES), 2.0)}
    found = record(capsys, write(tmp_path / "mixed.csv", rows), draws=0)
    assert found["curves"][1]["log_rmsd"] is None
    assert found["mean_log_rmsd"]["rectified"] == found["curves"][0]["log_rmsd"]


def test_too_few_points_for_an_interval_are_said_to_be(tmp_path, capsys):
    path = tmp_path / "five.csv"
    path.write_text("model,1,10,100,1000,10000\na,4,3.9,3,2,1.5\n")
    (row,) = record(capsys, path)["curves"]
    assert row["status"] == "fitted; no interval: 5 points, 6 wanted"
    assert row["interval"] is row["not_identified"] is None
    assert row["beta"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curve": "gpt"}, "--curve: .*exact.csv has no model 'gpt'; it has bends early, bends late$"),
        ({"draws": -1}, "--draws: got -1; wanted bootstrap samples, or 0"),
        ({"level": 1.0}, "got level 1 and 200 draws; wanted 0 < level < 1"),
    ],
)
def test_options_that_cannot_be_used_are_one_error(exact, options, message):
    with pytest.raises(InputError, match=message):
        law(exact, **options)


def test_an_unknown_curve_of_a_large_table_names_a_few(tmp_path):
    rows = {f"m{i}": LAWS["bends early"].at(SIZES) for i in range(30)}
    with pytest.raises(InputError, match=r"it has m0, m1, m2, m3, m4 and 25 more$"):
        law(write(tmp_path / "many.csv", rows), curve="m30")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,loss\na,2\n", "got the columns 'model', 'loss'"),
        ("model,0,200\na,4,0\n", "the loss at 200 examples is 0"),
        ("model,0,200\na,4,nan\n", "column '200': this is not a finite number"),
    ],
    ids=["missing column", "loss of zero", "NaN"],
)
@pytest.mark.parametrize("command", [["law"], ["select", "--budget-fraction", "1/8", "--method", "ats"]])
def test_a_bad_table_is_one_sentence_and_status_two(tmp_path, capsys, text, message, command):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert main([command[0], str(path), *command[1:], "--json"]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert message in streams.err
    assert "Traceback" not in streams.err
