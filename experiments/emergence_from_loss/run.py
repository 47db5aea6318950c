"""What the loss says of the score: a curve for each corpus, and few thresholds that no smooth curve replaces.

Claim     (a) On 104 models, loss on C4's validation set orders the mean accuracy over 17 tasks (Spearman −.986 trained
          on C4, −.996 on RedPajama, −.994 on RefinedWeb) and gives it by err = ε − k e^{−γL} (R² .983, .990, .988),
          with other coefficients for each corpus; (b) task by task, which scores leave chance at a loss η, and where;
          (c) on points of a known law a threshold is claimed on at most 5 % of straight lines, whatever their slope
          and height, and the 95 % interval of a hinge holds its η.
Source    Du et al. 2024 (thresholds of the loss, read off plots); Gadre et al. 2024 (models, and the law in a)
Setting   (b) 95 % intervals, 999 draws, accuracy normalised by the chance level of `eval_metadata.csv`; (c) `REAL`: 35
          models with losses uniform in 1.8 … 4, 200 seeds.
Command   python -m experiments.emergence_from_loss.run                 (from the root of the repository)
Minutes   about 1 on one CPU core; seconds with --smoke, which is (c) with 10 seeds
Expected  expected.toml
"""

import argparse
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.stats

from experiments._check import check
from experiments.emergence_from_loss import figures
from experiments.emergence_from_loss.synthetic import CURVES, ETA, HINGES, LINES, study
from experiments.emergence_from_loss.testbed import CORPORA, Testbed, read_testbed
from ntkft.emergence import fit_exponential
from ntkft.plots.emergence import scores_over_loss
from ntkft.plots.style import save
from ntkft.report.record import to_json

FOLDER = Path(__file__).parent
SHOWN = (
    ("jeopardy", "rpj"), ("squad", "rw_original"), ("bigbench_qa_wikidata", "c4_original"),
    ("lambada_openai", "rpj"), ("hellaswag", "c4_original"), ("mmlu", "rw_original"),
)  # fmt: skip
"""Tasks and corpora of `tasks.png`: what thresholds look like, and what looks like one."""


@dataclass(frozen=True)
class Setting:
    """Of the study on points of a known law."""

    models: int
    seeds: int
    draws: int


REAL, SMOKE = Setting(models=35, seeds=200, draws=499), Setting(models=35, seeds=10, draws=199)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Fit, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/emergence_from_loss"))
    table = Path("../shared/data/loss_vs_accuracy/models_losses_accuracies.csv")
    parser.add_argument("--table", type=Path, default=table, help="Gadre et al.'s models, eval_metadata.csv beside it")
    parser.add_argument("--smoke", action="store_true", help="points of a known law only, 10 seeds")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL

    studies = {
        name: study(law, eta=ETA if name in HINGES else None, **asdict(setting))
        for name, law in (LINES | HINGES | CURVES).items()
    }
    save(figures.claims_by_law(studies, setting.seeds), options.out / "claims.png")
    results = {f"{name}: {key}": value for name, found in studies.items() for key, value in found.items()}
    record: dict = {}
    if not options.smoke:
        testbed = read_testbed(options.table)
        results |= mean_error(testbed, options.out)
        counts, record = by_task(testbed, options.out)
        results |= counts
    (options.out / "results.json").write_text(to_json({"results": results, "tasks": record}))
    for name, value in results.items():
        print(f"{name:80} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def mean_error(testbed: Testbed, out: Path) -> dict[str, float]:
    """Rank correlation and exponential fit of the mean over the 17 tasks, for each corpus."""
    tasks = testbed.subset()
    errors, results = testbed.mean_error(tasks), {"tasks of the subset": float(len(tasks))}
    points = {
        corpus: (testbed.loss[mine], errors[mine]) for corpus in CORPORA if (mine := testbed.corpus == corpus).any()
    }
    fits = {corpus: fit_exponential(*both) for corpus, both in points.items()}
    for corpus, (losses, error) in points.items():
        fit, name = fits[corpus], CORPORA[corpus]
        results |= {
            f"{name}: Spearman of loss and mean accuracy": spearman(losses, 1 - error),
            f"{name}: ε": fit.limit,
            f"{name}: k": fit.scale,
            f"{name}: γ": fit.rate,
            f"{name}: R²": fit.r_squared,
        }
    save(figures.error_over_loss(points, fits), out / "error.png")
    return results


def by_task(testbed: Testbed, out: Path) -> tuple[dict[str, float], dict[str, dict]]:
    """How many of all (task, corpus) have which status, and every record."""
    found = {
        (task, corpus): testbed.threshold(task, corpus, draws=999) for task in testbed.accuracy for corpus in CORPORA
    }
    thresholds = {key: result for key, (_, _, result) in found.items()}
    counts = Counter(result.status for result in thresholds.values())
    lower = sum(result.delta_aic is not None and result.delta_aic > 0 for result in thresholds.values())
    save(figures.thresholds_by_task(thresholds), out / "thresholds.png")
    shown = {f"{task}, {CORPORA[corpus]}": found[task, corpus] for task, corpus in SHOWN}
    save(scores_over_loss(shown, "Accuracy over loss on C4 (validation), chance at 0"), out / "tasks.png")
    results = {f"task and corpus: {status}": float(count) for status, count in sorted(counts.items())}
    results["task and corpus: AIC below the line's"] = float(lower)
    return results, {f"{task}, {CORPORA[corpus]}": asdict(result) for (task, corpus), result in thresholds.items()}


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation."""
    return float(np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1])


if __name__ == "__main__":
    main()
