"""Points whose law is known: how often a threshold is claimed, and how often its interval holds the truth."""

from collections.abc import Callable

import numpy as np

from ntkft.emergence import find_threshold

ETA = 2.6
Law = tuple[Callable[[np.ndarray], np.ndarray], float]
"""Score by loss, and the standard deviation of the noise."""

LINES: dict[str, Law] = {
    "line, chance at the largest loss": (lambda x: 0.3 * (4 - x), 0.03),
    "line, chance at the largest loss, in noise": (lambda x: 0.3 * (4 - x), 0.3),
    "line, chance near the largest loss, in noise": (lambda x: 0.3 * (3.8 - x), 0.15),
    "line, chance inside the losses": (lambda x: 0.3 * (3 - x), 0.03),
    "line, far above chance": (lambda x: 0.1 * (8 - x), 0.03),
    "flat, at chance": (lambda x: 0 * x, 0.03),
}
HINGES: dict[str, Law] = {
    f"hinge, noise {noise}": (lambda x: 0.4 * np.maximum(ETA - x, 0), noise) for noise in (0.01, 0.03, 0.1)
}
CURVES: dict[str, Law] = {
    "exponential, noise 0.003": (lambda x: 9 * np.exp(-1.6 * x), 0.003),
    "exponential, noise 0.03": (lambda x: 9 * np.exp(-1.6 * x), 0.03),
}


def study(law: Law, *, eta: float | None, models: int, seeds: int, draws: int) -> dict[str, float]:
    """Shares over seeds, in percent: AIC below the line's, claims, and (for a true `eta`) intervals that hold it.

    Losses are uniform in 1.8 … 4, drawn anew for each seed.
    """
    curve, noise = law
    lower, claims = 0, []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        losses = generator.uniform(1.8, 4.0, models)
        scores = curve(losses) + noise * generator.standard_normal(models)
        found = find_threshold(losses, scores, level=0.95, draws=draws, seed=seed)
        assert found.delta_aic is not None
        lower += found.delta_aic > 0
        if found.interval is not None:
            claims.append((found.eta, *found.interval))
    result = {"AIC below the line's, %": 100 * lower / seeds, "claimed, %": 100 * len(claims) / seeds}
    if eta is not None and claims:
        etas, low, high = np.array(claims).T
        result |= {
            "interval holds η, %": 100 * float(np.mean((low <= eta) & (eta <= high))),
            "median width": float(np.median(high - low)),
            "median η": float(np.median(etas)),
        }
    return result
