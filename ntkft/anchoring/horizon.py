"""The trust horizon: until when the kernel at the pretrained parameters predicts the risk, known before any training.

Along the straight path θ_PT + Jᵀα_t that the linearised model takes, the network itself is evaluated at a few epochs.
While its risk is the linearised one, the second-order terms that linearising drops are small, and they are what moves
the kernel too. The horizon is the epoch at which the two risks have come apart by a stated share. It costs one backward
and one forward pass an epoch looked at, and no kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import InputError, refuse
from ntkft._types import Array, PyTree
from ntkft.anchoring.path import Network
from ntkft.dynamics.filters import whole_steps
from ntkft.dynamics.prediction import outputs_at


@dataclass(frozen=True, eq=False)
class Horizon:
    """What was looked at, and until when the first-order prediction can be trusted.

    epochs:     `[s]`, ascending
    linear:     `[s]`, predicted risk: mean over examples of the squared error summed over outputs
    network:    `[s]`, the network's own risk at the same parameters
    tolerance:  the largest |network − linear|/linear that is trusted
    epoch:      where that is first passed, between two epochs looked at by a straight line in log(1 + t); the last of
                them if it never is
    reached:    whether it was passed at all
    """

    epochs: Float[np.ndarray, " s"]
    linear: Float[np.ndarray, " s"]
    network: Float[np.ndarray, " s"]
    tolerance: float
    epoch: float
    reached: bool

    @property
    def gap(self) -> Float[np.ndarray, " s"]:
        """|network − linear| / linear."""
        return np.abs(self.network - self.linear) / self.linear


def trust_horizon(
    network: Network,
    params: PyTree,
    cross_kernel: Num[Array, "..."],
    duals: Float[np.ndarray, "s n k"],
    targets: Num[Array, "..."],
    *,
    judged: str,
    epochs: Sequence[int],
    tolerance: SupportsFloat,
) -> Horizon:
    """Compare the linearised model's risk with the network's at the same parameters, epoch by epoch.

    cross_kernel: 𝕂 of the examples `judged` with the training examples, `[m, n]` or `[m, k, n, k]`; duals: α at each of
    `epochs` (`dual_coefficients`, `kernel_descent`); targets: of the examples judged, `[m]` or `[m, k]`. A validation
    set is the natural choice: the horizon then looks at no test label.

    Cost: one backward pass over the training and one forward pass over the judged examples for each epoch.
    Raises `InputError` for epochs that do not ascend or do not match the duals, and a tolerance that is not positive.
    Source: this project; the linearised path is that of Lee et al. 2019.
    """
    times, limit = whole_steps("trust_horizon", np.asarray(epochs)), float(tolerance)
    problems = (
        [f"got {len(duals)} sets of dual coefficients for {len(times)} epochs"] if len(duals) != len(times) else []
    )
    if len(times) < 1 or (np.diff(times) <= 0).any():
        problems.append(f"epochs are {list(epochs)}; wanted at least one, ascending")
    if not 0 < limit < np.inf:
        problems.append(f"tolerance is {limit:g}; wanted a positive number, such as 0.02")
    if judged not in network.judged:
        problems.append(f"no examples named {judged!r}; there are {', '.join(map(repr, network.judged)) or 'none'}")
    refuse("trust_horizon", problems)
    start = network.says(params)[judged]
    y = np.asarray(targets, np.float64).reshape(len(start), -1)
    linear = _risk(outputs_at(cross_kernel, duals, start), y)
    real = np.empty(len(times))
    for index, dual in enumerate(duals):
        real[index] = _risk(network.says(network.advance(params, dual))[judged][None], y)[0]
    if not np.isfinite(real).all():
        broken = times[np.argmin(np.isfinite(real))]
        raise InputError(
            f"trust_horizon: at epoch {broken:g} of the linear path the network's outputs are not finite; look at "
            "earlier epochs"
        )
    epoch, reached = _crossing(times, np.abs(real - linear) / linear, limit)
    return Horizon(times, linear, real, limit, epoch, reached)


def _risk(outputs: Float[np.ndarray, "s m k"], targets: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " s"]:
    return np.mean(np.sum((outputs - targets[None]) ** 2, axis=2), axis=1)


def _crossing(epochs: np.ndarray, gap: np.ndarray, limit: float) -> tuple[float, bool]:
    """Where the gap first passes the limit, from no gap at epoch 0."""
    beyond = np.flatnonzero(gap > limit)
    if not beyond.size:
        return float(epochs[-1]), False
    last = int(beyond[0])
    clock, height = np.log1p(np.concatenate([[0.0], epochs])), np.concatenate([[0.0], gap])
    share = (limit - height[last]) / (height[last + 1] - height[last])
    return float(np.expm1(clock[last] + share * (clock[last + 1] - clock[last]))), True
