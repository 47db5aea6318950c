"""The kernel along pretraining: its smoke run against plain references, and its measures on kernels made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from experiments.ntk_along_pretraining.cells import alignment, kernel_distance, predicted, shape
from experiments.ntk_along_pretraining.claims import QUANTITIES, along_training, claims, settles
from experiments.ntk_along_pretraining.run import main, path
from experiments.ntk_along_pretraining.setting import SMOKE
from experiments.pretrain.checkpoints import checkpoints
from experiments.pretrain.tasks import Rows, Source, build
from ntkft._errors import InputError
from ntkft.batched import compile_outputs
from ntkft.models import load, next_token, regression
from tests.tolerances import CLOSED_FORM, KERNEL_F32, PARITY, kernel_error

STEPS, SIZES = (0, 8, 32, 128), dict(SMOKE.sizes)
HEAD = regression(pool="mean", scale=SMOKE.scale, seed=0)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder of a smoke run, its results, and its last checkpoint."""
    out = tmp_path_factory.mktemp("along")
    results = main(["--smoke", "--out", str(out)])
    return out, results, checkpoints(out / "pretrain")[-1]


@pytest.fixture(scope="module")
def tokenizer(smoke) -> Tokenizer:
    found = load(smoke[2].path, readout=next_token()).tokenizer
    assert found is not None
    return found


@pytest.fixture(scope="module")
def rows(smoke, tokenizer):
    """The examples of the smoke run."""
    return build(SMOKE.tasks[0][1], SIZES, smoke[0], tokenizer, scale=SMOKE.scale, seed=SMOKE.seed)


