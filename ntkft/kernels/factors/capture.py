"""Where a function uses its weights, found in its own program.

A weight's gradient is a sum over its *sites*: the equations that combine it, or a rearrangement of it, with data.

    matmul   a product of data a `[t, c]` with a weight `[c, f]`:  gradient aᵀb, b `[t, f]` the cotangent of the product
    rows     a gather of rows from a table, by token:              gradient has row u = Σ of b over tokens with id u
    affine   adding or multiplying a broadcast weight:             gradient Σ b or Σ a∘b over the broadcast axes
    explicit anything else: the leaf is perturbed itself, and its gradient is formed in full

All are exact. The first two keep factors (a, b), far smaller than the gradient when t·(c + f) < c·f.

A *block* is a set of elements of one leaf with all the sites that use exactly those elements; its gradient is the sum
over them, cross terms included. Blocks of one leaf are disjoint (layers of a stacked leaf, parts of a fused one), so
their kernels add up. Sites that overlap without coinciding make the leaf explicit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Var

from ntkft._types import ApplyFn, PyTree
from ntkft.kernels.factors.inline import flatten
from ntkft.kernels.factors.views import View, geometry, offset, rearrange, repeats, whole

Kind: TypeAlias = Literal["matmul", "rows", "affine", "explicit"]
_OVERLAP_WORK = 100_000


@dataclass(frozen=True)
class Site:
    """One use of a leaf. `operand` is the position of the weight among the equation's operands.

    For "explicit" the equation is the leaf's first use, and `last` its last.
    """

    leaf: int
    kind: Kind
    equation: int
    operand: int
    view: View
    last: int


@dataclass(frozen=True)
class Block:
    """Elements of one leaf and the sites that use them.

    As a matrix `[batch, rows, width]` for matmul and rows sites, where `swapped` says for each site whether it sees
    the matrix transposed; as a vector `[1, 1, width]` for affine and explicit ones.
    """

    leaf: int
    sites: tuple[int, ...]
    swapped: tuple[bool, ...]
    batch: int
    rows: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Batch, rows and width."""
        return self.batch, self.rows, self.width

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.batch * self.rows * self.width


@dataclass(frozen=True)
class Program:
    """A function of one example as a flat program, with its sites and blocks.

    `jaxpr` takes the leaves, then the leaves of one example, and returns its outputs `[k]`.
    """

    closed: ClosedJaxpr
    leaves: int
    sites: tuple[Site, ...]
    blocks: tuple[Block, ...]

    @property
    def equations(self) -> list[Any]:
        """The flat program's equations, in order."""
        return self.closed.jaxpr.eqns

    def outputs(self, site: Site) -> Any:
        """The variable to which a perturbation at this site is added."""
        if site.kind == "explicit":
            return self.closed.jaxpr.invars[site.leaf]
        return self.equations[site.equation].outvars[0]


def capture(apply_fn: ApplyFn, params: PyTree, inputs: PyTree, *, products: str = "highest") -> Program:
    """The program of one example, its sites and its blocks.

    inputs:   examples (or their shapes) with a leading axis, of which only shape and type matter
    products: precision of products that name none: "highest" is the type's own, where accelerators would take less

    Cost: two traces; nothing is computed. Every leaf that reaches the outputs has at least one site.
    """
    leaves, structure = jax.tree.flatten(params)
    example, example_structure = jax.tree.flatten(inputs)

    def one(*arguments):
        tree = jax.tree.unflatten(structure, arguments[: len(leaves)])
        batch = jax.tree.unflatten(example_structure, [array[None] for array in arguments[len(leaves) :]])
        with jax.default_matmul_precision(products):
            return apply_fn(tree, batch)[0]

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    shapes += [jax.ShapeDtypeStruct(array.shape[1:], jax.dtypes.canonicalize_dtype(array.dtype)) for array in example]
    watched = [True] * len(leaves) + [False] * len(example)
    closed = flatten(jax.make_jaxpr(one)(*shapes), watched)
    sites = _find_sites(closed, len(leaves))
    while True:
        blocks, clashing = _gather_blocks(sites, closed.jaxpr.eqns)
        if not clashing:
            return Program(closed, len(leaves), tuple(sites), tuple(blocks))
        sites = _find_sites(closed, len(leaves), explicit=clashing | {s.leaf for s in sites if s.kind == "explicit"})


