"""How much faster is a kernel than neural-tangents' at its best, within the same memory?

Question  Method "factors" over MiniLM's encoder weights (10.6 M), random tokens, against neural-tangents 1 (Jacobian
          contraction), 2 (NTK-vector products) and 3 (structured derivatives).
Bars      (b) scalar, 64 tokens, 4 GB for both: ≥ 10 × at 512 examples, ≥ 15 × at 1024.
          (c) 128 examples, one block each, memory to spare: ≥ 1.7 × implementation 1, in ≤ 1/10 of its peak memory,
          which takes a budget of 0.28 GB (also measured with 4 GB).
          (f) four outputs, full kernel, 8 tokens, 512 examples, 4 GB for both: ≥ 2.5 ×.
          All kernels agree to 5e-6 √(K_ii K_jj).
Command   python -m benchmarks.against_neural_tangents
Minutes   26 on two CPU cores.
Time      "total" is one call in a fresh process, "steady" leaves compiling out. Ours at the largest size is called
          once. neural-tangents in batches is extrapolated at the batch that takes least time for a pair among those
          that fit: from four measured blocks for its best implementation, from one for the others (`_peer`).
Memory    As in `against_floor`.
Writes    results/DEVICE/against_neural_tangents.json
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from benchmarks._peer import best_peer, kernel_name, measure_neural_tangents
from benchmarks._script import AGREEMENT, Bench, at_least, at_most, grid, run_script
from ntkft.report.side_by_side import measure_method
from ntkft.report.workload import RANDOM, TINY, Workload


@dataclass(frozen=True)
class Settings:
    """One run. Batches are the first ones tried, by implementation."""

    model: str | dict[str, Any] = "minilm"
    memory: float = 4e9
    tokens: int = 64
    wanted: dict[int, float] = field(default_factory=lambda: {512: 10.0, 1024: 15.0})
    batches: dict[int, int] = field(default_factory=lambda: {1: 32, 2: 8, 3: 32})
    unbatched: int = 128
    little: float = 2.8e8
    short_tokens: int = 8
    short_examples: int = 512
    short_batches: dict[int, int] = field(default_factory=lambda: {1: 32, 2: 8, 3: 32})
    k: int = 4
    gemm_size: int = 4096


SMOKE = Settings(
    model=TINY, memory=1e9, tokens=8, wanted={8: 10.0}, batches={1: 2, 3: 2}, unbatched=4, little=2e8, short_tokens=4,
    short_examples=8, short_batches={1: 2}, k=2, gemm_size=256,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and write; returns the record."""
    return run_script(
        "against_neural_tangents", __doc__, settings=Settings(), smoke=SMOKE, compare=compare, tables=tables,
        arguments=arguments,
    )  # fmt: skip


def compare(settings: Settings, bench: Bench) -> dict[str, Any]:
    """All measurements, and what follows from them."""
    parts = [_in_batches(settings, bench), _unbatched(settings, bench), _short_and_full(settings, bench)]
    bench.measure_machine()
    names = ("in_batches", "unbatched", "short_and_full")
    bars = {name: bar for part in parts for name, bar in part.pop("bars").items()}
    return dict(zip(names, parts, strict=True)) | {"bars": bars}


def _in_batches(settings: Settings, bench: Bench) -> dict[str, Any]:
    """Bar (b)."""
    most = max(settings.wanted)
    ours = {n: _ours(settings, bench, _scalar(settings, n), settings.memory, 1 if n == most else 2)
            for n in settings.wanted}  # fmt: skip
    peers = best_peer(
        bench, _scalar(settings, most), memory=settings.memory, batches=settings.batches, examples=[*settings.wanted]
    )
    again = min(settings.wanted)
    ours[again] = max(
        ours[again],
        _ours(settings, bench, _scalar(settings, again), settings.memory, 2),
        key=lambda found: found["total"],
    )
    best = peers["best"]
    bars = {}
    for n, wanted in settings.wanted.items():
        bars[f"b: times faster, n = {n}"] = at_least(best["extrapolated"][str(n)]["total"] / ours[n]["total"], wanted)
        name = kernel_name(_scalar(settings, most), best["implementation"], best["batch"], 2 * best["batch"])
        bars[f"b: agreement, n = {n}"] = at_most(bench.disagreement(name, ours[n]["what"]), AGREEMENT)
    return {"ours": ours, "peers": peers, "bars": bars}


