"""How much faster is a kernel than the recipes that people write?

Question  The scalar kernel of 64 examples of 64 random tokens over MiniLM's encoder weights (10.6 M): method "factors"
          within 1 GB, against `vmap` of the Jacobian and one product for each weight in JAX, and against PyTorch's
          published recipe (`torch.func`: `vmap(jacrev)` for each argument, one einsum for each weight), eager as there,
          on the same weights. Without torch, that part is left out.
Expected  Ours is faster than both, in a fraction of their memory; kernels agree to 5e-6 √(K_ii K_jj), torch's to 2e-5.
Command   python -m benchmarks.against_recipes
Minutes   2 on two CPU cores.
Time      "total" is the first of two calls in a fresh process, "steady" the second without compiling.
Memory    As in `against_floor`.
Writes    results/DEVICE/against_recipes.json
"""

import importlib.util
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks._script import AGREEMENT, Bench, at_least, at_most, grid, run_script
from ntkft._tree import leaf_paths
from ntkft.report.cost import measured
from ntkft.report.side_by_side import measure_method
from ntkft.report.workload import RANDOM, TINY, Workload

_ENOUGH = int(1e12)  # bytes: recipes know no budget
_TORCH_AGREEMENT = 2e-5  # torch's own float32 rounding: ours stays within AGREEMENT of float64 (against_floor)


@dataclass(frozen=True)
class Settings:
    """One run."""

    model: str | dict[str, Any] = "minilm"
    examples: int = 64
    tokens: int = 64
    memory: float = 1e9
    gemm_size: int = 4096


SMOKE = Settings(model=TINY, examples=6, tokens=8, memory=2e8, gemm_size=256)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and write; returns the record."""
    return run_script(
        "against_recipes", __doc__, settings=Settings(), smoke=SMOKE, compare=compare, tables=tables,
        arguments=arguments,
    )  # fmt: skip


def compare(settings: Settings, bench: Bench) -> dict[str, Any]:
    """Ours, then each recipe."""
    readout = "regression:pool=mean,scale=1,seed=0"
    work = asdict(
        Workload(settings.model, readout, 1, "scalar", r"^layers/", RANDOM, settings.examples, settings.tokens, seed=0)
    )
    common: dict[str, Any] = {"workload": work, "calls": 2}
    found = {
        "factors": bench.kernel("factors", measure_method, method="factors", memory=int(settings.memory), **common)
    }
    found["naive"] = bench.kernel("naive", measure_method, method="naive", memory=_ENOUGH, **common)
    if importlib.util.find_spec("torch"):
        found["torch.func"] = bench.kernel("torch.func", measure_torch, **common)
    bars = {}
    for name in list(found)[1:]:
        bars[f"times faster than {name}"] = at_least(found[name]["total"] / found["factors"]["total"], 1.0)
        bound = _TORCH_AGREEMENT if name == "torch.func" else AGREEMENT
        bars[f"agreement with {name}"] = at_most(bench.disagreement("factors", name), bound)
    return {"measured": found, "bars": bars}


def measure_torch(*, workload: dict[str, Any], calls: int, file: str) -> dict[str, Any]:
    """The recipe of PyTorch's tutorial "Neural Tangent Kernels", by Jacobian contraction; the kernel goes to `file`."""
    import torch
    from torch.func import jacrev, vmap

    from benchmarks._torch_bert import Bert

    chosen = Workload(**workload)
    model = chosen.load_model()
    inputs = chosen.inputs(model)
    tensors = {path: torch.tensor(np.asarray(leaf)) for path, leaf in leaf_paths(model.params).items()}
    weights = {path: leaf for path, leaf in tensors.items() if re.search(chosen.weights, path)}
    bert = Bert(model.config, tensors)
    ids = torch.tensor(inputs["input_ids"], dtype=torch.long)

    def kernel():
        def one(weights, ids):
            return bert(weights, ids[None])[0]

        jacobians = [vmap(jacrev(one), (None, 0))(weights, ids) for _ in range(2)]
        parts = [[leaf.flatten(2) for leaf in jacobian.values()] for jacobian in jacobians]
        return sum(torch.einsum("Naf,Mbf->NMab", a, b) for a, b in zip(*parts, strict=True))

    result, found = measured(lambda: np.asarray(kernel()), calls=calls)
    np.save(file, result[:, :, 0, 0])
    return found


def tables(record: dict[str, Any]) -> list[Table]:
    """Each recipe."""
    rows = grid("against recipes", ("method", "GB", "total s", "compile s", "steady s", "load"))
    for name, found in record["measured"].items():
        seconds = [f"{found[cost]:.1f}" for cost in ("total", "compile", "steady")]
        rows.add_row(name, f"{found['bytes'] / 1e9:.2f}", *seconds, f"{found['load']:.1f}")
    return [rows]


if __name__ == "__main__":
    main()
