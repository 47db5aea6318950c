"""`ntkft select`: rankings and metrics of every method, and never an order that a table does not determine."""

import json
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.cli.app import main
from ntkft.cli.select import select
from ntkft.scaling import Rectified
from ntkft.scaling.selection import Selector

SIZES = np.array([0, *(200 * 2**i for i in range(10))])
TARGET = int(SIZES[-1])
LAWS = {f"m{i}": Rectified(B=20.0 * 1.5**i, D_l=8.0 * 1.6**i, beta=0.4, E=0.01) for i in range(6)}
"""Small D_l: fast from the start; in the table the later models lead at first and the earlier at the end."""
TRUTH = sorted(LAWS, key=lambda name: float(LAWS[name].at(TARGET)))


@pytest.fixture
def file(tmp_path):
    """Exact curves; the larger the number of the model, the more parameters, and the later it bends."""
    lines = [",".join(["name", *map(str, SIZES), "size"])]
    for i, (name, law) in enumerate(LAWS.items()):
        lines.append(",".join([name, *map(repr, map(float, law.at(SIZES))), str(10 ** (i + 6))]))
    path = tmp_path / "losses.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def record(capsys, *arguments, **options):
    select(*arguments, **{"budget_fraction": "1/8"} | options, json=True)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", get_args(Selector))
def test_a_method_is_judged_by_the_losses_at_the_target(file, capsys, method):
    found = record(capsys, file, method=method)
    assert (found["method"], found["budget"], found["target"]) == (method, TARGET / 8, TARGET)
    assert found["status"] == "ranked"
    scores = [found["scores"][name] for name in LAWS]
    true = [float(law.at(TARGET)) for law in LAWS.values()]
    assert found["pear_corr"] == pytest.approx(np.corrcoef(scores, true)[0, 1], rel=1e-9)
    picked = LAWS[found["ranking"][0]].at(TARGET)
    assert found["rel_acc"] == pytest.approx((max(true) - picked) / (max(true) - min(true)), rel=1e-9)
    assert sorted(found["ranking"]) == sorted(LAWS)
    for better, worse in pairwise(found["ranking"]):
        assert found["scores"][better] <= found["scores"][worse]
    assert found["predicted"] == ({} if method == "size" else found["scores"])


def test_laws_that_hold_rank_as_the_truth_and_zero_shot_does_not(file, capsys):
    for method in ("rectified", "pooled"):
        found = record(capsys, file, method=method)
        assert found["ranking"] == TRUTH
        for name, law in LAWS.items():
            # pooled has no floor E, which is 1 to 4 % of these losses at the target
            assert found["predicted"][name] == pytest.approx(float(law.at(TARGET)), rel=0.05)
    assert record(capsys, file, method="zeroshot")["ranking"] != TRUTH


def test_intervals_hold_the_prediction(file, capsys):
    found = record(capsys, file, method="pooled")
    assert found["interval_level"] == 0.9
    for name, (low, high) in found["interval"].items():
        assert low <= found["predicted"][name] <= high
    assert record(capsys, file, method="ats")["interval"] == {}


def test_the_published_sign_turns_size_round_and_nothing_else(file, capsys):
    for method in ("size", "subtuning"):
        ours, published = record(capsys, file, method=method), record(capsys, file, method=method, paper_sign=True)
        sign = -1 if method == "size" else 1
        assert published == ours | {"pear_corr": sign * ours["pear_corr"]}
    assert record(capsys, file, method="size")["ranking"] == [f"m{i}" for i in reversed(range(6))]


@pytest.mark.parametrize("target", [8 * TARGET, 1000])
def test_a_target_that_the_table_lacks_is_ranked_for_and_not_judged(file, capsys, target):
    found = record(capsys, file, method="ats", budget_fraction="0.5", target=target)
    assert (found["target"], found["budget"]) == (target, target / 2)
    assert found["pear_corr"] is found["rel_acc"] is None
    assert len(found["ranking"]) == 6


def test_a_fraction_is_a_fraction_or_a_decimal_and_the_budget_includes_its_end(file, capsys):
    eighth, decimal = record(capsys, file, method="subtuning"), record(capsys, file, method="subtuning",
                                                                       budget_fraction="0.125")  # fmt: skip
    assert eighth == decimal
    at = {name: float(law.at(TARGET / 8)) for name, law in LAWS.items()}
    assert eighth["predicted"] == pytest.approx(at)


