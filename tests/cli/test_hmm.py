"""`ntkft hmm`: theory beside Monte Carlo, as JSON, table and files."""

import json
from typing import Any

import pytest

from ntkft._errors import InputError
from ntkft.cli.hmm import hmm

SETTING: dict[str, Any] = {"n": 20, "d": 3, "rho": 0.9, "sigma_u": 1.0, "widths": "3,20, 50", "reps": 30, "seed": 0}


def test_rows_hold_theory_and_simulation_of_every_width(capsys):
    hmm(**SETTING, json=True)
    record = json.loads(capsys.readouterr().out)
    assert {name: record[name] for name in ("n", "d", "rho", "sigma_u", "ridge", "reps", "seed")} == {
        "n": 20, "d": 3, "rho": 0.9, "sigma_u": 1.0, "ridge": 0.0, "reps": 30, "seed": 0,
    }  # fmt: skip
    narrow, threshold, wide = record["rows"]
    assert set(narrow) == {"p", "noise", "bias", "variance", "excess_theory", "excess_mc", "excess_mc_se"}
    assert [row["p"] for row in record["rows"]] == [3, 20, 50]
    assert narrow["variance"] == narrow["excess_theory"] == pytest.approx(narrow["noise"] * 3 / 16)
    assert threshold["variance"] == threshold["excess_theory"] == "inf"
    assert wide["excess_theory"] == pytest.approx(wide["bias"] + wide["variance"])
    for row in (narrow, wide):
        assert abs(row["excess_mc"] - row["excess_theory"]) < 5 * row["excess_mc_se"] + 0.04 * row["excess_theory"]
    hmm(**SETTING, json=True)
    assert json.loads(capsys.readouterr().out) == record


def test_a_width_has_the_same_row_whatever_stands_beside_it(capsys):
    hmm(**SETTING, json=True)
    wide = json.loads(capsys.readouterr().out)["rows"][2]
    hmm(**(SETTING | dict[str, Any](widths="50")), json=True)
    assert json.loads(capsys.readouterr().out)["rows"] == [wide]


def test_a_folder_gets_the_record_and_the_figure_and_people_a_table(tmp_path, capsys):
    hmm(**SETTING, ridge=0.1, out=tmp_path / "new")
    assert "Head tuned on 20 examples, 30 draws" in capsys.readouterr().out
    assert json.loads((tmp_path / "new" / "hmm.json").read_text())["ridge"] == 0.1
    assert (tmp_path / "new" / "risk.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": "8,x"}, "--widths: got '8,x'; wanted whole numbers of at least 1"),
        ({"widths": ""}, "--widths: got ''; wanted"),
        ({"widths": "0"}, "--widths: got '0'"),
        ({"n": 0}, "n is 0; wanted at least"),
        ({"d": 0}, "d is 0; wanted at least 1"),
        ({"rho": 1.0}, "rho is 1; wanted 0 ≤ rho < 1"),
        ({"sigma_u": 0.0}, "sigma_u is 0; wanted a finite number above zero"),
        ({"reps": 1}, "reps is 1; wanted at least 2"),
        ({"seed": -1}, "seed is -1; wanted"),
        ({"ridge": float("nan")}, "ridge is nan; wanted a finite number"),
    ],
)
def test_bad_numbers_are_one_sentence(change, message):
    with pytest.raises(InputError, match=message):
        hmm(**(SETTING | change))
