"""Kernels by random projection, with an error that is stated beforehand and measured afterwards.

    K̃ = Φ Φᵀ + F Fᵀ:    Φ the exact part of a few landmark examples,    F random probes of what they leave.

*Probes* (`factors.probes`) are features f with E[f f'] = ⟨g, g'⟩, so the mean of f f' over r of them is an unbiased
estimate of the kernel at n·r numbers instead of n·p. But its error is proportional to the traces: its relative size is
about tr K/(√r ‖K‖_F), and most of it lies along the leading eigenvectors, where a single draw may be far from typical.
*Landmarks* take that part away. With Π the projection onto the span of the landmarks' gradients,

    ⟨g, g'⟩ = ⟨Πg, Πg'⟩ + ⟨g − Πg, g' − Πg'⟩:

the first term is the Nyström kernel of exact entries, the second is probed; as probes are linear in g, those of g − Πg
are combinations of those of g and of the landmarks. Kernels of pretrained networks are dominated by a few directions,
so the error becomes several times smaller, and a sum of many small parts, which chance can hardly move: MiniLM, 128
examples of 32 tokens, 4,096 probes: 0.8 %, as stated, against a stated 4.2 % without landmarks, from which draws differ
by up to a factor of two.

Probes are divided among blocks of weights by variance: for Σ_b v_b/r_b at a given Σ_b r_b the best is r_b ∝ √v_b, which
makes it (Σ_b √v_b)²/r. The v_b, sums over pairs of examples of one probe's variance, are estimated on a pilot of a few
other examples from probes of their own, apart for pairs of one example and of two, and scaled to all pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int

from ntkft._errors import InputError
from ntkft._tree import assign_groups, count_examples, take_examples
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.kernels.checks import check_apply_fn, check_form, check_outputs
from ntkft.kernels.empirical import empirical_ntk
from ntkft.kernels.factors.probes import Prober
from ntkft.kernels.memory import budget_bytes

_PILOT = 32
"""Examples, beside the landmarks, on which variances are estimated: about 500 pairs."""
_PILOT_PROBES = 256
"""Probes of each block there: a variance comes out within a tenth or so, their sum over blocks closer."""
_FEWEST = 2
"""Probes of a block, so that their spread can be seen."""


@dataclass(frozen=True, eq=False)
class Pilot:
    """What a few examples say about a projection: variances and sizes, as means over pairs of examples.

    variances: `[slots, 2]`, variance of one probe's product ⟨probe, probe'⟩, summed over outputs: for an example with
               itself, and for two examples
    squares:   `[2]`, squared entries of the kernel, likewise
    n, m:      examples of the kernel that is to be projected; m = 0 when symmetric
    landmarks: rows of the examples whose part is exact
    """

    variances: Float[np.ndarray, "slots 2"]
    squares: Float[np.ndarray, "2"]
    n: int
    m: int
    landmarks: Int[np.ndarray, " l"]

    def counts(self, rank: int) -> list[int]:
        """Probes of each slot, `rank` in all, in proportion to the root of its variance, two at least.

        Raises `InputError` when there are not two for each.
        """
        fewest = _FEWEST * len(self.variances)
        if rank < fewest:
            raise InputError(
                f"projected_ntk: got rank={rank}; wanted {fewest} or more, two for each of the model's "
                f"{len(self.variances)} weight matrices and groups of vectors"
            )
        weights = np.sqrt(np.maximum(self._variances(), 0))
        shares = np.cumsum(weights) / weights.sum() if weights.any() else np.linspace(0, 1, len(weights) + 1)[1:]
        return [int(_FEWEST + more) for more in np.diff(np.round(shares * (rank - fewest)), prepend=0)]

    def expected_error(self, rank: int) -> float:
        """√(E‖K̃ − K‖_F²)/‖K‖_F for `rank` probes. Raises `InputError` for too few of them."""
        return float(np.sqrt(np.sum(self._variances() / self.counts(rank)) / self._total(self.squares, self.n)))

    def _variances(self) -> np.ndarray:
        return self._total(self.variances, self.n - len(self.landmarks))  # landmarks are exact

    def _total(self, means: np.ndarray, n: int) -> np.ndarray:
        """Sums over all pairs; examples of a rectangle are taken to be different, and alike on both sides."""
        same, different = means[..., 0], means[..., 1]
        return np.asarray(n * self.m * different if self.m else n * same + n * (n - 1) * different)


@dataclass(frozen=True, eq=False)
class ProjectedKernel:
    """An approximation K̃ = F₁F₂ᵀ of a kernel, unnormalised, by features on the host.

    rows:      group → features F₁ `[n, c]`, or `[n·k, c]` in (example, output) order for "full"
    columns:   group → F₂ of the second examples; of a symmetric kernel, the same arrays
    rank:      probes in all groups; besides these, c counts the landmarks' exact directions in each group
    expected_error: √(E‖K̃ − K‖_F²)/‖K‖_F, stated from the pilot, before the projection
    measured_error: the same from the spread of the probes themselves, over ‖K̃‖_F: its square has mean ‖K̃ − K‖_F²
    """

    rows: Mapping[str, Float[np.ndarray, "r _"]]
    columns: Mapping[str, Float[np.ndarray, "c _"]]
    outputs: Outputs
    precision: str
    symmetric: bool
    rank: int
    expected_error: float
    measured_error: float

    def matrix(self, group: str | None = None) -> Float[np.ndarray, "r c"]:
        """K̃ of one group or of all, dense, as `Kernel.matrix`. Cost: n·m multiply-adds for each feature."""
        names = list(self.rows) if group is None else [group]
        return sum(self.rows[name] @ self.columns[name].T for name in names)  # pyright: ignore[reportReturnType]


def projected_ntk(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    outputs: Outputs,
    rank: int,
    seed: int,
    landmarks: int = 32,
    groups: Mapping[str, str] | None = None,
    memory: int | float | str | None = None,
    check: bool = True,
) -> ProjectedKernel:
    """The kernel of `empirical_ntk`, approximately: unbiased given the landmarks, with a stated error.

    rank:      random probes in all; the error falls as 1/√rank
    seed:      draws landmarks, pilot and probes; other seeds are independent
    landmarks: examples of x1 whose part is exact. 0 leaves probes alone, whose error is larger and varies more
    Other arguments are those of `empirical_ntk`; `memory` bounds what is computed at once, not the features returned.

    Cost: `projection_pilot`; an exact kernel of all examples with the landmarks; a forward and a backward pass without
    weight gradients; for each probe of a block, t·(rows + k·width) multiply-adds for each example; n·m·rank for the
    norm of K̃ (or n·rank², if less). Features take (n + m)·k·(rank + landmarks·k) numbers, more with groups.
    Raises `InputError` as `empirical_ntk` and `projection_pilot` do, and for a rank below two probes for each block.
    """
    setting = _prepare(apply_fn, params, x1, x2, outputs, seed, landmarks, groups, memory, check)
    examples = x1 if x2 is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), x1, x2)
    cross = setting.cross(examples)
    pilot = setting.pilot({name: setting.of_examples(array, setting.tried) for name, array in cross.items()})
    probes = setting.prober(examples, pilot.counts(rank), outputs, stream=1, memory=setting.memory)
    exact, left = setting.separate(cross, probes, setting.landmarks)
    n = setting.n * (setting.k if outputs == "full" else 1)

    features = {name: [array] for name, array in exact.items()}
    squared_error = 0.0
    for slot, residual in zip(setting.prober.slots, left, strict=True):
        features[slot.group].append(residual / np.sqrt(residual.shape[1]))
        squared_error += _squared_error(residual[:n], residual if x2 is None else residual[n:])
    joined = {name: np.concatenate(parts, axis=1) for name, parts in features.items()}
    rows = {name: array[:n] for name, array in joined.items()}
    columns = rows if x2 is None else {name: array[n:] for name, array in joined.items()}
    whole = [np.concatenate(list(side.values()), axis=1) for side in (rows, columns)]
    return ProjectedKernel(
        rows=rows,
        columns=columns,
        outputs=outputs,
        precision=str(setting.prober.dtype),
        symmetric=x2 is None,
        rank=rank,
        expected_error=pilot.expected_error(rank),
        measured_error=float(np.sqrt(max(squared_error, 0.0) / _squared_norm(*whole))),
    )


def projection_pilot(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    outputs: Outputs,
    seed: int,
    landmarks: int = 32,
    groups: Mapping[str, str] | None = None,
    memory: int | float | str | None = None,
    check: bool = True,
) -> Pilot:
    """What `projected_ntk`, whose arguments these are, will state of its error: `pilot.expected_error(rank)`.

    Cost: the exact kernel of 32 examples and the landmarks with the landmarks; 256 probes of each block for them.
    Raises `InputError` as `empirical_ntk` does, and unless x1 has two examples more than landmarks.
    """
    setting = _prepare(apply_fn, params, x1, x2, outputs, seed, landmarks, groups, memory, check)
    return setting.pilot(setting.cross(take_examples(x1, setting.tried)))


@dataclass(frozen=True)
class _Setting:
    """A projection with its arguments checked; rows `tried` of x1 are those of the landmarks, then of the pilot."""

    apply_fn: ApplyFn
    params: PyTree
    x1: PyTree
    n: int
    m: int
    k: int
    outputs: Outputs
    groups: Mapping[str, str] | None
    group_of: dict[str, str]
    memory: int
    prober: Prober
    tried: np.ndarray
    landmarks: np.ndarray

    def cross(self, examples: PyTree) -> dict[str, np.ndarray]:
        """Exact kernels of these examples with the landmarks, by group."""
        if not len(self.landmarks):
            rows = count_examples(examples) * (self.k if self.outputs == "full" else 1)
            return {name: np.zeros((rows, 0)) for name in sorted(set(self.group_of.values()))}
        kernel = empirical_ntk(
            self.apply_fn,
            self.params,
            examples,
            take_examples(self.x1, self.landmarks),
            outputs=self.outputs,
            groups=self.groups,
            memory=self.memory,
            check=False,
        )
        return {name: np.asarray(kernel.matrix(name), np.float64) for name in kernel.groups}

    def of_examples(self, array: np.ndarray, examples: np.ndarray) -> np.ndarray:
        """The rows of these examples, of an array in (example, output) order."""
        block = self.k if self.outputs == "full" else 1
        return array[(examples[:, None] * block + np.arange(block)[None]).reshape(-1)]

    def separate(
        self, cross: Mapping[str, np.ndarray], probes: Sequence[np.ndarray], landmarks: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """Φ of each group, and the probes `[rows, r]` of each slot without the part of the landmarks.

        landmarks: where they are among the examples of `cross` and `probes`
        """
        dtype = self.prober.dtype
        bases = {name: _orthonormal(self.of_examples(array, landmarks), dtype) for name, array in cross.items()}
        exact = {name: (array @ bases[name]).astype(dtype) for name, array in cross.items()}
        left = []
        for slot, array in zip(self.prober.slots, probes, strict=True):
            flat = array.reshape(-1, array.shape[-1])
            anchors = bases[slot.group].astype(dtype).T @ self.of_examples(flat, landmarks)
            left.append(flat - exact[slot.group] @ anchors)
        return exact, left

    def pilot(self, cross: Mapping[str, np.ndarray]) -> Pilot:
        """Variances and squares from probes of the examples `tried`; `cross`: exact, of these with the landmarks."""
        slots, first = len(self.prober.slots), len(self.landmarks)
        probes = self.prober(
            take_examples(self.x1, self.tried), [_PILOT_PROBES] * slots, self.outputs, stream=0, memory=self.memory
        )
        exact, left = self.separate(cross, probes, np.arange(first))
        rows = np.arange(first, len(self.tried))
        kernel = sum(part @ part.T for part in (self.of_examples(array, rows) for array in exact.values()))
        variances, squares = np.zeros((slots, 2)), np.zeros(2)
        for i, array in enumerate(left):
            features = self.of_examples(array, rows).astype(np.float64)
            product = features @ features.T / _PILOT_PROBES
            energy = (features**2).reshape(len(rows), -1, _PILOT_PROBES).sum(axis=1)
            spread = energy @ energy.T / _PILOT_PROBES - _of_blocks(product**2, len(rows))
            variances[i] = _means(spread) * _PILOT_PROBES / (_PILOT_PROBES - 1)
            squares -= variances[i] / _PILOT_PROBES  # what chance adds to the square of a mean of probes
            kernel = kernel + product
        squares += _means(_of_blocks(np.asarray(kernel) ** 2, len(rows)))
        return Pilot(np.maximum(variances, 0), squares, self.n, self.m, self.landmarks)


def _prepare(apply_fn, params, x1, x2, outputs, seed, landmarks, groups, memory, check) -> _Setting:
    k = check_form(apply_fn, params, x1, outputs)
    if x2 is not None:
        check_form(apply_fn, params, x2, outputs)
    group_of, budget, n = assign_groups(params, groups), budget_bytes(memory), count_examples(x1)
    if not 0 <= landmarks <= n - 2:
        raise InputError(
            f"projected_ntk: got landmarks={landmarks}; wanted 0 to {n - 2}, which leaves two of the {n} examples of "
            "x1 to measure variances on"
        )
    if check:
        check_apply_fn(apply_fn, params, x1)
        check_outputs(apply_fn, params, x1)
    order = np.random.default_rng(seed).permutation(n)[: landmarks + _PILOT]
    prober = Prober(apply_fn, params, x1, group_of=group_of, k=k, seed=seed)
    m = 0 if x2 is None else count_examples(x2)
    return _Setting(apply_fn, params, x1, n, m, k, outputs, groups, group_of, budget, prober, order, order[:landmarks])


def _orthonormal(square: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """B = V D^{-1/2} from W = V D Vᵀ, above its numerical floor: Bᵀg are orthonormal when W is the Gram matrix of g."""
    values, vectors = np.linalg.eigh(square)
    floor = float(np.finfo(dtype).eps) * values.max(initial=0.0) * np.sqrt(len(values))
    kept = values > floor
    return vectors[:, kept] / np.sqrt(values[kept])[None]


def _squared_error(left: np.ndarray, right: np.ndarray) -> float:
    """Unbiased estimate of E‖mean over probes − its expectation‖_F², from the spread over probes `[rows, r]`."""
    count = left.shape[1]
    energy = np.einsum("ir,ir->r", left, left, dtype=np.float64) * np.einsum("ir,ir->r", right, right, dtype=np.float64)
    return float((energy.mean() - _squared_norm(left, right) / count**2) / (count - 1))


def _squared_norm(left: np.ndarray, right: np.ndarray) -> float:
    """‖left rightᵀ‖_F², by the smaller of two products."""
    if len(left) * len(right) <= left.shape[1] ** 2:
        return float(np.sum((left @ right.T) ** 2, dtype=np.float64))
    return float(np.sum((left.T @ left) * (right.T @ right), dtype=np.float64))


def _of_blocks(square: np.ndarray, examples: int) -> np.ndarray:
    """Sums over the outputs of each pair of examples `[e, e]`."""
    return square.reshape(examples, len(square) // examples, examples, -1).sum(axis=(1, 3))


def _means(pairs: np.ndarray) -> np.ndarray:
    """Means over pairs of an example with itself, and over pairs of two."""
    same, n = np.trace(pairs), len(pairs)
    return np.array([same / n, (pairs.sum() - same) / (n * (n - 1))])
