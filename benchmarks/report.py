"""The tables and figures of `docs/choosing-a-kernel.md`, from the records under `results/`.

Command   python -m benchmarks.report
Writes    the part between the markers in docs/choosing-a-kernel.md, and docs/figures/choosing-*.png
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._script import RESULTS
from ntkft.plots.style import SERIES, new_axes, save

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "choosing-a-kernel.md"
BEGIN, END = "<!-- measured: python -m benchmarks.report -->", "<!-- end of measured -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page's measured part and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to fill")
    options = parser.parse_args(arguments)
    before, _, rest = options.page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{options.page} has no lines {BEGIN} and {END} to write between")
    parts = []
    for folder in sorted(folder for folder in options.results.iterdir() if folder.is_dir()):
        records = {name: json.loads((folder / f"{name}.json").read_text()) for name in TABLES if _has(folder, name)}
        if records:
            parts.append(section(folder.name, records))
            for name, figure in figures(folder.name, records).items():
                save(figure, options.page.parent / "figures" / name)
    options.page.write_text("\n\n".join([before + BEGIN, *parts, END + after]))
    print(options.page)


def section(device: str, records: Mapping[str, dict[str, Any]]) -> str:
    """Everything measured on one device, as Markdown."""
    environment = next(iter(records.values()))["environment"]
    rates = [entry["flops"] / 1e9 for record in records.values() for entry in record["gemm"]]
    lines = [
        f"### {device}",
        f"{environment['processor']}, {environment['cores']} cores, {environment['memory_gb']} GB, JAX "
        f"{environment['jax']}; float32 GEMM {min(rates):.0f} to {max(rates):.0f} GFLOP/s.",
    ]
    for name, record in records.items():
        lines += [f"**{record['question']}** (`python -m benchmarks.{name}`)", TABLES[name](record)]
        lines.append(_bars(record))
        lines += [f"![{title}](figures/{file})" for file, title in _figure_files(device, name).items()]
    return "\n\n".join(line for line in lines if line)


def figures(device: str, records: Mapping[str, dict[str, Any]]) -> dict[str, Figure]:
    """File name → figure."""
    found = {}
    for name, draw in FIGURES.items():
        if name in records:
            (file,) = _figure_files(device, name)
            found[file] = draw(records[name])
    return found


def _figure_files(device: str, name: str) -> dict[str, str]:
    titles = {"against_floor": "Seconds over examples", "forms": "Seconds of the two forms over tokens"}
    return {f"choosing-{device}-{name.replace('_', '-')}.png": titles[name]} if name in titles else {}


def _against_floor(record: dict[str, Any]) -> str:
    rows = [
        (
            row["method"], row["examples"], f"{row['parameters'] / 1e6:.1f} M", row["texts"], _gb(row["memory"]),
            _gb(row["bytes"]), *_seconds(row), f"{float(row['total']) / row['floor']:.2f}",
        )
        for row in record["measured"]
    ]  # fmt: skip
    columns = ("method", "n", "p", "texts", "budget GB", "peak GB", "total s", "compile s", "steady s", "total / floor")
    return markdown(columns, rows)


def _against_neural_tangents(record: dict[str, Any]) -> str:
    batched, unbatched, short = (record[name] for name in ("in_batches", "unbatched", "short_and_full"))
    ours = [*batched["ours"].values(), unbatched["plenty"], unbatched["little"], short["ours"]]
    rows = [(row["what"], _gb(row["bytes"]), *_seconds(row)) for row in ours]
    peer = unbatched["peer"]
    rows.append(("neural_tangents:1, one block", _gb(peer["bytes"]), *_seconds(peer)))
    for part, form in ((batched, "scalar"), (short, "full")):
        for peer in part["peers"]["implementations"]:
            for n, costs in (peer.get("extrapolated") or {}).items():
                batches = f"batches of {peer['batch']}, from {peer['blocks']}"
                what = f"neural_tangents:{peer['implementation']}, {n} {form}, {batches}"
                rows.append((what, _gb(peer["measured"]["bytes"]), *_seconds(peer["measured"] | costs)))
    return markdown(("kernel", "peak GB", "total s", "compile s", "steady s"), rows)


def _against_recipes(record: dict[str, Any]) -> str:
    rows = [(name, _gb(row["bytes"]), *_seconds(row)) for name, row in record["measured"].items()]
    return markdown(("method", "peak GB", "total s", "compile s", "steady s"), rows)


def _forms(record: dict[str, Any]) -> str:
    rows = [
        (
            " × ".join(map(str, row["sizes"][1:])), row["tokens"],
            *(f"{1e3 * row['seconds'][form]:.1f}" for form in ("materialise", "pairs")),
            row["chosen"], f"{row['regret']:.2f}",
        )
        for row in record["measured"]
    ]  # fmt: skip
    return markdown(("matrix", "tokens", "materialise ms", "pairs ms", "chosen", "chosen / better"), rows)


def _bars(record: dict[str, Any]) -> str:
    rows = [
        (name, "–" if bar["measured"] is None else f"{float(bar['measured']):.3g}", bar["wanted"],
         "met" if bar["met"] else "**missed**")
        for name, bar in record["bars"].items()
    ]  # fmt: skip
    return markdown(("bar", "measured", "wanted", ""), rows)


def _seconds_over_examples(record: dict[str, Any]) -> Figure:
    figure, axes = new_axes("Encoder weights, random tokens", "examples", "seconds, compilation included")
    rows = [row for row in record["measured"] if row["weights"] != "." and row["texts"] == "random"]
    budget = max(row["memory"] for row in rows)
    for method, colour in zip(("factors", "jacobian"), SERIES, strict=False):
        mine = {row["examples"]: row for row in rows if row["method"] == method and row["memory"] == budget}
        sizes = sorted(mine)
        axes.loglog(sizes, [float(mine[n]["total"]) for n in sizes], "o-", color=colour, label=method)
        if method == "factors":
            axes.loglog(sizes, [mine[n]["floor"] for n in sizes], "--", color=SERIES[-1], label="floor")
    _ticks(axes, {row["examples"] for row in rows})
    axes.legend(frameon=False)
    return figure


def _seconds_over_tokens(record: dict[str, Any]) -> Figure:
    figure, axes = new_axes("The two forms of one weight", "tokens", "seconds")
    shapes = sorted({tuple(row["sizes"][1:]) for row in record["measured"] if row["tokens"] > 1})
    for shape, colour in zip(shapes, SERIES, strict=False):
        mine = [row for row in record["measured"] if tuple(row["sizes"][1:]) == shape]
        for form, style in (("materialise", "o-"), ("pairs", "s--")):
            seconds = [row["seconds"][form] for row in mine]
            axes.loglog(
                [row["tokens"] for row in mine], seconds, style, color=colour, label=f"{shape[0]} × {shape[1]}, {form}"
            )
    _ticks(axes, {row["tokens"] for row in record["measured"] if row["tokens"] > 1})
    axes.legend(frameon=False, fontsize=7)
    return figure


def _ticks(axes: Axes, values: Iterable[int]) -> None:
    """Ticks where something was measured."""
    axes.set_xticks(sorted(values), [str(value) for value in sorted(values)])
    axes.minorticks_off()


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; the first column on the left."""
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.json").is_file()


def _gb(value: float | str) -> str:
    return f"{float(value) / 1e9:.2f}"


def _seconds(row: Mapping[str, Any]) -> list[str]:
    return [f"{float(row[cost]):.1f}" for cost in ("total", "compile", "steady")]


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "against_floor": _against_floor,
    "against_neural_tangents": _against_neural_tangents,
    "against_recipes": _against_recipes,
    "forms": _forms,
}
FIGURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "against_floor": _seconds_over_examples,
    "forms": _seconds_over_tokens,
}


if __name__ == "__main__":
    main()
