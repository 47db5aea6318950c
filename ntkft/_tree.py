"""Parameter and input pytrees: paths, groups, digests, examples.

A leaf's *path* is its keys joined by slashes, as in `layers/0/attention/query/kernel`. A *group* is a set of leaves;
groups partition the parameters, so that group kernels sum to the kernel of all parameters.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ntkft._errors import InputError, refuse
from ntkft._types import PyTree

ALL = "all"
"""Name of the single group when no groups are asked for."""


def leaf_paths(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, in the tree's own order: arrays, or their shapes where a tree holds those."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def assign_groups(params: PyTree, groups: Mapping[str, str] | None) -> dict[str, str]:
    """Group name of every leaf path; `groups` maps names to regular expressions searched for in the path.

    Raises `InputError` listing every leaf that matches no group or several, and every group that matches no leaf:
    a partition is what makes group kernels sum to the total.
    """
    paths = list(leaf_paths(params))
    if groups is None:
        return dict.fromkeys(paths, ALL)
    matches = {path: [name for name, regex in groups.items() if re.search(regex, path)] for path in paths}
    problems = [
        f"parameter {path!r} matches {'no group' if not names else 'groups ' + ', '.join(names)}; it must match one"
        for path, names in matches.items()
        if len(names) != 1
    ]
    problems += [
        f"group {name!r} ({regex!r}) matches no parameter; the first of {len(paths)} paths is {paths[0]!r}"
        for name, regex in groups.items()
        if not any(name in names for names in matches.values())
    ]
    refuse("groups", problems)
    return {path: names[0] for path, names in matches.items()}


def count_examples(inputs: PyTree) -> int:
    """Length of the leading axis that all leaves of `inputs` must share."""
    sizes = {path: np.shape(leaf)[:1] for path, leaf in leaf_paths(inputs).items()}
    if not sizes:
        raise InputError("inputs: got a pytree without arrays; wanted arrays with a leading example axis")
    if len(set(sizes.values())) != 1 or () in sizes.values():
        got = ", ".join(f"{path or 'inputs'}: {size[0] if size else 'no axis'}" for path, size in sizes.items())
        raise InputError(f"inputs: leading axes differ ({got}); every array must have one row per example")
    return next(iter(sizes.values()))[0]


def take_examples(inputs: PyTree, rows: Any) -> PyTree:
    """The examples `rows` (an index array or slice) of every leaf."""
    return jax.tree.map(lambda leaf: leaf[rows], inputs)


def check_finite(what: str, tree: PyTree) -> None:
    """Raise `InputError` naming every floating leaf that holds NaN or infinity."""
    refuse(
        what,
        [
            f"leaf {path or '(the array itself)'!r} holds {bad} NaN or infinite values of {leaf.size}; "
            "load or train it again"
            for path, leaf in leaf_paths(tree).items()
            if np.issubdtype(leaf.dtype, np.inexact) or leaf.dtype == jax.numpy.bfloat16
            if (bad := int(np.sum(~np.isfinite(np.asarray(leaf, np.float64)))))
        ],
    )


def digest(tree: PyTree) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of the leaves: equal digests mean equal numbers."""
    state = hashlib.sha256()
    for path, leaf in leaf_paths(tree).items():
        array = np.ascontiguousarray(leaf)
        state.update(f"{path} {array.dtype} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()
