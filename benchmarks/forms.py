"""Is the form chosen for a weight the faster one?

Question  Every distinct matrix of MiniLM, 256 examples of 4 to 128 tokens, one output: "materialise" and "pairs"
          by the real contraction on random factors, and the form that `faster_form` chooses.
Bar       (g) the chosen form is never more than 1.15 × slower than the better one.
Command   python -m benchmarks.forms
Minutes   3 on two CPU cores.
Time      The fastest of as many contractions as half a second holds, three at least, or of one that takes longer.
          Choices measured earlier on this kind of machine are taken from its cache, as they are in use.
Writes    results/DEVICE/forms.json
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks._script import Bench, at_most, grid, run_script
from ntkft.kernels.factors import blas
from ntkft.kernels.factors.capture import capture
from ntkft.kernels.factors.forms import Extent, Form, form_flops, possible_forms
from ntkft.kernels.factors.host import Host
from ntkft.kernels.factors.planning import block_tokens
from ntkft.kernels.memory import budget_bytes
from ntkft.report.workload import RANDOM, TINY, Workload

_ENOUGH = 0.5
"""Seconds to spend on a form, so that the fastest of many repetitions stands for a short one."""


@dataclass(frozen=True)
class Settings:
    """One run."""

    model: str | dict[str, Any] = "minilm"
    tokens: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    examples: int = 256
    gemm_size: int = 4096


SMOKE = Settings(model=TINY, tokens=(4, 8), examples=16, gemm_size=256)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and write; returns the record."""
    return run_script(
        "forms", __doc__, settings=Settings(), smoke=SMOKE, compare=compare, tables=tables, arguments=arguments
    )


def compare(settings: Settings, bench: Bench) -> dict[str, Any]:
    """Both forms of every matrix, and the regret of the choice."""
    rows = []
    for tokens in settings.tokens:
        readout = "regression:pool=mean,scale=1,seed=0"
        work = asdict(Workload(settings.model, readout, 1, "scalar", ".", RANDOM, 1, tokens, seed=0))
        rows += bench.run(f"{tokens} tokens", measure_forms, workload=work, examples=settings.examples)
    for row in rows:
        row["regret"] = row["seconds"][row["chosen"]] / min(row["seconds"].values())
    bars = {
        f"g: chosen / better, {tokens} tokens": at_most(
            max(row["regret"] for row in rows if row["program_tokens"] == tokens), 1.15
        )
        for tokens in settings.tokens
    }
    return {"measured": rows, "bars": bars}


def measure_forms(*, workload: dict[str, Any], examples: int) -> list[dict[str, Any]]:
    """Every distinct block of the model's program that has a choice: seconds of each form, and what is chosen."""
    chosen = Workload(**workload)
    program = capture(*chosen.build())
    extent, host = Extent(examples, 0, 1, "scalar"), Host(budget_bytes(None))
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for block in program.blocks:
        forms, tokens = possible_forms(program, block), block_tokens(program, block)
        if len(forms) < 2 or (block.sizes, tokens) in rows:
            continue
        part = _random_part(block.sizes, tokens, examples)
        rows[block.sizes, tokens] = {
            "program_tokens": chosen.tokens,
            "sizes": block.sizes,
            "tokens": tokens,
            "chosen": host.faster_form(forms, block.sizes, tokens, extent, np.dtype(np.float32)),
            "seconds": {form: _seconds(form, part, block.sizes, extent) for form in forms},
            "flops": {form: form_flops(form, block.sizes, extent, tokens) for form in forms},
        }
    return list(rows.values())


def _seconds(form: Form, part: blas.Part, sizes: tuple[int, int, int], extent: Extent) -> float:
    seconds: list[float] = []
    with blas.Workers(blas.available_workers()) as workers:
        while sum(seconds) < _ENOUGH or (len(seconds) < 3 and max(seconds) < _ENOUGH):
            kernel = np.zeros(extent.shape, np.float32)
            start = time.perf_counter()
            blas.contract(form, [part], sizes, extent, kernel, workers)
            seconds.append(time.perf_counter() - start)
    return min(seconds)


def _random_part(sizes: tuple[int, int, int], tokens: int, examples: int) -> blas.Part:
    generator = np.random.default_rng(0)
    batch, rows, width = sizes
    operand = generator.standard_normal((examples, batch, tokens, rows), np.float32)
    cotangent = generator.standard_normal((examples, 1, batch, tokens, width), np.float32)
    return blas.Part("matmul", False, [operand], [cotangent])


def tables(record: dict[str, Any]) -> list[Table]:
    """Seconds of both forms."""
    rows = grid("forms", ("matrix", "tokens", "materialise s", "pairs s", "chosen", "chosen / better"))
    for row in record["measured"]:
        seconds = [f"{row['seconds'][form]:.4f}" for form in ("materialise", "pairs")]
        size = " × ".join(map(str, row["sizes"][1:]))
        rows.add_row(size, str(row["tokens"]), *seconds, row["chosen"], f"{row['regret']:.2f}")
    return [rows]


if __name__ == "__main__":
    main()
