"""Within the same memory, how much faster is our Jacobian method than neural-tangents in batches?

Question  The scalar kernel of 256 examples of 64 tokens over MiniLM's encoder weights (10.6 M; the gradients of all
          examples would take 10.9 GB), within 2 GB: `empirical_ntk(method="jacobian", memory="2GB")` against
          `nt.batch` over each implementation of neural-tangents at the largest batch that fits.
Claim     At least 4 times faster.
Command   python -m benchmarks.jacobian_against_neural_tangents    (from the root of the repository; --smoke: seconds)
Minutes   8–12 on two CPU cores, best on a machine that does nothing else
Memory    The most that a fresh process held, less what it held with model, inputs and libraries loaded. Compiler and
          compiled programs count, on both sides.
Time      Ours is measured: the whole call, with and without compiling, before and after the peers; the slower one
          counts. neural-tangents is extrapolated: every block of b × b examples costs the same, and `nt.batch` does
          all (n/b)² of them, both triangles. Blocks are timed at n = 2b; n = 4b then checks the law on the fastest.
Writes    results/cpu-<cores>-core/jacobian_against_neural_tangents.json
"""

import argparse
import json
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._machine import environment, gemm_rate, load
from benchmarks._process import Call, in_fresh_process, peak_bytes, resident_bytes, timed
from ntkft._tree import leaf_paths
from ntkft._types import ApplyFn, Array, PyTree
from ntkft.kernels import empirical_ntk
from ntkft.kernels._neural_tangents import neural_tangents
from ntkft.models import Model, TransformerConfig, random_model, regression
from ntkft.models import load as load_model

MODULE = "benchmarks.jacobian_against_neural_tangents"
CLAIM = 4.0
AGREEMENT = 5e-6  # largest |ΔK| / √(K_ii K_jj) in float32


@dataclass(frozen=True)
class Settings:
    """One run."""

    model: str = "minilm"
    weights: str = r"^layers/"  # the encoder's; embeddings and head are constants
    examples: int = 256
    tokens: int = 64
    memory: float = 2e9
    implementations: tuple[int, ...] = (1, 2, 3)
    smallest_batch: int = 8  # doubled while it fits
    gemm_size: int = 4096
    seed: int = 0  # of the token ids


SMOKE = Settings(
    model="tiny", examples=8, tokens=8, memory=1e9, implementations=(1, 3), smallest_batch=2, gemm_size=256
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One process: its first and last call, memory above the loaded model, and who else was at work."""

    first: Call
    last: Call
    bytes: int
    load: float
    plan: str = ""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, write the JSON and return it. Exits non-zero when the kernels disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model: seconds, and no meaning")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        request = json.loads(options.child)
        found = _MEASURES[request.pop("measure")](Settings(**request.pop("settings")), **request)
        print(json.dumps(found))
        return found

    record = compare(SMOKE if options.smoke else Settings())
    name = MODULE.rpartition(".")[2] + ("_smoke" if options.smoke else "")
    path = options.out / f"cpu-{record['environment']['cores']}-core" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    Console(width=120).print(table(record), f"{path.relative_to(options.out)} in {options.out.name}/")
    if record["disagreement"] > AGREEMENT:
        raise SystemExit(f"the kernels differ by {record['disagreement']:.1e}, more than {AGREEMENT:.0e}")
    return record


def compare(settings: Settings) -> dict[str, Any]:
    """Every measurement of one run, each in a process of its own, and what follows from them."""
    with tempfile.TemporaryDirectory() as folder:

        def child(measure: str, **request: Any) -> dict[str, Any]:
            found = in_fresh_process(MODULE, {"measure": measure, "settings": asdict(settings)} | request)
            print(f"{measure} {request}: {json.dumps(found)}", flush=True)
            return found

        def measure(kernel: str, **request: Any) -> Measurement:
            return _measurement(child(kernel, file=f"{folder}/{kernel}.npy", **request))

        rates = [child("gemm")["rate"]]
        ours = [measure("jacobian")]
        kernel, differences, peers = np.load(f"{folder}/jacobian.npy"), [], []
        for implementation in settings.implementations:
            peers.append(_at_largest_batch(settings, implementation, measure))
            differences.append(disagreement(np.load(f"{folder}/neural_tangents.npy"), kernel))
        best = min(peers, key=lambda peer: peer["seconds"])
        check = measure("neural_tangents", implementation=best["implementation"], batch=best["batch"], examples=4)
        differences.append(disagreement(np.load(f"{folder}/neural_tangents.npy"), kernel))
        ours.append(measure("jacobian"))
        rates.append(child("gemm")["rate"])
        size = child("size")["weights"]
    return summary(settings, size, rates, ours, peers, check, max(differences))
