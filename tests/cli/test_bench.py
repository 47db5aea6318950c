"""`ntkft bench` on a tiny checkpoint: what it reports, what it refuses, and what it passes over."""

import json

import numpy as np
import pytest

from ntkft import _errors
from ntkft.cli import main
from ntkft.kernels import empirical_ntk
from ntkft.report.fresh_process import ProcessError, in_fresh_process
from ntkft.report.machine import gemm_rate
from ntkft.report.side_by_side import describe, disagreement, naive_kernel
from ntkft.report.workload import Workload, dense_parameters, floor_flops
from tests.models.tiny import BERT, wordpiece, write_checkpoint
from tests.tolerances import KERNEL_F32, KERNEL_F64, kernel_error

LINEAR = "linear:pool=mean,scale=1,seed=0"
SMALL = BERT | {"num_hidden_layers": 1}


@pytest.fixture
def flags(tmp_path):
    model = write_checkpoint(tmp_path / "bert", SMALL)
    return ["bench", f"--model={model}", "--n=6", "--max-length=8", "--memory=200MB", "--gemm-size=64", "--calls=1"]


@pytest.fixture
def in_this_process(monkeypatch):
    """Measurements without fresh processes, through JSON as there; "jacobian" is killed."""

    def run(function, /, *, x64=False, **arguments):
        if arguments.get("method") == "jacobian":
            raise ProcessError("killed by SIGKILL, most likely out of memory")
        return json.loads(json.dumps(function(**json.loads(json.dumps(arguments)))))

    monkeypatch.setattr("ntkft.cli.bench.in_fresh_process", run)


@pytest.mark.parametrize("outputs", ["scalar", "full"])
def test_methods_side_by_side_and_a_failure_is_reported(flags, in_this_process, outputs, tmp_path, capsys):
    shape = [f"--outputs={outputs}", f"--readout={LINEAR}", *([] if outputs == "scalar" else ["--k=2"])]
    methods = ["--methods", "factors", "jacobian", "neural_tangents:1", "naive"]
    assert main([*flags, *shape, *methods, f"--out={tmp_path / 'out'}", "--json"]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record == json.loads((tmp_path / "out" / "bench.json").read_text())
    rows = {row["method"]: row for row in record["methods"]}
    assert list(rows) == methods[1:]
    assert "killed by SIGKILL" in rows.pop("jacobian")["failed"]
    assert "jacobian failed: killed" in printed.err
    for row in rows.values():
        assert 0 < row["error"] < KERNEL_F32
        assert row["total"] >= row["compile"]
        assert row["share_of_gemm"] == pytest.approx(
            record["size"]["floor_flops"] / row["steady"] / record["machine"]["flops"]
        )


def test_the_table_names_every_method(flags, in_this_process, capsys):
    arguments = ["--outputs=scalar", f"--readout={LINEAR}", "--methods", "factors", "jacobian"]
    assert main([*flags, *arguments]) == 0
    printed = capsys.readouterr().out
    assert "factors" in printed
    assert "failed" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--outputs=full"], "--k: missing with --outputs full; wanted the number of outputs"),
        (["--calls=0"], "got --calls 0"),
        (["--n=0"], "got 0 examples of 8 tokens"),
        (["--weights=nothing"], "matches no parameter"),
        (["--data=nowhere.tsv"], "there is no such file"),
        (["--memory=some"], "wanted bytes or a size"),
        (["--readout=linear:pool=median,scale=1,seed=0"], "median"),
        (["--n=100000", "--data=docs"], "100000 are wanted: lower n"),
        (["--template={text} was {mask}."], "random tokens are no texts to put into it"),
        (["--data=docs", "--template=It was {mask}."], "{text} is missing"),
        (["--data=docs", "--template={text}, {pair}"], "the examples are single texts"),
    ],
)
def test_bad_input_is_one_sentence_and_status_two(flags, in_this_process, change, message, capsys):
    assert main([*flags, "--outputs=scalar", f"--readout={LINEAR}", "--methods", "naive", *change]) == 2
    error = capsys.readouterr().err
    assert message in error.replace("\n", " ")
    assert "Traceback" not in error


