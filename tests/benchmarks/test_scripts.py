"""The benchmark scripts on a tiny model; what they measure on a real one is under benchmarks/results."""

import importlib.util
import json
import shutil

import numpy as np
import pytest

from benchmarks import _script, against_floor, against_neural_tangents, against_recipes, forms, report
from benchmarks._peer import best_peer, extrapolate, next_batch
from ntkft.report.fresh_process import ProcessError
from tests.tolerances import KERNEL_F32


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Measurements without fresh processes, through JSON as there."""

    def run(function, /, *, x64=False, **arguments):
        return json.loads(json.dumps(function(**json.loads(json.dumps(arguments)))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_script, "in_fresh_process", run)
        patch.setattr(forms, "_ENOUGH", 0.01)
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory, in_this_process):
    """A folder with the smoke records of two scripts."""
    folder = tmp_path_factory.mktemp("results")
    against_floor.main(["--smoke", "--out", str(folder)])
    forms.main(["--smoke", "--out", str(folder)])
    return folder


def _agreements(record):
    return {name: bar["measured"] for name, bar in record["bars"].items() if "agreement" in name}


def test_the_floor_is_that_of_the_weights_and_all_kernels_agree(results):
    (file,) = results.rglob("against_floor_smoke.json")
    record = json.loads(file.read_text())
    weights = 4 * 16 * 16 + 4 * 16 + 2 * 16 * 32 + 32 + 16 + 4 * 16
    rate = max(entry["flops"] for entry in record["gemm"])
    by_weights = {row["weights"]: row for row in record["measured"] if row["examples"] == 8}
    assert by_weights["^layers/"]["parameters"] == weights
    assert by_weights["^layers/"]["floor"] == pytest.approx((8 * 8 * 8 + 8**2) * weights / rate)
    assert by_weights["."]["parameters"] == weights + (50 + 16 + 2 + 2) * 16 + 16
    assert all(0 < error < KERNEL_F32 for error in _agreements(record).values())
    assert {name[0] for name in record["bars"]} == {"a", "d", "e", "f"}
    assert not record["bars"]["a: total / floor, n = 8"]["met"]


def test_a_script_prints_what_it_wrote(tmp_path, capsys):
    record = against_recipes.main(["--smoke", "--out", str(tmp_path)])
    assert all(0 < error < KERNEL_F32 for error in _agreements(record).values())
    assert list(record["measured"])[:2] == ["factors", "naive"]
    assert ("torch.func" in record["measured"]) == bool(importlib.util.find_spec("torch"))
    (file,) = tmp_path.rglob("against_recipes_smoke.json")
    assert json.loads(file.read_text()) == record
    printed = capsys.readouterr().out
    assert "times faster than naive" in printed
    assert str(file) in printed


def test_neural_tangents_agrees_in_batches_unbatched_and_full(tmp_path):
    record = against_neural_tangents.main(["--smoke", "--out", str(tmp_path)])
    assert len(_agreements(record)) == 3
    assert all(0 < error < KERNEL_F32 for error in _agreements(record).values())
    assert [peer["implementation"] for peer in record["in_batches"]["peers"]["implementations"]] == [1, 3]
    assert {name[0] for name in record["bars"]} == {"b", "c", "f"}


def test_every_matrix_with_a_choice_is_timed_once_for_each_length(results):
    (file,) = results.rglob("forms_smoke.json")
    record = json.loads(file.read_text())
    sizes = [(row["program_tokens"], *row["sizes"][1:]) for row in record["measured"]]
    assert sorted(sizes) == sorted((t, *size) for t in (4, 8) for size in ((16, 16), (16, 32), (32, 16), (16, 1)))
    assert all(row["regret"] >= 1 for row in record["measured"])


def test_the_page_is_filled_between_its_markers_and_nowhere_else(results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    for file in (tmp_path / "results").rglob("*_smoke.json"):
        file.rename(file.with_stem(file.stem.removesuffix("_smoke")))
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    for _ in range(2):
        report.main(["--results", str(tmp_path / "results"), "--page", str(page)])
        text = page.read_text()
        assert text.startswith(f"before\n\n{report.BEGIN}")
        assert text.endswith(f"{report.END}\n\nafter\n")
        assert "old" not in text
        assert text.count("| factors | 8 |") == 4
    assert len(list((tmp_path / "figures").glob("choosing-*.png"))) == 2
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="has no lines <!-- measured"):
        report.main(["--results", str(tmp_path / "results"), "--page", str(page)])


def test_a_failed_measurement_is_a_missed_bar_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def killed(function, /, **_):
        raise ProcessError("killed by SIGKILL, most likely out of memory")

    monkeypatch.setattr(_script, "in_fresh_process", killed)
    bench = _script.Bench(tmp_path, 8)
    found = bench.kernel("ours", print)
    assert found["failed"].startswith("killed by SIGKILL")
    assert not _script.at_most(found["total"], 2.0)["met"]
    assert not _script.at_least(found["total"] / found["total"], 2.0)["met"]
    assert np.isnan(bench.disagreement("ours", "ours"))
    assert "failed: killed" in capsys.readouterr().out


def test_extrapolation_keeps_compiling_and_scales_the_rest_with_the_blocks():
    found = {"total": 9.0, "steady": 4.0, "cpu": 13.0, "last": {"cpu": 6.0}}
    assert extrapolate(found, blocks=4, to=16) == {"total": 21.0, "steady": 16.0, "cpu": 31.0}
    assert extrapolate(found, blocks=4, to=4) == {"total": 9.0, "steady": 4.0, "cpu": 13.0}


def test_the_best_batch_fits_and_takes_least_for_a_pair():
    asked = []

    class Machine:
        def kernel(self, what, function, *, workload, implementation, batch, examples, calls):
            asked.append((batch, examples, calls))
            steady = batch**1.5 * (examples / batch) ** 2
            return {"bytes": batch * 10**8, "total": steady + 2, "steady": steady, "cpu": 4.0, "last": {"cpu": 2.0}}

    workload = {"tokens": 8, "outputs": "scalar", "examples": 512}
    found = best_peer(Machine(), workload, memory=2.9e9, batches={1: 8}, examples=[512])  # pyright: ignore[reportArgumentType]
    assert asked == [(8, 8, 1), (16, 16, 1), (32, 32, 1), (24, 24, 1), (24, 48, 2)]
    assert found["best"]["batch"] == 24
    assert found["best"]["extrapolated"]["512"]["steady"] == pytest.approx(24**1.5 * (512 / 24) ** 2)
    assert found["law"]["error"] == pytest.approx(0)
    with pytest.raises(SystemExit, match=r"no implementation fits 0\.5 GB"):
        best_peer(Machine(), workload, memory=5e8, batches={1: 8}, examples=[512])  # pyright: ignore[reportArgumentType]
    assert next_batch(16, 1e9, memory=1e9) is None
    assert next_batch(16, 0.7e9, memory=1e9) == 24
