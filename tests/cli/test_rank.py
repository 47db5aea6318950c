"""`ntkft rank`: the risks of `ntkft predict`'s curves, in order; resumed; refused where there is nothing to rank."""

import json

import numpy as np
import pytest

from ntkft.cli import main
from tests.cli.test_commands import flags as flags
from tests.models.tiny import BERT, write_checkpoint

HOW = ["--step=0.5", "--epochs=8", "--json"]


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


def test_people_see_a_table(asked, capsys):
    models, task = asked
    assert main(["rank", *models, *task, "--step=0.5", "--epochs=8"]) == 0
    said = capsys.readouterr().out
    assert "1. other" in said or "1. bert" in said  # without the folders that both are in
    assert "2 checkpoints by the validation risk" in said
    assert said.count("±") == 1


def test_what_cannot_be_ranked_is_one_sentence(asked, capsys):
    models, task = asked
    for arguments, message in (
        ([models[0]], "got 1 checkpoints"),
        ([models[0], models[0]], f"got {models[0]} twice"),
        ([*models, "--model=minilm-two"], "takes checkpoints without a flag"),
        ([*models, "--step=2"], "wanted 0 < step < 2"),
    ):
        assert main(["rank", "--step=0.5", *arguments, *task, "--epochs=8"]) == 2
        assert message.replace(" ", "") in capsys.readouterr().err.replace("\n", "").replace(" ", "")
