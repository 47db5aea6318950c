"""`ntkft rank`: which of several checkpoints to fine-tune on a task, from their kernels and no fine-tuning."""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from ntkft import plots
from ntkft._errors import InputError
from ntkft.cli.console import emit, say, table
from ntkft.cli.folder import claim
from ntkft.cli.options import Common, compute_kernel, prepare
from ntkft.report.ranking import Judge, KernelRisk, Ranking, kernel_risk, rank as rank_risks
from ntkft.report.record import to_json

RISK = {"validation": "validation MSE", "gcv": "GCV"}
"""What each judge measures, in figures and tables."""


def rank(
    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional],
    common: Common,
    *,
    judge: Judge,
    step: float,
    epochs: int,
    out: Path | None = None,
) -> None:
    """Rank checkpoints for one task by the risk that full-batch gradient descent will reach, as their kernels predict.

    Args:
        checkpoints: two or more directories, Hub ids or built-in models, in place of --model.
        judge: validation, by the error of the validation examples; or gcv, by generalised cross-validation on the
            training examples, with --validation 0: no example is kept from training, and the kernel is the smaller for
            it.
        step: step size, in units of 1/λ̂₁ of each checkpoint's own kernel, such as 0.5.
        epochs: the most steps of full-batch gradient descent; each checkpoint stops at its lowest predicted risk.
        out: folder for rank.json, rank.png and the kernels, which an interrupted command goes on from.
    """
    _refuse(checkpoints, common, judge)
    found, seconds = [], {}
    for name in checkpoints:
        begin = time.perf_counter()
        asked = replace(common, model=name)
        setup, store = prepare(asked), None
        if out is not None:
            folder = out / re.sub(r"[^\w.-]+", "_", name).strip("_")
            claim(folder, "rank", asked, data=setup.task.digest, parameters=setup.parameters_digest)
            store = folder / "kernel.zarr"
        kernel = compute_kernel(setup, asked, store)
        found.append(kernel_risk(name, setup.problem(kernel), judge=judge, step=step, epochs=epochs))
        seconds[name] = time.perf_counter() - begin
    ranking = rank_risks(found)
    record = rank_record(found, ranking, seconds)
    if out is not None:
        (out / "rank.json").write_text(to_json(record))
        curves = [each.curve for each in _ordered(found, ranking)]
        figure = plots.ranking(_short(ranking.names), found[0].epochs, curves, risk=RISK[judge], task=common.task)
        plots.save(figure, out / "rank.png")
        say(f"wrote {out}/rank.json and rank.png")
    emit(record, as_json=common.json, tables=[rank_table(found, ranking, seconds)])


def rank_record(found: list[KernelRisk], ranking: Ranking, seconds: dict[str, float]) -> dict[str, object]:
    """The ranking, and what it was made of, by the name of each checkpoint."""
    return {
        "judge": found[0].judge,
        "ranking": ranking.names,
        "behind": dict(zip(ranking.names, ranking.behind, strict=True)),
        "predicted": dict(zip(ranking.names, ranking.risks, strict=True)),
        "epoch": {each.name: each.epoch for each in found},
        "step_size": {each.name: each.step_size for each in found},
        "accuracy": {each.name: each.accuracy for each in found},
        "test_risk": {each.name: each.test_risk for each in found},
        "test_accuracy": {each.name: each.test_accuracy for each in found},
        "epochs": found[0].epochs,
        "curve": {each.name: each.curve for each in found},
        "seconds": seconds,
    }


def rank_table(found: list[KernelRisk], ranking: Ranking, seconds: dict[str, float]):
    """A row for each checkpoint, the best first."""
    rows = [
        (
            f"{place}. {name}",
            f"{each.risk:.4f}",
            "" if place == 1 else f"{behind:.4f} ± {error:.4f}",
            "" if each.accuracy is None else f"{each.accuracy:.1%}",
            each.epoch,
            f"{seconds[each.name]:.1f}",
        )
        for place, (name, each, (behind, error)) in enumerate(
            zip(_short(ranking.names), _ordered(found, ranking), ranking.behind, strict=True), start=1
        )
    ]
    columns = ("checkpoint", "risk", "behind", "accuracy", "epoch", "seconds")
    title = f"{len(found)} checkpoints by the risk that their kernels predict ({RISK[found[0].judge]})"
    return table(title, columns, rows)


def _ordered(found: list[KernelRisk], ranking: Ranking) -> list[KernelRisk]:
    by_name = {each.name: each for each in found}
    return [by_name[name] for name in ranking.names]


def _short(names: Sequence[str]) -> list[str]:
    """Names without the folders that all of them share, which leave a narrow table no room for what differs."""
    parts = [Path(name).parts for name in names]
    shortest = len(min(parts, key=len))
    differ = (place for place in range(shortest) if len({each[place] for each in parts}) > 1)
    shared = next(differ, shortest - 1)
    return ["/".join(each[shared:]) for each in parts]


def _refuse(checkpoints: tuple[str, ...], common: Common, judge: Judge) -> None:
    twice = [name for name in dict.fromkeys(checkpoints) if checkpoints.count(name) > 1]
    if len(checkpoints) < 2 or twice:
        got = f"{', '.join(twice)} twice" if twice else f"{len(checkpoints)} checkpoints"
        raise InputError(f"ntkft rank: got {got}; name at least two different ones")
    if common.model != Common.model:
        raise InputError(f"--model: got {common.model}; ntkft rank takes checkpoints without a flag, one after another")
    if (judge == "gcv") == (common.validation > 0):
        wanted = "0: it reads the training examples alone" if judge == "gcv" else "at least 1"
        raise InputError(f"--judge {judge}: got --validation {common.validation}; wanted {wanted}")
