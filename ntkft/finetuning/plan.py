"""What a run is, besides its functions and arrays; and every reason why it cannot start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkft._errors import refuse
from ntkft._tree import check_finite, count_examples, take_examples
from ntkft._types import ApplyFn, Array, PyTree
from ntkft.finetuning.losses import LOSSES, target_problems

LabelledInputs = tuple[PyTree, Array]
"""Inputs, a pytree with a leading example axis, and targets: floating `[n, k]`, or integer classes `[n]`."""


@dataclass(frozen=True)
class Plan:
    """The names and numbers that define a run: one plan, model and data are one run."""

    loss: str
    optimizer: str
    epochs: int
    batch_size: int | None
    seed: int | None
    recorded: list[int]
    drift_at: list[int]
    keep_predictions: list[str]


def check(
    plan: Plan,
    apply_fn: ApplyFn,
    params: PyTree,
    train: LabelledInputs,
    evaluate: Mapping[str, LabelledInputs],
    *,
    kernel_fn: Any,
    micro_batch: int,
) -> None:
    """Raise `InputError` with everything that keeps `plan` from running."""
    check_finite("finetune: initial parameters", params)
    problems = _epoch_problems(plan, kernel_fn)
    problems += _batch_problems(plan, micro_batch, count_examples(train[0]))
    if unknown := [name for name in plan.keep_predictions if name not in evaluate]:
        problems.append(f"keep_predictions names {unknown}, which evaluate does not hold: {list(evaluate)}")
    if plan.loss in LOSSES:
        sets = {"train": train} | {f"evaluate[{name!r}]": examples for name, examples in evaluate.items()}
        for name, examples in sets.items():
            problems += [f"{name}: {problem}" for problem in _set_problems(plan.loss, apply_fn, params, examples)]
    else:
        problems.append(f"loss is {plan.loss!r}; wanted one of {', '.join(LOSSES)}")
    refuse("finetune", problems)


def _epoch_problems(plan: Plan, kernel_fn: Any) -> list[str]:
    if plan.epochs < 0:
        return [f"epochs is {plan.epochs}; wanted 0 or more"]
    problems = []
    if outside := [epoch for epoch in plan.recorded if not 0 <= epoch <= plan.epochs]:
        problems.append(f"record_at holds {outside}, outside 0 to epochs = {plan.epochs}; train longer or drop them")
    if unrecorded := sorted(set(plan.drift_at) - set(plan.recorded)):
        problems.append(f"drift_at holds {unrecorded}, which are not recorded; add them to record_at")
    if bool(plan.drift_at) != (kernel_fn is not None):
        given, missing = ("drift_at", "kernel_fn") if plan.drift_at else ("kernel_fn", "drift_at")
        problems.append(f"{given} without {missing}; kernel drift needs the kernel and the epochs to compute it at")
    return problems


def _batch_problems(plan: Plan, micro_batch: int, n: int) -> list[str]:
    problems = []
    if plan.batch_size is not None:
        if not 1 <= plan.batch_size <= n:
            problems.append(f"batch_size is {plan.batch_size}; wanted 1 to n = {n}, or None for all examples at once")
        if plan.seed is None:
            problems.append("batch_size without seed; minibatches need one for their order")
    if micro_batch < 1:
        problems.append(f"micro_batch is {micro_batch}; wanted 1 or more")
    return problems


def _set_problems(loss: str, apply_fn: ApplyFn, params: PyTree, examples: LabelledInputs) -> list[str]:
    inputs, targets = examples
    n = count_examples(inputs)
    if n == 0:
        return ["holds no examples"]
    outputs = jax.eval_shape(apply_fn, params, take_examples(inputs, slice(0, 1)))
    if outputs.ndim != 2 or outputs.shape[0] != 1 or not jnp.issubdtype(outputs.dtype, jnp.floating):
        return [
            f"apply_fn returns {outputs.dtype} {list(outputs.shape)} for one example; wanted floating [1, k], one row "
            "of k outputs for each example"
        ]
    return target_problems(loss, np.asarray(targets), n, outputs.shape[1])
