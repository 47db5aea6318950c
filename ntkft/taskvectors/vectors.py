"""Task vectors as weights: differences of parameters, their sums, and files of them.

A vector is a pytree like the parameters. A real one is θ_FT − θ_PT; in the linear regime it is Jᵀα, which one backward
pass gives without any fine-tuning (`ntkft.batched.compile_pullback`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ntkft._errors import InputError, refuse
from ntkft._tree import leaf_paths
from ntkft._types import PyTree


def task_vector(finetuned: PyTree, pretrained: PyTree) -> PyTree:
    """τ = θ_FT − θ_PT, leaf by leaf. Raises `InputError` naming every leaf that only one has, or of another shape.

    Source: Ilharco et al. 2023, *Editing models with task arithmetic*.
    """
    _check_alike("task_vector", {"finetuned": finetuned, "pretrained": pretrained})
    return jax.tree.map(jnp.subtract, finetuned, pretrained)


def add_task_vectors(
    params: PyTree, vectors: Mapping[str, PyTree], coefficients: Mapping[str, SupportsFloat]
) -> PyTree:
    """θ_PT + Σ_i c_i τ_i; a task without a coefficient is left out.

    Negation is a coefficient of −1: θ_PT − τ (Sun & Raskutti 2026 print θ_FT − τ in eq. 23, which is θ_PT).
    Raises `InputError` for a coefficient of a task that has no vector, and for vectors unlike the parameters.
    """
    unknown = [
        f"no vector for {name!r}; there are {', '.join(map(repr, vectors))}"
        for name in coefficients
        if name not in vectors
    ]
    refuse("add_task_vectors", unknown)
    for name in coefficients:
        _check_alike("add_task_vectors", {"params": params, name: vectors[name]})
        scale = float(coefficients[name])
        params = jax.tree.map(
            lambda leaf, change, scale=scale: leaf + scale * change.astype(leaf.dtype), params, vectors[name]
        )
    return params


def cosine(first: PyTree, second: PyTree) -> float:
    """⟨τ₁, τ₂⟩ / (‖τ₁‖ ‖τ₂‖), summed in float64. NaN when either is zero."""
    _check_alike("cosine", {"first": first, "second": second})
    pairs = list(zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))

    def inner(pairs):
        return sum(float(np.vdot(np.asarray(a, np.float64), np.asarray(b, np.float64))) for a, b in pairs)

    norms = inner((a, a) for a, _ in pairs) * inner((b, b) for _, b in pairs)
    return inner(pairs) / np.sqrt(norms) if norms else float("nan")


def save_task_vector(path: str | os.PathLike[str], vector: PyTree, *, about: Mapping[str, str]) -> None:
    """Write a vector as safetensors, `about` as its metadata; the file appears in one rename.

    Tensors are named by leaf path, such as `layers/0/attention/query/kernel`.
    """
    file = Path(path)
    draft = file.with_name(file.name + ".draft")
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in leaf_paths(vector).items()}
    safetensors.numpy.save_file(tensors, draft, metadata=dict(about))
    os.replace(draft, file)


def load_task_vector(path: str | os.PathLike[str], like: PyTree) -> tuple[PyTree, dict[str, str]]:
    """A saved vector in the structure of the parameters `like`, and what was written about it.

    Raises `InputError` for a file that cannot be read, and naming every tensor that is missing, unknown or misshapen.
    """
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"task vector {os.fspath(path)}: cannot be read ({error}); save it again") from error
    wanted = leaf_paths(like)
    problems = [f"tensor {name!r} is missing" for name in wanted if name not in tensors]
    problems += [f"tensor {name!r} belongs to no parameter" for name in tensors if name not in wanted]
    problems += [
        f"tensor {name!r} has shape {list(tensors[name].shape)}; the parameter has {list(leaf.shape)}"
        for name, leaf in wanted.items()
        if name in tensors and tensors[name].shape != leaf.shape
    ]
    refuse(f"task vector {os.fspath(path)}", problems)
    leaves = [jnp.asarray(tensors[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), about


def _check_alike(what: str, trees: Mapping[str, PyTree]) -> None:
    (one, first), (other, second) = trees.items()
    shapes, others = ({path: np.shape(leaf) for path, leaf in leaf_paths(tree).items()} for tree in (first, second))
    refuse(
        what,
        [
            f"leaf {path!r} is {list(shapes[path]) if path in shapes else 'missing'} in {one} and "
            f"{list(others[path]) if path in others else 'missing'} in {other}; both need the same leaves"
            for path in shapes | others
            if shapes.get(path) != others.get(path)
        ],
    )
