"""Least-squares fits against what made the points, a general optimiser in the laws' own parameters, and both tables."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from scipy.optimize import least_squares

from ntkft._errors import InputError
from ntkft.scaling import Rectified, Vanilla, bootstrap_fit, fit_rectified, fit_vanilla, loss_curve

SIZES = np.r_[0, 200.0 * 2 ** np.arange(14)]
TUNED = SIZES[1:]
FAR = np.array([0.0, 3_000.0, 3_276_800.0])
RECTIFIED = Rectified(B=856.4, D_l=260.7, beta=0.5005, E=1.2423)
VANILLA = Vanilla(B=50.0, beta=0.4, E=0.7, alpha=1.3)


def measured(law, sizes, noise=0.0, seed=0):
    errors = noise * np.random.default_rng(seed).standard_normal(len(sizes))
    return loss_curve("made", sizes, law.at(sizes) * np.exp(errors))


def law_of(fit):
    assert fit.law is not None
    return fit.law


def interval_of(curve, **keywords):
    found = bootstrap_fit(curve, **keywords)
    assert found is not None
    return found


def cost(law, curve):
    return float(np.sum((np.log(law.at(curve.sizes)) - np.log(curve.losses)) ** 2))


@pytest.mark.parametrize(
    "law",
    [
        RECTIFIED,
        replace(RECTIFIED, E=0.0),
        Rectified(B=20.0, D_l=9.0, beta=0.2, E=0.3),
        Rectified(B=5e4, D_l=2e4, beta=0.9, E=0.5),
        Rectified(B=3.0, D_l=1e-9, beta=0.3, E=1.0),  # in the power phase from the start
    ],
)
def test_the_rectified_law_predicts_exactly_where_there_is_no_noise(law):
    fit = fit_rectified(measured(law, SIZES if law.D_l > 1 else TUNED))
    assert fit.status == "fitted"
    assert fit.log_rmsd < 1e-6
    at = FAR if law.D_l > 1 else FAR[1:]
    # A cost of 1e-12 leaves the flattest direction a few times 1e-6, of which the farthest point shows most.
    np.testing.assert_allclose(law_of(fit).at(at), law.at(at), rtol=1e-4)


def test_parameters_are_found_where_the_curve_determines_them():
    law = law_of(fit_rectified(measured(RECTIFIED, SIZES)))
    np.testing.assert_allclose(astuple(law), astuple(RECTIFIED), rtol=1e-5)
    assert law.steepest == pytest.approx(RECTIFIED.steepest, rel=1e-5)


@pytest.mark.parametrize("law", [VANILLA, replace(VANILLA, alpha=1.0), replace(VANILLA, alpha=0.4, beta=0.8)])
def test_the_vanilla_law_predicts_exactly_where_there_is_no_noise(law):
    fit = fit_vanilla(measured(law, TUNED))
    assert fit.log_rmsd < 1e-6
    np.testing.assert_allclose(law_of(fit).at(FAR[1:]), law.at(FAR[1:]), rtol=1e-4)


@pytest.mark.parametrize(("fit", "law"), [(fit_rectified, RECTIFIED), (fit_vanilla, VANILLA)])
@pytest.mark.parametrize("seed", range(3))
def test_a_general_optimiser_in_the_laws_own_parameters_finds_nothing_better(fit, law, seed):
    curve = measured(law, TUNED, noise=0.02, seed=seed)
    found = law_of(fit(curve))

    def residuals(logs):
        return np.log(type(law)(*np.exp(logs)).at(curve.sizes)) - np.log(curve.losses)

    rivals = [
        least_squares(residuals, np.log(np.maximum(astuple(start), 1e-12)), x_scale="jac", max_nfev=2000)
        for start in (found, law)
    ]
    assert cost(found, curve) <= 2 * min(rival.cost for rival in rivals) * (1 + 1e-6)
    assert fit(curve).log_rmsd == pytest.approx(np.sqrt(cost(found, curve) / 14), rel=1e-9)


@pytest.mark.parametrize(("fit", "law", "power"), [(fit_rectified, RECTIFIED, 1), (fit_vanilla, VANILLA, None)])
def test_a_unit_of_loss_changes_the_unit_of_the_prediction_only(fit, law, power):
    curve = measured(law, TUNED, noise=0.01)
    scaled = loss_curve("scaled", curve.sizes, 7 * curve.losses)
    found, other = fit(curve), fit(scaled)
    assert other.log_rmsd == pytest.approx(found.log_rmsd, rel=1e-6)
    np.testing.assert_allclose(law_of(other).at(FAR[1:]), 7 * law_of(found).at(FAR[1:]), rtol=1e-5)
    if power:
        np.testing.assert_allclose(astuple(law_of(other)), np.array([7, 1, 1, 7]) * astuple(law_of(found)), rtol=1e-3)


def test_a_point_at_zero_counts_for_the_rectified_law_and_not_for_the_vanilla():
    curve = measured(RECTIFIED, SIZES, noise=0.01)
    moved = loss_curve("moved", curve.sizes, np.r_[1.3 * curve.losses[0], curve.losses[1:]])
    assert (fit_rectified(curve).points, fit_vanilla(curve).points) == (15, 14)
    assert law_of(fit_rectified(moved)).at(0.0) > 1.02 * law_of(fit_rectified(curve)).at(0.0)
    assert fit_vanilla(moved) == replace(fit_vanilla(curve), name="moved")


@pytest.mark.parametrize(("table", "published"), [("flan", 0.0066), ("wmt19", 0.0119)])
def test_the_error_on_real_curves_is_no_larger_than_published(tables, table, published):
    found = [fit_rectified(curve.fine_tuned) for curve in tables[table]]
    assert {fit.status for fit in found} == {"fitted"}
    assert np.mean([fit.log_rmsd for fit in found]) <= published


# Whole tables (published bounds .0352 and .0590) take seconds: the experiment rectified_scaling_law fits them.
@pytest.mark.parametrize(("table", "expected"), [("flan", 0.0380), ("wmt19", 0.0602)])
def test_the_vanilla_law_bends_the_wrong_way_on_every_fifth_real_curve(tables, table, expected):
    curves = [curve.fine_tuned for curve in tables[table][::5]]
    error = np.mean([fit_vanilla(curve).log_rmsd for curve in curves])
    assert error == pytest.approx(expected, abs=3e-4)  # what the published bound leaves for the whole table
    assert error > 4 * np.mean([fit_rectified(curve).log_rmsd for curve in curves])


def test_gpt2_on_flan_has_the_published_parameters(tables):
    (curve,) = [curve for curve in tables["flan"] if curve.name == "gpt2"]
    law = law_of(fit_rectified(curve.fine_tuned))
    np.testing.assert_allclose(astuple(law), astuple(RECTIFIED), rtol=1e-4)
    assert law.steepest == pytest.approx(244_825, rel=1e-4)  # theirs ended at another point of the valley


@pytest.mark.parametrize(
    ("curve", "status"),
    [
        (loss_curve("few", [0, 200], [3.0, 2.0]), "not identified: 2 points for 4 parameters"),
        (loss_curve("few", [0, 200, 400], [3.0, 2.0, 1.0]), "not identified: 3 points for 4 parameters"),
        (loss_curve("flat", SIZES, np.full(15, 2.0)), "not identified: all losses are equal"),
    ],
)
def test_what_no_curve_determines_has_a_status_and_no_law(curve, status):
    fit = fit_rectified(curve)
    assert (fit.law, fit.status, fit.points) == (None, status, len(curve.sizes))
    assert np.isnan(fit.log_rmsd)
    assert fit_vanilla(curve).law is None


def test_the_vanilla_law_has_no_use_for_a_fourth_point_at_zero():
    fit = fit_vanilla(loss_curve("few", [0, 200, 400, 800], [4.0, 3.0, 2.0, 1.5]))
    assert fit.status == "not identified: 3 points for 4 parameters"


def test_the_bootstrap_interval_holds_a_prediction_as_often_as_it_says():
    target, sets, level = 3_276_800, 40, 0.9
    truth = float(RECTIFIED.at(target))
    held = 0
    for seed in range(sets):
        found = interval_of(measured(RECTIFIED, TUNED, 0.01, seed), size=target, draws=30, level=level, seed=seed)
        held += found.prediction[0] <= truth <= found.prediction[1]
    # Five standard errors of a share of 40.
    assert held / sets >= level - 5 * np.sqrt(level * (1 - level) / sets)


def test_the_bootstrap_is_determined_by_its_seed_and_nested_in_its_level():
    curve = measured(RECTIFIED, TUNED, noise=0.01)
    found = interval_of(curve, size=10**7, draws=30, level=0.9, seed=1)
    assert found == interval_of(curve, size=10**7, draws=30, level=0.9, seed=1)
    assert found.prediction != interval_of(curve, size=10**7, draws=30, level=0.9, seed=2).prediction
    inner = interval_of(curve, size=10**7, draws=30, level=0.5, seed=1)
    for (low, high), (inner_low, inner_high) in zip(
        [*found.parameters.values(), found.prediction], [*inner.parameters.values(), inner.prediction], strict=True
    ):
        assert low <= inner_low <= inner_high <= high
    assert set(found.parameters) == {"B", "D_l", "beta", "E"}
    assert (found.draws, found.level, found.size) == (30, 0.9, 1e7)


def test_a_floor_is_identified_only_where_the_curve_shows_it():
    def names(law, noise):
        curve = measured(law, TUNED, noise)
        return interval_of(curve, size=10**7, draws=30, level=0.9, seed=0).not_identified

    assert names(RECTIFIED, 0.005) == ()
    assert "E" in names(replace(RECTIFIED, E=0.0), 0.0)
    assert "E" in names(replace(RECTIFIED, E=0.0), 0.01)
    assert "E" in names(Rectified(B=20.0, D_l=9.0, beta=0.2, E=0.01), 0.01)


def test_refits_of_a_curve_without_a_floor_leave_the_end_of_the_range():
    curve = measured(replace(RECTIFIED, E=0.0), TUNED, noise=0.02, seed=1)
    assert law_of(fit_rectified(curve)).E < 1e-9
    low, high = interval_of(curve, size=10**7, draws=30, level=0.9, seed=0).parameters["E"]
    assert low < 1e-9 < 1e-3 < high


def test_a_flat_curve_has_no_interval():
    assert bootstrap_fit(loss_curve("flat", SIZES, np.full(15, 2.0)), size=1, draws=9, level=0.9, seed=0) is None


@pytest.mark.parametrize(
    ("points", "keywords", "message"),
    [
        (14, {"level": 1.0}, "got level 1 and 9 draws; wanted 0 < level < 1 and draws ≥ 1"),
        (14, {"level": 0.0}, "got level 0 and"),
        (14, {"draws": 0}, "and 0 draws"),
        (5, {}, "made has 5 points; wanted at least 6"),
    ],
)
def test_a_bootstrap_that_says_nothing_is_refused(points, keywords, message):
    with pytest.raises(InputError, match=message):
        bootstrap_fit(
            measured(RECTIFIED, TUNED[:points]), **{"size": 1e6, "draws": 9, "level": 0.9, "seed": 0} | keywords
        )
