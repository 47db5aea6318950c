"""The trust horizon: until when the kernel at the pretrained parameters predicts the risk, known before any training.

A prediction of a higher order judges one of a lower order, as in the embedded pairs that choose the step of an
ordinary differential equation: where the first-order risk and the re-anchored one (`predict_anchored`) come apart, the
first kernel no longer holds. Both are made of kernels; nothing is fine-tuned.

That the network agrees with the linearised model at the parameters which the *linearised* path reaches is no such
sign. There the Jacobian has changed only on one side of the kernel's product, and the parameters have not left the
linear path: both effects are of the same order as the one that would be seen, and on SST-2 of the opposite sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Float, Num

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.dynamics.filters import whole_steps


@dataclass(frozen=True, eq=False)
class Horizon:
    """What was compared, and until when the first-order prediction can be trusted.

    epochs:      `[s]`, ascending
    first_order: `[s]`, risk predicted from the first kernel alone
    anchored:    `[s]`, risk predicted with kernels further on
    tolerance:   the largest |first_order − anchored|/anchored that is trusted
    epoch:       where that is first passed, between two epochs by a straight line in log(1 + t); the last if never
    reached:     whether it was passed at all
    """

    epochs: Float[np.ndarray, " s"]
    first_order: Float[np.ndarray, " s"]
    anchored: Float[np.ndarray, " s"]
    tolerance: float
    epoch: float
    reached: bool

    @property
    def gap(self) -> Float[np.ndarray, " s"]:
        """|first_order − anchored| / anchored."""
        return np.abs(self.first_order - self.anchored) / self.anchored


def trust_horizon(
    epochs: Sequence[int],
    first_order: Num[Array, "..."],
    anchored: Num[Array, "..."],
    *,
    tolerance: SupportsFloat,
) -> Horizon:
    """Until which epoch the first-order risk stays within `tolerance` of the re-anchored one.

    epochs: ascending; first_order, anchored: positive risks `[s]` on the same examples, with the labels of a
    validation set where test labels are not to be looked at.

    The horizon is as good as the re-anchored prediction: leave room for its own error, 1.5 % for a claim of 2 %, say.
    Raises `InputError` for epochs that do not ascend or do not match, risks that are not positive numbers, and a
    tolerance that is not positive.
    Source: this project, after the error estimates of embedded Runge–Kutta pairs (Fehlberg 1969).
    """
    times, limit = whole_steps("trust_horizon", np.asarray(epochs)), float(tolerance)
    low, high = (np.asarray(risk, np.float64) for risk in (first_order, anchored))
    problems = []
    if len(times) < 1 or (np.diff(times) <= 0).any():
        problems.append(f"epochs are {list(epochs)}; wanted at least one, ascending")
    if not 0 < limit < np.inf:
        problems.append(f"tolerance is {limit:g}; wanted a positive number, such as 0.02")
    for name, risk in (("first-order", low), ("re-anchored", high)):
        if len(risk) != len(times):
            problems.append(f"got {len(risk)} {name} risks for {len(times)} epochs")
        elif bad := times[~(np.isfinite(risk) & (risk > 0))].tolist():
            problems.append(f"{name} risks at epochs {bad[:8]} are not positive numbers; leave these epochs out")
    refuse("trust_horizon", problems)
    epoch, reached = _crossing(times, np.abs(low - high) / high, limit)
    return Horizon(times, low, high, limit, epoch, reached)


def _crossing(epochs: np.ndarray, gap: np.ndarray, limit: float) -> tuple[float, bool]:
    """Where the gap first passes the limit, from no gap at epoch 0."""
    beyond = np.flatnonzero(gap > limit)
    if not beyond.size:
        return float(epochs[-1]), False
    last = int(beyond[0])
    clock, height = np.log1p(np.concatenate([[0.0], epochs])), np.concatenate([[0.0], gap])
    share = (limit - height[last]) / (height[last + 1] - height[last])
    return float(np.expm1(clock[last] + share * (clock[last + 1] - clock[last]))), True
