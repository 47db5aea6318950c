"""Within the same memory, how much faster is our Jacobian method than neural-tangents in batches?

Question  The scalar kernel of 256 examples of 64 tokens over MiniLM's encoder weights (10.6 M; the gradients of all
          examples would take 10.9 GB), within 2 GB: `empirical_ntk(method="jacobian", memory="2GB")` against
          `nt.batch` around each implementation of neural-tangents, at the largest batch that fits.
Claim     At least 4 times faster.
Command   python -m benchmarks.jacobian_against_neural_tangents    (from the root of the repository; --smoke: seconds)
Minutes   6–10 on two CPU cores. Nothing else should run; every measurement records the load that it met.
Memory    The most that a fresh process held, less what it held once model, inputs and libraries were loaded. The
          compiler and what it compiled count, on both sides.
Time      "total" is one call in a fresh process, "steady" leaves compiling out, "cpu" is the total in seconds of all
          cores. Ours is measured before and after the peers, and the slower of the two counts. neural-tangents is
          extrapolated: `nt.batch` computes all (n/b)² blocks of b × b examples, of both triangles, at the same cost
          each. They are timed at n = 2b, and n = 4b checks that law on the fastest implementation.
Writes    results/cpu-<cores>-core/jacobian_against_neural_tangents.json
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._machine import environment, gemm_rate, load
from benchmarks._problem import token_regression
from benchmarks._process import in_fresh_process, peak_bytes, resident_bytes, timed
from ntkft.kernels import empirical_ntk
from ntkft.kernels._neural_tangents import neural_tangents

MODULE = "benchmarks.jacobian_against_neural_tangents"
CLAIM = 4.0
AGREEMENT = 5e-6  # largest |ΔK| / √(K_ii K_jj), float32
COSTS = ("total", "steady", "cpu")


@dataclass(frozen=True)
class Settings:
    """One run."""

    model: str = "minilm"
    weights: str = r"^layers/"  # the encoder's; embeddings and head are constants
    examples: int = 256
    tokens: int = 64
    memory: float = 2e9
    implementations: tuple[int, ...] = (1, 2, 3)
    smallest_batch: int = 8  # doubled while it fits, up to examples / 4, where the law can still be checked
    gemm_size: int = 4096
    seed: int = 0


SMOKE = Settings(model="tiny", examples=8, tokens=8, implementations=(1, 3), smallest_batch=2, gemm_size=256)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, write the JSON and return it; `SystemExit` when the kernels disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model: figures without meaning")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        request = json.loads(options.child)
        found = MEASUREMENTS[request["measure"]](Settings(**request["settings"]), **request["arguments"])
        print(json.dumps(found))
        return found

    record = compare(SMOKE if options.smoke else Settings())
    Console(width=120).print(table(record))
    if record["disagreement"] > AGREEMENT:
        raise SystemExit(f"the kernels differ by {record['disagreement']:.1e} √(K_ii K_jj), more than {AGREEMENT}")
    folder = options.out / f"cpu-{record['environment']['cores']}-core"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"jacobian_against_neural_tangents{'_smoke' if options.smoke else ''}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(path)
    return record


def compare(settings: Settings) -> dict[str, Any]:
    """All measurements of one run, each in a process of its own, and what follows from them."""
    with tempfile.TemporaryDirectory() as folder:
        file, kernels = Path(folder) / "kernel.npy", []

        def measure(what: str, **arguments: Any) -> dict[str, Any]:
            print(what, arguments or "", flush=True)
            arguments |= {} if what == "gemm" else {"file": str(file)}
            found = in_fresh_process(MODULE, {"measure": what, "settings": asdict(settings), "arguments": arguments})
            if what != "gemm":
                kernels.append(np.load(file))
            return found

        rates = [measure("gemm")]
        ours = [measure("jacobian")]
        peers = [_at_largest_batch(settings, implementation, measure) for implementation in settings.implementations]
        best = min(peers, key=lambda peer: peer["extrapolated"]["total"])
        law = _check_law(best, measure)
        ours.append(measure("jacobian"))
        rates.append(measure("gemm"))

    n, p = settings.examples, ours[0]["plan"]["parameters"]
    slower = {cost: max(found[cost] for found in ours) for cost in COSTS}
    floor = (8 * n * settings.tokens * p + n**2 * p) / max(found["flops"] for found in rates)
    return {
        "question": str(__doc__).partition("\n")[0],
        "settings": asdict(settings),
        "environment": environment(),
        "gemm": rates,
        "jacobian": ours,
        "neural_tangents": peers,
        "law": law,
        "disagreement": max(disagreement(kernel, kernels[0]) for kernel in kernels[1:]),
        "floor": {"seconds": floor, "share": floor / slower["steady"]},
        "ratio": {cost: best["extrapolated"][cost] / slower[cost] for cost in COSTS},
        "claim": CLAIM,
        "share_of_budget": max(found["bytes"] for found in ours) / settings.memory,
    }


def _at_largest_batch(settings: Settings, implementation: int, measure: Callable[..., dict]) -> dict[str, Any]:
    """One implementation of neural-tangents at the largest power of two that fits, extrapolated to all examples."""
    peaks, batch = {}, settings.smallest_batch
    while batch <= settings.examples // 4 and max(peaks.values(), default=0) <= settings.memory:
        probe = measure("neural_tangents", implementation=implementation, batch=batch, examples=batch, calls=1)
        peaks[batch] = probe["bytes"]
        batch *= 2
    fitting = [batch for batch, peak in peaks.items() if peak <= settings.memory]
    if not fitting:
        raise SystemExit(
            f"implementation {implementation} takes {peaks[settings.smallest_batch] / 1e9:.1f} GB at a batch of "
            f"{settings.smallest_batch}, more than {settings.memory / 1e9:.1f}: start at a smaller batch"
        )
    chosen = {"implementation": implementation, "batch": max(fitting), "examples": 2 * max(fitting)}
    found = measure("neural_tangents", **chosen, calls=2)
    extrapolated = extrapolate(found, blocks=4, to=(settings.examples // max(fitting)) ** 2)
    return chosen | {"bytes_by_batch": peaks, "measured": found, "extrapolated": extrapolated}


def extrapolate(found: dict[str, Any], *, blocks: int, to: int) -> dict[str, float]:
    """Costs of `to` blocks, when those of `blocks` were found: compiling stays, the rest grows in proportion."""
    steady, cpu = found["steady"] * to / blocks, found["last"]["cpu"] * to / blocks
    return {
        "total": steady + found["total"] - found["steady"],
        "steady": steady,
        "cpu": cpu + found["cpu"] - found["last"]["cpu"],
    }


def _check_law(peer: dict[str, Any], measure: Callable[..., dict]) -> dict[str, Any]:
    """The steady time of 16 blocks, and what 4 blocks promised."""
    chosen = {"implementation": peer["implementation"], "batch": peer["batch"], "examples": 4 * peer["batch"]}
    found = measure("neural_tangents", **chosen, calls=2)
    promised = extrapolate(peer["measured"], blocks=4, to=16)
    return chosen | {
        "measured": found,
        "promised": promised,
        "error": {cost: promised[cost] / found[cost] - 1 for cost in COSTS},
    }


def disagreement(kernel: np.ndarray, ours: np.ndarray) -> float:
    """Largest |ΔK| / √(K_ii K_jj) over the leading examples that both kernels have, K being ours."""
    ours = ours[: len(kernel), : len(kernel)].astype(np.float64)
    scale = np.sqrt(np.diag(ours))
    return float(np.max(np.abs(kernel - ours) / np.outer(scale, scale)))


def table(record: dict[str, Any]) -> Table:
    """What was measured, for the terminal."""
    settings, rows = record["settings"], Table(box=None, pad_edge=False)
    rows.title = (
        f"{settings['examples']} examples of {settings['tokens']} tokens within {settings['memory'] / 1e9:g} GB"
    )
    for column in ("method", "GB", "total s", "steady s", "cpu s", "load"):
        rows.add_column(column, justify="left" if column == "method" else "right")
    for found in record["jacobian"]:
        rows.add_row(f"jacobian in {found['plan']['passes']} passes", *_cells(found, found))
    for peer in record["neural_tangents"]:
        name = f"neural_tangents:{peer['implementation']} in batches of {peer['batch']}, extrapolated"
        rows.add_row(name, *_cells(peer["extrapolated"], peer["measured"]))
    rows.add_row(
        f"times faster (claimed: {record['claim']:g})", "", *(f"{record['ratio'][cost]:.2f}" for cost in COSTS)
    )
    rates = ", ".join(f"{found['flops'] / 1e9:.0f}" for found in record["gemm"])
    rows.caption = (
        f"GEMM {rates} GFLOP/s; floor {record['floor']['seconds']:.1f} s, {record['floor']['share']:.0%} of steady; "
        f"16 blocks from 4: {record['law']['error']['steady']:+.1%}; "
        f"jacobian held {record['share_of_budget']:.0%} of the budget; kernels differ by {record['disagreement']:.0e}"
    )
    return rows


def _cells(costs: dict[str, float], found: dict[str, Any]) -> list[str]:
    return [f"{found['bytes'] / 1e9:.2f}", *(f"{costs[cost]:.1f}" for cost in COSTS), f"{found['load']:.1f}"]


# What runs in a fresh process, by name.


def measure_gemm(settings: Settings) -> dict[str, Any]:
    """The machine's rate."""
    met = load()
    return {"flops": gemm_rate(settings.gemm_size, repeats=9), "load": met}


