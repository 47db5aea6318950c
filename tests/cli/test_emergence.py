"""`ntkft emergence`: groups are never pooled, and a bad table is one sentence or a stated status."""

import json

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.cli.emergence import emergence
from ntkft.emergence import find_threshold

ETA = {"web": 2.4, "books": 3.1}


@pytest.fixture
def file(tmp_path):
    """Accuracy of four options, 25 models a corpus, with a threshold of its own in each."""
    generator, rows = np.random.default_rng(0), ["corpus,loss,accuracy,half"]
    for corpus, eta in ETA.items():
        for loss in generator.uniform(1.8, 4.0, 25):
            accuracy = 0.25 + 0.3 * max(eta - loss, 0) + 0.01 * generator.standard_normal()
            rows.append(f"{corpus},{loss},{accuracy},{'' if loss > 3.5 else 1}")
    path = tmp_path / "models.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def record(capsys, *arguments, **options):
    emergence(*arguments, **options, json=True)
    return json.loads(capsys.readouterr().out)


def test_groups_have_their_own_threshold_and_nothing_is_pooled(file, capsys):
    found = record(capsys, file, loss="loss", score="accuracy", by="corpus", chance=0.25)
    assert list(found["by"]) == list(ETA)
    for corpus, eta in ETA.items():
        mine = found["by"][corpus]
        assert mine["status"] == "threshold"
        assert mine["interval"][0] < eta < mine["interval"][1]
        assert mine["interval"][0] < mine["eta"] < mine["interval"][1]
        assert mine["delta_aic"] > 10
        assert mine["spearman"] < -0.3
    assert all(found[key] is None for key in ("eta", "interval", "delta_aic", "spearman"))
    assert "not pooled" in found["reason"]


def test_without_groups_the_record_is_that_of_the_library(file, capsys):
    found = record(capsys, file, loss="loss", score="accuracy", chance=0.25)
    columns = np.genfromtxt(file, delimiter=",", skip_header=1, usecols=(1, 2))
    expected = find_threshold(columns[:, 0], (columns[:, 1] - 0.25) / 0.75, level=0.95, draws=999, seed=0)
    assert found["by"] == {}
    assert found["status"] == expected.status
    assert found["delta_aic"] == pytest.approx(expected.delta_aic, rel=1e-9)
    assert found["spearman"] == pytest.approx(expected.spearman, rel=1e-9)


@pytest.mark.parametrize("by", [None, "corpus"])
def test_the_folder_holds_the_record_and_the_figure(file, tmp_path, capsys, by):
    emergence(file, loss="loss", score="accuracy", by=by, chance=0.25, out=tmp_path / "out")
    assert "ΔAIC" in capsys.readouterr().out
    assert (tmp_path / "out/emergence.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out/emergence.json").read_text())["by"].keys() == (set() if by is None else set(ETA))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("loss,acc\n2,0.1\n", {"score": "accuracy"}, "there is no column 'accuracy'; the columns are 'loss', 'acc'"),
        ("loss,acc\n2,0.1\n3,nan\n", {}, r"column 'acc': this is not a finite number in row 2 \('nan'\)"),
        ("loss,acc\n2,0.1\n,0.2\n", {}, "column 'loss': the number is missing in row 2"),
        ("loss,acc\n2,0.1\n0,0.2\n-1,0.2\n", {}, r"not above 0 in row 2, 3 \(0, -1\); .* another column with --loss"),
        ("loss,acc\n2,25\n3,30\n", {"chance": 0.25}, "accuracies are outside 0 … 1, such as 25; give shares"),
        ("loss,acc\n2,0.3\n", {"chance": 1.0}, "chance is 1; wanted a share"),
        ("loss,acc\n2,0.3\n", {"by": "corpus"}, "there is no column 'corpus'"),
        ("loss,acc\n", {}, "there are no rows"),
    ],
)
def test_a_bad_table_is_one_error(tmp_path, text, options, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        emergence(path, **{"loss": "loss", "score": "acc"} | options)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(2, 0.5), (3, 0.1)], "2 points with 2 distinct losses"),
        ([(2, 0.1 * i) for i in range(8)], "8 points with 1 distinct losses"),
        ([(i + 1, 0.25) for i in range(8)], "the scores are all the same"),
    ],
    ids=["two points", "equal losses", "equal scores"],
)
def test_a_table_that_cannot_tell_says_so(tmp_path, capsys, rows, reason):
    path = tmp_path / "few.csv"
    path.write_text("\n".join(["loss,acc", *[f"{loss},{score}" for loss, score in rows]]) + "\n")
    found = record(capsys, path, loss="loss", score="acc", out=tmp_path / "out")
    assert found["status"] == "not identified"
    assert reason in found["reason"]
    assert all(found[key] is None for key in ("eta", "interval", "delta_aic", "spearman"))
    assert (tmp_path / "out/emergence.png").is_file()