def test_a_second_run_measures_nothing_and_another_setting_is_refused(smoke):
    out, results, _ = smoke
    kept = {place: place.stat().st_mtime_ns for place in (out / "docs").iterdir()}
    assert len(kept) == 2 * len(STEPS)
    assert json.dumps(main(["--smoke", "--out", str(out)])) == json.dumps(results)
    assert {place: place.stat().st_mtime_ns for place in (out / "docs").iterdir()} == kept
    for name in ("perplexity", "spectra", "groups", "settling"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    mark = (out / "setting").read_text()
    (out / "setting").write_text("another")
    with pytest.raises(InputError, match="holds runs of another setting; choose another --out, or delete it"):
        main(["--smoke", "--out", str(out)])
    (out / "setting").write_text(mark)


def test_every_kernel_is_the_sum_of_its_eigenvalues_and_holds_the_heads(smoke, rows):
    out, _, _ = smoke
    train = rows.where("train")
    for step in STEPS:
        record = json.loads(path(out, "docs", "tiny", step).read_text())
        whole, head = np.load(path(out, "docs", "tiny", step).with_suffix(".npy")).astype(np.float64)
        values = np.array(record["all"]["eigenvalues"])
        np.testing.assert_allclose(record["all"]["trace"], values.sum(), rtol=CLOSED_FORM)
        np.testing.assert_allclose(np.trace(whole[train]), len(values) * values.sum(), rtol=CLOSED_FORM)
        np.testing.assert_allclose(sum(record["shares"].values()), 1, rtol=CLOSED_FORM)
        share = np.trace(head[train]) / np.trace(whole[train])
        np.testing.assert_allclose(record["shares"]["head"], share, rtol=PARITY["float32"])
        # What is left without the head is a Gram matrix too, that of the other parameters.
        rest = np.linalg.eigvalsh((whole - head)[train])
        assert rest[0] > -KERNEL_F32 * len(rest) * rest[-1]
        low, high = record["all"]["decay_interval"]
        assert low <= high


def test_the_heads_kernel_is_that_of_its_features_and_training_begins_at_the_models_outputs(smoke, rows):
    out, _, last = smoke
    model = load(last.path, readout=HEAD)
    width = model.config.width
    heads = [model.params | {"head": {"kernel": unit[:, None]}} for unit in np.eye(width, dtype=np.float32)]
    outputs = compile_outputs(model.apply_fn, 32)
    features = np.concatenate([outputs(params, rows.inputs) for params in heads], axis=1)
    record = json.loads(path(out, "docs", "tiny", last.step).read_text())
    kernels = np.load(path(out, "docs", "tiny", last.step).with_suffix(".npy"))
    features = features.astype(np.float64)
    assert kernel_error(kernels[1], features @ features[rows.where("train")].T) < KERNEL_F32

    train, test = rows.where("train"), rows.where("test")
    error = np.mean((outputs(model.params, rows.inputs)[test].astype(np.float64) - rows.y[test]) ** 2)
    of_mean = np.mean((rows.y[test] - rows.y[train].mean()) ** 2)
    for name in ("all", "head"):
        np.testing.assert_allclose(record[name]["curve"][0], error / of_mean, rtol=PARITY["float32"])
        assert record[name]["risk"] == record[name]["curve"][SMOKE.epochs.index(record[name]["epoch"])]


def test_the_last_kernel_is_at_no_distance_from_itself(smoke):
    found = json.loads((smoke[0] / "results.json").read_text())["rows"]
    assert [row["step"] for row in found] == list(STEPS)
    assert found[-1]["to_final"] == 0
    assert found[-1]["to_next"] is None
    assert found[-2]["to_final"] == found[-2]["to_next"] > 0


def gram(n: int, rank: int, seed: int) -> np.ndarray:
    factors = np.random.default_rng(seed).normal(size=(n, rank))
    return factors @ factors.T


@pytest.mark.parametrize("k", [1, 3])
def test_predicted_risk_is_that_of_gradient_descent_epoch_by_epoch(k):
    sizes = {"train": 9, "validation": 4, "test": 5}
    generator = np.random.default_rng(k)
    y = np.sign(generator.normal(size=(18, 1))) if k == 1 else np.eye(k)[generator.integers(k, size=18)]
    rows = Rows({}, y, sizes, HEAD)
    assert rows.outputs == ("scalar" if k == 1 else "trace")
    kernel, start = gram(18, 30, seed=0), generator.normal(size=(18, k))
    setting = replace(SMOKE, epochs=tuple(range(7)))
    found = predicted(kernel[:, :9], rows, start, setting, "float64")

    step, outputs, errors = 0.5 / np.linalg.eigvalsh(kernel[:9, :9] / 9)[-1], start, []
    for _ in setting.epochs:
        errors.append(((outputs - y) ** 2).sum(axis=1))
        outputs = outputs + step * kernel[:, :9] @ (y - outputs)[:9] / 9
    validation, test = (np.array([error[part].mean() for error in errors]) for part in (slice(9, 13), slice(13, 18)))
    curve = test / ((y[13:] - y[:9].mean(axis=0)) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(found["curve"], curve, rtol=CLOSED_FORM)
    assert found["epoch"] == np.argmin(validation)
    np.testing.assert_allclose(found["risk"], curve[np.argmin(validation)], rtol=CLOSED_FORM)


def test_shape_is_that_of_the_centred_kernel_whatever_all_examples_have_in_common():
    n, beta = 24, 0.7
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), np.random.default_rng(0).normal(size=(n, n - 1))]))
    values = np.arange(1, n) ** (-2 * beta)
    bare = n * basis[:, 1:] * values @ basis[:, 1:].T
    for common in (0.0, 7.0):
        found = shape(bare + common, SMOKE, "float64")
        np.testing.assert_allclose(found["decay"], beta, rtol=CLOSED_FORM)
        np.testing.assert_allclose(found["common"], common / (common + values.sum()), atol=CLOSED_FORM)
        np.testing.assert_allclose(found["participation_ratio"], values.sum() ** 2 / (values**2).sum())
        ridge = values.sum() / n
        np.testing.assert_allclose(found["effective_dimension"], (values / (values + ridge)).sum())
        np.testing.assert_allclose(found["trace"], values.sum() + common)


def test_targets_drawn_at_random_are_aligned_as_chance_has_it():
    n = 24
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), np.random.default_rng(1).normal(size=(n, n - 1))]))
    kernel, sizes = gram(n, 5, seed=2), {"train": n, "validation": 0, "test": 0}
    found = [alignment(kernel, Rows({}, y[:, None] + 3, sizes, HEAD), SMOKE, "float64") for y in basis.T[1:]]
    np.testing.assert_allclose(np.mean([each["over_chance"] for each in found]), 1, rtol=CLOSED_FORM)
    np.testing.assert_allclose(np.mean([each["leading"] for each in found]), SMOKE.leading / (n - 1), rtol=CLOSED_FORM)
    target = gram(n, 1, seed=3)
    y = np.linalg.eigh(target)[1][:, -1:]
    middle = y - y.mean()
    best = alignment(middle @ middle.T, Rows({}, y, sizes, HEAD), SMOKE, "float64")
    np.testing.assert_allclose(best["alignment"], 1, rtol=CLOSED_FORM)
    np.testing.assert_allclose(best["over_chance"], n - 1, rtol=CLOSED_FORM)