def measure_jacobian(settings: Settings, *, file: str) -> dict[str, Any]:
    """Our method, called twice; the kernel goes to `file`."""
    apply_fn, weights, inputs = _problem(settings)

    def call():
        return empirical_ntk(apply_fn, weights, inputs, outputs="scalar", method="jacobian", memory=settings.memory)

    kernel, found = _measure(call, calls=2)
    np.save(file, kernel.total)
    return found | {"plan": asdict(kernel.plan)}


def measure_neural_tangents(
    settings: Settings, *, implementation: int, batch: int, examples: int, calls: int, file: str
) -> dict[str, Any]:
    """`nt.batch` on the first examples; the kernel goes to `file`."""
    nt = neural_tangents()
    apply_fn, weights, inputs = _problem(settings)
    kernel_fn = nt.batch(
        nt.empirical_ntk_fn(apply_fn, trace_axes=(-1,), vmap_axes=0, implementation=implementation),
        batch_size=batch,
        device_count=0,
        store_on_device=False,
    )
    with warnings.catch_warnings():
        # It has no rule for gathers: a matter of cost, not of the result.
        warnings.filterwarnings("ignore", message="No Jacobian rule found")
        kernel, found = _measure(lambda: np.asarray(kernel_fn(inputs[:examples], None, weights)), calls)
    np.save(file, kernel)
    return found


MEASUREMENTS = {"gemm": measure_gemm, "jacobian": measure_jacobian, "neural_tangents": measure_neural_tangents}


def _problem(settings: Settings):
    return token_regression(
        settings.model,
        weights=settings.weights,
        examples=settings.examples,
        tokens=settings.tokens,
        seed=settings.seed,
    )


def _measure(function: Callable[[], Any], calls: int) -> tuple[Any, dict[str, Any]]:
    """The result of `function`; its costs, and the memory of its first call above what is held now."""
    met, held = load(), resident_bytes()
    result, first = timed(function)
    found = {"bytes": peak_bytes() - held, "load": met}
    last = first
    for _ in range(calls - 1):
        result, last = timed(function)
    return result, found | {
        "total": first.wall,
        "steady": last.wall - last.compile,
        "cpu": first.cpu,
        "first": asdict(first),
        "last": asdict(last),
    }


if __name__ == "__main__":
    main()
