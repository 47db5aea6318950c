"""Tasks: from a source to stratified, reproducible, identified examples, or to one clear sentence."""

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ntkft._errors import InputError
from ntkft.data import Examples, Task, load_task

SIZES: dict[str, Any] = {"n": 20, "validation": 6, "test": 10, "seed": 1}
ROWS = {
    "text": [f"sentence {i}" for i in range(60)],
    "other": [f"answer {i}" for i in range(60)],
    "label": ["yes" if i % 3 else "no" for i in range(60)],
    "grade": [i / 7 for i in range(60)],
}


@pytest.fixture
def table(tmp_path):
    """Writes rows as a Parquet file and returns its path; columns may be replaced."""

    def write(**changed):
        path = tmp_path / "rows.parquet"
        parquet.write_table(pa.table(ROWS | changed), path)
        return path

    return write


def sets_of(task):
    return {"train": task.train, "validation": task.validation, "test": task.test}


def test_examples_keep_text_pair_and_target_of_their_row(table):
    task = load_task(table(), **SIZES, kind="classification", pair_column="other")
    assert (task.name, task.kind, task.labels) == ("rows.parquet", "classification", ("no", "yes"))
    for part, size in zip(sets_of(task).values(), (20, 6, 10), strict=True):
        assert len(part) == size
        for text, pair, target in zip(part.texts, part.pairs or (), part.targets, strict=True):
            row = ROWS["text"].index(text)
            assert pair == ROWS["other"][row]
            assert task.labels[target] == ROWS["label"][row]
    texts = [text for part in sets_of(task).values() for text in part.texts]
    assert len(set(texts)) == 36


def test_regression_targets_keep_their_units(table):
    task = load_task(table(), **SIZES, kind="regression", label_column="grade")
    assert (task.kind, task.labels, task.train.pairs) == ("regression", (), None)
    assert task.train.targets.dtype == np.float64
    for part in sets_of(task).values():
        rows = [ROWS["text"].index(text) for text in part.texts]
        np.testing.assert_array_equal(part.targets, np.array(rows) / 7)


def test_the_same_rows_give_the_same_task_in_every_format(tmp_path):
    rows = [{"text": f'"{i}" said the {i}th, and so on', "label": i % 3} for i in range(50)]
    lines = {
        "csv": ["text,label", *('"' + row["text"].replace('"', '""') + f'",{row["label"]}' for row in rows)],
        "tsv": ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in rows)],
        "jsonl": [json.dumps(row) for row in rows],
    }
    for ending, content in lines.items():
        (tmp_path / f"rows.{ending}").write_text("\n".join(content))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for kind in ("classification", "regression"):
        digests = {load_task(tmp_path / f"rows.{ending}", **SIZES, kind=kind).digest for ending in (*lines, "parquet")}
        assert len(digests) == 1


def test_labels_choose_classes_and_their_order(table):
    path = table(label=[("red", "green", "blue")[i % 3] for i in range(60)])
    assert load_task(path, **SIZES, kind="classification").labels == ("blue", "green", "red")
    task = load_task(path, **SIZES, kind="classification", labels=("red", "blue"))
    assert task.labels == ("red", "blue")
    for part in sets_of(task).values():
        assert [ROWS["text"].index(text) % 3 for text in part.texts] == [2 * target for target in part.targets]


def test_whole_number_labels_are_numbered_by_value(table):
    task = load_task(table(label=[(10, 9, -1)[i % 3] for i in range(60)]), **SIZES, kind="classification")
    assert task.labels == ("-1", "9", "10")


def test_the_digest_changes_with_anything_that_a_run_sees_and_with_nothing_else(table):
    def digest(path, **changed):
        return load_task(path, **{**SIZES, "kind": "classification", **changed}).digest

    path = table()
    base = digest(path)
    other_text = ["sentence 0", *(f"sentence {i}!" for i in range(1, 60))]
    different = [
        digest(path, seed=2),
        digest(path, n=19),
        digest(path, test=9),
        digest(path, validation=5),
        digest(path, pair_column="other"),
        digest(path, labels=("yes", "no")),
        digest(path, text_column="other"),
        digest(table(text=other_text)),
        digest(table(label=ROWS["label"][::-1])),
    ]
    assert len({base, *different}) == 1 + len(different)
    path = table()
    assert digest(path) == base
    assert digest(path.rename(path.with_name("renamed.parquet"))) == base


