"""`ntkft rank`: the risks of `ntkft predict`'s curves, in order; resumed; refused where there is nothing to rank."""

import json

import numpy as np
import pytest

from ntkft import read_kernel
from ntkft.cli import main
from ntkft.data import load_task, signed_targets, tokenize
from ntkft.dynamics import gcv, gradient_descent
from ntkft.models import load, regression
from ntkft.spectra import spectrum_of_matrix
from tests.cli.test_commands import flags as flags
from tests.models.tiny import BERT, outputs_of, write_checkpoint
from tests.tolerances import PARITY

HOW = ["--judge=validation", "--step=0.5", "--epochs=8", "--json"]


@pytest.fixture
def asked(flags, tmp_path):
    """The command for two checkpoints, and the flags of the task."""
    first, *task = flags
    wider = BERT | {"intermediate_size": 2 * BERT["intermediate_size"]}
    other = write_checkpoint(tmp_path / "other", wider)
    return [first.removeprefix("--model="), str(other)], task


def test_predicted_risks_are_those_of_predict(asked, tmp_path, capsys):
    models, task = asked
    assert main(["rank", *models, *task, *HOW, f"--out={tmp_path / 'out'}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found["ranking"]) == sorted(models)
    assert found["predicted"][found["ranking"][0]] <= found["predicted"][found["ranking"][1]]
    assert found["behind"][found["ranking"][0]] == [0, 0]
    for model in models:
        curve = found["curve"][model]
        step = f"--step-size={found['step_size'][model]}"
        assert main(["predict", f"--model={model}", *task, step, "--epochs=8", "--patience=8", "--json"]) == 0
        prediction = json.loads(capsys.readouterr().out)
        assert found["epochs"] == list(range(9))
        np.testing.assert_allclose(prediction["mse"]["validation"], np.array(curve)[prediction["epochs"]], rtol=1e-6)
        assert found["epoch"][model] == found["epochs"][int(np.argmin(curve))]
        assert found["predicted"][model] == pytest.approx(min(curve), rel=1e-12)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"rank.json", "rank.png"}
    assert len(names) == 4
    assert main(["rank", *models, *task, *HOW, f"--out={tmp_path / 'out'}"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


def test_cross_validation_needs_training_examples_alone(asked, tmp_path, capsys):
    models, task = asked
    assert main(["rank", *models, *task, "--judge=gcv", "--validation=0", *HOW[1:], f"--out={tmp_path / 'out'}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["judge"] == "gcv"
    train = load_task(tmp_path / "task.tsv", n=12, validation=0, test=8, seed=0, kind="classification").train
    for name in models:
        kernel = read_kernel(tmp_path / "out" / name.strip("/").replace("/", "_") / "kernel.zarr")
        assert len(kernel.total) == 20
        model = load(name, readout=regression(pool="mean", scale=1, seed=0))
        assert model.tokenizer is not None
        pretrained = outputs_of(model, tokenize(train.texts, model.tokenizer, max_length=10).inputs)
        spectrum = spectrum_of_matrix(kernel.total[:12, :12], precision="float32")
        descent = gradient_descent(0.5 / spectrum.eigenvalues[0])
        curve = gcv(spectrum, signed_targets(train.targets) - pretrained, descent, np.arange(9)).values
        np.testing.assert_allclose(found["curve"][name], curve, rtol=PARITY["float32"])
        assert found["predicted"][name] == pytest.approx(curve.min(), rel=PARITY["float32"])


def test_people_see_a_table(asked, capsys):
    models, task = asked
    assert main(["rank", *models, *task, "--judge=validation", "--step=0.5", "--epochs=8"]) == 0
    said = capsys.readouterr().out
    assert "1. other" in said or "1. bert" in said  # without the folders that both are in
    assert "2 checkpoints by the risk that their kernels predict (validation MSE)" in said
    assert said.count("±") == 1


def test_what_cannot_be_ranked_is_one_sentence(asked, capsys):
    models, task = asked
    for arguments, message in (
        ([models[0]], "got 1 checkpoints"),
        ([models[0], models[0]], f"got {models[0]} twice"),
        ([*models, "--model=minilm-two"], "takes checkpoints without a flag"),
        ([*models, "--step=2"], "wanted 0 < step < 2"),
        ([*models, "--judge=gcv"], "--judge gcv: got --validation"),
        ([*models, "--validation=0"], "--judge validation: got --validation 0; wanted at least 1"),
    ):
        assert main(["rank", *task, "--judge=validation", "--step=0.5", "--epochs=8", *arguments]) == 2
        assert message.replace(" ", "") in capsys.readouterr().err.replace("\n", "").replace(" ", "")