def test_distance_sees_neither_scale_nor_what_all_examples_have_in_common():
    kernel, v = gram(8, 4, seed=0), np.random.default_rng(1).normal(size=8)
    assert kernel_distance(kernel, 3 * kernel + 5 + v[:, None] + v[None]) < CLOSED_FORM
    first, second = np.array([1.0, -1, 0, 0]), np.array([0.0, 0, 1, -1])
    np.testing.assert_allclose(kernel_distance(np.outer(first, first), np.outer(second, second)), 1, rtol=CLOSED_FORM)
    mixed = np.outer(first, first) + np.outer(second, second)
    assert kernel_distance(mixed, mixed) == 0
    np.testing.assert_allclose(kernel_distance(mixed, np.outer(first, first)), 1 - 1 / np.sqrt(2), rtol=CLOSED_FORM)


def test_settled_means_from_then_on():
    steps = np.array([0.0, 1, 2, 4, 8])
    assert settles(steps, np.array([1, 0.05, 0.5, 0.1, 0]), 0.1) == 4
    assert settles(steps, np.array([1, 0.9, 0.5, 0.2, 0]), 0.1) == 8


def table(size: str, shift: float) -> list[dict]:
    """Five checkpoints of a size: everything follows perplexity exactly, but for a shift."""
    perplexity = np.exp([5.0, 4, 3, 2.5, 2])
    left = [1.0, 0.8, 0.3, 0.05, 0.0]
    return [
        {
            "task": "docs",
            "size": size,
            "step": 2**i,
            "loss": np.log(p),
            "perplexity": p,
            "to_final": left[i],
            "above_floor": 9,
        }
        | {name: np.log(p) + shift for name in QUANTITIES}
        | {"alignment": -np.log(p) + shift, "head_risk": np.log(p) + shift + 1 - 2 * (i == 0)}
        for i, p in enumerate(perplexity)
    ]


def test_claims_of_rows_that_follow_perplexity():
    found = claims(table("small", 0.0) + table("large", 0.0), SMOKE)
    assert found["checkpoints × tasks"] == 10
    assert found["docs: predicted risk, Spearman with perplexity"] == pytest.approx(1)
    assert found["docs: alignment, Spearman with perplexity, highest of the sizes"] == pytest.approx(-1)
    assert found["docs: decay exponent, R² that sizes add"] == pytest.approx(0, abs=CLOSED_FORM)
    assert found["docs: predicted risk below that of the head alone, % of checkpoints"] == 80
    apart = claims(table("small", 0.0) + table("large", 9.0), SMOKE)
    assert apart["docs: decay exponent, R² that sizes add"] > 0.5
    moved = along_training(table("small", 0.0), SMOKE)
    assert moved["alignment, last minus first, smallest of the sizes"] == pytest.approx(3)
    assert moved["distance to the last kernel, Spearman with step, highest of the sizes"] == pytest.approx(-1)
    # Kernel: a twentieth is left at step 8. Loss: a sixth is left there, so at 16.
    assert moved["step at which the kernel has settled / the loss, median of the sizes"] == 0.5


def test_three_classes_have_a_column_each(tokenizer, tmp_path):
    lines = [f"sentence {word} number {i} of class {i % 3}\t{i % 3}" for i, word in enumerate("abcdefgh" * 9)]
    (tmp_path / "three.tsv").write_text("text\tlabel\n" + "\n".join(lines))
    rows = build(Source("three.tsv", ("0", "1", "2"), 12), SIZES, tmp_path, tokenizer, scale=1.0, seed=0)
    assert (rows.y.shape, rows.outputs) == ((60, 3), "trace")
    assert set(rows.y.sum(axis=1)) == {1.0}
    assert [rows.where(name) for name in rows.sizes] == [slice(0, 24), slice(24, 36), slice(36, 60)]
