"""The pretraining experiment: its smoke run, and the mathematics of its corpus, batches and losses."""

import json
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from experiments.pretrain.checkpoints import checkpoints
from experiments.pretrain.corpus import docstrings, package_corpus, text_corpus
from experiments.pretrain.run import main
from experiments.pretrain.sizes import END, REAL, SIZES, SMOKE, TINY, Setting, Size, attributes
from experiments.pretrain.tokenizer import bigram_loss, packed, prepare, train_tokenizer, unigram_loss
from experiments.pretrain.training import batch_rows, train
from ntkft._errors import InputError
from ntkft.models import load, next_token, read_config
from tests.tolerances import CLOSED_FORM, PARITY

SHORT = replace(SMOKE, vocabulary=264, held_out_rows=4, context=8, batch=4, steps=6, warmup=1, save_every=2)
SENTENCES = "\n\n".join(f"The {noun} of {n} numbers is number {n * n}." for n in range(40) for noun in ("sum", "mean"))


def proceed(done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "sentences.txt"
    path.write_text(SENTENCES)
    return path


@pytest.fixture(scope="module")
def text(text_file):
    return prepare(text_file.parent / "out", SHORT, text_file)


@pytest.fixture(scope="module")
def straight(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    train("tiny", TINY["tiny"], SHORT, text, folder, proceed)
    return folder


def test_smoke_run_learns_and_goes_on_where_it_ended(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert results["resumed against uninterrupted, largest difference"] == 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="holds runs of another setting"):
        main(["--smoke", "--steps", "99", "--out", str(tmp_path)])


def test_a_run_interrupted_twice_writes_the_same_bytes(text, straight, tmp_path):
    def interrupt_at(step):
        def report(done: int, total: int) -> None:
            if done == step:
                raise InterruptedError

        return report

    for step in (1, 5):
        with suppress(InterruptedError):
            train("tiny", TINY["tiny"], SHORT, text, tmp_path / "tiny", interrupt_at(step))
    assert not (tmp_path / "tiny" / "perplexities.npy").exists()
    train("tiny", TINY["tiny"], SHORT, text, tmp_path / "tiny", proceed)
    names = {path.relative_to(straight) for path in straight.rglob("*") if path.is_file() and "state" not in path.parts}
    assert {Path("step-0000006/model.safetensors"), Path("step-0000004.npy"), Path("perplexities.npy")} <= names
    for name in names:
        assert (tmp_path / "tiny" / name).read_bytes() == (straight / name).read_bytes(), name
    reported = []
    train("tiny", TINY["tiny"], SHORT, text, tmp_path / "tiny", lambda *steps: reported.append(steps))
    assert reported == [(SHORT.steps, SHORT.steps)]  # nothing was left to do, and the bar says so


def test_what_an_interrupt_left_of_a_checkpoint_is_written_anew(text, straight, tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise InterruptedError

    half = tmp_path / "tiny" / "step-0000001"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    with suppress(InterruptedError):
        train("tiny", TINY["tiny"], SHORT, text, tmp_path / "tiny", interrupt)
    train("tiny", TINY["tiny"], SHORT, text, tmp_path / "tiny", proceed)
    assert (half / "model.safetensors").read_bytes() == (straight / half.name / "model.safetensors").read_bytes()


def test_checkpoints_say_what_was_trained_and_load_with_the_loss_that_they_state(text, straight):
    found = checkpoints(straight.parent)
    assert [each.step for each in found] == [0, 1, 2, 4, 6] == list(SHORT.checkpoints)
    table = np.load(straight / "perplexities.npy")
    assert table.shape == (SHORT.held_out_rows * SHORT.context, len(found))
    for column, each in zip(table.T, found, strict=True):
        assert each.tokens == each.step * SHORT.batch * SHORT.context
        assert each.flops == 6 * each.parameters * each.tokens
        np.testing.assert_allclose(np.log(column).mean(), each.loss, rtol=PARITY["float32"])
    assert found[0].train_loss is None
    assert found[-1].loss < found[0].loss

    model = load(found[-1].path, readout=next_token())
    row = text.held_out[2]
    for length in (1, 5):  # the reference: one prefix at a time, and only its last position
        inputs = {"input_ids": row[None, :length], "attention_mask": np.ones((1, length), np.int32)}
        logits = np.asarray(model.apply_fn(model.params, inputs), np.float64)[0]
        expected = np.exp(np.log(np.exp(logits).sum()) - logits[row[length]])
        np.testing.assert_allclose(
            table[2 * SHORT.context + length - 1, -1], expected, rtol=PARITY["float32"] * expected
        )


def test_every_size_has_the_parameters_of_its_name(straight):
    def count(size: Size, setting: Setting) -> tuple[int, int]:
        tables = (setting.vocabulary + setting.context) * size.width
        blocks = size.layers * (12 * size.width**2 + 13 * size.width) + 2 * size.width
        return tables + blocks, blocks

    tiny = checkpoints(straight.parent)[0]
    assert (tiny.parameters, tiny.non_embedding) == count(TINY["tiny"], SHORT)
    for name, size in SIZES.items():
        assert abs(count(size, REAL)[0] / 1e6 / float(name[:-1]) - 1) < 0.1, name
        read_config(attributes(size, REAL))


def test_every_pass_sees_every_row_once_in_an_order_of_its_own():
    passes = [np.concatenate([batch_rows(18, step, SHORT) for step in steps]) for steps in (range(4), range(4, 8))]
    assert all(len(set(rows)) == 16 for rows in passes)  # four batches of four; the remainder of two is left out
    assert list(passes[0]) != list(passes[1])
    np.testing.assert_array_equal(batch_rows(18, 5, SHORT), batch_rows(18, 5, SHORT))


def test_rows_are_the_stream_of_documents_and_predict_every_token_once(text_file):
    documents = SENTENCES.split("\n\n")
    tokenizer = train_tokenizer(documents, 300)
    rows = packed(documents, tokenizer, 8)
    stream = [token for each in documents for token in (*tokenizer.encode(each).ids, 0)]
    assert [*rows[:, :-1].ravel()] == stream[: rows[:, 1:].size]
    assert [*rows[:, 1:].ravel()] == stream[1 : rows[:, 1:].size + 1]
    assert len(stream) - rows[:, 1:].size <= 8
    assert tokenizer.decode(tokenizer.encode(documents[3]).ids) == documents[3]
    assert tokenizer.token_to_id(END) == 0


def test_counts_predict_as_their_formulas_and_sum_to_one():
    vocabulary, generator = 7, np.random.default_rng(0)
    train_rows, held_out = (generator.integers(vocabulary - 1, size=(n, 6)) for n in (5, 3))
    c = np.zeros((vocabulary, vocabulary))
    for row in train_rows:
        for v, w in pairwise(row):
            c[v, w] += 1
    p = (1 + c.sum(axis=0)) / (vocabulary + c.sum())
    kinds = np.maximum((c > 0).sum(axis=1, keepdims=True), 1)
    q = (c + kinds * p[None]) / (c.sum(axis=1, keepdims=True) + kinds)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=CLOSED_FORM)
    before, after = held_out[:, :-1], held_out[:, 1:]
    assert abs(unigram_loss(train_rows, held_out, vocabulary) + np.log(p[after]).mean()) < CLOSED_FORM
    assert abs(bigram_loss(train_rows, held_out, vocabulary) + np.log(q[before, after]).mean()) < CLOSED_FORM


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must not be imported."""
    folder = tmp_path / "documented"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "test_it.py").write_text('"""Of a test."""')
    (folder / "broken.py").write_text('"""Of a template {{ name }} """ {{ code }}')
    (folder / "__init__.py").write_text(
        '"""The module,\n\n    with an escape \\d."""\nraise SystemExit\n'
        'def first():\n    """One."""\n    def inner():\n        """Nobody calls it."""\n'
        'def _private():\n    """Hidden."""\n'
        'if True:\n    class Thing:\n        """A thing."""\n        def __init__(self):\n            """Hidden."""\n'
        '        async def method(self):\n            """Two."""\n'
        'def again():\n    """One."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_docstrings_are_the_public_ones_and_each_is_counted_once(package):
    expected = ["The module,\n\nwith an escape \\d.", "One.", "A thing.", "Two."]
    assert list(docstrings(package)) == [*expected, "One."]
    corpus = package_corpus((package,), held_out=0.25, seed=0)
    assert sorted((*corpus.train, *corpus.held_out)) == sorted(expected)
    assert corpus.sizes == {package: sum(map(len, expected))}
    assert corpus.digest == package_corpus((package,), held_out=0.25, seed=0).digest
    assert corpus.digest != package_corpus((package,), held_out=0.25, seed=1).digest


def test_near_copies_are_not_held_out(tmp_path):
    path = tmp_path / "texts.txt"
    shared = "This line of forty characters and more is everywhere."
    path.write_text(END.join(f"{shared}\nAnd number {n} is short." for n in range(10)))
    corpus = text_corpus(path, held_out=0.5, seed=0)
    assert (len(corpus.train), corpus.held_out, corpus.repeated) == (5, (), 0)
    path.write_text(
        END.join(f"{shared}\nThis line, which is just as long, is the only one to say {n}." for n in range(10))
    )
    corpus = text_corpus(path, held_out=0.5, seed=0)
    assert (len(corpus.train), len(corpus.held_out), corpus.repeated) == (5, 5, 0.5)


def test_a_corpus_is_made_once_and_kept(text, text_file):
    again = prepare(text_file.parent / "out", SHORT, text_file.parent / "gone.txt")
    np.testing.assert_array_equal(again.train, text.train)
    assert again.facts == text.facts == json.loads((text_file.parent / "out/corpus/corpus.json").read_text())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"warmup": 6}, "warmup is 6 of 6 steps"),
        ({"held_out": 1.0}, "wanted a share between 0 and 1"),
        ({"vocabulary": 257}, "leave it no pair to learn"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(SHORT, **change)


def test_texts_that_cannot_be_used_are_refused(tmp_path, text_file):
    with pytest.raises(InputError, match="cannot be read"):
        main(["--texts", str(tmp_path / "none.txt"), "--out", str(tmp_path)])
    with pytest.raises(InputError, match="'no_such_package' is not installed"):
        package_corpus(("no_such_package",), held_out=0.1, seed=0)
    with pytest.raises(InputError, match="wanted 4 and 4000; give a longer text"):
        prepare(tmp_path / "long", replace(SHORT, held_out_rows=4000), text_file)
    assert not (tmp_path / "long").exists()
    with pytest.raises(InputError, match="wanted 9999; give a longer text"):
        train_tokenizer(SENTENCES.split("\n\n"), 9999)
    with pytest.raises(InputError, match="holds no checkpoints"):
        checkpoints(tmp_path)


def test_a_loss_that_stops_being_finite_is_refused(text, tmp_path):
    with pytest.raises(InputError, match="the loss of tiny is nan at step 2; train with a lower rate"):
        train("tiny", TINY["tiny"], replace(SHORT, rate=np.inf), text, tmp_path / "tiny", proceed)
