"""`ntkft models`: which checkpoints can be loaded; and what one of them is and costs, before it is loaded."""

import sys
from dataclasses import asdict
from typing import Annotated

import tyro
from rich.table import Table

from ntkft._errors import InputError
from ntkft._types import Outputs
from ntkft.cli.console import emit, table
from ntkft.kernels.estimate import Estimate, estimate_cost
from ntkft.models import linear
from ntkft.models.config import Patches
from ntkft.models.families import FAMILIES
from ntkft.models.families.family import Family
from ntkft.models.loading import abstract_model
from ntkft.models.summary import PARAMETER_BYTES, Summary, summarize


def models(
    source: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    n: int | None = None,
    tokens: int | None = None,
    k: int = 1,
    revision: str | None = None,
    token: str | None = None,
    json: bool = False,
) -> None:
    """List the supported families; or say what a checkpoint is and what its kernel costs, from its config alone.

    Args:
        source: minilm, a directory, or a Hub id, of which config.json alone is fetched. Families when not given.
        n: examples of a kernel to cost.
        tokens: tokens of each example; not for vision models, whose images have one size.
        k: outputs of a fresh linear head: one, or all pairs of several.
        revision: branch, tag or commit of a Hub id.
        token: for Hub ids behind a gate.
        json: print the result as JSON.
    """
    if source is None:
        rows = [(name, _title(family)) for name, family in FAMILIES.items()]
        listed = table("Families, by the model_type of config.json", ("model_type", "what it is"), rows)
        emit({"model_types": list(FAMILIES)}, as_json=json, tables=[listed])
        return
    summary = summarize(source, revision=revision, token=token)
    record: dict[str, object] = {
        "model_type": summary.model_type,
        "total": summary.total,
        "parameters": summary.parameters,
        "bytes": summary.bytes,
    }
    tables = [_sizes(summary)]
    if n is not None:
        cost = _cost(summary, n, tokens, k)
        record["cost"] = {"n": n, "tokens": tokens, "k": k} | asdict(cost) | {"flops": cost.flops}
        rows = [
            ("evaluating and differentiating", f"{cost.sweep_flops / 1e12:.3g} TFLOP"),
            ("contracting", f"{cost.form_flops / 1e12:.3g} TFLOP"),
            ("at 1 TFLOP/s, 100 TFLOP/s", f"{_time(cost.flops / 1e12)}, {_time(cost.flops / 1e14)}"),
            ("memory of the kernels", f"{cost.kernel_bytes / 1e9:.3g} GB"),
            ("memory of the gradients, never held", f"{cost.gradients_bytes / 1e9:.3g} GB"),
        ]
        tables.append(table(f"exact kernel of {n} examples, {k} output{'s' * (k > 1)}", ("", "cost"), rows))
    emit(record, as_json=json, tables=tables)


def _title(family: Family) -> str:
    """The first line of the module that describes a family."""
    doc = sys.modules[family.configure.__module__].__doc__ or ""
    return doc.splitlines()[0]


def _sizes(summary: Summary) -> Table:
    """Parameters and their memory, by group and in all."""
    columns = ("group", "parameters", "share", *(f"MB in {dtype}" for dtype in PARAMETER_BYTES))
    rows = []
    for name, count in {**summary.parameters, "total": summary.total}.items():
        memory = [f"{count * size / 1e6:,.2f}" for size in PARAMETER_BYTES.values()]
        rows.append((name, f"{count:,}", f"{count / summary.total:.1%}", *memory))
    return table(f"{summary.name}: {summary.model_type}", columns, rows)


def _cost(summary: Summary, n: int, tokens: int | None, k: int) -> Estimate:
    """The estimate of the kernel with a fresh head on the mean token."""
    if tokens is None and not isinstance(summary.config.front, Patches):
        raise InputError("--n: the cost of a kernel depends on the length of the examples; give --tokens too")
    model = abstract_model(summary.config, readout=linear(k, pool="mean", scale=1.0, seed=0))
    outputs: Outputs = "scalar" if k == 1 else "full"
    inputs = summary.inputs(n, tokens or 0)
    return estimate_cost(model.apply_fn, model.params, inputs, outputs=outputs, groups=len(model.groups))


def _time(seconds: float) -> str:
    """Seconds in a unit that people read."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
