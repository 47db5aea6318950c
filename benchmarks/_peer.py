"""neural-tangents in batches: the largest that fits a budget and the fastest of those, extrapolated by a checked law.

`nt.batch` computes all (n/b)² blocks of b × b examples, of both triangles, at the same cost each. One block is timed
for every implementation and batch, four blocks (n = 2b) for the best of them: they are what is extrapolated, and how
far the single block promised them is the law's error.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks._script import Bench
from ntkft.kernels._neural_tangents import neural_tangents
from ntkft.report.cost import measured
from ntkft.report.workload import Workload

COSTS = ("total", "steady", "cpu")


def best_peer(
    bench: Bench, workload: dict[str, Any], *, memory: float, batches: dict[int, int], examples: Sequence[int]
) -> dict[str, Any]:
    """Every implementation at its best batch within `memory` bytes, and the fastest at the largest of `examples`.

    batches: implementation → the first batch to try
    """
    found = [
        _best_batch(bench, workload, implementation, memory=memory, start=start, examples=examples)
        for implementation, start in batches.items()
    ]
    fitting = [index for index, peer in enumerate(found) if peer["batch"]]
    if not fitting:
        raise SystemExit(f"no implementation fits {memory / 1e9:g} GB at {batches}: start at smaller batches")
    index = min(fitting, key=lambda i: found[i]["extrapolated"][str(max(examples))]["total"])
    block, batch = found[index]["measured"], found[index]["batch"]
    measured = _measure(bench, workload, found[index]["implementation"], batch, 2 * batch, calls=2)
    found[index] |= _extrapolated(measured, batch, examples, blocks=4)
    promised = extrapolate(block, blocks=1, to=4)["steady"]
    law = {"examples": 2 * batch, "promised": promised, "error": promised / measured["steady"] - 1}
    return {"implementations": found, "best": found[index], "law": law}


def extrapolate(found: dict[str, Any], *, blocks: float, to: float) -> dict[str, float]:
    """Costs of `to` blocks, when those of `blocks` were found: compiling stays, the rest grows in proportion."""
    steady, cpu = found["steady"] * to / blocks, found["last"]["cpu"] * to / blocks
    return {
        "total": steady + found["total"] - found["steady"],
        "steady": steady,
        "cpu": cpu + found["cpu"] - found["last"]["cpu"],
    }


def kernel_name(workload: dict[str, Any], implementation: int, batch: int, examples: int) -> str:
    """What a measurement is called."""
    shape = f"{examples} × {workload['tokens']} tokens, {workload['outputs']}"
    return f"neural_tangents:{implementation} of {shape}, in batches of {batch}"


def _best_batch(bench, workload, implementation, *, memory, start, examples) -> dict[str, Any]:
    """One block of larger and larger batches while they can fit; of those that did, the one that takes least a pair."""
    tried: dict[int, dict[str, Any]] = {}
    batch: int | None = start
    while batch is not None and batch <= max(examples) // 3:
        tried[batch] = _measure(bench, workload, implementation, batch, batch, calls=1)
        taken = tried[batch]["bytes"]
        batch = next_batch(batch, taken, memory) if taken <= memory else _between(tried)
    short = {
        b: {key: found[key] for key in ("bytes", "steady", "failed") if key in found} for b, found in tried.items()
    }
    result = {"implementation": implementation, "tried": short, "batch": None}
    fitting = {b: found["steady"] / b**2 for b, found in tried.items() if found["bytes"] <= memory}
    if not fitting:
        return result
    best = min(fitting, key=lambda b: fitting[b])
    return result | {"batch": best} | _extrapolated(tried[best], best, examples, blocks=1)


def _extrapolated(measured, batch, examples, *, blocks) -> dict[str, Any]:
    sizes = {str(n): extrapolate(measured, blocks=blocks, to=(n / batch) ** 2) for n in examples}
    return {"measured": measured, "blocks": blocks, "extrapolated": sizes}


def next_batch(batch: int, taken: float, memory: float) -> int | None:
    """Twice the batch, or half as much again, or none, by what can still fit: memory grows with the batch at most."""
    slack = 1.2  # part of what was taken does not grow
    return next((int(batch * step) for step in (2, 1.5) if step * taken <= slack * memory), None)


def _between(tried: dict[int, dict[str, Any]]) -> int | None:
    """After the first that does not fit: half-way from the last that did, once."""
    last, first = list(tried)[-2:] if len(tried) > 1 else (0, 0)
    return (last + first) // 2 if first == 2 * last and last >= 4 else None


def _measure(bench, workload, implementation, batch, examples, *, calls) -> dict[str, Any]:
    return bench.kernel(
        kernel_name(workload, implementation, batch, examples),
        measure_neural_tangents,
        workload=workload | {"examples": max(workload["examples"], examples)},
        implementation=implementation,
        batch=batch,
        examples=examples,
        calls=calls,
    )


def measure_neural_tangents(
    *, workload: dict[str, Any], implementation: int, batch: int, examples: int, calls: int, file: str
) -> dict[str, Any]:
    """neural-tangents on the first examples; in batches unless one holds them all. The kernel goes to `file`."""
    nt = neural_tangents()
    chosen = Workload(**workload)
    apply_fn, weights, inputs = chosen.build()
    # `nt.batch` takes no dictionaries.
    stacked = np.stack([inputs["input_ids"], inputs["attention_mask"]], axis=1)[:examples]

    def apply_stacked(weights, arrays):
        return apply_fn(weights, {"input_ids": arrays[:, 0], "attention_mask": arrays[:, 1]})

    full = chosen.outputs == "full"
    kernel_fn = nt.empirical_ntk_fn(
        apply_stacked, trace_axes=() if full else (-1,), vmap_axes=0, implementation=implementation
    )
    if batch < examples:
        kernel_fn = nt.batch(kernel_fn, batch_size=batch, device_count=0, store_on_device=False)
    else:
        kernel_fn = jax.jit(kernel_fn)
    with warnings.catch_warnings():
        # It has no rule for gathers: a matter of cost, not of the result.
        warnings.filterwarnings("ignore", message="No Jacobian rule found")
        kernel, found = measured(lambda: np.asarray(kernel_fn(stacked, None, weights)), calls=calls)
    k = 1 if full else _outputs(apply_stacked, weights, stacked)
    np.save(file, np.moveaxis(kernel, 1, 2) if full else kernel * k)
    return found


def _outputs(apply_fn, weights, inputs) -> int:
    """Outputs over which its trace is a mean."""
    return jax.eval_shape(apply_fn, weights, inputs).shape[1]
