"""Re-anchored prediction: kernels computed again at a few points of the way, so that the model is only ever linearised
over a short stretch.

From an anchor θ_a the linearised model trains as if it were alone, to the next anchor's epoch; the parameters follow,
θ_{a+1} = θ_a + J_aᵀα, and there the network is evaluated and its kernel computed anew. With one anchor this is the
first-order prediction; with one at every epoch it is training itself. This is Euler's method on the kernel. A midpoint
step uses the kernel half-way along each stretch instead, which it finds with the latest kernel it has: one order more,
for one kernel more in all.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array, PyTree
from ntkft.anchoring.path import Network
from ntkft.anchoring.settling import settle
from ntkft.dynamics.descent import LossName, kernel_descent
from ntkft.dynamics.filters import whole_steps
from ntkft.dynamics.prediction import outputs_at, per_output
from ntkft.spectra.eigen import EmpiricalKernel

KernelFn: TypeAlias = Callable[[PyTree, PyTree, PyTree | None], EmpiricalKernel | Array]
"""(params, x1, x2) → their kernel, x2 None for x1: `partial(empirical_ntk, apply_fn, outputs="full")`, say."""
Scheme: TypeAlias = Literal["euler", "midpoint"]
Reading: TypeAlias = Literal["linear", "network"]


@dataclass(frozen=True, eq=False)
class AnchoredPrediction:
    """Outputs on each judged set at the recorded epochs, in two readings; empty for one that was not asked for.

    epochs:   `[s]`, ascending
    linear:   set → `[s, m, k]`, the model linearised at the latest anchor
    network:  set → `[s, m, k]`, the network at the parameters that the linearised model has reached
    anchors:  epochs at which the model was linearised anew
    kernels:  kernels of the training examples computed
    settled:  the most directions in which the step was too long at any of them (see `ntkft.anchoring.settling`)
    params:   parameters reached at the last recorded epoch
    """

    epochs: Float[np.ndarray, " s"]
    linear: Mapping[str, Float[np.ndarray, "s m k"]]
    network: Mapping[str, Float[np.ndarray, "s m k"]]
    anchors: tuple[int, ...]
    kernels: int
    settled: int
    params: PyTree


def predict_anchored(
    network: Network,
    params: PyTree,
    targets: Num[Array, "..."],
    kernel_fn: KernelFn,
    *,
    loss: LossName,
    step_size: SupportsFloat,
    epochs: Sequence[int],
    anchors: Sequence[int],
    scheme: Scheme,
    readings: Collection[Reading] = ("linear", "network"),
    unstable: Literal["refuse", "settle"] = "refuse",
    progress: Callable[[int, int], None] | None = None,
) -> AnchoredPrediction:
    """Outputs of full-batch gradient descent at `epochs`, with kernels at the epochs `anchors` (the first is 0).

    targets: of the training examples, as `kernel_descent` takes them; loss: as there
    scheme:  "euler" uses the kernel at each anchor, "midpoint" that half-way to the next anchor (or the last epoch)
    readings: "linear" takes a kernel of the judged examples with the training examples at every anchor, "network" one
             backward pass over the training and one forward pass over the judged examples at every recorded epoch
    unstable: what to do where the kernel has grown past 2/(cε), as it does while training at the edge of stability:
             "refuse", or "settle", which takes such directions as learnt at once (`ntkft.anchoring.settling`)
    progress: called with (stretches done, stretches)

    Cost: for each stretch a kernel of the training examples with themselves (midpoint: one more in all), and the
    readings'.
    Raises `InputError` for anchors that do not ascend from 0 or pass the last epoch, and as `kernel_descent` does: with
    "refuse" the step size must be stable at every anchor.
    Source: Sun & Raskutti 2026 for the first-order prediction; re-anchoring and settling are this project's, the
    latter after Cohen, Kaur, Li, Kolter & Talwalkar 2021, *Gradient descent on neural networks typically occurs at the
    edge of stability*.
    """
    times = whole_steps("predict_anchored", np.asarray(epochs))
    starts = [int(anchor) for anchor in anchors]
    problems = []
    if len(times) < 1 or (np.diff(times) <= 0).any():
        problems.append(f"epochs are {list(epochs)}; wanted at least one, ascending")
    elif not starts or starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= max(times[-1], 1):
        problems.append(f"anchors are {starts}; wanted 0 first, ascending, before the last epoch {times[-1]:g}")
    if scheme not in ("euler", "midpoint"):
        problems.append(f"got scheme={scheme!r}; wanted 'euler' or 'midpoint'")
    if not readings or not {*readings} <= {"linear", "network"}:
        problems.append(f"got readings={list(readings)}; wanted 'linear', 'network' or both")
    if unstable not in ("refuse", "settle"):
        problems.append(f"got unstable={unstable!r}; wanted 'refuse' or 'settle'")
    refuse("predict_anchored", problems)
    last = int(times[-1])
    linear: dict[str, list[np.ndarray]] = {name: [] for name in network.judged}
    said: dict[str, list[np.ndarray]] = {name: [] for name in network.judged}
    latest, kernels, settled = None, 0, 0
    for index, (begin, end) in enumerate(zip(starts, [*starts[1:], last], strict=True)):
        fitted = network.fitted(params)

        def train_with(kernel, steps, fitted=fitted):
            nonlocal settled
            back = None
            if unstable == "settle":
                kernel, back, count = settle(kernel, fitted.shape[1], loss=loss, step_size=float(step_size))
                settled = max(settled, count)
            dual = kernel_descent(
                kernel, targets, fitted, loss=loss, step_size=step_size, momentum=0.0, penalty=0.0, steps=steps
            )
            return (
                dual
                if back is None
                else np.stack([(back @ each.reshape(len(back), -1)).reshape(each.shape) for each in dual])
            )

        at = params
        # Of L discrete steps, at 0 … L − 1, the middle is at (L − 1)/2: between two where L is even.
        half = [(end - begin - 1) // 2, (end - begin) // 2]
        if scheme == "midpoint" and half[1]:
            if latest is None:
                latest, kernels = (params, kernel_fn(params, network.train, None)), kernels + 1
            at = network.advance(params, train_with(latest[1], half).mean(axis=0), at=latest[0])
        latest, kernels = (at, kernel_fn(at, network.train, None)), kernels + 1
        # A stretch ends where the next begins, and the next anchor itself is recorded there.
        recorded = times[(times >= begin) & ((times < end) | (end == last))]
        duals = train_with(latest[1], [*(recorded - begin), end - begin])
        if "linear" in readings:
            for name, outputs in network.says(params).items():
                cross = per_output(kernel_fn(at, network.judged[name], network.train), outputs.shape[1])
                linear[name].append(outputs_at(np.asarray(cross), duals[:-1], outputs))
        if "network" in readings:
            for dual in duals[:-1]:
                for name, outputs in network.says(network.advance(params, dual, at=at)).items():
                    said[name].append(outputs[None])
        params = network.advance(params, duals[-1], at=at)
        if progress is not None:
            progress(index + 1, len(starts))
    return AnchoredPrediction(times, _joined(linear), _joined(said), tuple(starts), kernels, settled, params)


def _joined(parts: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(arrays) for name, arrays in parts.items() if arrays}
