"""A program cut into segments, so that a reverse sweep holds the factors of one segment at a time.

Reverse-mode differentiation of n examples needs every layer's activations at once. Instead: one forward sweep keeps
only the values that cross a cut; then, from the last segment to the first, each is evaluated again with its backward
pass, its blocks are contracted, and its factors are dropped. With s segments that is 3 - 1/s forward-sized passes of
2·n·t·p operations each (2 for a single segment), and memory n·(Σ cuts + the largest segment).

Where all cuts together are too much, the forward sweep keeps some of them, and the values at those between two that
are kept are computed again, once, when the reverse sweep comes to them: at most one more forward-sized pass.

A value that crosses a cut is stored only if it depends on the weights or took a product or a lookup to compute. What
follows from the inputs or the weights alone (masks, positions, a transposed weight) is computed again where needed.
"""

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from ntkft.kernels.factors.capture import Program
from ntkft.kernels.factors.sites import cotangent_shape, kept_as, operand_key, operand_shape

_HEAVY = frozenset(
    {"dot_general", "conv_general_dilated", "scan", "while", "cond", "custom_jvp_call", "custom_vjp_call"}
)
_TRIALS = 24


@dataclass(frozen=True)
class Segment:
    """Equations `start <= i < stop` and those replayed before them.

    reads, writes: variables stored at the cut before and the cut after (writes of the last one: the outputs)
    weights:       constants and leaves that it uses, in the order of use; inputs: leaves of the example likewise
    sites:         indices of the sites inside
    """

    equations: tuple[int, ...]
    reads: tuple[Var, ...]
    writes: tuple[Any, ...]
    weights: tuple[Var, ...]
    inputs: tuple[Var, ...]
    sites: tuple[int, ...]


@dataclass(frozen=True)
class Cuts:
    """Where a program is cut: before which equations a segment starts.

    kept: those at which the forward sweep stores values; at the others they are computed again
    """

    places: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()

    @property
    def stretches(self) -> tuple[range, ...]:
        """Segments, by their indices, between two cuts that are kept."""
        starts = [0, *(i + 1 for i, place in enumerate(self.places) if place in self.kept), len(self.places) + 1]
        return tuple(itertools.starmap(range, itertools.pairwise(starts)))