def test_people_get_the_ranking(file, capsys):
    select(file, budget_fraction="1/8", method="pooled")
    shown = " ".join(capsys.readouterr().out.split())  # the title is as wide as the table
    assert "pooled for 102,400 examples, from 12,800 (1/8): ranked; PearCorr +1.000; RelAcc 1.000" in shown
    assert f"1. {TRUTH[0]}" in shown
    assert "90% interval" in shown
    select(file, budget_fraction="1/8", method="size", target=1e6)
    assert "PearCorr" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({"budget_fraction": text}, f"--budget-fraction: got '{text}'; wanted a number between 0 and 1")
          for text in ("eighth", "1/0", "0", "-1/8", "1", "nan")],
        ({"target": -1.0}, "got budget -0.125 and target -1; wanted both above zero"),
        ({"target": float("nan")}, "wanted both above zero"),
        ({"budget_fraction": "1/1000"}, "has 0 points with D > 0"),
        ({"budget_fraction": "1/256", "method": "pooled"}, "has 2 points with D > 0; wanted at least 3"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_one_error(file, options, message):
    with pytest.raises(InputError, match=message):
        select(file, **{"budget_fraction": "1/8", "method": "ats"} | options)


@pytest.mark.parametrize(
    ("text", "method", "message"),
    [
        ("model,1,64\na,4,3\nb,4,2\n", "zeroshot", "a, b has no loss at D = 0, which zeroshot ranks by"),
        ("model,1,64\na,4,3\nb,4,2\n", "size", "a, b has no number of parameters, which size ranks by"),
        ("model,0,64\na,4,3\nb,4,2\n", "subtuning", "a, b has no point with D > 0 within the budget"),
        ("model,1,64\na,4,3\na,4,2\n", "subtuning", "model 'a' is there 2 times"),
        ("model,0\na,4\n", "zeroshot", "got budget 0 and target 0; wanted both above zero"),
    ],
)
def test_a_table_that_lacks_what_a_method_needs_is_status_two(tmp_path, capsys, text, method, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert main(["select", str(path), "--budget-fraction", "1/8", "--method", method, "--json"]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert message in streams.err


BENDS = "4,3.9,3.7,3.2,2.5,1"
SLOW = "4,3.8,3.5,3.1,2.6,2"


@pytest.mark.parametrize(
    ("rows", "method", "status", "ranked"),
    [
        (f"a,{BENDS}\nb,{SLOW}", "rectified", "ranked", 2),
        (f"a,{BENDS}\nflat,3,3,3,3,3,3", "rectified", "not identified: no score for flat; raise the budget", 1),
        ("a,3,3,3,3,3,3\nb,2,2,2,2,2,2", "vanilla", "not identified: no score for a, b; raise the budget", 0),
        *[("a,2,2,2,2,2,2\nb,2,2,2,2,2,2", method, "not identified: all scores are equal", 0)
          for method in ("ats", "subtuning", "zeroshot", "pooled")],
        (f"a,{BENDS}\nflat,3,3,3,3,3,3", "ats", "ranked", 2),
    ],
)  # fmt: skip
def test_what_the_losses_do_not_determine_is_said_and_not_ranked(tmp_path, capsys, rows, method, status, ranked):
    path = tmp_path / "flat.csv"
    path.write_text(f"model,0,1,2,4,8,16\n{rows}\n")
    found = record(capsys, path, method=method, budget_fraction="1/2")
    assert found["status"] == status
    assert len(found["ranking"]) == ranked
    if status != "ranked":
        assert found["pear_corr"] is None
    if not ranked:
        assert found["rel_acc"] is None


def test_two_points_make_no_line_that_could_be_judged(tmp_path, capsys):
    path = tmp_path / "two.csv"
    path.write_text("model,0,100,200\na,4,3,2\nb,4,3.5,3\n")
    found = record(capsys, path, method="ats", target=1600)
    assert found["status"] == ("not identified: 2 points within the budget, a line without residuals; raise the budget")


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        (lambda i, n: (3 + i) * n**-0.3, "ranked"),
        (lambda i, n: 3.0 + i, "ranked; the curves do not say how much they bend"),
        (lambda i, n: np.exp(-n / (5 + i)), "ranked; the curves do not say how much they bend"),
    ],
    ids=["straight", "flat", "a cliff"],
)
def test_an_exponent_at_the_end_of_its_range_is_said_to_be(tmp_path, capsys, losses, status):
    path, sizes = tmp_path / "two.csv", (1, 2, 4, 8, 16, 32)
    lines = [",".join([f"m{i}", *(repr(float(losses(i, n))) for n in sizes)]) for i in range(2)]
    path.write_text("\n".join([f"model,{','.join(map(str, sizes))}", *lines]) + "\n")
    found = record(capsys, path, method="pooled", budget_fraction="1/2")
    assert found["ranking"] == ["m0", "m1"]
    assert found["status"] == status


def test_the_folder_holds_what_is_printed(file, capsys, tmp_path):
    found = record(capsys, file, method="ats", out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "select.json").read_text()) == found