def test_label_words_are_measured_in_a_prompt(flags, in_this_process, capsys):
    words = ["--readout=label_words:words=bad|good,position=mask", "--outputs=trace", "--k=2", "--methods", "naive"]
    asked = [*flags, *words, "--data=docs"]
    assert main([*asked, "--template={text} was {mask}.", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["methods"][0]["error"] < KERNEL_F32
    workload = Workload(**record["workload"])
    tokenizer, (_, _, inputs) = wordpiece(), workload.build()
    assert inputs["input_ids"].shape == (6, 8)
    ending = tokenizer.encode("was [MASK].").ids
    for ids, length in zip(inputs["input_ids"], inputs["attention_mask"].sum(axis=1), strict=True):
        assert ids[length - 3 : length].tolist() == ending
    assert main(asked) == 2
    assert "not exactly one mask token" in capsys.readouterr().err.replace("\n", " ")


def test_a_fresh_process_answers_refuses_and_fails_in_words():
    assert in_fresh_process(gemm_rate, size=8, repeats=1) > 0
    with pytest.raises(_errors.InputError, match="got 0 examples"):
        in_fresh_process(describe, workload=_tiny(examples=0), memory=None)
    with pytest.raises(ProcessError, match=r"TypeError: .*unexpected keyword argument 'nonsense'"):
        in_fresh_process(gemm_rate, nonsense=1)


def test_weights_held_fixed_drop_out_of_the_kernel_and_of_nothing_else():
    function, weights, inputs = Workload(**_tiny(weights=".")).build()
    encoder, chosen, same = Workload(**_tiny(weights="^layers/")).build()
    assert set(chosen) == {path for path in weights if path.startswith("layers/")}
    np.testing.assert_array_equal(encoder(chosen, same), function(weights, inputs))
    parts = {"encoder": "^layers/", "rest": "^(embeddings|head)/"}
    whole = empirical_ntk(function, weights, inputs, outputs="scalar", groups=parts, memory="100MB")
    part = empirical_ntk(encoder, chosen, inputs, outputs="scalar", memory="100MB")
    assert kernel_error(part.total, whole.groups["encoder"]) < KERNEL_F32


def test_tables_are_not_dense_and_the_floor_is_its_formula():
    function, weights, inputs = Workload(**_tiny(weights=".")).build()
    tables = sum(weights[f"embeddings/{name}"].size for name in ("token", "position", "token_type"))
    every = sum(leaf.size for leaf in weights.values())
    assert every - tables <= dense_parameters(function, weights, inputs) < every
    assert floor_flops(examples=3, tokens=5, parameters=7, k=1, outputs="scalar") == 7 * (8 * 15 + 9)
    assert floor_flops(examples=3, tokens=5, parameters=7, k=2, outputs="full") == 7 * (14 * 15 + 4 * 9)


def test_the_naive_kernel_is_the_kernel_and_states_its_memory():
    function, weights, inputs = Workload(**_tiny(weights=".", k=2, readout=LINEAR)).build(np.float64)
    for outputs in ("full", "trace"):
        exact = empirical_ntk(function, weights, inputs, outputs=outputs, method="jacobian").total
        assert kernel_error(naive_kernel(function, weights, inputs, outputs, 10**9), exact) < KERNEL_F64
    with pytest.raises(_errors.InputError, match=r"naive: the Jacobian takes .* the budget is 1e-06 GB"):
        naive_kernel(function, weights, inputs, "full", 1000)


def test_disagreement_compares_the_examples_that_both_kernels_have():
    exact = np.diag([4.0, 9.0, 1.0])
    kernel = exact[:2, :2].copy()
    kernel[0, 1] += 0.6
    assert disagreement(kernel, exact) == pytest.approx(0.6 / 6) == disagreement(exact, kernel)
    full = np.arange(36.0).reshape(3, 2, 3, 2) + 10 * np.eye(6).reshape(3, 2, 3, 2)
    assert disagreement(full, full[:2, :, :2]) == 0


def _tiny(**changes):
    workload = {
        "model": SMALL,
        "readout": "regression:pool=mean,scale=1,seed=0",
        "k": 1,
        "outputs": "scalar",
        "weights": ".",
        "texts": "random",
        "examples": 5,
        "tokens": 7,
        "seed": 0,
    }
    return workload | changes
