"""When to stop: rules that need only the spectrum, the noise and the size of what is to be learnt.

At time η_t = εt the variance grows like σ²η_t R̂_K²(1/√η_t) and the squared bias falls like C²/η_t, where R̂_K is the
local Rademacher complexity and C = ‖f* − f_PT‖_H. The rule stops when the first overtakes the second, up to constants
chosen for a proof: it is conservative, typically 2–10 times earlier than the best epoch.

With k outputs per example the rules read the nk values as nk observations. In terms of the eigenvalues of 𝕂/n (all nk
of them, or the n of a kernel shared by all outputs) their form is unchanged if `norm` is the root mean square over
outputs, C/√k. The eigenvalues of a trace kernel, a sum over outputs, have to be divided by k.
"""

import math
from dataclasses import dataclass
from operator import index
from typing import SupportsFloat, SupportsIndex

import numpy as np
from jaxtyping import Num

from ntkft._errors import InputError
from ntkft._types import Array
from ntkft.dynamics.filters import checked_positive, refuse_unstable
from ntkft.spectra.complexity import balance, local_rademacher, nonnegative


def stopping_time(
    eigenvalues: Num[Array, " r"], sigma: SupportsFloat, step_size: SupportsFloat, norm: SupportsFloat = 1.0
) -> int | float:
    """Epoch at which to stop: T̂ = min{t ≥ 1 : R̂_K(1/√(εt)) > C/(2eσεt)} − 1, exactly.

    eigenvalues: all eigenvalues of the normalised kernel, zeros included; sigma: noise standard deviation;
    step_size: ε < 2/λ̂₁ (the theorem assumes ε ≤ 1/λ̂₁); norm: C = ‖f* − f_PT‖_H.

    The norm enters linearly. Dividing targets and noise by C gives the unit-norm rule with σ/C, as stated here; eq. 11
    of Sun & Raskutti 2026 prints C². η R̂_K(1/√η) is increasing in η, so the rule first fires past η = 1/ε̂², ε̂ the
    critical radius, and T̂ = ⌊1/(ε ε̂²)⌋; the defining inequality itself decides between neighbours.

    Returns an int, or `math.inf` if the rule never fires (no noise, or a kernel of zeros; or only after 2⁵³ steps). 0
    means: do not train (norm 0, or noise that drowns the target). Cost: one sort. Raises `InputError` for bad
    eigenvalues, sigma or norm below zero, and a step size at or above 2/λ̂₁.
    Source: Raskutti, Wainwright & Yu 2014, Theorem 1; Sun & Raskutti 2026, eq. 11, corrected.
    """
    epsilon = checked_positive("stopping_time", "step size", step_size)
    refuse_unstable("stopping_time", epsilon, nonnegative("stopping_time", eigenvalues), limit=2.0)
    squared_radius = epsilon * balance(eigenvalues, sigma, norm, 2 * math.e, "stopping_time")
    if squared_radius < 2.0**-53:  # also exactly zero
        return math.inf
    steps = math.floor(1 / squared_radius) + np.arange(3)
    eta = epsilon * np.maximum(steps, 1)
    fires = local_rademacher(eigenvalues, 1 / np.sqrt(eta)) * eta > float(norm) / (2 * math.e * float(sigma))
    return int(steps[np.argmax(fires & (steps > 0))]) - 1


def krr_stopping(eigenvalues: Num[Array, " r"], sigma: SupportsFloat, norm: SupportsFloat = 1.0) -> float:
    """Inverse ridge penalty ν̂ = inf{ν > 0 : R̂_K(1/√ν) > C/(4σν)}, so λ_ridge = 1/ν̂; ν answers to η_t = εt.

    The same balance as `stopping_time` with 4 for 2e. `math.inf` if it never fires. Cost and errors: as there.
    Source: Raskutti, Wainwright & Yu 2014, their rule for kernel ridge regression; the norm as in `stopping_time`.
    """
    squared_radius = balance(eigenvalues, sigma, norm, 4.0, "krr_stopping")
    return math.inf if squared_radius == 0 else 1 / squared_radius


def drift_stopping(
    epochs: Num[Array, " s"],
    drift: Num[Array, "..."],
    *,
    step_size: SupportsFloat,
    constant: SupportsFloat,
    last: SupportsFloat,
) -> int:
    """T_op = argmin over the `epochs` t with 1 ≤ t ≤ last of C/(εt) + g(t): stop before the kernel has moved too far.

    drift: g at these epochs, made non-decreasing by its running maximum; in units of risk, as C/η is. The paper gives
    no g: the difference between first-order and re-anchored risk (`ntkft.anchoring`) is one that is measured. constant:
    C, that of the bound on squared bias, C_H²/e; last: T_max, the epoch of `stopping_time`; may be infinite.

    Cost: none. Raises `InputError` for lengths that differ, values that are no numbers, or no epoch in the range.
    Source: Sun & Raskutti 2026, the operational stopping time.
    """
    epsilon = checked_positive("drift_stopping", "step size", step_size)
    times, values = np.asarray(epochs, np.float64), np.asarray(drift, np.float64)
    allowed = (times >= 1) & (times <= float(last))
    if values.shape != times.shape or not np.isfinite(values).all() or not allowed.any():
        raise InputError(
            f"drift_stopping: got drift {list(values.shape)} for {len(times)} epochs, {int(allowed.sum())} of them in "
            f"1 … {float(last):g}; wanted one finite number for each and at least one epoch in the range"
        )
    cost = float(constant) / (epsilon * np.maximum(times, 1)) + np.maximum.accumulate(values)
    return int(times[allowed][np.argmin(cost[allowed])])


@dataclass(frozen=True)
class HoldoutStop:
    """Where hold-out stops; both are positions in the list of losses.

    best: lowest loss seen until then, the model to keep; stopped: last one looked at; patience_ran_out: whether that
    was for lack of progress or because the list ended.
    """

    best: int
    stopped: int
    patience_ran_out: bool


def holdout_stopping(losses: Num[Array, " s"], patience: SupportsIndex) -> HoldoutStop:
    """Stop after `patience` evaluations in a row that do not improve on the best hold-out loss; keep the best.

    losses: loss on held-out examples at successive evaluations. Raises `InputError` for an empty list, NaN (stop
    training where the loss stops being a number) or a patience below 1.
    Source: Prechelt 1998, *Early stopping — but when?*, criterion UP.
    """
    values, limit = np.asarray(losses, np.float64), index(patience)
    if limit < 1:
        raise InputError(f"holdout_stopping: patience is {limit}; wanted at least 1")
    if not values.size or np.isnan(values).any():
        raise InputError(
            f"holdout_stopping: got {values.size} losses, {int(np.isnan(values).sum())} of them NaN; wanted at least "
            "one and no NaN: cut the list where training broke down"
        )
    positions = np.arange(len(values))
    earlier_best = np.concatenate([[np.inf], np.minimum.accumulate(values)[:-1]])
    last_progress = np.maximum.accumulate(np.where(values < earlier_best, positions, 0))
    exhausted = np.flatnonzero(positions - last_progress >= limit)
    stopped = int(exhausted[0]) if exhausted.size else len(values) - 1
    return HoldoutStop(int(last_progress[stopped]), stopped, bool(exhausted.size))
