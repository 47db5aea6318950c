"""The experiment on training trajectories: its smoke run, and its statistics on tables whose law is known."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from experiments.pretrain.checkpoints import Checkpoint, write_record
from experiments.pretrain.sizes import END
from experiments.training_trajectories.behaviour import cloze_task, flops_results
from experiments.training_trajectories.run import TRAINING, compute, main
from experiments.training_trajectories.setting import SMOKE, Trained, read
from experiments.training_trajectories.texts import WEIGHTS, passages, text_results
from experiments.training_trajectories.tokens import (
    correlations,
    dealt,
    kappa,
    lift,
    same_loss,
    scattered,
    shuffled_trends,
)
from ntkft._errors import InputError
from ntkft.trajectories import double_descent
from tests.tolerances import CLOSED_FORM

STEPS = (0, 1, 2, 4, 8, 16, 32)
VOCABULARY = {END: 0} | {f"word{n}": n for n in range(1, 40)}


def checkpoint(size: str, parameters: int, step: int, loss: float) -> Checkpoint:
    path, tokens = Path(size) / f"step-{step:07d}", 10 * step
    return Checkpoint(path, size, parameters, parameters, step, tokens, 6.0 * parameters * tokens, None, loss)


def trained_on(tables: dict[str, np.ndarray], rows: np.ndarray | None = None) -> Trained:
    """Sizes with these tables of perplexities, ten times as many parameters from one to the next."""
    sizes = {
        name: [
            checkpoint(name, 10 ** (2 + place), step, loss)
            for step, loss in zip(STEPS, np.log(table).mean(axis=0), strict=False)
        ]
        for place, (name, table) in enumerate(tables.items())
    }
    held_out = np.zeros((1, 2), np.int32) if rows is None else rows
    return Trained(sizes, tables, held_out, Tokenizer(WordLevel(VOCABULARY, unk_token=END)), 0)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("trajectories")
    return out, main(["--smoke", "--out", str(out)])


def test_the_smoke_run_keeps_its_claims_and_measures_nothing_twice(smoke):
    out, results = smoke
    for name in ("trends", "groups", "same_loss", "texts", "behaviour"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "results.json").read_text())["results"].keys() == results.keys()
    records = {path: path.stat().st_mtime_ns for path in out.glob("*/step-*.json")}
    assert len(records) == 2 * len(TRAINING.checkpoints)
    trained, record = read(out / "pretrain"), json.loads((out / "generated.json").read_text())
    again = compute(trained, replace(SMOKE, trained=trained.identity), record, out)
    assert {name: len(mine) for name, mine in again.items()} == dict.fromkeys(
        ("smaller", "tiny"), len(TRAINING.checkpoints)
    )
    assert {path: path.stat().st_mtime_ns for path in records} == records
    (out / "setting").write_text("another")
    with pytest.raises(InputError, match="holds runs of another setting"):
        main(["--smoke", "--out", str(out)])


def test_drawn_texts_begin_in_the_held_out_part_and_lie_beside_what_was_drawn(smoke):
    out, results = smoke
    record, trained = json.loads((out / "generated.json").read_text()), read(out / "pretrain")
    stream = "".join(f" {token}" for token in (*trained.held_out[:, :-1].ravel(), trained.held_out[-1, -1]))
    for prompt in record["prompts"]:
        assert "".join(f" {token}" for token in prompt) in stream
    small, large = (results[f"text of small − large: perplexity under the {size} model"] for size in ("small", "large"))
    assert small < large
    blocks = (out / "samples.txt").read_text().split("\n\n")
    assert [block.splitlines()[0].split(",")[0] for block in blocks] == [f"# {name}" for name in record["texts"]]
    assert all(block.count(" ‖ ") == SMOKE.prompts for block in blocks)


def test_kappa_is_agreement_beyond_that_of_shuffled_tokens():
    one = np.repeat(["up", "up", "down", "down"], (20, 5, 10, 15))
    other = np.repeat(["up", "down", "up", "down"], (20, 5, 10, 15))
    assert abs(kappa(one, other) - (0.7 - 0.5) / (1 - 0.5)) < CLOSED_FORM  # Cohen's own kind of table
    assert kappa(one, one) == 1
    labels = np.random.default_rng(0).choice(["a", "b", "c"], (2, 4000), p=[0.6, 0.3, 0.1])
    assert abs(kappa(*labels)) < 5 / np.sqrt(4000)
    assert kappa(np.repeat("a", 3), np.repeat("a", 3)) == 1


def test_sizes_on_one_path_are_alike_at_the_same_loss_and_not_at_the_same_step():
    generator, tokens = np.random.default_rng(0), 2000
    start, end, late = generator.normal(size=(3, tokens))

    def path(progress: np.ndarray, noise: float) -> np.ndarray:
        logs = 8 - progress + start[:, None] + progress * end[:, None] + np.maximum(progress - 1, 0) * 2 * late[:, None]
        return np.exp(logs + noise * generator.normal(size=logs.shape))

    slow, fast = np.linspace(0, 1, len(STEPS)), np.linspace(0, 2, len(STEPS))
    trained = trained_on({"small": path(slow, 0.01), "large": path(fast, 0.01)})
    (found,) = same_loss(trained, correlations(trained), 0.1)
    assert (found.smaller, found.larger, found.step) == ("small", "large", STEPS[3])  # where fast is 1
    assert found.across > 0.99 > 0.9 > found.same_step
    assert found.across > found.within
    assert found.gains is not None
    assert found.gains > 0.99

    shuffled = generator.permutation(trained.tables["large"])
    strangers = trained_on({"small": trained.tables["small"], "large": shuffled})
    (found,) = same_loss(strangers, correlations(strangers), 0.1)
    assert found.gains is not None
    assert max(abs(found.across), abs(found.gains)) < 5 / np.sqrt(tokens)
    assert found.within > 0.9  # a size is still itself


def test_shuffled_checkpoints_have_the_trends_of_the_level():
    walk = np.exp(np.cumsum(0.1 * np.random.default_rng(0).normal(size=(20000, 7)), axis=1))
    found = shuffled_trends(walk, 1, seed=1).fractions
    # Six exchangeable values: t is near Student's, so that 2.5 % go either way; ratios to the first are no normal ones.
    for trend in ("upward", "downward"):
        assert abs(found[trend] - 0.025) < 0.01


def test_dealt_changes_keep_every_checkpoint_and_leave_independent_steps_as_they_are():
    generator = np.random.default_rng(0)
    steps = generator.normal(size=(6000, 6))
    walk = np.exp(np.cumsum(steps, axis=1))
    null = dealt(walk, seed=1)
    for old, new in zip(np.diff(np.log(walk)).T, np.diff(np.log(null)).T, strict=True):
        np.testing.assert_allclose(np.sort(new), np.sort(old), atol=CLOSED_FORM)
    shares = [double_descent(table, tolerance=0.1).share for table in (walk, null)]
    assert abs(shares[1] - shares[0]) < 5 * np.sqrt(0.5 / 6000)  # of two independent samples
    noise = np.exp(steps)
    assert double_descent(noise, tolerance=0.1).share > double_descent(dealt(noise, seed=1), tolerance=0.1).share + 0.05


def test_scattered_tokens_keep_their_line_and_the_mean_over_tokens():
    generator = np.random.default_rng(0)
    x, curve = np.arange(6.0), np.array([0.0, -3, -4, -4.5, -4.6, -4.6])
    lines = generator.normal(size=(500, 2)) @ np.stack([np.ones(6), x])
    without_noise = np.exp(curve + lines)
    np.testing.assert_allclose(scattered(without_noise, seed=1), without_noise, rtol=CLOSED_FORM)
    table = np.exp(curve + lines + generator.normal(size=(500, 6)))

    def left(of: np.ndarray, common: np.ndarray) -> np.ndarray:
        own = np.log(of) - common
        return own - np.stack([np.polyval(np.polyfit(x, row, 1), x) for row in own])

    common = np.log(table).mean(axis=0)
    residual = left(table, common)
    null = np.log(scattered(table, seed=1)) - (np.log(table) - residual)
    np.testing.assert_allclose(np.sort(null, axis=1), np.sort(residual, axis=1), atol=CLOSED_FORM)


def test_lift_is_one_for_independent_tokens_and_the_inverse_of_the_share_for_equal_ones():
    one, other = np.tile([True, False], 10), np.repeat([True, False], 10)
    assert lift(one, other) == 1
    assert lift(one, one) == 2
    assert np.isnan(lift(one, one & ~one))


@pytest.fixture
def corpus():
    """Seven documents of different lengths, packed into rows that share their end points."""
    generator, stream = np.random.default_rng(0), []
    for length in (30, 3, 25, 40, 11, 60, 22):
        stream += [*generator.integers(1, 40, length), 0]
    context = 16
    starts = range(0, len(stream) - context, context)
    return np.array([stream[start : start + context + 1] for start in starts], np.int32), stream


def test_passages_lie_inside_one_document_and_do_not_overlap(corpus):
    rows, stream = corpus
    found, documents = passages(rows, 0, 5)
    used = len(rows) * 16 + 1
    expected = [stream[at : at + 5] for at in range(0, used - 4, 5) if 0 not in stream[at : at + 5]]
    assert found.tolist() == expected
    numbers = [stream[:at].count(0) for at in range(0, used - 4, 5) if 0 not in stream[at : at + 5]]
    assert documents.tolist() == numbers


def test_the_first_option_goes_on_in_its_document_and_the_others_are_of_other_ones(corpus):
    rows, _ = corpus
    setting = replace(SMOKE, items=8, context=4, continuation=3)
    task = cloze_task(trained_on({}, rows), setting)
    found, documents = passages(rows, 0, 7)
    home = {tuple(passage): document for passage, document in zip(found.tolist(), documents, strict=True)}
    endings = {passage[4:]: document for passage, document in home.items()}
    assert task.rows.shape == (8, 4, 7)
    for true, *wrong in task.rows.tolist():
        for other in wrong:
            assert other[:4] == true[:4]
            assert endings[tuple(other[4:])] != home[tuple(true)]
    likelihoods = np.random.default_rng(1).normal(size=(32, 6))
    expected = [[likelihoods[4 * item + option, 3:].mean() for option in range(4)] for item in range(8)]
    np.testing.assert_allclose(task.scores(likelihoods), expected, rtol=CLOSED_FORM)
    with pytest.raises(InputError, match="stretches of 7 tokens, wanted 900; hold out more text"):
        cloze_task(trained_on({}, rows), replace(setting, items=900))
    with pytest.raises(InputError, match="cloze: 0 stretches of other documents; hold out a longer text"):
        cloze_task(trained_on({}, np.arange(1, 34, dtype=np.int32)[None]), setting)


def test_the_best_size_changes_where_the_lines_cross():
    """Losses a − b log C, which interpolation in log C keeps exactly."""

    def size(name, parameters, a, b):
        return [checkpoint(name, parameters, step, a - b * np.log(60 * parameters * max(step, 0.5))) for step in STEPS]

    crossing = np.exp((14 - 10) / (0.8 - 0.4))
    sizes = {"small": size("small", 100, 10, 0.4), "large": size("large", 200, 14, 0.8)}
    trained = replace(trained_on({}), sizes=sizes)
    results = flops_results(trained)
    first, last = 60 * 200 * 1, 60 * 100 * 32
    spacing = (last / first) ** (1 / 40)
    assert first < crossing < last
    assert crossing / spacing <= results["small: best up to operations"] <= crossing
    assert results["large: best up to operations"] == pytest.approx(last)
    assert results["operations: the best size falls as they grow, times"] == 0
    assert results["operations: recorded against 6 · parameters · tokens, largest difference"] < CLOSED_FORM


def test_inverse_scaling_is_read_from_the_sizes_that_took_no_part():
    ends = {"a": -1.0, "b": -2.0, "c": -2.5, "d": -3.0}
    curves = {size: {name: [-4.0, -1.5, end] for name in WEIGHTS} for size, end in ends.items()}
    text: dict = {"small": -1.0, "large": -3.0, "preferred": 1.0, "fell_back": 0}
    identities = {"difference": 0.0, "mismatch": 0.0, "normaliser": 0.0, "end": 0.2, "same loss": 0.1}
    trained = trained_on({size: np.ones((2, 3)) for size in ends})
    results = text_results({"texts": dict.fromkeys(WEIGHTS, text)}, identities, curves, trained)
    assert results["text of small − large: log perplexity, c − b"] == 0.5
    assert results["texts: log perplexity when drawn and when read, largest difference"] == 0
    assert results["d: text of small − large, last − lowest log perplexity"] == 1.5
    assert results["a: text of small − large, last − lowest log perplexity"] == 0


def test_checkpoints_that_cannot_be_compared_are_refused(tmp_path):
    def write(size, steps):
        for step in steps:
            path = tmp_path / size / f"step-{step:07d}"
            path.parent.mkdir(exist_ok=True)
            write_record(replace(checkpoint(size, len(size), step, 1.0), path=path), np.array([-1.0, -2.0]))

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    np.save(corpus / "held_out.npy", np.zeros((2, 2), np.int32))
    Tokenizer(WordLevel({"word": 0}, unk_token="word")).save(str(corpus / "tokenizer.json"))
    write("one", (0, 1))
    with pytest.raises(InputError, match="there is one size, one; train another"):
        read(tmp_path)
    write("three", (0,))
    with pytest.raises(InputError, match="2 up to step 1 of one, 1 up to step 0 of three; let the training end"):
        read(tmp_path)
    write("three", (1,))
    with pytest.raises(InputError, match=r"the tokenizer has no <\|endoftext\|>"):
        read(tmp_path)
    Tokenizer(WordLevel(VOCABULARY, unk_token=END)).save(str(corpus / "tokenizer.json"))
    found = read(tmp_path)
    assert (found.steps, list(found.sizes), found.end) == ([0, 1], ["one", "three"], 0)
    np.testing.assert_allclose(found.tables["one"], np.exp([[1, 1], [2, 2]]), rtol=CLOSED_FORM)
    assert all(a.step < b.step for a, b in pairwise(found.sizes["three"]))
