"""The experiment on task vectors, with two small tasks."""

import dataclasses
import json

import pytest

from experiments._kept import claim
from experiments.task_vectors.run import REAL, SMOKE, main
from ntkft._errors import InputError
from tests.minilm import needs_minilm

pytestmark = needs_minilm


def test_in_the_linear_regime_vectors_are_as_predicted_and_records_are_kept(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert results == json.loads((tmp_path / "results.json").read_text())["results"]
    assert results["linear: length of a vector, largest difference, %"] < 1
    assert {file.name for file in tmp_path.iterdir()} >= {"linear.json", "kernel.zarr", "cosines.png", "addition.png"}

    record = json.loads((tmp_path / "linear.json").read_text())
    record["norm"] = [2 * norm for norm in record["norm"]]  # a kept record is read, not made again
    (tmp_path / "linear.json").write_text(json.dumps(record))
    again = main(["--smoke", "--out", str(tmp_path)])
    assert again["linear: length of a vector, largest difference, %"] == pytest.approx(50, abs=1)


def test_a_folder_is_of_one_setting(tmp_path):
    claim(tmp_path, SMOKE)
    claim(tmp_path, dataclasses.replace(SMOKE))
    with pytest.raises(InputError, match="holds runs of another setting"):
        claim(tmp_path, REAL)