@dataclass(frozen=True)
class Flow:
    """Which values of a program are stored at cuts, and what cuts and sites hold, in bytes for one example.

    stored: variable → whether it carries a cotangent
    kept:   type in which matmul and rows sites keep their factors; None is the type they were computed in
    """

    program: Program
    k: int
    stored: dict[Var, bool]
    _born: dict[Var, int]
    _died: dict[Var, int]
    kept: np.dtype | None = None

    def crossing(self, cut: int) -> tuple[Var, ...]:
        """Stored variables made before equation `cut` and used at or after it."""
        return tuple(v for v in self.stored if self._born[v] < cut <= self._died[v])

    def cut_bytes(self, cut: int) -> int:
        """Values stored at a cut."""
        return int(self._cut_bytes[cut])

    @cached_property
    def _cut_bytes(self) -> np.ndarray:
        change = np.zeros(len(self.program.equations) + 2, np.int64)
        for v in self.stored:
            change[self._born[v] + 1] += _bytes(v)
            change[self._died[v] + 1] -= _bytes(v)
        return np.cumsum(change)

    def cotangent_bytes(self, cut: int) -> int:
        """Cotangents of the values stored at a cut, for all outputs."""
        return self.k * sum(_bytes(v) for v in self.crossing(cut) if self.stored[v])

    @cached_property
    def site_bytes(self) -> list[tuple[int, Hashable, int]]:
        """For each site: bytes of its cotangents; the operand that it keeps; bytes of that."""
        made = []
        for site in self.program.sites:
            shape = operand_shape(self.program, site)
            operand = 0 if shape is None else _size(kept_as(site, shape, self.kept))
            cotangent = self.k * _size(kept_as(site, cotangent_shape(self.program, site), self.kept))
            made.append((cotangent, operand_key(self.program, site), operand))
        return made

    def factor_bytes(self, sites: Iterable[int]) -> int:
        """Factors of these sites, an operand that several share counted once."""
        chosen = [self.site_bytes[i] for i in sites]
        return sum(cotangent for cotangent, _, _ in chosen) + sum({key: size for _, key, size in chosen}.values())

    def work_bytes(self, start: int, stop: int) -> int:
        """All values that the equations start to stop compute: an upper bound of what differentiating them holds."""
        equations = self.program.equations[start:stop]
        return sum(_bytes(v) for equation in equations for v in equation.outvars)

    def compiled_equations(self, cuts: Cuts) -> int:
        """Equations to compile: of segments that look the same, those of one."""
        bounds = itertools.pairwise([0, *cuts.places, len(self.program.equations)])
        return sum(map(len, {self.looks[start:stop] for start, stop in bounds}))

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """A number for each equation, the same for the same operation on the same shapes."""
        known: dict[str, int] = {}
        looks = [f"{e.primitive} {[v.aval for v in (*e.invars, *e.outvars)]}" for e in self.program.equations]
        return tuple(known.setdefault(look, len(known)) for look in looks)

    def segments(self, cuts: Cuts) -> tuple[Segment, ...]:
        """The program in pieces."""
        program = self.program
        bounds = [0, *cuts.places, len(program.equations)]
        made = []
        for start, stop in itertools.pairwise(bounds):
            last = stop == bounds[-1]
            writes = tuple(program.closed.jaxpr.outvars) if last else self.crossing(stop)
            reads = self.crossing(start) if start else ()
            inside = tuple(i for i, s in enumerate(program.sites) if start <= s.equation < stop)
            equations = self._needed(start, stop, reads, writes)
            weights, inputs = self._given(equations, writes, reads)
            made.append(Segment(equations, reads, writes, weights, inputs, inside))
        return tuple(made)

    def _given(self, equations: Sequence[int], writes: Sequence[Any], reads: Sequence[Var]) -> Any:
        """Of the constants and leaves, and of the example, what these equations use."""
        jaxpr = self.program.closed.jaxpr
        used = dict.fromkeys(v for i in equations for v in self.program.equations[i].invars if isinstance(v, Var))
        used |= dict.fromkeys(v for v in writes if isinstance(v, Var))
        weights = {*jaxpr.constvars, *jaxpr.invars[: self.program.leaves]} - set(reads)
        inputs = set(jaxpr.invars[self.program.leaves :])
        return tuple(v for v in used if v in weights), tuple(v for v in used if v in inputs)

    def _needed(self, start: int, stop: int, reads: Sequence[Var], writes: Sequence[Any]) -> tuple[int, ...]:
        needed, given = {v for v in writes if isinstance(v, Var)}, set(reads)
        chosen = []
        for index in reversed(range(stop)):
            equation = self.program.equations[index]
            if any(v in needed and v not in given for v in equation.outvars):
                chosen.append(index)
                needed.update(v for v in equation.invars if isinstance(v, Var))
        return tuple(reversed(chosen))


def trace_flow(program: Program, k: int, *, kept: np.dtype | None = None) -> Flow:
    """Classify the program's values: stored at cuts, or computed again."""
    jaxpr = program.closed.jaxpr
    explicit = {jaxpr.invars[s.leaf]: s for s in program.sites if s.kind == "explicit"}
    site_equations = {s.equation for s in program.sites if s.kind != "explicit"}
    on_example = set(jaxpr.invars[program.leaves :])
    stored: dict[Var, bool] = dict.fromkeys(explicit, True)
    born = {v: s.equation for v, s in explicit.items()}
    died: dict[Var, int] = {}
    heavy: set[Var] = set()
    for index, equation in enumerate(jaxpr.eqns):
        inputs = [v for v in equation.invars if isinstance(v, Var)]
        for v in inputs:
            died[v] = index
        differentiated = index in site_equations or any(stored.get(v, False) for v in inputs)
        depends = any(v in on_example for v in inputs)
        lookup = equation.primitive.name == "gather" and equation.invars[0] not in on_example
        worth = lookup or equation.primitive.name in _HEAVY or any(v in heavy or v in stored for v in inputs)
        weighs = depends and worth
        for v in equation.outvars:
            born[v] = index
            if depends:
                on_example.add(v)
            if weighs:
                heavy.add(v)
            if differentiated or weighs:
                stored[v] = differentiated and _floating(v)
    end = len(jaxpr.eqns)
    died.update({v: end for v in jaxpr.outvars if isinstance(v, Var)})
    crossing = {v: carries for v, carries in stored.items() if v in died}
    # What the first site reads carries a cotangent that nobody needs: so the first layer is differentiated like the
    # others, in one program with them.
    first = min((site.equation for site in program.sites), default=end)
    for v in crossing:
        crossing[v] |= born[v] < first <= died[v] and _floating(v)
    return Flow(program, k, crossing, born, died, kept)


