"""The pieces of the benchmark on a tiny model; what it measures on a real one is under benchmarks/results."""

import json

import jax
import numpy as np
import pytest

from benchmarks import jacobian_against_neural_tangents as benchmark
from benchmarks._problem import only, token_regression
from benchmarks._process import in_fresh_process
from ntkft.kernels import empirical_ntk
from tests.tolerances import KERNEL_F32, kernel_error


def test_the_smoke_setting_compares_equal_kernels_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    def in_this_process(module, request):
        assert module == benchmark.MODULE
        return json.loads(json.dumps(benchmark.main(["--child", json.dumps(request)])))

    monkeypatch.setattr(benchmark, "in_fresh_process", in_this_process)
    record = benchmark.main(["--smoke", "--out", str(tmp_path)])

    assert 0 < record["disagreement"] < KERNEL_F32
    assert [peer["implementation"] for peer in record["neural_tangents"]] == [1, 3]
    assert record["jacobian"][0]["plan"]["parameters"] == 4 * 16 * 16 + 4 * 16 + 2 * 16 * 32 + 32 + 16 + 4 * 16
    (file,) = tmp_path.rglob("*.json")
    assert json.loads(file.read_text()) == json.loads(json.dumps(record))
    printed = capsys.readouterr().out
    assert "neural_tangents:3 in batches of 2, extrapolated" in printed
    assert "times faster (claimed: 4)" in printed

    monkeypatch.setattr(benchmark, "compare", lambda settings: record | {"disagreement": 6e-6})
    with pytest.raises(SystemExit, match=r"the kernels differ by 6\.0e-06 √\(K_ii K_jj\), more than 5e-06"):
        benchmark.main(["--smoke", "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_a_fresh_process_answers_and_says_why_it_cannot():
    settings = {"gemm_size": 8}
    found = in_fresh_process(benchmark.MODULE, {"measure": "gemm", "settings": settings, "arguments": {}})
    assert found["flops"] > 0
    with pytest.raises(SystemExit, match=r"(?s)failed.*KeyError: 'nonsense'"):
        in_fresh_process(benchmark.MODULE, {"measure": "nonsense", "settings": settings, "arguments": {}})


def test_extrapolation_keeps_compiling_and_scales_the_rest_with_the_blocks():
    found = {"total": 9.0, "steady": 4.0, "cpu": 13.0, "last": {"cpu": 6.0}}
    assert benchmark.extrapolate(found, blocks=4, to=16) == {"total": 21.0, "steady": 16.0, "cpu": 31.0}
    assert benchmark.extrapolate(found, blocks=4, to=4) == {"total": 9.0, "steady": 4.0, "cpu": 13.0}


def test_the_largest_batch_is_the_last_that_fits():
    asked = []

    def measure(what, *, implementation, batch, examples, calls):
        asked.append((batch, examples, calls))
        return {"bytes": batch * 10**8, "total": 3.0, "steady": 1.0, "cpu": 4.0, "last": {"cpu": 2.0}}

    settings = benchmark.Settings(memory=2e9)
    peer = benchmark._at_largest_batch(settings, 1, measure)
    assert asked == [(8, 8, 1), (16, 16, 1), (32, 32, 1), (16, 32, 2)]
    assert peer["batch"] == 16
    assert peer["extrapolated"]["steady"] == (256 / 16) ** 2 / 4
    with pytest.raises(SystemExit, match=r"takes 0\.8 GB at a batch of 8, more than 0\.5: start at a smaller batch"):
        benchmark._at_largest_batch(benchmark.Settings(memory=5e8), 1, measure)


def test_disagreement_compares_the_examples_that_both_kernels_have():
    ours = np.diag([4.0, 9.0, 1.0])
    theirs = ours[:2, :2].copy()
    theirs[0, 1] += 0.6
    assert benchmark.disagreement(theirs, ours) == pytest.approx(0.6 / 6)


def test_weights_held_fixed_drop_out_of_the_kernel_and_of_nothing_else():
    function, weights, inputs = token_regression("tiny", weights=".", examples=5, tokens=7, seed=0)
    encoder, chosen = only(function, weights, "^layers/")
    assert set(chosen) == {path for path in weights if path.startswith("layers/")}
    assert inputs.shape == (5, 2, 7)
    np.testing.assert_array_equal(encoder(chosen, inputs), function(weights, inputs))

    parts = {"encoder": "^layers/", "rest": "^(embeddings|head)/"}
    whole = empirical_ntk(function, weights, inputs, outputs="scalar", groups=parts, memory="100MB")
    part = empirical_ntk(encoder, chosen, inputs, outputs="scalar", memory="100MB")
    assert np.diag(part.total).min() > 0
    assert kernel_error(part.total, whole.groups["encoder"]) < KERNEL_F32
    assert jax.tree.reduce(lambda n, leaf: n + leaf.size, chosen, 0) == part.plan.parameters
