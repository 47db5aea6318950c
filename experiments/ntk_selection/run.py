"""Which checkpoint to fine-tune, said by its kernel before any fine-tuning, and judged by fine-tuning them all.

Claim     For byte-pair GPTs of three sizes, untrained, early, in the middle and at the end of their pretraining, on
          three tasks: (a) the validation risk that the kernel of a checkpoint predicts ranks the 12 checkpoints as the
          test risk of really fine-tuned ones does, Spearman 0.8 in the mean over tasks, under full-batch gradient
          descent and under AdamW with the best of three rates; (b) at a tenth of the operations of fine-tuning, where
          the kernel is of the training examples alone and generalised cross-validation is in place of validation
          examples; (c) better than pretraining loss, size, risk before fine-tuning, a linear probe and one epoch of
          training; (d) the rectified law with its knees read off the kernel predicts the risk at n = 64 from n ≤ 32
          better than laws without. (a), (b) and (c) hold for gradient descent and not for AdamW, (d) on one of two
          tasks (another seed: on both). The cost is a third of the operations with validation examples, and never a
          tenth of the processor time (README.md).
Source    Sun & Raskutti 2026 (the prediction); Lin et al. 2024 (the law, Accept-then-Stop); the bridge between them is
          this project's. Checkpoints: experiments/pretrain.
Setting   `setting.REAL`: 36 cells. Fresh head on the mean token, all parameters trained on the squared loss; 64
          training, 192 validation, 320 test examples of at most 24 tokens. The kernel sees no test example. Gradient
          descent at 0.5/λ̂₁ for at most 44 epochs; AdamW in batches of 16, 12 epochs; learning curves on two tasks.
Command   python -m experiments.ntk_selection.run                       (from the root of the repository)
          python -m experiments.ntk_selection.run --seed 1 --out runs/ntk_selection_1         (other examples and heads)
Minutes   about 50 processor minutes, 3 GB of memory, after experiments/pretrain; one with --smoke, which pretrains a
          tiny model first. Every record is kept in --out as soon as it is done, and a command that was interrupted goes
          on where it was. Two processes with a core each (taskset, --share 1/2 and 2/2), then the command itself.
Expected  expected.toml
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from experiments._check import check
from experiments._kept import claim, kept
from experiments._programs import keep_programs
from experiments.ntk_selection import figures
from experiments.ntk_selection.claims import Record, claims, row
from experiments.ntk_selection.law import judged
from experiments.ntk_selection.runs import adamw, descend, estimate, predict
from experiments.ntk_selection.setting import REAL, SMOKE, Setting, chosen
from experiments.pretrain.checkpoints import Checkpoint, checkpoints
from experiments.pretrain.tasks import Rows, build_all, origin, pretrain_tiny
from ntkft.models import load
from ntkft.plots.style import save
from ntkft.report.prediction import SETS
from ntkft.report.record import to_json

FOLDER = Path(__file__).parent


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("runs/pretrain"), help="folder of experiments/pretrain"
    )
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of trec")
    parser.add_argument("--out", type=Path, default=Path("runs/ntk_selection"))
    parser.add_argument(
        "--share", help="I/N: of the cells only every N-th, from the I-th; processes side by side share"
    )
    parser.add_argument("--seed", type=int, default=REAL.seed, help="of splits, fresh heads and minibatches")
    parser.add_argument("--smoke", action="store_true", help="a tiny model on documentation sentences")
    options = parser.parse_args(arguments)
    setting = replace(SMOKE if options.smoke else REAL, seed=options.seed)
    keep_programs(options.out / "programs")
    if options.smoke:
        options.checkpoints = options.out / "pretrain"
        pretrain_tiny(options.checkpoints)
    found = chosen(checkpoints(options.checkpoints), setting)
    claim(options.out, origin(setting, options.checkpoints))

    first, of = map(int, (options.share or "1/1").split("/"))
    records = compute(found, setting, options.texts, options.out, slice(first - 1, None, of))
    if options.share:
        return {}
    rows = [row(record, setting) for record in records]
    curves = {name: [record for record in records if record["task"] == name] for name in setting.curves}
    results = claims(records, rows) | judged(curves, setting)
    save(figures.predicted(rows, setting), options.out / "predicted.png")
    save(figures.rankings(rows), options.out / "rankings.png")
    if curves:
        save(figures.laws(curves, setting), options.out / "laws.png")
    (options.out / "results.json").write_text(to_json({"results": results, "rows": rows}))
    for name, value in results.items():
        print(f"{name:88} {value:.4g}")
    sections = ["smoke"] if options.smoke else ["goals", *(["seed 0"] if setting.seed == REAL.seed else [])]
    count = check(results, FOLDER / "expected.toml", sections)
    print(f"all {count} values as expected")
    return results


def compute(
    found: Sequence[Checkpoint], setting: Setting, texts: Path, out: Path, share: slice = slice(None)
) -> list[Record]:
    """The records of a share of the cells, the smallest size first; in each the prediction is made first."""
    tasks = build_all(setting.tasks, setting.size, found, texts, scale=setting.scale, seed=setting.seed)
    # Stages, which cost the same, come next to each other: so shares are alike.
    grid = [
        (checkpoint, name)
        for size in setting.models
        for name in tasks
        for checkpoint in found
        if checkpoint.size == size
    ]
    return [cell(checkpoint, name, tasks[name], setting, out / name) for checkpoint, name in grid[share]]


def cell(checkpoint: Checkpoint, name: str, rows: Rows, setting: Setting, folder: Path) -> dict[str, Any]:
    """All records of a checkpoint on a task."""
    model = cache(partial(load, checkpoint.path, readout=rows.readout))  # not loaded where all is there already

    def record(kind: str, compute) -> Mapping[str, Any]:
        return kept(
            folder / f"{checkpoint.size}-{checkpoint.step:07d}-{kind}.json",
            lambda: compute(model(), rows, checkpoint, setting),
        )

    kernel, alone = record("kernel", predict), record("alone", estimate)
    trained = {
        (n, epochs, rate): record(f"adamw-{n}-{rate:g}", partial(adamw, rate=rate, n=n, epochs=epochs))
        for n, epochs, rate in runs(name, setting)
    }
    descent = None
    if name in setting.descents:
        descent = record("descent", partial(descend, step_size=kernel["step_size"]))
    whole = setting.size["train"]
    return {
        "task": name,
        "size": checkpoint.size,
        "step": checkpoint.step,
        "parameters": checkpoint.parameters,
        "loss": checkpoint.loss,
        "unit": {part: rows.unit(part) for part in SETS},
        "kernel": kernel,
        "alone": alone,
        "descent": descent,
        "adamw": {str(rate): run for (n, _, rate), run in trained.items() if n == whole},
        "curve": {str(n): run for (n, _, _), run in trained.items() if n < whole},
    }


def runs(name: str, setting: Setting) -> list[tuple[int, int, float]]:
    """Training examples, epochs and rate of every run of AdamW on a task."""
    along = [(n, epochs, setting.rate) for n, epochs in setting.points] if name in setting.curves else []
    return [(setting.size["train"], setting.length, rate) for rate in setting.rates] + along


if __name__ == "__main__":
    main()
