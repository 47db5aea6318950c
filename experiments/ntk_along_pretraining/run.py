"""The neural tangent kernel along pretraining: spectrum, alignment and predicted fine-tuning, against perplexity.

Claim     Along the pretraining of byte-pair GPTs of four sizes, on two tasks: (a) the test risk that the kernel of a
          checkpoint predicts for fine-tuning falls with the checkpoint's perplexity; (b) the kernel's alignment with
          the targets rises; (c) the exponent of its eigenvalue decay and its effective dimension follow perplexity,
          whatever the size; (d) its distance to the last kernel falls, and has gone nine tenths of its way when the
          loss has. Of these (a) and (b) are not borne out, and (c) holds in two stages: the spectrum first collapses,
          up to a perplexity of 200 to 300, and opens again from there (README.md).
Source    This project's. Checkpoints: experiments/pretrain. Perplexity as the common axis of sizes: Xia et al. 2023,
          §5; kernel distance: Fort et al. 2020; centred alignment: Cortes, Mohri & Rostamizadeh 2012.
Setting   `setting.REAL`. Exact kernel over 128 training, 64 validation and 192 test examples of documentation sentences
          (the pretraining corpus holds SciPy's docstrings, so this is the task within it) and of questions of TREC
          (outside it). A fresh head on the mean token, all parameters trained; beside it the kernel of the head alone.
          Full-batch gradient descent on the squared loss at 0.5/λ̂₁ of each kernel, up to 2²⁰ epochs in closed form,
          stopped by the validation set; risk is relative to predicting the mean.
Command   python -m experiments.ntk_along_pretraining.run               (from the root of the repository)
Minutes   about 20 on two CPU cores, 2 GB of memory, 25 MB of disk; one with --smoke, which first pretrains a tiny
          model. Every cell is kept in --out as soon as it is done, and a command that was interrupted goes on where it
          was.
Expected  expected.toml
"""

import argparse
import json
from pathlib import Path

import numpy as np

from experiments._check import check
from experiments._kept import claim, kept
from experiments._programs import keep_programs
from experiments.ntk_along_pretraining import figures
from experiments.ntk_along_pretraining.cells import cell
from experiments.ntk_along_pretraining.claims import claims, rows_of
from experiments.ntk_along_pretraining.setting import REAL, SMOKE, Setting
from experiments.pretrain.checkpoints import Checkpoint, checkpoints
from experiments.pretrain.tasks import build_all, origin, pretrain_tiny
from ntkft.plots.style import save

FOLDER = Path(__file__).parent


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measure what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("runs/pretrain"), help="folder of experiments/pretrain"
    )
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of trec")
    parser.add_argument("--out", type=Path, default=Path("runs/ntk_along_pretraining"))
    parser.add_argument("--smoke", action="store_true", help="a tiny model on few documentation sentences")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    keep_programs(options.out / "programs")
    if options.smoke:
        options.checkpoints = options.out / "pretrain"
        pretrain_tiny(options.checkpoints)
    found = [each for each in checkpoints(options.checkpoints) if each.step not in setting.skipped]
    claim(options.out, origin(setting, options.checkpoints))

    records = measure(found, setting, options.texts, options.out)
    rows = []
    for (task, size), some in records.items():
        files = (path(options.out, task, size, record["step"]).with_suffix(".npy") for record in some)
        rows += rows_of(some, [np.load(file)[0] for file in files], task)
    results = claims(rows, setting)
    save(figures.over_perplexity(rows, records, setting), options.out / "perplexity.png")
    save(figures.spectra(records, found[-1].size, setting), options.out / "spectra.png")
    save(figures.group_shares(records, setting), options.out / "groups.png")
    save(figures.settling(rows, setting), options.out / "settling.png")
    (options.out / "results.json").write_text(json.dumps({"results": results, "rows": rows}, indent=1))
    for name, value in results.items():
        print(f"{name:96} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def measure(found: list[Checkpoint], setting: Setting, texts: Path, out: Path) -> dict[tuple[str, str], list[dict]]:
    """(task, size) → the records of its checkpoints by step, the smallest size first."""
    problems = build_all(setting.tasks, dict(setting.sizes), found, texts, scale=setting.scale, seed=setting.seed)
    records: dict[tuple[str, str], list[dict]] = {}
    for each in found:
        for name, rows in problems.items():
            file = path(out, name, each.size, each.step)
            record = kept(file, lambda e=each, r=rows, f=file: cell(e, r, setting, f.with_suffix(".npy")))
            records.setdefault((name, each.size), []).append(record)
    return records


def path(out: Path, task: str, size: str, step: int) -> Path:
    """The record of a checkpoint on a task; its kernels are beside it, as .npy."""
    return out / task / f"{size}-{step:07d}.json"


if __name__ == "__main__":
    main()
