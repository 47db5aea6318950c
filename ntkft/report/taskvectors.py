"""Everything that is said of task vectors, from a kernel or from real weights: one record for each, of the same fields.

Tasks share one model with one output, so that their vectors live in the same parameters.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ntkft._tree import take_examples
from ntkft._types import Array, PyTree
from ntkft.batched import compile_outputs
from ntkft.dynamics.classification import class_of
from ntkft.kernels import Kernel
from ntkft.models import Model
from ntkft.report.record import to_plain
from ntkft.taskvectors import (
    Combination,
    addition,
    choose_coefficients,
    cosine,
    disentanglement_error,
    geometry,
    kernel_combination,
    negation,
    principal_angles,
    weight_combination,
)

GRID = tuple(np.linspace(0, 1, 21).tolist())
"""Coefficients to choose from on the validation examples (Ilharco et al. 2023)."""
_BATCH = 32


@dataclass(frozen=True, eq=False)
class TaskSet:
    """A model and its tasks: rows of all examples, first the training sets task by task, then validation and test.

    rows: set → task → its rows; `data_digest` is that of every task, in order.
    """

    model: Model
    rows: Mapping[str, Mapping[str, slice]]
    inputs: PyTree
    targets: Float[np.ndarray, "m 1"]
    pretrained: Float[np.ndarray, "m 1"]
    data_digest: str

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, in the order of the rows."""
        return tuple(self.rows["train"])

    def cut(self, values: PyTree, part: str) -> dict[str, PyTree]:
        """Task → its examples of a set."""
        return {name: take_examples(values, rows) for name, rows in self.rows[part].items()}

    def blocks(self, kernel: Float[Array, "m n"], part: str) -> dict[tuple[str, str], Float[np.ndarray, "i j"]]:
        """(evaluated task, trained task) → 𝕂 of the former's examples of a set with the latter's training examples."""
        matrix, train = np.asarray(kernel, np.float64), self.rows["train"]
        return {(at, of): matrix[rows, train[of]] for at, rows in self.rows[part].items() for of in train}


@dataclass(frozen=True, eq=False)
class TaskPrediction:
    """What the kernel says of every task: dual coefficients α_i `[n, 1]`, and the step sizes that they are for."""

    kernel: Kernel
    duals: Mapping[str, Float[np.ndarray, "n 1"]]
    step_sizes: Mapping[str, float]


def predicted_record(setup: TaskSet, prediction: TaskPrediction) -> dict[str, Any]:
    """The fields of `real_record`, and step_size, interference, and principal angles of every pair in degrees."""
    kernel, duals = prediction.kernel, prediction.duals
    train = setup.blocks(kernel.total, "train")
    shape = geometry(train, duals)
    angles = {
        f"{a}, {b}": np.degrees(principal_angles(train[a, b], train[a, a], train[b, b], precision=kernel.precision))
        for a, b in itertools.combinations(setup.tasks, 2)
    }
    combine = {
        part: kernel_combination(setup.blocks(kernel.total, part), duals, setup.cut(setup.pretrained, part))
        for part in setup.rows
    }
    found = {"step_size": prediction.step_sizes, "interference": shape.interference, "angles": angles}
    return to_plain(found | {"norm": shape.norm, "cosine": shape.cosine} | _outcomes(setup, combine))


def real_record(setup: TaskSet, vectors: Mapping[str, PyTree]) -> dict[str, Any]:
    """What real vectors are and do.

    norm ‖τ_i‖ and cosine, in the order of the tasks; negation: task → `Negation` at coefficient 1; mse: task → that of
    the pretrained model, of its vector alone, of all together. For tasks with classes addition (coefficient 1); where
    all have classes disentanglement ξ and, with validation examples, best_addition (at the coefficient chosen there).
    """
    outputs, params = compile_outputs(setup.model.apply_fn, _BATCH), setup.model.params
    combine = {part: weight_combination(outputs, params, vectors, setup.cut(setup.inputs, part)) for part in setup.rows}
    norm = [np.sqrt(sum(np.vdot(leaf, leaf) for leaf in jax.tree.leaves(vectors[name]))) for name in setup.tasks]
    cosines = [[cosine(vectors[a], vectors[b]) for b in setup.tasks] for a in setup.tasks]
    return to_plain({"norm": norm, "cosine": cosines} | _outcomes(setup, combine))


def _outcomes(setup: TaskSet, combine: Mapping[str, Combination]) -> dict[str, Any]:
    test, targets, ones = (
        _remembering(combine["test"]),
        setup.cut(setup.targets, "test"),
        dict.fromkeys(setup.tasks, 1.0),
    )
    negated = {name: negation(test, targets, name, 1.0) for name in setup.tasks}
    mse = {
        name: [each.pretrained, each.finetuned, float(np.mean((targets[name] - test(ones)[name]) ** 2))]
        for name, each in negated.items()
    }
    found: dict[str, Any] = {"mse": mse, "negation": {n: to_plain(e) | {"gap": e.gap} for n, e in negated.items()}}
    classes = {name: y for name, y in targets.items() if class_of(y) is not None}
    coefficients = {"addition": ones} if classes else {}
    if len(classes) == len(targets):
        found["disentanglement"] = disentanglement_error(test, ones)
        if "validation" in combine:
            known = setup.cut(setup.targets, "validation")
            coefficients["best_addition"] = choose_coefficients(combine["validation"], known, GRID, shared=True)
    for key, values in coefficients.items():
        result = addition(test, classes, values)
        found[key] = to_plain(result) | {"normalised": result.normalised}
    return found


def _remembering(combination: Combination) -> Combination:
    """The same combination, evaluated once for each set of coefficients: a network's takes a forward pass over all."""
    seen = {}

    def outputs(coefficients: Mapping[str, float], /) -> dict[str, Float[np.ndarray, "m k"]]:
        key = frozenset(item for item in coefficients.items() if item[1])
        if key not in seen:
            seen[key] = combination(dict(key))
        return seen[key]

    return outputs
