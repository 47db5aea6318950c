"""The experiment on head tuning: its smoke run, and how it judges theory by simulation."""

import json

import pytest

from experiments._check import MissedError, check
from experiments.head_tuning_double_descent.run import FOLDER, agreement, main
from ntkft.hmm import HeadRisk, SimulatedRisk


def test_the_smoke_run_keeps_its_claims_and_writes_its_files(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["results"] == results
    assert [row["p"] for row in record["theory"]] == [row["p"] for row in record["simulated"]] == [4, 12, 50]
    for name in ("risk", "penalties", "ranks"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(MissedError, match=r"1 of 8 values.*\n.*with the lowest total risk: got 1, wanted 8 ± 0"):
        check(results | {"p below n with the lowest total risk": 1}, FOLDER / "expected.toml", ["smoke"])


def test_theory_is_judged_in_its_own_regime():
    theory = [
        HeadRisk(100, 10, 0.0, "classical", 1.0, 0.0, 1.0),
        HeadRisk(100, 110, 0.0, "interpolating", 1.0, 0.0, 1.0),
        HeadRisk(100, 150, 0.0, "interpolating", 1.0, 0.5, 0.5),
    ]
    simulated = [SimulatedRisk(100, p, 0.0, 9, excess, 0.01) for p, excess in ((10, 0.97), (110, 5.0), (150, 1.06))]
    found = agreement(theory, simulated)
    assert found["p ≤ n − 2: largest difference, standard errors"] == pytest.approx(3)
    assert found["p ≥ 3n/2: largest difference beyond four standard errors, %"] == pytest.approx(2)
    assert found["p = 110: excess risk, Monte Carlo / theory"] == 5
