"""Documentation sentences: real text, no label in it, something to learn."""

import re
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np

from ntkft.data import builtin, documentation_sentences, load_task, one_hot_targets
from ntkft.data.builtin import MODULES, _first_sentence, _mask


def test_there_are_enough_sentences_of_every_label():
    sentences, labels = documentation_sentences()
    sizes = Counter(labels)
    assert len(sentences) == len(labels) > 1000
    assert tuple(sizes) == tuple(MODULES)
    assert min(sizes.values()) >= 20


def test_no_sentence_names_a_module_or_occurs_twice():
    sentences, _ = documentation_sentences()
    leaks = re.compile(rf"(?<!\w)({'|'.join(MODULES)})(?!\w)", re.IGNORECASE)
    assert [sentence for sentence in sentences if leaks.search(sentence)] == []
    assert len({sentence.rstrip(".") for sentence in sentences}) == len(sentences)


def test_aliases_count_once(monkeypatch):
    def alpha():
        """Alpha decay of unstable nuclei."""

    module = SimpleNamespace(__all__=["alpha", "beta"], alpha=alpha, beta=alpha)
    monkeypatch.setitem(sys.modules, "nuclei", module)
    monkeypatch.setattr(builtin, "MODULES", {"physics": ("nuclei",)})
    sentences, labels = documentation_sentences.__wrapped__()
    assert "X decay of unstable nuclei." in sentences
    assert "Alpha decay of unstable nuclei." not in sentences
    assert set(labels) == {"physics"}


def test_sentences_are_prose():
    for sentence in documentation_sentences()[0]:
        assert "\n" not in sentence
        assert "`" not in sentence
        assert not re.search(r"out=None|\.\. |::", sentence), sentence
        assert len(re.findall(r"[A-Za-z]{2,}", sentence)) >= 3


def test_first_sentences_by_hand():
    ufunc = "jv(x1, x2, /, out=None)\n\n\njv(v, z, out=None)\n\nBessel function of\nthe first kind. More follows."
    assert _first_sentence(ufunc) == "Bessel function of the first kind."
    assert _first_sentence("Title\n=====\n\n.. note:: No.\n\nUses :func:`~a.b` and ``c``.") == "Uses ~a.b and c."
    assert _first_sentence("Distance, e.g. of two points, in R^3. The rest.") == "Distance, e.g. of two points, in R^3."
    assert _first_sentence("") == ""


def test_masks_by_hand():
    assert _mask("Gamma function of stats and scipy.special; gammaln.", "gamma") == "X function of X and X; gammaln."


def test_the_task_is_the_same_on_every_call_and_others_are_kept_out():
    first, second = (
        load_task("docs", n=64, validation=16, test=50, seed=0, labels=("stats", "signal")) for _ in range(2)
    )
    assert first.digest == second.digest
    assert (first.name, first.kind, first.labels) == ("docs", "classification", ("stats", "signal"))
    label_of = dict(zip(*documentation_sentences(), strict=True))
    assert [label_of[text] for text in first.train.texts] == [first.labels[c] for c in first.train.targets]


def test_bags_of_words_learn_the_labels_far_above_the_majority():
    task = load_task("docs", n=256, validation=0, test=300, seed=0)
    k = len(task.labels)
    train, test = bags_of_words(task.train.texts, task.test.texts)
    kernel = train @ train.T + 0.3 * np.eye(len(train))
    scores = test @ train.T @ np.linalg.solve(kernel, one_hot_targets(task.train.targets, k) - 1 / k)
    accuracy = np.mean(scores.argmax(1) == task.test.targets)
    majority = np.bincount(task.test.targets).max() / len(task.test)
    assert accuracy > 0.6 > 2 * majority  # measured with SciPy 1.17: 0.73 and 0.24


def bags_of_words(*sets):
    """Unit-norm word indicators, over the words of the first set."""
    words = [[set(re.findall(r"\w+", text.lower())) for text in texts] for texts in sets]
    vocabulary = sorted(set.union(*words[0]))
    bags = [np.array([[word in bag for word in vocabulary] for bag in texts], float) for texts in words]
    return [bag / np.maximum(np.linalg.norm(bag, axis=1, keepdims=True), 1) for bag in bags]
