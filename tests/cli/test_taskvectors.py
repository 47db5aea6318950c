"""`ntkft taskvectors` on a tiny checkpoint and real files: what it predicts, measures, saves, resumes and refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft.cli import main
from ntkft.cli.taskvectors import taskvector_tables
from ntkft.data import load_task, tokenize
from ntkft.linearize import linearize
from ntkft.models import load, parse_readout
from ntkft.taskvectors import cosine, load_task_vector
from tests.models.tiny import BERT, write_checkpoint

READOUT = "regression:pool=mean,scale=1,seed=0"
CANCELLED = 5e-4
"""Gradients of these examples are nearly alike and the signs of their targets differ, so |α|ᵀ|𝕂||α| is 2,300 times
αᵀ𝕂α: that times the rounding of float32, 6e-8, is 1.4e-4 for a product."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT directory, and two files of sixty sentences: two classes and grades; three classes in words."""
    home, generator = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    write_checkpoint(home / "bert", BERT)

    def sentence(end: str) -> str:
        return " ".join(generator.choice(["good", "bad", "film", "fine", "was", "the"], 4)) + f" {end}"

    ends = [("good", "1"), ("bad", "0")]
    first = [f"{sentence(ends[i % 2][0])}\t{ends[i % 2][1]}\t{generator.normal():.3f}" for i in range(60)]
    (home / "mood.tsv").write_text("\n".join(["text\tlabel\tstars", *first]) + "\n")
    ends = [("film was", "past"), ("fine the", "none"), ("the film", "thing")]
    second = [f"{ends[i % 3][1]}\t{sentence(ends[i % 3][0])}" for i in range(60)]
    (home / "tense.tsv").write_text("\n".join(["class\tsaid", *second]) + "\n")
    return home


@pytest.fixture(scope="module")
def flags(folder):
    tense = f"--task=tense={folder / 'tense.tsv'},labels=past|none,text=said,label=class"
    sizes = ["--n=10", "--validation=6", "--test=12", "--max-length=10", "--seed=0"]
    training = ["--step-size=0.05/lambda1", "--epochs=4"]
    return [
        "taskvectors", f"--task=mood={folder / 'mood.tsv'},kind=classification", tense, f"--model={folder / 'bert'}",
        f"--readout={READOUT}", *sizes, *training,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(flags, folder):
    """Predicted vectors saved without training, then the same command with --real, in one folder."""
    assert main([*flags, f"--out={folder / 'out'}", f"--save={folder / 'predicted'}"]) == 0
    alone = json.loads((folder / "out" / "taskvectors.json").read_text())
    assert main([*flags, f"--out={folder / 'out'}", f"--save={folder / 'real'}", "--real"]) == 0
    return alone, json.loads((folder / "out" / "taskvectors.json").read_text())


def test_saved_vectors_have_the_lengths_and_cosines_that_the_kernel_predicts(run, folder):
    params = load(folder / "bert", readout=parse_readout(READOUT, 1)).params
    for side, wanted in [("predicted", run[0]["predicted"]), ("real", run[1]["real"])]:
        found = [load_task_vector(folder / side / f"{name}.safetensors", params) for name in ("mood", "tense")]
        (first, about), (second, _) = found
        assert (about["task"], about["made by"]) == ("mood", "training" if side == "real" else "kernel")
        assert cosine(first, second) == pytest.approx(wanted["cosine"][0][1], abs=CANCELLED)
        length = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(first)))
        assert length == pytest.approx(wanted["norm"][0], rel=CANCELLED)


def test_in_the_linear_regime_predictions_are_what_real_fine_tuning_does(run):
    alone, both = run
    assert "real" not in alone
    assert alone["predicted"] == both["predicted"]
    predicted, real = both["predicted"], both["real"]
    np.testing.assert_allclose(predicted["norm"], real["norm"], rtol=0.02)
    np.testing.assert_allclose(predicted["cosine"], real["cosine"], atol=0.02)
    np.testing.assert_allclose(np.diag(real["cosine"]), 1, atol=1e-6)
    for name in ("mood", "tense"):
        negation = predicted["negation"][name]
        assert negation["gap"] == pytest.approx(negation["linear_gap"], rel=1e-9)
        assert real["negation"][name]["gap"] == pytest.approx(negation["linear_gap"], rel=0.05)
        np.testing.assert_allclose(predicted["mse"][name], real["mse"][name], rtol=0.01)
    assert predicted["interference"][0][0] == pytest.approx(1)
    angles = np.array(predicted["angles"]["mood, tense"])
    assert np.all(np.diff(angles) >= 0)
    assert angles.min() >= 0
    assert angles.max() <= 90
    assert real["addition"]["coefficients"] == {"mood": 1.0, "tense": 1.0}