def _find_sites(closed: ClosedJaxpr, leaves: int, explicit: set[int] | None = None) -> list[Site]:
    explicit = set(explicit or ())
    jaxpr = closed.jaxpr
    views = {variable: (i, whole(variable.aval.shape)) for i, variable in enumerate(jaxpr.invars[:leaves])}
    uses: dict[int, list[int]] = {}
    sites = []
    live = _live(jaxpr)
    for index, equation in enumerate(jaxpr.eqns):
        if not live[index]:
            continue
        held = [(i, *views[v]) for i, v in enumerate(equation.invars) if isinstance(v, Var) and v in views]
        for _, leaf, _ in held:
            uses.setdefault(leaf, []).append(index)
        if len(held) == 1:
            operand, leaf, view = held[0]
            moved = rearrange(equation, view)
            if moved is not None:
                views.update({v: (leaf, part) for v, part in zip(equation.outvars, moved, strict=True)})
                continue
            kind = _recognise(equation, operand, view)
            if kind == "affine":  # elementwise operations repeat axes of length one
                view = np.broadcast_to(view, equation.outvars[0].aval.shape)
            if kind is not None:
                sites.append(Site(leaf, kind, index, operand, view, index))
                continue
        explicit.update(leaf for _, leaf, _ in held)
    explicit.update(views[v][0] for v in jaxpr.outvars if isinstance(v, Var) and v in views)
    kept = [site for site in sites if site.leaf not in explicit]
    end = len(jaxpr.eqns)
    for leaf in sorted(explicit):
        first, last = min(uses.get(leaf, [end])), max(uses.get(leaf, [end]))
        reached = any(isinstance(v, Var) and views.get(v, (None,))[0] == leaf for v in jaxpr.outvars)
        view = whole(jaxpr.invars[leaf].aval.shape)
        kept.append(Site(leaf, "explicit", min(first, end - 1), 0, view, end if reached else last))
    return sorted(kept, key=lambda site: site.equation)


def _live(jaxpr) -> list[bool]:
    """Which equations the outputs need."""
    needed = {v for v in jaxpr.outvars if isinstance(v, Var)}
    live = [False] * len(jaxpr.eqns)
    for index in reversed(range(len(jaxpr.eqns))):
        equation = jaxpr.eqns[index]
        if any(v in needed for v in equation.outvars):
            live[index] = True
            needed.update(v for v in equation.invars if isinstance(v, Var))
    return live


def _recognise(equation: Any, operand: int, view: View) -> Kind | None:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general" and not repeats(view):
        return "matmul"
    if name == "gather" and operand == 0 and view.ndim == 2 and not repeats(view) and _takes_rows(equation, params):
        return "rows"
    if name in ("add", "add_any", "mul", "sub") and view.ndim in (0, equation.outvars[0].aval.ndim):
        return "affine"
    return None


def _takes_rows(equation, params) -> bool:
    numbers = params["dimension_numbers"]
    indices, result = equation.invars[1].aval, equation.outvars[0].aval
    return (
        indices.shape[-1:] == (1,)
        and tuple(numbers.offset_dims) == (result.ndim - 1,)
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(params["slice_sizes"]) == (1, equation.invars[0].aval.shape[1])
    )


def axes_of(site: Site, equation: Any) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Axes of the site's view that are its matrix's batch, rows (what data is contracted with) and width."""
    axes = range(site.view.ndim)
    if site.kind == "matmul":
        contracted, batch = equation.params["dimension_numbers"]
        mine, shared = contracted[site.operand], batch[site.operand]
        return shared, mine, [i for i in axes if i not in mine and i not in shared]
    if site.kind == "rows":
        return (), (0,), (1,)
    if site.kind == "affine":
        return (), (), [i for i in axes if site.view.strides[i] != 0]
    return (), (), axes


def _gather_blocks(sites: Sequence[Site], equations: Sequence[Any]) -> tuple[list[Block], set[int]]:
    """Blocks of all sites, and the leaves whose sites overlap without coinciding."""
    clusters: list[list[int]] = []
    for index, site in enumerate(sites):
        met = [c for c in clusters if any(_overlap(sites[other], site) for other in c)]
        clusters = [c for c in clusters if c not in met] + [[index, *(i for c in met for i in c)]]
    blocks, clashing = [], set()
    for cluster in clusters:
        members = sorted(cluster)
        first = sites[members[0]]
        layout, (batch, rows, width) = _layout(first, equations)
        turned = (layout[0], layout[1], layout[3], layout[2])
        layouts = [_layout(sites[i], equations)[0] for i in members]
        vector = first.kind in ("affine", "explicit")
        alike = all((sites[i].kind in ("affine", "explicit")) == vector for i in members)
        if not alike or any(found not in (layout, turned) for found in layouts):
            clashing.add(first.leaf)
            continue
        swapped = tuple(found != layout for found in layouts)
        blocks.append(Block(first.leaf, tuple(members), swapped, batch, rows, width))
    return sorted(blocks, key=lambda block: (block.leaf, block.sites)), clashing


def _overlap(one: Site, other: Site) -> bool:
    if one.leaf != other.leaf:
        return False
    try:
        return np.shares_memory(one.view, other.view, max_work=_OVERLAP_WORK)  # pyright: ignore[reportArgumentType]
    except np.exceptions.TooHardError:
        return True


def _layout(site: Site, equations: Sequence[Any]) -> tuple[Any, tuple[int, int, int]]:
    """Offset and geometries of the site's matrix, and its sizes."""
    parts = axes_of(site, equations[site.equation])
    rest = [i for i in range(site.view.ndim) if not any(i in part for part in parts)]
    ordered = site.view.transpose([*rest, *(i for part in parts for i in part)])[(0,) * len(rest)]
    layout: list[Any] = [offset(site.view)]
    sizes, start = [], 0
    for part in parts:
        here = range(start, start + len(part))
        section = ordered[(..., *(slice(None) if i in here else 0 for i in range(ordered.ndim)))]
        layout.append(geometry(section))
        sizes.append(math.prod(section.shape))
        start += len(part)
    return tuple(layout), tuple(sizes)
