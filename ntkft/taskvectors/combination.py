"""The model at θ_PT + Σ_i c_i τ_i on the examples of every task: predicted in kernel space, or really evaluated.

Both are one function, coefficients → outputs by task, so that whatever is measured of the one is measured of the other.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array, PyTree
from ntkft.taskvectors.geometry import drive
from ntkft.taskvectors.vectors import add_task_vectors


@runtime_checkable
class Combination(Protocol):
    """A model that several task vectors were added to."""

    def __call__(self, coefficients: Mapping[str, float], /) -> dict[str, Float[np.ndarray, "m k"]]:
        """Outputs `[m, k]` on each task's examples, with these coefficients; tasks not named have 0."""
        ...


def kernel_combination(
    kernels: Mapping[tuple[str, str], Num[Array, "..."]],
    duals: Mapping[str, Float[np.ndarray, "n k"]],
    pretrained: Mapping[str, Float[np.ndarray, "m k"]],
) -> Combination:
    """f(x; θ_PT + Σ c_i τ_i) = f_PT(x) + Σ_i c_i 𝕂(x, X_i) α_i, the linearised model; nothing is trained or evaluated.

    kernels: (evaluated task, trained task) → 𝕂 of the former's m examples with the latter's n training examples,
    `[m, n]` or `[m, k, n, k′]`; pretrained: f_PT on each task's examples.

    Cost: one product for each pair of tasks; coefficients cost next to nothing then. Raises `InputError` naming every
    pair that is missing or does not fit.
    """
    problems = []
    for at, start in pretrained.items():
        for of, dual in duals.items():
            (m, k), (n, c) = start.shape, dual.shape
            shape = np.shape(kernels[at, of]) if (at, of) in kernels else None
            if shape is None:
                problems.append(f"no kernel of the examples of {at!r} with the training examples of {of!r}")
            elif shape != (m, k, n, c) and (shape != (m, n) or k != c):
                problems.append(f"the kernel of {at!r} with {of!r} is {list(shape)}; wanted [{m}, {k}, {n}, {c}]")
    refuse("kernel_combination", problems)
    moved = {
        (at, of): drive(kernels[at, of], dual, pretrained[at].shape[1])
        for at in pretrained
        for of, dual in duals.items()
    }

    def outputs(coefficients: Mapping[str, float], /) -> dict[str, Float[np.ndarray, "m k"]]:
        _check_names(coefficients, duals)
        return {
            at: start + sum((float(c) * moved[at, of] for of, c in coefficients.items()), np.zeros_like(start))
            for at, start in pretrained.items()
        }

    return outputs


def weight_combination(
    outputs: Callable[[PyTree, PyTree], np.ndarray],
    params: PyTree,
    vectors: Mapping[str, PyTree],
    inputs: Mapping[str, PyTree],
) -> Combination:
    """The network itself at θ_PT + Σ c_i τ_i.

    outputs: (params, inputs) → `[m, k]` for any number of examples, such as `ntkft.batched.compile_outputs` gives;
    inputs: each task's examples. Cost: one forward pass over all of them for every new set of coefficients.
    """

    def evaluate(coefficients: Mapping[str, float], /) -> dict[str, Float[np.ndarray, "m k"]]:
        _check_names(coefficients, vectors)
        moved = add_task_vectors(params, vectors, coefficients)
        return {name: np.asarray(outputs(moved, examples), np.float64) for name, examples in inputs.items()}

    return evaluate


def _check_names(coefficients: Mapping[str, float], known: Mapping[str, object]) -> None:
    refuse(
        "combination",
        [
            f"coefficient for {name!r}, which has no vector; there are {', '.join(map(repr, known))}"
            for name in coefficients
            if name not in known
        ],
    )
