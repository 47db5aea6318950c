"""How far is a kernel from what the machine could do at best, and does it keep to its memory?

Question  Scalar kernels over MiniLM's encoder weights (10.6 M), examples of 64 random tokens, method "factors" and, for
          comparison, "jacobian".
Bars      (a) 512 and 1024 examples, 4 GB: total ≤ 2.0 × floor, where floor = (6·n·t·p + 2·n·t·p + n²·p) / GEMM rate.
          (d) all 22.7 M parameters, embeddings included: ≤ 1.25 × the encoder-only time (512 examples), both with
          random tokens and with real text, padded to 64.
          (e) 512 examples: peak memory ≤ 1.10 × budget, for 0.5, 1 and 4 GB.
          All kernels agree to 5e-6 √(K_ii K_jj), also with float64.
Command   python -m benchmarks.against_floor
Minutes   14 on two CPU cores.
Time      "total" is one call in a fresh process, "steady" the last call there without compiling. The GEMM rate is the
          highest of the run, XLA's or NumPy's.
Memory    The most that the process held during the first call, less what it held with model and inputs loaded. The
          compiler and what it compiled count.
Writes    results/DEVICE/against_floor.json
"""

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from benchmarks._script import AGREEMENT, Bench, at_most, grid, run_script
from ntkft.report.side_by_side import describe, measure_method, reference
from ntkft.report.workload import RANDOM, TINY, Workload, floor_flops

ENCODER, ALL = r"^layers/", "."


@dataclass(frozen=True)
class Settings:
    """One run."""

    model: str | dict[str, Any] = "minilm"
    tokens: int = 64
    memory: float = 4e9
    sizes: tuple[int, ...] = (128, 512, 1024)
    judged: tuple[int, ...] = (512, 1024)  # by bar (a)
    jacobian: tuple[int, ...] = (128,)
    budgets: tuple[float, ...] = (5e8, 1e9)  # and `memory`
    middle: int = 512  # examples of bars (d) and (e)
    texts: tuple[str, ...] = (RANDOM, "docs")
    twice: int = 512  # up to so many examples, a second call gives the steady time
    gemm_size: int = 4096


SMOKE = Settings(
    model=TINY, tokens=8, memory=2e8, sizes=(4, 8), judged=(8,), jacobian=(4,), budgets=(1e8,), middle=8,
    texts=(RANDOM,), gemm_size=256,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and write; returns the record."""
    return run_script(
        "against_floor", __doc__, settings=Settings(), smoke=SMOKE, compare=compare, tables=tables, arguments=arguments
    )


def compare(settings: Settings, bench: Bench) -> dict[str, Any]:
    """All measurements, and what follows from them."""
    rows: list[dict[str, Any]] = []

    def measure(
        method="factors", *, n: int, memory=settings.memory, weights=ENCODER, texts=RANDOM, twice=True
    ) -> dict[str, Any]:
        work = workload(settings, n, weights, texts)
        what = f"{method}, {n} examples of {texts}, weights {weights}, {memory / 1e9:g} GB"
        calls = 2 if twice and n <= settings.twice and method == "factors" else 1
        found = bench.kernel(what, measure_method, workload=work, method=method, memory=int(memory), calls=calls)
        shape = {"method": method, "examples": n, "memory": memory, "weights": weights, "texts": texts}
        rows.append({"what": what} | shape | found)
        return rows[-1]

    sized = {n: measure(n=n) for n in settings.sizes}
    for n in settings.jacobian:
        measure("jacobian", n=n)
    bench.measure_machine()
    pairs = {
        texts: [measure(n=settings.middle, weights=weights, texts=texts) for weights in (ENCODER, ALL)]
        for texts in settings.texts
    }
    budgets = [measure(n=settings.middle, memory=memory, twice=False) for memory in settings.budgets]
    budgets.append(sized[settings.middle])
    bench.measure_machine()

    sizes = {
        weights: bench.run(
            f"parameters of {weights}", describe, workload=workload(settings, 1, weights, RANDOM), memory=None
        )
        for weights in (ENCODER, ALL)
    }
    for row in rows:
        size = sizes[row["weights"]]
        shape = {"examples": row["examples"], "tokens": settings.tokens, "parameters": size["dense_parameters"]}
        row |= {"parameters": size["parameters"], "floor": floor_flops(**shape, k=1, outputs="scalar") / bench.flops}
    bars = {f"a: total / floor, n = {n}": at_most(sized[n]["total"] / sized[n]["floor"], 2.0) for n in settings.judged}
    for texts, (encoder, everything) in pairs.items():
        name = f"d: all parameters / encoder, {texts}"
        bars[name] = at_most(everything["total"] / encoder["total"], 1.25)
        bars[f"{name}, steady"] = at_most(everything["steady"] / encoder["steady"], 1.25)
    bars |= {f"e: peak / {row['memory'] / 1e9:g} GB": at_most(row["bytes"] / row["memory"], 1.10) for row in budgets}
    bars["float32 agreement"] = at_most(_spread(bench, rows), AGREEMENT)
    bars["float64 agreement"] = at_most(_from_float64(settings, bench, sized[settings.middle]), AGREEMENT)
    return {"measured": rows, "bars": bars}


def workload(settings: Settings, n: int, weights: str, texts: str) -> dict[str, Any]:
    """The scalar kernel of n examples."""
    readout = "regression:pool=mean,scale=1,seed=0"
    return asdict(Workload(settings.model, readout, 1, "scalar", weights, texts, n, settings.tokens, seed=0))


def _spread(bench: Bench, rows: list[dict[str, Any]]) -> float:
    """Largest disagreement between kernels of the same examples and weights."""
    first: dict[tuple[int, str, str], str] = {}
    found = [0.0]
    for row in rows:
        known = first.setdefault((row["examples"], row["weights"], row["texts"]), row["what"])
        found.append(bench.disagreement(row["what"], known))
    return max(found)


def _from_float64(settings: Settings, bench: Bench, row: dict[str, Any]) -> float:
    """Error of a kernel's first eight examples."""
    work = workload(settings, row["examples"], row["weights"], row["texts"])
    bench.kernel("float64", reference, x64=True, workload=work, first=8, memory=int(settings.memory))
    return bench.disagreement(row["what"], "float64")


def tables(record: dict[str, Any]) -> list[Table]:
    """Every measurement beside its floor."""
    columns = ("kernel", "GB", "total s", "compile s", "steady s", "floor s", "total / floor", "steady / floor", "load")
    rows = grid("against the floor", columns)
    for row in record["measured"]:
        seconds = [f"{row[cost]:.1f}" for cost in ("total", "compile", "steady", "floor")]
        ratios = [f"{row[cost] / row['floor']:.2f}" for cost in ("total", "steady")]
        rows.add_row(row["what"], f"{row['bytes'] / 1e9:.2f}", *seconds, *ratios, f"{row['load']:.1f}")
    return [rows]


if __name__ == "__main__":
    main()
