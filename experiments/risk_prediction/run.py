"""What a few kernels say of fine-tuning before it happens, judged by 48 real runs.

Claim     For all-MiniLM-L6-v2 with a fresh head, all parameters trained by full-batch gradient descent on the squared
          loss, on four tasks × n = 32 … 256 × 3 seeds: (a) up to a horizon known from kernels alone, the risk that the
          kernel at the pretrained parameters predicts is within 2 % of the real one on every run; (b) re-anchored with
          five kernels, the prediction at the real best epoch is within 5 % in the median and 12 % at worst; (c) the
          predicted best epoch is within a factor 1.5 of the real one in 80 % of the runs; (d) over tasks and sizes the
          predicted lowest risks are ordered as the real ones (Spearman 0.95); (e) the whole first-order surface (all n,
          every epoch, 3 seeds) takes at most a tenth of the real grid's time.
Source    Sun & Raskutti 2026 (the first-order prediction); re-anchoring and the horizon are this project's.
Setting   `setting.REAL`. Step size 0.5/λ̂₁ of the task's kernel, the same for predictions and real runs; 384 examples to
          draw training sets from, 192 test examples; risk recorded at 20 epochs up to 130, a real run ends when it is
          1.4 times as old as its best epoch and has passed the predicted one.
Command   python -m experiments.risk_prediction.run                     (from the root of the repository)
Minutes   about 240 on two CPU cores, 4 GB; one with --smoke. Every run is kept in --out as soon as it is done, and a
          command that was interrupted goes on where it was. Two processes with a core each (taskset, --share 1/2 and
          2/2), then the command itself, take a fifth less.
Expected  expected.toml
"""

import argparse
import json
from pathlib import Path

import numpy as np

from experiments._check import check
from experiments._kept import claim, kept
from experiments.risk_prediction import figures
from experiments.risk_prediction.claims import claims, row
from experiments.risk_prediction.runs import adamw, anchored, best, descent, surface
from experiments.risk_prediction.setting import REAL, SMOKE, Setting, build
from ntkft.plots import risk_over_epochs, save

FOLDER = Path(__file__).parent


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/risk_prediction"))
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of sst2, cr and trec")
    parser.add_argument("--smoke", action="store_true", help="two small training sets of documentation sentences")
    parser.add_argument("--share", help="I/N: of the runs only every N-th, from the I-th; processes side by side share")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    claim(options.out, setting)

    first, of = map(int, (options.share or "1/1").split("/"))
    surfaces, records = compute(setting, options.texts, options.out, slice(first - 1, None, of))
    if options.share:
        return {}
    runs = {key: record for key, record in records.items() if "real" in record}
    rows = [{"task": name, "n": n, "seed": seed} | row(record, setting) for (name, n, seed), record in runs.items()]
    seconds = {
        "surface": sum(record["processor_seconds"] for record in surfaces.values()),
        "anchored": sum(record["anchored"]["processor_seconds"] for record in runs.values()),
        "real": sum(record["real"]["processor_seconds"] for record in runs.values()),
    }
    results = claims(rows, seconds) | compared_with_adamw(records)
    for name, record in surfaces.items():
        mse = np.asarray(record["mse"])
        figure = risk_over_epochs(setting.sizes, np.arange(mse.shape[2]), mse, {})
        title = f"{name}, all-MiniLM-L6-v2: risk predicted by one kernel, {len(setting.seeds)} draws"
        figure.axes[0].set_title(title, loc="left", fontsize=11)
        save(figure, options.out / f"surface_{name}.png")
    save(figures.curves(runs, setting, setting.seeds[0]), options.out / "curves.png")
    save(figures.agreement(rows, setting), options.out / "agreement.png")
    (options.out / "results.json").write_text(json.dumps({"results": results, "rows": rows}, indent=1))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def compute(setting: Setting, texts: Path, out: Path, share: slice = slice(None)) -> tuple[dict[str, dict], dict]:
    """Surfaces by task, and the records of a share of the runs: predictions are made before anything is trained."""
    problems = {name: build(source, texts, pool=setting.pool, test=setting.test) for name, source in setting.tasks}
    surfaces = {
        name: kept(out / name / "surface.json", lambda p=problem, f=out / name: surface(p, setting, f))
        for name, problem in problems.items()
    }
    records = {}
    grid = [(seed, name, n) for seed in setting.seeds for name in problems for n in setting.sizes]
    for seed, name, n in grid[share]:
        problem, folder, step_size = problems[name], out / name, surfaces[name]["step_size"]
        run = (problem, setting, n, seed, step_size)
        mse = surfaces[name]["mse"][setting.seeds.index(seed)][setting.sizes.index(n)]
        record = {"first_order": {"mse": mse}}
        record["anchored"] = kept(folder / f"anchored-{n}-{seed}.json", lambda run=run: anchored(*run))
        least = best(record["anchored"])[0]
        record["real"] = kept(folder / f"real-{n}-{seed}.json", lambda run=run, least=least: descent(*run, least=least))
        if (n, seed) == (setting.adamw[0], setting.seeds[0]):
            record["adamw"] = kept(
                folder / f"adamw-{n}-{seed}.json", lambda run=run: adamw(run[0], run[2], run[3], setting.adamw[1])
            )
        records[name, n, seed] = record
    return surfaces, records


def compared_with_adamw(records: dict) -> dict[str, float]:
    """Lowest risk under AdamW relative to that predicted for, and reached by, gradient descent."""
    found = {}
    for (name, n, _), record in records.items():
        if "adamw" in record:
            risk = best(record["adamw"])[1]
            found[f"{name}, n = {n}: lowest risk, AdamW / gradient descent"] = risk / best(record["real"])[1]
            found[f"{name}, n = {n}: lowest risk, AdamW / predicted"] = risk / best(record["anchored"])[1]
    return found


if __name__ == "__main__":
    main()
