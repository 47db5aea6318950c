"""Training trajectories of GPTs of four sizes: tokens, texts and accuracy at the same perplexity.

Claim     (a) At the same held-out loss a smaller and a larger model have the same tokens right: their perplexities of
          tokens are ranked more alike than at the same step, and tokens gain the same between two losses; trends agree
          over sizes beyond chance. (b) Some tokens show double descent, more than with the same changes dealt to other
          tokens, and the same ones in two sizes. (c) Interpolated distributions keep their identities at real size;
          the text of p_small − p_large has the higher perplexity the larger the model, also under sizes that took no
          part in it, and the largest model unlearns it late in training. (d) Accuracy on a cloze task follows
          perplexity, to which size adds next to nothing; the best size for given operations grows with them.
          Not borne out: that they are nearer at the same loss than at the same step, and double descent beyond what
          noise around a line shows (README.md).
Source    Xia et al. 2023 (trends, interpolation, perplexity as a predictor); the test of double descent is this
          library's.
Setting   `setting.REAL`, on the checkpoints of experiments/pretrain; 32,768 held-out tokens.
Command   python -m experiments.training_trajectories.run --checkpoints runs/pretrain --out runs/training_trajectories
Minutes   about 8 on two CPU cores; seconds with --smoke, which trains two tiny models first. What is measured on each
          checkpoint is kept in --out, and a command that was interrupted goes on where it was.
Expected  expected.toml
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from experiments._check import check
from experiments._kept import claim, kept
from experiments.pretrain.checkpoints import is_written, place
from experiments.pretrain.sizes import SMOKE as PRETRAIN, TINY, Size
from experiments.pretrain.tokenizer import prepare
from experiments.pretrain.training import train
from experiments.training_trajectories import figures
from experiments.training_trajectories.behaviour import (
    behaviour_of,
    behaviour_results,
    cloze_task,
    flops_results,
    measured,
)
from experiments.training_trajectories.setting import REAL, SMOKE, Setting, Trained, read
from experiments.training_trajectories.texts import distributions, generated, rows_of, samples, text_results
from experiments.training_trajectories.tokens import (
    correlations,
    descent_results,
    same_loss,
    same_loss_results,
    shuffled_trends,
    trend_results,
    trends_of,
)
from ntkft.cli.console import progress
from ntkft.plots.style import save
from ntkft.plots.trajectories import group_perplexity, trend_fractions
from ntkft.report.record import to_json
from ntkft.trajectories import group_curves

FOLDER = Path(__file__).parent
TRAINING, MODELS = replace(PRETRAIN, steps=16, warmup=2), {"smaller": Size(8, 1, 2)} | TINY
"""What --smoke trains."""


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measure what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/pretrain"), help="of experiments.pretrain.run")
    parser.add_argument("--out", type=Path, default=Path("runs/training_trajectories"))
    parser.add_argument("--smoke", action="store_true", help="on two tiny models, which are trained in --out")
    options = parser.parse_args(arguments)
    if options.smoke:
        train_tiny(options.out / "pretrain")
    trained = read(options.out / "pretrain" if options.smoke else options.checkpoints)
    setting = replace(SMOKE if options.smoke else REAL, trained=trained.identity)
    claim(options.out, setting)

    record = kept(options.out / "generated.json", lambda: generated(trained, setting))
    (options.out / "samples.txt").write_text(samples(record, trained, shown=6))
    identities = kept(options.out / "distributions.json", lambda: distributions(trained, setting))
    records = compute(trained, setting, record, options.out)
    curves = {
        size: {name: [of["texts"][name] for of in mine] for name in record["texts"]} for size, mine in records.items()
    }
    between, behaviour = correlations(trained), behaviour_of(trained, records, setting.warm)
    pairs = same_loss(trained, between, setting.start)
    results = (
        {f"{name}: held-out loss": mine[-1].loss for name, mine in trained.sizes.items()}
        | trend_results(trained, setting.start, setting.seed)
        | trend_results(trained, setting.warm, setting.seed)
        | same_loss_results(pairs)
        | descent_results(trained, setting.warm, setting.seed)
        | text_results(record, identities, curves, trained)
        | behaviour_results(behaviour)
        | flops_results(trained)
    )
    draw_trends(trained, setting, options.out)
    save(figures.tokens_over_loss(trained, between, setting.warm), options.out / "same_loss.png")
    save(figures.text_perplexity(curves, trained), options.out / "texts.png")
    save(figures.accuracy_and_operations(behaviour, trained), options.out / "behaviour.png")
    (options.out / "results.json").write_text(to_json({"results": results, "same_loss": [asdict(p) for p in pairs]}))
    for name, value in results.items():
        print(f"{name:80} {value:.5g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def train_tiny(folder: Path) -> None:
    """Two tiny models on the docstrings of optax, unless they are there."""
    claim(folder, TRAINING)
    text = prepare(folder, TRAINING, None)
    for name, size in MODELS.items():
        if not is_written(place(folder / name, TRAINING.steps)):
            with progress(f"pretraining {name}") as report:
                train(name, size, TRAINING, text, folder / name, report)


def compute(trained: Trained, setting: Setting, texts: Mapping, out: Path) -> dict[str, list[dict]]:
    """What every checkpoint makes of the cloze task and of the generated texts, by size."""
    task, rows = cloze_task(trained, setting), rows_of(texts)
    return {
        name: [
            kept(out / name / f"{each.path.name}.json", partial(measured, each, task, rows, setting.prompt))
            for each in mine
        ]
        for name, mine in trained.sizes.items()
    }


def draw_trends(trained: Trained, setting: Setting, out: Path) -> None:
    """Shares of every size from either start, the largest also with checkpoints shuffled; its groups over training."""
    shares, steps = {}, [str(step) for step in trained.steps]
    for start in (setting.start, setting.warm):
        found = trends_of(trained, start)
        *_, (largest, last) = found.items()
        begin, table = f"from {steps[last.first]}", trained.tables[largest]
        shares |= {f"{name}, {begin}": each.fractions for name, each in found.items()}
        shares[f"{largest}, {begin}, shuffled"] = shuffled_trends(table, last.first, setting.seed).fractions
        if start == setting.start:
            drawn = group_perplexity(group_curves(table, last.labels), last.counts, steps, first=last.first)
            save(drawn, out / "groups.png")
    save(trend_fractions(shares), out / "trends.png")


if __name__ == "__main__":
    main()
