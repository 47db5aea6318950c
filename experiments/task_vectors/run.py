"""What one kernel says of task vectors before anything is trained, judged by real fine-tuning.

Claim     For all-MiniLM-L6-v2 with one fresh output that four binary tasks share, all parameters trained by full-batch
          gradient descent on the squared loss: in the linear regime (a) the predicted cosine of every pair of task
          vectors is within 0.05 of the real one; (b) the predicted normalised accuracy of adding all four is within
          3 points of the real one on every task; (c) MSE(θ_PT − τ) − MSE(θ_PT + τ), really measured, is within 10 %
          of 4·mean((y − f_PT)·Jτ). At full fine-tuning the differences are reported.
Source    Sun & Raskutti 2026, task vectors (negation as θ_PT − τ); Ilharco et al. 2023, normalised accuracy.
Setting   `REAL`. The functions are those of `ntkft taskvectors --real`: what is judged is what the command does.
Command   python -m experiments.task_vectors.run                     (from the root of the repository)
Minutes   about 12 of processor time; under one with --smoke. Every regime is kept in --out as soon as it is measured,
          and a command that was interrupted goes on from there.
Expected  expected.toml
"""

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from experiments._check import check
from experiments._kept import claim, kept
from ntkft import plots
from ntkft.cli.taskvectors import (
    Flags,
    compute_kernel,
    predict,
    prepare,
    save_vectors,
    train,
)
from ntkft.kernels import Kernel
from ntkft.report.taskvectors import TaskSet, predicted_record, real_record

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Setting:
    """Tasks ({texts} is the folder of texts), their sizes, and regimes by name: (step size · λ̂₁, epochs)."""

    tasks: tuple[str, ...]
    n: int
    validation: int
    test: int
    max_length: int
    regimes: tuple[tuple[str, float, int], ...]

    def flags(self, texts: Path, step: float, epochs: int) -> Flags:
        """Of the command that does one regime."""
        return Flags(
            task=tuple(task.format(texts=texts) for task in self.tasks),
            readout="regression:pool=mean,scale=1,seed=0",
            n=self.n,
            validation=self.validation,
            test=self.test,
            max_length=self.max_length,
            seed=0,
            step_size=f"{step}/lambda1",
            epochs=epochs,
            drop_empty=True,  # four reviews of cr
            memory="3GB",
        )


REAL = Setting(
    tasks=(
        "docs=docs,labels=special|stats",
        "sst2={texts}/sst2/train.tsv,kind=classification",
        "cr={texts}/cr/all.tsv,kind=classification",
        "trec={texts}/trec/train.tsv,labels=1|3",
    ),
    n=48,
    validation=48,
    test=192,  # one example is half a point of accuracy
    max_length=24,
    regimes=(("linear", 0.05, 20), ("full", 0.5, 40)),
)
SMOKE = Setting(
    tasks=("special=docs,labels=special|stats", "linalg=docs,labels=linalg|signal"),
    n=8,
    validation=8,
    test=16,
    max_length=8,
    regimes=(("linear", 0.05, 4),),
)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/task_vectors"))
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text"), help="folder of sst2, cr and trec")
    parser.add_argument("--smoke", action="store_true", help="two small tasks of documentation sentences")
    parser.add_argument("--save", type=Path, help="folder for the real vectors, 90 MB each, one folder a regime")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    claim(options.out, setting)

    first = setting.flags(options.texts, *setting.regimes[0][1:])
    setup = prepare(first)
    kernel = compute_kernel(setup, first, options.out / "kernel.zarr")
    records = {}
    for name, step, epochs in setting.regimes:
        flags = setting.flags(options.texts, step, epochs)
        predicted = predicted_record(setup, predict(setup, flags, kernel))
        folder = options.save / name if options.save else None
        real = kept(options.out / f"{name}.json", lambda f=flags, s=folder: measured(setup, kernel, f, s))
        records |= {f"{name}, predicted": predicted, f"{name}, real": real}
    title = f"all-MiniLM-L6-v2, n = {setting.n} each, seed 0"
    plots.save(plots.task_cosines(setup.tasks, records, title), options.out / "cosines.png")
    plots.save(plots.task_addition(records, title), options.out / "addition.png")

    results = {}
    for name, _, _ in setting.regimes:
        predicted, real = (records[f"{name}, {side}"] for side in ("predicted", "real"))
        results |= {f"{name}: {what}": value for what, value in differences(setup.tasks, predicted, real).items()}
    (options.out / "results.json").write_text(json.dumps({"results": results, "records": records}, indent=1))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def measured(setup: TaskSet, kernel: Kernel, flags: Flags, folder: Path | None) -> dict:
    """The real vectors of one regime, and what they do; the kernel gives step sizes only."""
    prediction = predict(setup, flags, kernel)
    vectors = train(setup, prediction.step_sizes, flags.epochs, None)
    if folder is not None:
        save_vectors(folder, setup, flags, prediction, vectors)
    return real_record(setup, vectors)


def differences(tasks: tuple[str, ...], predicted: dict, real: dict) -> dict[str, float]:
    """Largest over tasks or pairs of tasks, and the range of what is predicted, without which they say little."""
    pairs = list(itertools.combinations(range(len(tasks)), 2))
    cosines = [(predicted["cosine"][i][j], real["cosine"][i][j]) for i, j in pairs]
    lengths = zip(predicted["norm"], real["norm"], strict=True)
    gaps = [(predicted["negation"][task]["linear_gap"], real["negation"][task]["gap"]) for task in tasks]
    found = {
        "cosine, largest difference": max(abs(mine - theirs) for mine, theirs in cosines),
        "cosine, real, lowest": min(theirs for _, theirs in cosines),
        "cosine, real, highest": max(theirs for _, theirs in cosines),
        "length of a vector, largest difference, %": max(100 * abs(mine / theirs - 1) for mine, theirs in lengths),
        "negation gap, largest difference, %": max(100 * abs(theirs / mine - 1) for mine, theirs in gaps),
        "negation gap, real, lowest": min(theirs for _, theirs in gaps),
        "disentanglement error, predicted": predicted["disentanglement"],
        "disentanglement error, real": real["disentanglement"],
    }
    for key, what in (("addition", "addition"), ("best_addition", "addition with chosen coefficients")):
        shares = [(predicted[key]["normalised"][task], real[key]["normalised"][task]) for task in tasks]
        found[f"{what}, normalised accuracy, largest difference, points"] = max(100 * abs(a - b) for a, b in shares)
        found[f"{what}, normalised accuracy, real, mean"] = sum(theirs for _, theirs in shares) / len(shares)
    for side, record in (("predicted", predicted), ("real", real)):
        found[f"chosen coefficient, {side}"] = record["best_addition"]["coefficients"][tasks[0]]
    return found


if __name__ == "__main__":
    main()
