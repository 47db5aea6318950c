"""Accept-then-Stop: a straight line through the last points of log L over log D, as many as lie on one.

In the power phase log L is close to linear in log D; the points before it are not. Going from the largest size down,
a point is accepted while the line through those after it predicts it to within δ standard deviations of its residuals.

Source: Lin et al. 2024, Algorithm 1 (its k = 3 and δ = 5).
"""

from dataclasses import dataclass

import numpy as np

from ntkft._errors import InputError
from ntkft.scaling.curves import LossCurve

FEWEST = 3
"""k: points that are always kept."""
TOLERANCE = 5.0
"""δ: standard deviations beyond which a point ends the search."""


@dataclass(frozen=True)
class AcceptedLine:
    """log L = intercept + slope·log D through the `kept` largest sizes."""

    intercept: float
    slope: float
    kept: int

    def at(self, size: float) -> float:
        """The loss that the line predicts at `size` examples."""
        return float(np.exp(self.intercept + self.slope * np.log(size)))


def accept_then_stop(curve: LossCurve, *, fewest: int = FEWEST, tolerance: float = TOLERANCE) -> AcceptedLine:
    """The line through the accepted points; the point at D = 0 is not used.

    With m points: for p = fewest … m − 1 a line through the last p; where |residual of the point before them| /
    (standard deviation of their residuals, by 1/p) > tolerance, p points are kept. If that never happens m − 1 are; if
    m ≤ fewest, all. The defaults are the paper's. Cost: m lines.

    Raises `InputError` for fewer than two points, through which there is no line.
    """
    tuned = curve.fine_tuned
    x, y = np.log(tuned.sizes), np.log(tuned.losses)
    m = len(x)
    if m < 2:
        raise InputError(
            f"accept_then_stop: {curve.name} has {m} points with D > 0; wanted at least 2: raise the budget"
        )
    kept = m if m <= fewest else m - 1
    for p in range(fewest, m):
        slope, intercept = np.polyfit(x[-p:], y[-p:], 1)
        spread = np.std(y[-p:] - intercept - slope * x[-p:])
        if abs(y[-p - 1] - intercept - slope * x[-p - 1]) > tolerance * spread:
            kept = p
            break
    slope, intercept = np.polyfit(x[-kept:], y[-kept:], 1)
    return AcceptedLine(float(intercept), float(slope), kept)