def test_the_linearised_model_at_a_saved_prediction_has_the_error_that_the_kernel_predicts(run, folder):
    model = load(folder / "bert", readout=parse_readout(READOUT, 1))
    assert model.tokenizer is not None
    vector, _ = load_task_vector(folder / "predicted" / "tense.safetensors", model.params)
    split = {"n": 10, "validation": 6, "test": 12, "seed": 0, "kind": "classification", "labels": ["past", "none"]}
    task = load_task(folder / "tense.tsv", text_column="said", label_column="class", **split)
    inputs = tokenize(task.test, model.tokenizer, max_length=10).inputs
    outputs = linearize(model.apply_fn, model.params)(jax.tree.map(jnp.add, model.params, vector), inputs)
    error = np.mean((np.asarray(outputs)[:, 0] - np.where(task.test.targets == 1, 1, -1)) ** 2)
    assert error == pytest.approx(run[0]["predicted"]["mse"]["tense"][1], rel=1e-5)


def test_the_same_command_goes_on_and_another_is_kept_out(run, flags, folder, capsys):
    out = folder / "out"
    written = (out / "taskvectors.json").read_bytes()
    assert main([*flags, f"--out={out}", "--real", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == run[1]
    assert (out / "taskvectors.json").read_bytes() == written
    assert {file.name for file in out.iterdir()} >= {"kernel.zarr", "checkpoint", "cosines.png", "addition.png"}
    assert main([*flags, f"--out={out}", "--epochs=5"]) == 2
    assert "holds a different run (other epochs)" in capsys.readouterr().err.replace("\n", " ")


def test_tables_set_what_is_real_beside_what_is_predicted(run):
    alone, both = (taskvector_tables(record) for record in run)
    for tables, side, cells in [(alone, "predicted", 1), (both, "predicted / real", 2)]:
        vectors, pairs, *accuracies = tables
        assert [vectors.title, pairs.title] == [f"vectors, {side}", f"pairs, {side}"]
        assert [table.title.rpartition(", ")[2] for table in accuracies] == [side] * 2  # coefficient 1, and the best
        assert [len(cell.split(" / ")) for cell in pairs.columns[1].cells] == [cells]
    assert list(both[0].columns[0].cells) == ["mood", "tense"]


def test_a_regression_task_has_vectors_and_errors_but_no_accuracy(flags, folder, capsys):
    grades = f"--task=grades={folder / 'mood.tsv'},kind=regression,label=stars"
    assert main([*flags, grades, "--validation=0", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["tasks"] == ["mood", "tense", "grades"]
    assert set(record["predicted"]["addition"]["single"]) == {"mood", "tense"}
    assert set(record["predicted"]["negation"]) == set(record["tasks"])
    assert record["predicted"].keys().isdisjoint({"disentanglement", "best_addition"})


def test_vectors_of_label_words_say_in_which_prompt_they_were_read(flags, folder):
    words = ["--readout=logit_difference:negative=bad,positive=good,position=mask", "--template={text} was {mask}."]
    assert main([*flags, *words, "--validation=0", f"--save={folder / 'prompted'}"]) == 0
    params = load(folder / "bert", readout=parse_readout(words[0].removeprefix("--readout="), 1)).params
    _, about = load_task_vector(folder / "prompted" / "mood.safetensors", params)
    assert about["template"] == "{text} was {mask}."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--task=c"], "'c': it is not NAME=SOURCE,SETTING=VALUE"),
        (["--task=a/b=docs"], "'a/b=docs': it is not NAME=SOURCE,SETTING=VALUE"),
        (["--task=c=docs,column=x"], "setting 'column' is unknown; there are labels, kind, text, label"),
        (["--task=c=docs,labels="], "setting 'labels' is empty"),
        (["--task=c=docs,text=a,text=b"], "a setting is given twice"),
        (["--task=mood=docs"], "another task has the name 'mood'"),
        (["--task=c=docs,kind=ranking"], "kind is 'ranking'; wanted classification or regression"),
        (["--task=c=docs,text=a,text=b", "--task=d"], "--task: 2 problems"),
        (["--task=c=nowhere.tsv,labels=a|b"], "nowhere.tsv"),
        (
            ["--task=c={folder}/tense.tsv,kind=classification,text=said,label=class"],
            "'c' has 3 classes; one output tells two apart: choose them with labels=A|B",
        ),
        (["--template=It was"], "{text} is missing"),
        (["--readout=next_token"], "--readout: it has 13 outputs; tasks share one here"),
        (["--epochs=0"], "--epochs is 0; wanted 1 or more"),
        (["--test=0"], "--test is 0; wanted 1 or more"),
        (["--step-size=2.5/lambda1"], "stability limit"),
        (["--step-size=fast"], "wanted a positive number, or one like 0.5/lambda1"),
    ],
)
def test_bad_input_is_one_sentence_and_status_two(flags, folder, change, message, capsys):
    assert main([*flags, *[flag.format(folder=folder) for flag in change]]) == 2
    error = capsys.readouterr().err
    assert message in error.replace("\n", " ")
    assert "Traceback" not in error