def test_one_changed_target_or_one_moved_boundary_changes_the_digest():
    part = Examples(("a", "b"), None, np.array([0.5, 1.5]))
    task = Task("t", "regression", (), part, part, part)
    nudged = dataclasses.replace(part, targets=np.array([0.5, np.nextafter(1.5, 2)]))
    joined = Examples(("ab",), None, np.array([0.5]))
    digests = {task.digest} | {dataclasses.replace(task, validation=x).digest for x in (nudged, joined)}
    digests |= {
        dataclasses.replace(task, kind="classification").digest,
        dataclasses.replace(task, labels=("x",)).digest,
    }
    assert len(digests) == 5


def test_smaller_training_sets_are_prefixes_of_larger_ones(table):
    small, large = (load_task(table(), **{**SIZES, "n": n}, kind="classification") for n in (7, 20))
    assert small.train.texts == large.train.texts[:7]
    assert small.test.texts == large.test.texts
    assert small.validation.texts == large.validation.texts


def test_real_data_are_stratified(shared_data):
    sizes: dict[str, Any] = {"n": 300, "validation": 60, "test": 200, "seed": 13}
    for name, shares in (("sst2", [0.478, 0.522]), ("trec", [0.213, 0.229, 0.016, 0.224, 0.153, 0.164])):
        task = load_task(shared_data / "text" / name / "train.tsv", **sizes, kind="classification")
        for part in sets_of(task).values():
            got = np.bincount(part.targets) / len(part)
            assert np.abs(got - shares).max() < 1.5 / len(part) + 1e-3
    assert task.report().startswith(
        "train.tsv: classification (0 21%, 1 23%, 2 2%, 3 22%, 4 15%, 5 16%), 300 training, 60 validation and 200 test"
    )


def test_real_data_with_empty_sentences_are_refused_by_row(shared_data):
    with pytest.raises(InputError, match=r"the text is empty in row 769 \(''\), 1368 \(''\), 3691 \(''\), 3775 "):
        load_task(shared_data / "text" / "cr" / "all.tsv", **SIZES, kind="classification")


@pytest.mark.parametrize(
    ("changed", "asked", "message"),
    [
        ({}, {"kind": None}, "kind is missing; wanted kind='classification' or kind='regression'"),
        ({}, {"text_column": "sentence"}, "there is no column 'sentence'; the columns are 'text', 'other', 'label'"),
        ({}, {"kind": "regression", "labels": ("yes", "no")}, "a regression task has none; leave them out"),
        (
            {},
            {"kind": "regression"},
            r"column 'label': this is not a finite number in row 1 \('no'\), 2 \('yes'\), .* and 52 more",
        ),
        (
            {"text": [None, "  ", *ROWS["text"][2:]], "label": [*ROWS["label"][1:], None]},
            {},
            r"3 problems\n.*'text': the text is missing in row 1.*\n.*empty in row 2.*\n.*'label': .* in row 60",
        ),
        ({}, {"pair_column": "grade"}, "column 'grade' holds double; wanted text"),
        (
            {},
            {"labels": ("yes", "maybe", "yes")},
            r"with class 'no', 'yes': 2 problems\n  - there is no class 'maybe'\n  - class 'yes' is asked for 2 times",
        ),
        ({"label": ["no"] * 60}, {}, "column 'label' with class 'no': classification needs two classes or more"),
        ({}, {"labels": ("yes",)}, "column 'label' with class 'no', 'yes': classification needs two classes"),
        ({}, {"n": 50}, r"= 66 rows asked for, but there are 60 \(no: 20, yes: 40\); ask for fewer"),
    ],
)
def test_bad_input_gets_one_clear_error(table, changed, asked, message):
    path = table(**changed)
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        load_task(path, **{**SIZES, "kind": "classification", **asked})
    assert len(str(error.value)) < 600


def test_rows_without_text_are_left_out_when_asked_for(tmp_path, shared_data):
    file = tmp_path / "t.jsonl"
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(["a", "b", " ", "c", None, "d", "", "e"])]
    file.write_text("\n".join(map(json.dumps, rows)))
    task = load_task(file, n=3, validation=1, test=1, seed=0, kind="classification", drop_empty=True)
    assert sorted(task.train.texts + task.validation.texts + task.test.texts) == ["a", "b", "c", "d", "e"]
    sizes: dict[str, Any] = {"validation": 0, "test": 0, "seed": 0, "kind": "classification", "drop_empty": True}
    assert len(load_task(shared_data / "text" / "cr" / "all.tsv", n=3771, **sizes).train) == 3775 - 4
