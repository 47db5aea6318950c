import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from ntkft.hmm import SimulatedRisk, complexity_sweep
from ntkft.plots.hmm import risk_over_width
from tests.plots.drawn import assert_nothing_is_cut_off_or_overlaps, legend, line, points

SWEEP = {"n": 20, "d": 3, "rho": 0.9, "seed": 0}
MODEL = "d = 4, ρ = 0.9"
SIMULATED = [SimulatedRisk(20, 3, 0.0, 10, 0.3, 0.05), SimulatedRisk(20, 33, 0.0, 10, 2.0, 0.2)]


def drawn_points(axes: Axes) -> np.ndarray:
    """Points of the one series with error bars."""
    (found,) = axes.containers
    assert isinstance(found, ErrorbarContainer)
    return points(found.lines[0])


def test_lines_are_theory_with_a_gap_at_the_threshold_and_points_are_simulation():
    theory = complexity_sweep(range(1, 41), sigma_u=1.0, ridge=0, **SWEEP)
    figure = risk_over_width(theory, SIMULATED, MODEL)
    upper, lower = figure.axes
    for axes, label, field in ((upper, "excess risk, theory", "excess"), (lower, "total risk, theory", "total")):
        p, values = line(axes, label)
        expected = np.array([getattr(risk, field) for risk in theory])
        np.testing.assert_array_equal(p, [risk.p for risk in theory])
        np.testing.assert_array_equal(values, np.where(np.isfinite(expected), expected, np.nan))
        assert list(p[np.isnan(values)]) == [19, 20, 21]
    np.testing.assert_array_equal(drawn_points(upper), [[3, 33], [0.3, 2.0]])
    np.testing.assert_allclose(drawn_points(lower)[1], [theory[2].noise + 0.3, theory[32].noise + 2.0])
    best = min((risk for risk in theory if risk.p < 20), key=lambda risk: risk.total)
    assert f"lowest below n: p = {best.p}" in legend(figure)
    assert len(legend(figure)) == len(set(legend(figure)))
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_the_bias_is_drawn_where_it_can_be_seen_and_the_penalty_named():
    theory = complexity_sweep(range(1, 41), sigma_u=20.0, ridge=0.5, **SWEEP)
    figure = risk_over_width(theory, [], MODEL)
    assert "its squared bias" in legend(figure)
    assert figure.axes[0].get_title("left") == f"Head tuning on n = 20 examples, λ = 0.5\n{MODEL}"
    assert np.isfinite(line(figure.axes[0], "excess risk, theory")).all()


def test_points_whose_noise_is_unknown_have_no_total():
    theory = complexity_sweep([1, 3, 5], sigma_u=1.0, ridge=0, **SWEEP)
    np.testing.assert_array_equal(drawn_points(risk_over_width(theory, SIMULATED, MODEL).axes[1])[0], [3])
