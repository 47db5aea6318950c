"""The exact kernel of 4,096 examples on two cores: within 6 GB, and not lost when the process is killed.

Claim     The scalar kernel of 4,096 examples of 32 tokens over all 22.7 M parameters of all-MiniLM-L6-v2 (their
          gradients would take 372 GB) is computed within 6 GB; two SIGKILLs in the middle of tiles cost at most those
          tiles; what comes out is the kernel that "jacobian" computes, to float32 rounding.
Setting   A fresh regression head on the mean token; tokens uniform over the vocabulary, seed 0; tiles of 1,024.
Command   python -m experiments.resumed_kernel.run                  (from the root of the repository)
Minutes   15–25 on two CPU cores; seconds with --smoke (a tiny random model, 48 examples)
Expected  expected.toml
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from experiments._check import check
from ntkft._tree import take_examples
from ntkft._types import ApplyFn, PyTree
from ntkft.kernels import empirical_ntk, read_kernel
from ntkft.models import load, random_model, read_config, readouts
from ntkft.report.workload import TINY

FOLDER = Path(__file__).parent
REAL = {"model": "minilm", "examples": 4096, "tokens": 32, "tile": 1024, "memory": 6e9}
SMOKE = {"model": "tiny", "examples": 48, "tokens": 8, "tile": 12, "memory": 1e9}
KILLS_AFTER = (0.12, 0.55)  # of the work, each in the middle of a tile


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, kill, resume, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/resumed_kernel"))
    parser.add_argument("--smoke", action="store_true", help="a tiny random model")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    store = options.out / "K.zarr"
    if options.child:
        compute(setting, store)
        return {}

    options.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "experiments.resumed_kernel.run", "--child", "1", "--out", str(options.out)]
    command += ["--smoke"] if options.smoke else []
    start, peaks, resumed = time.time(), [], []
    for limit in (*KILLS_AFTER, None):
        peak, first = run_until(command, limit)
        peaks.append(peak)
        resumed.append(first)
    results = {
        "peak memory over the loaded process, GB": max(peaks) / 1e9,
        "share of the work found after the first kill": resumed[1],
        "share of the work found after the second kill": resumed[2],
        "difference from the Jacobian's kernel": difference(setting, store),
        "minutes": (time.time() - start) / 60,
    }
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    for name, value in results.items():
        print(f"{name:48} {value:.3g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def run_until(command: list[str], limit: float | None) -> tuple[float, float]:
    """Run the child, and kill it when it has done this share of the work; its peak memory and what it began with."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first, base, peak = None, 0.0, 0.0
        for line in child.stdout:
            share, resident, high = map(float, line.split())
            if first is None:
                first, base = share, resident
            peak = high - base
            print(f"\r{share:7.1%}  {peak / 1e9:.2f} GB", end="", flush=True)
            if limit is not None and share >= limit:
                os.kill(child.pid, signal.SIGKILL)
                break
        child.wait()
    print("  killed" if limit is not None else "  finished")
    if limit is None and child.returncode:
        raise SystemExit(f"the run failed with status {child.returncode}")
    assert first is not None
    return peak, first


def compute(setting: dict, store: Path) -> None:
    """In a process of its own: the kernel, with its progress and memory on standard output."""
    apply_fn, params, inputs = problem(setting)

    def report(done: int, total: int) -> None:
        print(done / total, memory("VmRSS"), memory("VmHWM"), flush=True)

    empirical_ntk(
        apply_fn, params, inputs, outputs="scalar", method="factors", memory=setting["memory"], tile=setting["tile"],
        check=False, store=store, progress=report,
    )  # fmt: skip


def problem(setting: dict) -> tuple[ApplyFn, PyTree, PyTree]:
    """The model's function, its parameters and the examples."""
    readout = readouts.regression(pool="mean", scale=1.0, seed=0)
    tiny = setting["model"] == "tiny"
    model = (
        random_model(read_config(TINY), readout=readout, seed=0) if tiny else load(setting["model"], readout=readout)
    )
    shape = (setting["examples"], setting["tokens"])
    ids = np.random.default_rng(0).integers(model.config.tokens.vocab_size, size=shape, dtype=np.int32)
    return model.apply_fn, model.params, {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def difference(setting: dict, store: Path) -> float:
    """Largest |ΔK| / √(K_ii K_jj) against "jacobian", on examples of every row of tiles."""
    apply_fn, params, inputs = problem(setting)
    rows = np.linspace(0, setting["examples"] - 1, 8).astype(int)
    expected = empirical_ntk(
        apply_fn, params, take_examples(inputs, rows), outputs="scalar", method="jacobian", memory="2GB", check=False
    ).total
    found = read_kernel(store).total[np.ix_(rows, rows)]
    unit = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    return float(np.abs((found - expected) / unit).max())


if __name__ == "__main__":
    main()
