"""Interrupted runs go on as if nothing had happened, and no run writes into the folder of another."""

import hashlib

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.finetuning import adamw, finetune, gradient_descent
from ntkft.linearize import linearize
from tests.finetuning.tiny import attention, attention_case, flat, sentences

PARAMS, INPUTS, TARGETS = attention_case(0)


def kernel(params):
    """Stands for a kernel: any function of the parameters does for what is stored."""
    return params["v"] @ params["v"].T


def run(folder, **changes):
    options = {
        "apply_fn": attention,
        "params": PARAMS,
        "train": (INPUTS, TARGETS),
        "loss": "squared",
        "optimizer": adamw(0.01, weight_decay=0.1),
        "epochs": 8,
        "batch_size": 3,
        "seed": 1,
        "record_at": [2, 5, 6],
        "evaluate": {"a.b/c": (sentences(9, 5), np.ones((5, 2)))},
        "keep_predictions": ["a.b/c"],
        "kernel_fn": kernel,
        "drift_at": [5],
        "micro_batch": 2,
        "checkpoint": folder,
    } | changes
    return finetune(options.pop("apply_fn"), options.pop("params"), options.pop("train"), **options)


def interrupt_at(epoch):
    def progress(done, total):
        if done == epoch:
            raise KeyboardInterrupt

    return progress


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_identical(result, expected):
    np.testing.assert_array_equal(flat(result.params), flat(expected.params))
    np.testing.assert_array_equal(result.epochs, expected.epochs)
    np.testing.assert_array_equal(result.training_loss, expected.training_loss)
    np.testing.assert_array_equal(result.parameter_distance, expected.parameter_distance)
    np.testing.assert_array_equal(result.kernel_epochs, expected.kernel_epochs)
    np.testing.assert_array_equal(result.kernel_drift, expected.kernel_drift)
    assert result.curves.keys() == expected.curves.keys()
    for name, curve in expected.curves.items():
        for column in ("epochs", "loss", "mse", "predictions"):
            np.testing.assert_array_equal(getattr(result.curves[name], column), getattr(curve, column))
        assert result.curves[name].accuracy is curve.accuracy is None


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path):
    for epoch in (2, 6):  # before epoch 2 is recorded, and after epoch 5 is
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, progress=interrupt_at(epoch))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["5"]
    seen, kernels = [], []

    def counted_kernel(params):
        kernels.append(1)
        return kernel(params)

    resumed = run(tmp_path, kernel_fn=counted_kernel, progress=lambda done, total: seen.append(done))
    assert min(seen) == 6
    assert not kernels  # K₀ was kept
    assert_identical(resumed, run(None))


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    first = run(tmp_path)
    before = contents(tmp_path)
    assert_identical(run(tmp_path, progress=interrupt_at(8)), first)
    assert contents(tmp_path) == before


def test_a_run_that_diverged_diverges_again_from_its_last_record(tmp_path):
    steep = {"optimizer": gradient_descent(1e60), "epochs": 20}
    first = run(tmp_path, **steep)
    assert first.status == "diverged"
    again = run(tmp_path, **steep)
    assert (again.diverged_at, again.epochs.tolist()) == (first.diverged_at, first.epochs.tolist())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


def other_data():
    targets = TARGETS.copy()
    targets[3, 1] += 1e-9
    return INPUTS, targets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": PARAMS | {"head": PARAMS["head"] * (1 + 1e-12)}}, "params was"),
        ({"train": other_data()}, "train was"),
        ({"evaluate": {"a.b/c": (sentences(8, 5), np.ones((5, 2)))}}, "evaluate was"),
        ({"optimizer": adamw(0.02, weight_decay=0.1)}, r"optimizer was adamw\(step_size=0.01.* now .*step_size=0.02"),
        ({"seed": 2}, "seed was 1, now 2"),
        ({"epochs": 9, "batch_size": 4}, r"3 problems(.|\n)*epochs was 8, now 9"),
        ({"apply_fn": linearize(attention, PARAMS)}, "apply_fn is another function"),
    ],
)
def test_another_run_is_refused_and_nothing_is_overwritten(finished, change, message):
    before = contents(finished)
    with pytest.raises(InputError, match=rf"holds another run; name another folder:(.|\n)*{message}"):
        run(finished, **change)
    assert contents(finished) == before


def test_the_micro_batch_is_no_part_of_what_a_run_is(finished):
    run(finished, micro_batch=5)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("draft")
    with pytest.raises(InputError, match="holds other files; name a new or empty folder"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ['{"identity": {"loss"', '{"probe": []}', "[]"])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json cannot be read .*; name another checkpoint folder"):
        run(tmp_path)


def test_what_an_interrupted_write_leaves_is_ignored(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=interrupt_at(6))
    (tmp_path / "6.orbax-checkpoint-tmp").mkdir()
    assert_identical(run(tmp_path), run(None))


def test_layers_keyed_by_numbers_come_back_in_their_place(tmp_path):
    params = {"layers": {i: {"w": np.full((2, 1), i + 1.0)} for i in range(12)}}

    def deep(params, inputs):
        return inputs @ sum((i + 1) * params["layers"][i]["w"] for i in range(12))

    x = np.arange(8.0).reshape(4, 2)
    deep_run = {
        "apply_fn": deep,
        "params": params,
        "train": (x, x[:, :1]),
        "evaluate": {},
        "keep_predictions": [],
        "kernel_fn": None,
        "drift_at": [],
    }
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=interrupt_at(6), **deep_run)
    resumed = run(tmp_path, **deep_run)
    assert list(resumed.params["layers"]) == list(range(12))
    assert_identical(resumed, run(None, **deep_run))
