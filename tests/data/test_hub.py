"""The Hub, behind a stand-in for the optional package `datasets` that mimics the three calls made to it."""

import sys
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from ntkft._errors import InputError
from ntkft.data import load_task


class ClassLabel:
    """Class numbers with names, as in `datasets.ClassLabel`."""

    def __init__(self, names):
        self.names = names


def stand_in(table, features, calls):
    def load_dataset(name, config, split):
        calls.append((name, config, split))
        if table is None:
            raise ConnectionError("couldn't reach the Hub")
        return SimpleNamespace(features=features, with_format=lambda kind: {"arrow": table}[kind])

    return SimpleNamespace(ClassLabel=ClassLabel, load_dataset=load_dataset)


@pytest.fixture
def hub(monkeypatch):
    def install(label, names):
        calls = []
        table = pa.table({"text": [f"text {i}" for i in range(len(label))], "label": label}) if label else None
        features = {"text": None, "label": ClassLabel(names)}
        module = stand_in(table, features, calls)
        monkeypatch.setitem(sys.modules, "datasets", module)
        return calls

    return install


SIZES: dict[str, Any] = {"n": 2, "validation": 1, "test": 1, "seed": 0, "kind": "classification"}


def test_class_numbers_become_class_names(hub):
    hub([0, 1, 1, 0, 1, 0], ["negative", "positive"])
    task = load_task("hf:owner/name", **SIZES, labels=("positive", "negative"))
    assert task.labels == ("positive", "negative")
    assert task.name == "hf:owner/name"
    numbers = {"text 0": 0, "text 1": 1, "text 2": 1, "text 3": 0, "text 4": 1, "text 5": 0}
    for text, target in zip(task.train.texts, task.train.targets, strict=True):
        assert task.labels[target] == ("negative", "positive")[numbers[text]]


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hf:imdb", ("imdb", None, "train")),
        ("hf:owner/name", ("owner/name", None, "train")),
        ("hf:owner/name/config", ("owner/name", "config", "train")),
    ],
)
def test_the_source_names_owner_data_set_and_configuration(hub, source, call):
    calls = hub([0, 1] * 3, ["a", "b"])
    load_task(source, **SIZES)
    assert calls == [call]


def test_unlabelled_rows_are_missing_values(hub):
    hub([0, 1, -1, None], ["a", "b"])
    with pytest.raises(InputError, match=r"column 'label': the label is missing in row 3 \(None\), 4 "):
        load_task("hf:owner/name", **SIZES)


def test_data_that_cannot_be_loaded_is_refused_with_the_form_and_the_cause(hub):
    hub(None, [])
    with pytest.raises(InputError, match=r"cannot be loaded \(ConnectionError: couldn't .*wanted hf:OWNER/NAME or "):
        load_task("hf:owner/name", **SIZES)


def test_without_the_package_the_install_command_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"install it with: pip install 'ntkft\[datasets\]'"):
        load_task("hf:owner/name", **SIZES)
