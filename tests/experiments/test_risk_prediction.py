"""The experiment on predicted and real risk: its smoke run, and its claims on records made by hand."""

import json

import numpy as np
import pytest

from experiments.risk_prediction.claims import claims, row
from experiments.risk_prediction.run import main
from experiments.risk_prediction.setting import SMOKE
from ntkft._errors import InputError
from tests.minilm import needs_minilm


@needs_minilm
def test_the_smoke_run_keeps_its_claims_and_is_not_computed_twice(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert results["re-anchored at the real best epoch: largest error, %"] < 1
    for name in ("curves", "agreement", "surface_docs"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("docs/*.json")}
    assert len(kept) == 6
    again = main(["--smoke", "--out", str(tmp_path)])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert json.dumps(again) == json.dumps(results)
    (tmp_path / "setting").write_text("another")
    with pytest.raises(InputError, match="holds runs of another setting; choose another --out, or delete it"):
        main(["--smoke", "--out", str(tmp_path)])


def test_a_run_is_judged_where_its_risk_is_lowest():
    epochs = list(SMOKE.epochs)  # 0, 1, 2, 4, 6
    record = {
        "real": {"epochs": epochs, "mse": [1.0, 0.8, 0.6, 0.5, 0.55]},
        "anchored": {"epochs": epochs, "mse": [1.0, 0.8, 0.612, 0.51, 0.50]},
        "first_order": {"mse": [1.0, 0.804, 0.65, 0.64, 0.63, 0.62, 0.61]},
    }
    found = row(record, SMOKE)
    assert (found["real_epoch"], found["predicted_epoch"], found["first_order_epoch"]) == (4, 6, 6)
    np.testing.assert_allclose(found["anchored_error_at_best"], 0.02)
    np.testing.assert_allclose(found["first_order_error_at_best"], 0.26)
    np.testing.assert_allclose(found["first_order_error_to_horizon"], 0.005)  # at epoch 1; the horizon is before 2
    assert 1 < found["horizon"] < 2
    assert found["epoch_ratio"] == 1.5
    seconds = {"surface": 1.0, "anchored": 2.0, "real": 20.0}
    total = claims([{"task": "a", "n": 4} | found], seconds)
    assert total["best epoch within a factor 1.5, % of runs"] == 100
    assert total["horizon covers a third of the way to the optimum, % of runs"] == 0  # it ends before 4/3
    assert total["time of the surfaces / of the real grid"] == 0.05
