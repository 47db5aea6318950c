"""What the scripts share: their command line, their bars, and where their records go."""

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ntkft._errors import InputError
from ntkft.report.fresh_process import ProcessError, in_fresh_process
from ntkft.report.record import to_plain
from ntkft.report.side_by_side import disagreement, measure_machine

RESULTS = Path(__file__).parent / "results"
AGREEMENT = 5e-6
"""Largest |ΔK| / √(K_ii K_jj) between float32 kernels, and from float64."""


class Bench:
    """Measurements of one run, each in a fresh process; kernels stay until the run ends."""

    def __init__(self, folder: Path, gemm_size: int):
        self._folder = folder
        self._gemm_size = gemm_size
        self.machine: list[dict[str, Any]] = []

    def measure_machine(self) -> None:
        """The GEMM rate now: before, after, and wherever a run is long."""
        self.machine.append(self.run("machine", measure_machine, gemm_size=self._gemm_size))

    @property
    def flops(self) -> float:
        """The highest rate that was measured."""
        return max(found["flops"] for found in self.machine)

    def run(self, what: str, function: Callable[..., Any], **arguments: Any) -> Any:
        """`function` in a fresh process, announced as `what`."""
        print(what, flush=True)
        return in_fresh_process(function, **arguments)

    def kernel(self, what: str, function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
        """A measurement that leaves a kernel, which `disagreement` knows by `what`.

        One that fails costs infinitely much, and says why: the run goes on.
        """
        try:
            found: dict[str, Any] = self.run(what, function, file=str(self._file(what)), **arguments)
            if found:  # a reference has no costs
                costs = (f"{found['total']:.1f} s", f"{found['steady']:.1f} s steady", f"{found['bytes'] / 1e9:.2f} GB")
                print(f"  {', '.join(costs)}", flush=True)
            return found
        except (InputError, ProcessError) as error:
            print(f"  failed: {error}", flush=True)
            costs = dict.fromkeys(("bytes", "total", "steady", "cpu"), np.inf)
            return {"failed": str(error), "compile": 0.0, "load": 0.0, "last": {"cpu": np.inf}} | costs

    def disagreement(self, what: str, reference: str) -> float:
        """Of two kernels by name, over the leading examples of both; NaN when one was not computed."""
        files = [self._file(what), self._file(reference)]
        return disagreement(*map(np.load, files)) if all(file.is_file() for file in files) else np.nan

    def _file(self, what: str) -> Path:
        return self._folder / f"{re.sub(r'[^a-z0-9]+', '-', what.lower())}.npy"


def run_script(
    name: str,
    doc: str | None,
    *,
    settings: Any,
    smoke: Any,
    compare: Callable[[Any, Bench], dict[str, Any]],
    tables: Callable[[dict[str, Any]], Sequence[Table]],
    arguments: Sequence[str] | None,
) -> dict[str, Any]:
    """Measure, write the JSON, print tables and bars, and return the record. A missed bar is said, not raised."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model: figures without meaning")
    options = parser.parse_args(arguments)
    chosen = smoke if options.smoke else settings
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.gemm_size)
        bench.measure_machine()
        found = compare(chosen, bench)
    record = {
        "question": str(doc).partition("\n")[0],
        "settings": chosen,
        "environment": bench.machine[0]["environment"],
        "gemm": [{key: entry[key] for key in ("flops", "load")} for entry in bench.machine],
    } | found
    path = options.out / device_folder(record["environment"]) / f"{name}{'_smoke' if options.smoke else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain := to_plain(record), indent=1, ensure_ascii=False) + "\n")
    console = Console(width=120)
    for table in [*tables(record), bars_table(record["bars"])]:
        console.print(table)
    rates = ", ".join(f"{entry['flops'] / 1e9:.0f} at load {entry['load']}" for entry in record["gemm"])
    print(f"GEMM, GFLOP/s: {rates}\n{path}")
    return plain


def device_folder(environment: dict[str, Any]) -> str:
    """`cpu-2-core`, or the accelerator's name."""
    device = str(environment["device"]).lower()
    return f"cpu-{environment['cores']}-core" if device == "cpu" else re.sub(r"[^a-z0-9]+", "-", device)


def at_most(measured: float, bound: float) -> dict[str, Any]:
    """A bar that is met from below."""
    return {"measured": measured, "wanted": f"≤ {bound:g}", "met": bool(measured <= bound)}


def at_least(measured: float, bound: float) -> dict[str, Any]:
    """A bar that is met from above."""
    return {"measured": measured, "wanted": f"≥ {bound:g}", "met": bool(measured >= bound)}


def bars_table(bars: dict[str, dict[str, Any]]) -> Table:
    """The verdicts."""
    rows = grid("bars", ("bar", "measured", "wanted", ""))
    for name, bar in bars.items():
        rows.add_row(name, f"{bar['measured']:.3g}", bar["wanted"], "met" if bar["met"] else "[bold]MISSED[/bold]")
    return rows


def grid(title: str, columns: Sequence[str]) -> Table:
    """A plain table, its first column on the left and numbers on the right."""
    rows = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for position, column in enumerate(columns):
        rows.add_column(column, justify="left" if position == 0 else "right")
    return rows
