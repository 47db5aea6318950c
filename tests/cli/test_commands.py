"""The command line on a tiny checkpoint and a real file: what it writes, resumes, compares and refuses."""

import json

import numpy as np
import pytest

import ntkft
from ntkft.cli import app, main
from tests.models.tiny import BERT, write_checkpoint

SIZES = ["--n=12", "--validation=4", "--test=8", "--max-length=10", "--seed=0", "--outputs=scalar"]


@pytest.fixture
def flags(tmp_path):
    """Flags that name a tiny BERT directory and a TSV file of forty labelled sentences."""
    model = write_checkpoint(tmp_path / "bert", BERT)
    words, generator = ["good", "bad", "film", "fine", "was", "the"], np.random.default_rng(0)
    lines = ["text\tlabel"]
    for row in range(40):
        text = " ".join(generator.choice(words, 5)) + (" good" if row % 2 else " bad")
        lines.append(f"{text}\t{row % 2}")
    (tmp_path / "task.tsv").write_text("\n".join(lines) + "\n")
    readout = "--readout=regression:pool=mean,scale=1,seed=0"
    return [f"--model={model}", f"--data={tmp_path / 'task.tsv'}", "--kind=classification", readout, *SIZES]


def test_kernel_then_spectrum(flags, tmp_path, capsys):
    store = tmp_path / "K.zarr"
    assert main(["kernel", *flags, f"--out={store}", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    kernel = ntkft.read_kernel(store)
    assert record["shape"] == [24, 24] == list(kernel.total.shape)
    assert sum(record["share_of_trace"].values()) == pytest.approx(1, abs=1e-5)
    assert main(["spectrum", f"--kernel={store}", "--n=12", f"--out={tmp_path / 'spectrum'}", "--json"]) == 0
    spectrum = json.loads(capsys.readouterr().out)["spectrum"]
    expected = np.linalg.eigvalsh(np.asarray(kernel.total[:12, :12], np.float64) / 12)[::-1]
    np.testing.assert_allclose(spectrum["eigenvalues"], expected, rtol=1e-6, atol=1e-9)
    assert {file.name for file in (tmp_path / "spectrum").iterdir()} == {"spectrum.json", "decay.png", "groups.png"}


def test_predict_then_finetune_agree_at_small_steps_and_resume(flags, tmp_path, capsys):
    predict = ["predict", *flags, "--step-size=0.05/lambda1", "--epochs=6", "--patience=3", "--seeds=2", "--json"]
    assert main([*predict, f"--out={tmp_path / 'p'}"]) == 0
    prediction = json.loads(capsys.readouterr().out)
    assert prediction == json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert (tmp_path / "p" / "kernel.zarr" / "total").is_dir()
    assert {file.suffix for file in (tmp_path / "p").iterdir()} >= {".png", ".json"}

    finetune = ["finetune", *flags, "--optimizer=gradient_descent", f"--step-size={prediction['step_size']}", "--json"]
    finetune += ["--epochs=6", f"--prediction={tmp_path / 'p' / 'prediction.json'}", f"--out={tmp_path / 'f'}"]
    assert main(finetune) == 0
    comparison = json.loads(capsys.readouterr().out)["prediction"]
    assert comparison["epochs"] == prediction["epochs"]
    np.testing.assert_allclose(comparison["predicted_test_mse"], comparison["real_test_mse"], rtol=0.01)
    assert comparison["parting"]["5%"] is None
    written = (tmp_path / "f" / "finetune.json").read_bytes()
    assert main(finetune) == 0
    assert (tmp_path / "f" / "finetune.json").read_bytes() == written

    assert main([*predict, f"--out={tmp_path / 'p'}", "--seeds=3"]) == 2
    assert "holds a different run (other seeds)" in capsys.readouterr().err
    assert main([*predict, f"--out={tmp_path / 'p'}", "--template={text} was good"]) == 2
    assert "holds a different run (other template)" in capsys.readouterr().err
    assert main([*finetune, "--seed=1"]) == 2
    assert "holds a different run (other data digest, seed)" in capsys.readouterr().err


def test_label_words_are_read_in_a_prompt_and_another_prompt_is_another_kernel(flags, tmp_path, capsys):
    words = ["--readout=label_words:words=bad|good,position=mask", "--outputs=trace"]
    asked = ["kernel", *flags, *words, f"--out={tmp_path / 'K.zarr'}", "--json"]
    assert main([*asked, "--template={text} was {mask}."]) == 0
    said = capsys.readouterr()
    assert "position=mask, prompt '{text} was {mask}.')" in said.err.replace("\n", " ")
    kernel = ntkft.read_kernel(tmp_path / "K.zarr").total
    assert json.loads(said.out)["shape"] == [24, 24]
    assert np.isfinite(kernel).all()
    assert main([*asked, "--template={text} film {mask}."]) == 2
    assert "x1" in capsys.readouterr().err
    assert main(asked) == 2
    assert "not exactly one mask token" in capsys.readouterr().err


def test_every_output_form_gives_a_prediction(flags, capsys):
    words = "--readout=label_words:words=good|bad,position=first"
    linear = "--readout=linear:pool=mean,scale=1,seed=0"
    common = ["--step-size=0.5/lambda1", "--epochs=3", "--patience=2", "--seeds=1", "--json"]
    assert main(["predict", *flags, words, *common]) == 2
    assert "position" in capsys.readouterr().err
    assert main(["predict", *flags, linear, "--outputs=trace", *common]) == 0
    trace = json.loads(capsys.readouterr().out)
    assert main(["predict", *flags, linear, "--outputs=scalar", *common]) == 0
    scalar = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(trace["mse"]["test"], scalar["mse"]["test"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--step-size=2.5/lambda1"], "2/λ"),
        (["--step-size=fast"], "wanted a positive number, or one like 0.5/lambda1"),
        (["--n=400"], "400"),
        (["--readout=linear:pool=median,scale=1,seed=0"], "median"),
        (["--model=nowhere/at/all"], "nowhere/at/all"),
        (["--label-column=stars"], "stars"),
        (["--template=It was {mask}."], "{text} is missing"),
        (["--template={text}, {pair}"], "the examples are single texts"),
        (["--groups=q"], "is not NAME=REGEX"),
        (["--memory=some"], "wanted bytes or a size"),
        (["--outputs=full", "--readout=next_token"], "it has 13 outputs; this task wants 2"),
    ],
)
def test_bad_input_is_one_sentence_and_status_two(flags, change, message, capsys):
    arguments = ["predict", *flags, "--step-size=0.5/lambda1", "--epochs=3", "--patience=2"]
    assert main([*arguments, *change]) == 2
    error = capsys.readouterr().err
    assert message in error.replace("\n", " ")
    assert "Traceback" not in error


def test_optimizers_want_their_own_flags(flags, capsys):
    arguments = ["finetune", *flags, "--step-size=0.01", "--epochs=1"]
    assert main([*arguments, "--optimizer=momentum"]) == 2
    assert "--optimizer momentum wants --beta" in capsys.readouterr().err
    assert main([*arguments, "--optimizer=adamw", "--weight-decay=0", "--beta=0.9"]) == 2
    assert "--optimizer adamw does not take --beta" in capsys.readouterr().err


def test_folders_of_others_are_left_alone(flags, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    arguments = ["predict", *flags, "--step-size=0.5/lambda1", "--epochs=3", "--patience=2"]
    assert main([*arguments, f"--out={tmp_path / 'mine'}"]) == 2
    assert "is not one of ntkft's" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_interrupt_says_so_and_is_status_130(flags, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ntkft.cli.kernel.compute_kernel", interrupted)
    assert main(["kernel", *flags, f"--out={tmp_path / 'K.zarr'}"]) == 130
    assert "the same command goes on from it" in capsys.readouterr().err


def test_every_command_has_help(capsys):
    for command in app.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert "usage: ntkft" in capsys.readouterr().out