def choose_cuts(flow: Flow, held: Callable[[Cuts], int], room: int, seconds: Callable[[Cuts], float]) -> Cuts | None:
    """The cuts of least `seconds` of those that hold at most `room` bytes; None when none do.

    For a bound on the factors of one segment, the cuts that store least are a shortest path over the places between
    consecutive sites where the fewest bytes cross; bounds from all factors down to the neediest site's are tried, each
    also with what stands before the first layer and after the last cut off, which leaves the layers one program. All
    cuts are kept where they can be. Else the first that fit are taken, and those kept are a shortest path likewise,
    over the cuts, for a bound on the values between two of them.
    """
    places = _places(flow)
    ends = [end for end in _ends(flow, places) if end not in places]
    starts = [site.equation for site in flow.program.sites]
    need = {
        (i, j): flow.factor_bytes(k for k, e in enumerate(starts) if places[i] <= e < places[j])
        for i, j in itertools.combinations(range(len(places)), 2)
    }
    prices = [flow.cut_bytes(place) for place in places]
    paths = [_shortest(places, prices, need, bound) for bound in _bounds(need)]
    chosen = [end for count in range(len(ends) + 1) for end in itertools.combinations(ends, count)]
    tried = list(dict.fromkeys(tuple(sorted({*path, *end})) for path in paths for end in chosen))
    once = [cuts for path in tried if held(cuts := Cuts(path, path)) <= room]
    if once:
        return min(once, key=seconds)
    return next((cuts for path in tried if held(cuts := Cuts(path, _kept(flow, path))) <= room), None)


def _kept(flow: Flow, path: Sequence[int]) -> tuple[int, ...]:
    """Of these cuts, those to keep for the least Σ kept + the most between two of them."""
    places = [0, *path, len(flow.program.equations)]
    prices = [flow.cut_bytes(place) for place in places]
    between = {(i, j): sum(prices[i + 1 : j]) for i, j in itertools.combinations(range(len(places)), 2)}
    tried = [(_shortest(places, prices, between, bound), bound) for bound in _bounds(between)]
    return min(tried, key=lambda found: sum(map(flow.cut_bytes, found[0])) + found[1])[0]


def _bounds(need: Mapping[tuple[int, int], int]) -> list[float]:
    """From the need of the whole down to that of the neediest step, in even ratios."""
    largest, smallest = max(need.values()), max(size for (i, j), size in need.items() if j == i + 1)
    ratio = max(smallest, 1) / max(largest, 1)
    return [max(largest * ratio ** (trial / (_TRIALS - 1)), smallest) for trial in range(_TRIALS)]


def _places(flow: Flow) -> list[int]:
    """Where a cut may go: the start, the cheapest position between consecutive sites that keep factors, the end."""
    between = [_cheapest(flow, range(a + 1, b + 1)) for a, b in itertools.pairwise(_keeping(flow))]
    return [0, *sorted({p for p in between if flow.cut_bytes(p) > 0}), len(flow.program.equations)]


def _ends(flow: Flow, places: Sequence[int]) -> list[int]:
    """The cheapest position before the first site, and behind the last layer, as far as behind the one before it."""
    sites, looks = _keeping(flow), flow.looks
    before = [p for p in range(1, sites[0] + 1) if flow.cut_bytes(p) > 0] if sites else []
    head = [_cheapest(flow, before)] if before else []
    following = [(site, min(p for p in places if p > site)) for site in sites]
    for last in reversed(sites):
        for site, place in reversed(following):
            if place <= last and looks[site:place] == looks[last : last + place - site]:
                return [*head, last + place - site]
    return head


def _keeping(flow: Flow) -> list[int]:
    """Equations of the sites that keep factors."""
    return sorted({s.equation for s in flow.program.sites if s.kind in ("matmul", "rows")})


def _cheapest(flow: Flow, positions: Sequence[int]) -> int:
    """The last of these positions where a cut stores the fewest bytes."""
    return min(reversed(positions), key=flow.cut_bytes)


def _shortest(places, prices, need, bound) -> tuple[int, ...]:
    """Cuts of least total price with every segment's need within the bound."""
    best: list[tuple[int, int]] = [(0, -1)]
    for j in range(1, len(places)):
        best.append(min((best[i][0] + (prices[i] if i else 0), i) for i in range(j) if need[i, j] <= bound))
    cuts, at = [], best[-1][1]
    while at > 0:
        cuts.append(places[at])
        at = best[at][1]
    return tuple(reversed(cuts))


def _floating(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.floating)


def _size(shape: Any) -> int:
    return math.prod(shape.shape) * shape.dtype.itemsize


def _bytes(variable: Var) -> int:
    return _size(variable.aval)
