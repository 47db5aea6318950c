"""The experiment on thresholds of the loss: its smoke run, and the published fits of the models it reads."""

import json

import numpy as np
import pytest

from experiments.emergence_from_loss.run import main, mean_error
from experiments.emergence_from_loss.testbed import CORPORA, read_testbed


def test_the_smoke_run_keeps_its_claims(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "results.json").read_text())["results"] == results
    assert (tmp_path / "claims.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def testbed(shared_data):
    return read_testbed(shared_data / "loss_vs_accuracy" / "models_losses_accuracies.csv")


def test_the_mean_error_of_the_104_models_is_ordered_and_given_by_their_loss(testbed, tmp_path):
    assert {str(name): int(np.sum(testbed.corpus == name)) for name in CORPORA} == {
        "c4_original": 34, "rpj": 35, "rw_original": 35,
    }  # fmt: skip
    results = mean_error(testbed, tmp_path)
    assert results["tasks of the subset"] == 17
    expected = {
        "C4": (-0.986, 0.8386, 3.052, 0.9021, 0.983),
        "RedPajama": (-0.996, 0.8602, 2.278, 0.7206, 0.990),
        "RefinedWeb": (-0.994, 0.8416, 3.101, 0.8498, 0.988),
    }
    digits = (3, 4, 3, 4, 3)
    for corpus, values in expected.items():
        keys = ("Spearman of loss and mean accuracy", "ε", "k", "γ", "R²")
        found = [round(results[f"{corpus}: {key}"], digit) for key, digit in zip(keys, digits, strict=True)]
        assert tuple(found) == values
    assert (tmp_path / "error.png").is_file()


def test_a_threshold_of_the_models_is_found_and_a_smooth_fall_is_not_called_one(testbed):
    _, _, squad = testbed.threshold("squad", "rw_original", draws=199)
    assert squad.status == "threshold"
    assert squad.eta == pytest.approx(3.235, abs=1e-3)
    _, _, hellaswag = testbed.threshold("hellaswag", "c4_original", draws=199)
    assert hellaswag.status == "no threshold: a smooth curve does better"