def _unbatched(settings: Settings, bench: Bench) -> dict[str, Any]:
    """Bar (c)."""
    n, work = settings.unbatched, _scalar(settings, settings.unbatched)
    plenty, little = (_ours(settings, bench, work, memory, 2) for memory in (settings.memory, settings.little))
    name = kernel_name(work, 1, n, n)
    peer = bench.kernel(name, measure_neural_tangents, workload=work, implementation=1, batch=n, examples=n, calls=2)
    bars = {
        "c: times faster, little memory": at_least(peer["total"] / little["total"], 1.7),
        "c: times faster, plenty": at_least(peer["total"] / plenty["total"], 1.7),
        "c: times faster, little memory, steady": at_least(peer["steady"] / little["steady"], 1.7),
        "c: share of its memory": at_most(little["bytes"] / peer["bytes"], 0.1),
        "c: agreement": at_most(bench.disagreement(name, little["what"]), AGREEMENT),
    }
    return {"plenty": plenty, "little": little, "peer": peer, "bars": bars}


def _short_and_full(settings: Settings, bench: Bench) -> dict[str, Any]:
    """Bar (f). The first call chooses forms by measurement, once for each kind of machine; the second is measured."""
    n, readout = settings.short_examples, "linear:pool=mean,scale=1,seed=0"
    work = asdict(
        Workload(settings.model, readout, settings.k, "full", r"^layers/", RANDOM, n, settings.short_tokens, seed=0)
    )
    calibrating, ours = (_ours(settings, bench, work, settings.memory, 2) for _ in range(2))
    peers = best_peer(bench, work, memory=settings.memory, batches=settings.short_batches, examples=[n])
    best = peers["best"]
    name = kernel_name(work, best["implementation"], best["batch"], 2 * best["batch"])
    bars = {
        "f: times faster": at_least(best["extrapolated"][str(n)]["total"] / ours["total"], 2.5),
        "f: agreement": at_most(bench.disagreement(name, ours["what"]), AGREEMENT),
    }
    return {"calibrating": calibrating, "ours": ours, "peers": peers, "bars": bars}


def _scalar(settings: Settings, n: int) -> dict[str, Any]:
    readout = "regression:pool=mean,scale=1,seed=0"
    return asdict(Workload(settings.model, readout, 1, "scalar", r"^layers/", RANDOM, n, settings.tokens, seed=0))


def _ours(settings: Settings, bench: Bench, work: dict[str, Any], memory: float, calls: int) -> dict[str, Any]:
    what = f"factors, {work['examples']} × {work['tokens']} tokens, {work['outputs']}, {memory / 1e9:g} GB"
    options = {"method": "factors", "memory": int(memory), "calls": calls}
    return {"what": what} | bench.kernel(what, measure_method, workload=work, **options)


def tables(record: dict[str, Any]) -> list[Table]:
    """Ours and theirs for each bar."""
    rows = grid("against neural-tangents", ("kernel", "GB", "total s", "compile s", "steady s", "load"))

    def add(what: str, found: dict[str, Any], costs: dict[str, Any] | None = None) -> None:
        seconds = [(costs or found)["total"], found["compile"], (costs or found)["steady"]]
        rows.add_row(what, f"{found['bytes'] / 1e9:.2f}", *(f"{s:.1f}" for s in seconds), f"{found['load']:.1f}")

    batched, unbatched, short = (record[name] for name in ("in_batches", "unbatched", "short_and_full"))
    for found in [*batched["ours"].values(), unbatched["plenty"], unbatched["little"], short["ours"]]:
        add(found["what"], found)
    add("neural_tangents:1 unbatched", unbatched["peer"])
    for part, name in ((batched, "scalar"), (short, "full")):
        for peer in part["peers"]["implementations"]:
            for n, costs in (peer.get("extrapolated") or {}).items():
                batches = f"batches of {peer['batch']}, from {peer['blocks']}"
                what = f"neural_tangents:{peer['implementation']}, {n} {name}, {batches}"
                add(what, peer["measured"], costs)
    laws = ", ".join(f"{part['peers']['law']['error']:+.1%}" for part in (batched, short))
    rows.caption = f"neural-tangents in batches: extrapolated from 1 or 4 blocks; four blocks from one: {laws}"
    return [rows]


if __name__ == "__main__":
    main()
