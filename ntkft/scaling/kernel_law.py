"""The rectified law with what pretraining is worth read off the kernel: no loss curve has to show a model's knee.

    log L_i(D) = a_i − log(1 + D^β/D_i),    D_i = s·w_i,    β and s shared by all models, a_i of each

It is the law of `pooled` with D_l = D_i. There each model's knee is fitted, which takes points on both sides of it;
here it is s times a *worth* w_i that is known before any fine-tuning, so that a level is all that a model's own points
have to say. A worth comes from kernel gradient descent at a time that all models share: the share of the training
residual that is left there, F = ‖exp(−ηKt) r‖²/‖r‖². The bridge is stated with F itself in place of D_l (D_i = s·F_i),
by which pretraining was worth least to the model that learns fastest; w = 1/F has the orientation of D_l in the law.
Both can be passed, and `experiments/ntk_selection` compares them.

Source: Lin et al. 2024, arXiv 2402.02314 (the law); the kernel's dynamics are those of Sun & Raskutti 2026.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import SupportsFloat, SupportsIndex

import numpy as np
from jaxtyping import Float, Num
from scipy.optimize import minimize

from ntkft._errors import refuse
from ntkft._types import Array
from ntkft.dynamics.filters import gradient_flow, remaining
from ntkft.scaling.curves import LossCurve
from ntkft.spectra.eigen import Spectrum, coordinates

_EXPONENTS = (0.05, 4.0)
"""Between them β is sought: below, a curve is straight; above, all of it happens within a factor of two in D."""
_GRID = 41
_REACH = 12.0
"""log s is sought where some model's knee is within this many units of log D of the data: beyond, nothing bends."""


@dataclass(frozen=True, eq=False)
class KernelLawFit:
    """Fit of all models.

    beta, scale: the shared β and s; level: `[models]`, a_i, the log loss at D = 0; worth: `[models]`, D_i = s·w_i;
    rss: sum of squared log residuals; points: of each curve that were used; identified: False where β or s came to an
    end of its range, which is when no knee lies near the data
    """

    names: tuple[str, ...]
    beta: float
    scale: float
    level: Float[np.ndarray, " models"]
    worth: Float[np.ndarray, " models"]
    rss: float
    points: int
    identified: bool

    def at(self, size: SupportsFloat) -> Float[np.ndarray, " models"]:
        """Predicted losses at `size` > 0 examples."""
        return np.exp(self.level - np.log1p(float(size) ** self.beta / self.worth))


def fit_kernel_law(
    curves: Sequence[LossCurve], worth: Num[Array, " models"] | Sequence[float], *, points: SupportsIndex
) -> KernelLawFit:
    """Least squares of log L over the last `points` points of every curve, D > 0.

    worth: w_i > 0 of every model, in any unit: s takes it up. For given β and s a level is a mean; both are searched on
    a grid of 41 × 41 and from its best point downhill. Cost: some 2,000 evaluations of all points; 50 ms for 30 models.

    Raises `InputError` for no curves, fewer than one point, a curve with fewer points than that, as many points as free
    numbers or fewer (models·points ≤ models + 2), another number of worths than of curves, and worths that are not
    finite numbers above zero.
    """
    last = index(points)
    tuned = [curve.fine_tuned for curve in curves]
    known = np.asarray(worth, np.float64)
    problems = (["got no curves"] if not tuned else []) + ([f"points is {last}; wanted at least 1"] if last < 1 else [])
    problems += [
        f"{curve.name} has {len(curve.sizes)} points with D > 0; wanted at least {last}: raise the budget"
        for curve in tuned
        if len(curve.sizes) < last
    ]
    if known.shape != (len(tuned),):
        problems.append(f"got worths of shape {list(known.shape)} for {len(tuned)} curves; wanted one for each")
    elif bad := [c.name for c, w in zip(tuned, known, strict=True) if not (np.isfinite(w) and w > 0)]:
        problems.append(f"the worth of {', '.join(bad)} is not a finite number above zero")
    if tuned and last >= 1 and len(tuned) * (last - 1) <= 2:
        problems.append(
            f"{len(tuned)} curves of {last} points for {len(tuned)} levels, β and s; wanted more points than numbers"
        )
    refuse("fit_kernel_law", problems)

    x = np.log([curve.sizes[-last:] for curve in tuned])
    y = np.log([curve.losses[-last:] for curve in tuned])
    centre = float(np.exp(np.mean(np.log(known))))
    unit = np.log(known / centre)

    def levels(shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Levels `[models]` and residuals `[models, points]` for (log β, log of the typical knee)."""
        bend = np.logaddexp(0.0, np.exp(shared[0]) * (x - shared[1]) - unit[:, None])
        level = np.mean(y + bend, axis=1)
        return level, y + bend - level[:, None]

    def cost(shared: np.ndarray) -> float:
        return float(np.sum(levels(shared)[1] ** 2))

    exponents = np.log(np.geomspace(*_EXPONENTS, num=_GRID))
    knees = np.linspace(x.min() - _REACH, x.max() + _REACH, _GRID)
    best = min((cost(np.array([b, k])), b, k) for b in exponents for k in knees)
    found = minimize(
        cost,
        best[1:],
        method="Nelder-Mead",
        bounds=[(exponents[0], exponents[-1]), (knees[0], knees[-1])],
        options={"xatol": 1e-8, "fatol": 1e-16, "maxiter": 2000},
    )
    shared = np.asarray(found.x if found.fun < best[0] else best[1:])
    beta = float(np.exp(shared[0]))
    scale = float(np.exp(beta * shared[1])) / centre
    inside = exponents[0] < shared[0] < exponents[-1] and knees[0] < shared[1] < knees[-1]
    level, residuals = levels(shared)
    return KernelLawFit(
        tuple(curve.name for curve in tuned),
        beta,
        scale,
        level,
        scale * known,
        float(np.sum(residuals**2)),
        last,
        bool(inside),
    )


def residual_left(
    spectrum: Spectrum, residual: Num[Array, "..."], *, step_size: SupportsFloat, steps: SupportsFloat
) -> float:
    """F = ‖exp(−ηKt) r‖²/‖r‖², η the step size: the share of the training residual that kernel GD leaves after t steps.

    residual: r = y − f_PT(X), `[n]` or `[n, k]`. Gradient flow, through the eigenbasis. Cost: one product with the
    eigenvectors. Raises `InputError` as `gradient_flow` and `coordinates` do, and for a residual of zero.
    """
    weights = coordinates(spectrum, residual)
    total = float(np.sum(weights**2))
    refuse("residual_left", ["the residual is zero; there is nothing to learn"] if total == 0 else [])
    (left,) = remaining(gradient_flow(step_size), spectrum.eigenvalues, [float(steps)])
    return float(np.sum((left[:, None] * weights) ** 2)) / total
