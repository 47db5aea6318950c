"""`ntkft kernel`: the kernel of a model on a task, into a store that an interrupted run resumes."""

from dataclasses import asdict
from pathlib import Path

from ntkft.cli.console import emit, table
from ntkft.cli.options import Common, compute_kernel, prepare


def kernel(common: Common, *, out: Path) -> None:
    """Compute the kernel over training, validation and test examples together.

    The order of its rows is training, validation, test. The same command resumes or reads what is there.

    Args:
        out: the Zarr store to write, such as K.zarr.
    """
    setup = prepare(common)
    result = compute_kernel(setup, common, out)
    shares = {name: float(result.matrix(name).trace() / result.matrix().trace()) for name in result.groups}
    record = {
        "store": str(out),
        "rows": setup.sizes,
        "outputs": result.outputs,
        "shape": list(result.total.shape),
        "precision": result.precision,
        "plan": asdict(result.plan),
        "share_of_trace": shares,
    }
    rows = [(name, f"{share:.2%}") for name, share in sorted(shares.items(), key=lambda item: -item[1])]
    emit(record, as_json=common.json, tables=[table(f"{out}: {result.total.shape}", ("group", "share of trace"), rows)])
