"""`ntkft bench`: exact kernel methods side by side on this machine, each in a fresh process.

Nothing else should be running: the load that each measurement met is in the JSON.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from ntkft._errors import InputError
from ntkft.cli.console import emit, progress, say, table
from ntkft.report.fresh_process import ProcessError, in_fresh_process
from ntkft.report.record import to_json
from ntkft.report.side_by_side import describe, disagreement, measure_machine, measure_method, reference
from ntkft.report.workload import RANDOM, Workload

BenchMethod: TypeAlias = Literal[
    "factors",
    "factors:materialise",
    "factors:pairs",
    "jacobian",
    "neural_tangents:1",
    "neural_tangents:2",
    "neural_tangents:3",
    "naive",
]

_GEMM_SIZE = 4096
_REFERENCE_EXAMPLES = 8


def bench(
    *,
    readout: str,
    n: int,
    max_length: int,
    outputs: Literal["full", "trace", "scalar"],
    k: int | None = None,
    model: str = "minilm",
    data: str = RANDOM,
    text_column: str = "text",
    template: str | None = None,
    weights: str = ".",
    methods: tuple[BenchMethod, ...] = ("factors", "jacobian", "neural_tangents:1", "neural_tangents:3", "naive"),
    memory: str | None = None,
    calls: int = 2,
    gemm_size: int = _GEMM_SIZE,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time, memory and accuracy of kernel methods on this machine.

    "total" is one call in a fresh process, "steady" the last of --calls without compiling. Memory is above that of
    the process with model and data loaded. "of GEMM" is the share of the machine's own float32 rate, measured in the
    same run, that the operations of the floor (6·n·t·p + 2·n·t·p + n²·p) reach in the steady time. The error is the
    largest |ΔK|/√(K_ii K_jj) against float64 over the first examples. A method that fails says so and is passed over.

    Args:
        readout: outputs of the model, as in `ntkft kernel`.
        n: examples.
        max_length: tokens to which every example is cut or padded.
        outputs: form of the kernel.
        k: outputs of a linear or label_words readout; 1 with --outputs scalar.
        model: minilm, a directory with config.json, tokenizer.json and safetensors, or a Hub id.
        data: random (tokens), docs, a .tsv, .csv, .jsonl or .parquet file, or hf:OWNER/NAME.
        text_column: column of the texts.
        template: prompt for label words, as in `ntkft kernel`, for single texts. The texts alone when not given.
        weights: regular expression over parameter paths; other parameters are constants.
        methods: those to compare, separated by spaces. naive is vmap of the Jacobian and one product for each weight.
        memory: budget of the kernel's arrays, such as 4GB; half of the free memory when not given.
        calls: calls of each method in its process.
        gemm_size: side of the matrices whose product gives the machine's rate.
        seed: seed of the tokens, or of the choice of texts.
        out: folder for bench.json.
        json: print the result as JSON.
    """
    if k is None and outputs != "scalar":
        raise InputError(f"--k: missing with --outputs {outputs}; wanted the number of outputs of the readout")
    if calls < 1 or gemm_size < 1:
        raise InputError(f"got --calls {calls} and --gemm-size {gemm_size}; wanted at least 1 of each")
    workload = asdict(
        Workload(model, readout, k or 1, outputs, weights, data, n, max_length, seed, text_column, template)
    )
    with tempfile.TemporaryDirectory() as folder, progress("bench") as advance:
        exact = Path(folder) / "reference.npy"
        steps = 3 + len(methods)
        size = in_fresh_process(describe, workload=workload, memory=memory)
        advance(1, steps)
        machine = in_fresh_process(measure_machine, gemm_size=gemm_size)
        advance(2, steps)
        truth = _attempt(
            reference, x64=True, workload=workload, first=_REFERENCE_EXAMPLES, memory=size["memory"], file=str(exact)
        )
        advance(3, steps)
        found = []
        for done, method in enumerate(methods, start=4):
            file = Path(folder) / "kernel.npy"
            common = {"workload": workload, "method": method, "memory": size["memory"], "file": str(file)}
            row = {"method": method} | _attempt(measure_method, calls=calls, **common)
            if "failed" not in row:
                row["share_of_gemm"] = size["floor_flops"] / row["steady"] / machine["flops"]
                row["error"] = disagreement(np.load(file), np.load(exact)) if "failed" not in truth else None
            found.append(row)
            advance(done, steps)
    for row in [{"method": "float64 reference"} | truth, *found]:
        if "failed" in row:
            say(f"{row['method']} failed: {row['failed']}")
    record = {"workload": workload, "size": size, "machine": machine, "methods": found}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_text(to_json(record))
        say(f"wrote {out}/bench.json")
    emit(record, as_json=json, tables=[_table(record)])


def _attempt(function, **arguments) -> dict[str, Any]:
    """What a fresh process finds, or why it failed."""
    try:
        return in_fresh_process(function, **arguments) or {}
    except (InputError, ProcessError) as error:
        return {"failed": str(error)}


def _table(record: dict[str, Any]):
    workload, size = record["workload"], record["size"]
    title = (
        f"{workload['examples']} examples of {workload['tokens']} tokens, {size['parameters']:,} parameters, "
        f"{size['k']} outputs ({workload['outputs']}), within {size['memory'] / 1e9:.3g} GB; "
        f"GEMM {record['machine']['flops'] / 1e9:.0f} GFLOP/s"
    )
    columns = ("method", "total s", "compile s", "steady s", "GB", "of GEMM", "error")
    return table(title, columns, [_cells(row) for row in record["methods"]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in row:
        return row["method"], "failed", *[""] * 5
    seconds = [f"{row[cost]:.2f}" for cost in ("total", "compile", "steady")]
    error = "" if row["error"] is None else f"{row['error']:.0e}"
    return row["method"], *seconds, f"{row['bytes'] / 1e9:.2f}", f"{row['share_of_gemm']:.0%}", error
