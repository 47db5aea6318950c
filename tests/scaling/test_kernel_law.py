"""The law whose knees come from the kernel: recovered where it made the points; the residual left is an exponential."""

import numpy as np
import pytest
import scipy.linalg

from ntkft._errors import InputError
from ntkft.scaling import fit_kernel_law, loss_curve, residual_left
from ntkft.spectra import spectrum_of_matrix
from tests.tolerances import CLOSED_FORM

BETA, SCALE = 0.6, 40.0
LEVELS = np.array([1.0, 0.9, 0.7, 0.95])
WORTH = np.array([0.3, 1.0, 2.5, 8.0])
SIZES = 16.0 * 2.0 ** np.arange(5)


def truth(size):
    return LEVELS / (1 + size**BETA / (SCALE * WORTH))


def made():
    return [loss_curve(f"m{i}", SIZES, [truth(size)[i] for size in SIZES]) for i in range(4)]


@pytest.mark.parametrize("points", [2, 5])
def test_exponent_scale_and_levels_are_those_that_made_the_points(points):
    found = fit_kernel_law(made(), WORTH, points=points)
    assert found.identified
    # A sum of squares is flat at its minimum: half of the digits of what is searched.
    assert found.beta == pytest.approx(BETA, rel=1e-4)
    assert found.scale == pytest.approx(SCALE, rel=1e-3)
    np.testing.assert_allclose(np.exp(found.level), LEVELS, rtol=1e-3)
    np.testing.assert_allclose(found.worth, found.scale * WORTH, rtol=1e-12)
    np.testing.assert_allclose(found.at(2_000), truth(2_000), rtol=1e-4)


def test_the_unit_of_worth_is_taken_up_by_the_scale():
    one, other = (fit_kernel_law(made(), unit * WORTH, points=4) for unit in (1.0, 1e6))
    assert one.scale == pytest.approx(1e6 * other.scale, rel=1e-5)
    np.testing.assert_allclose(one.at(500), other.at(500), rtol=1e-6)


def test_the_inverse_worth_does_not_fit():
    assert fit_kernel_law(made(), 1 / WORTH, points=5).rss > 1e3 * fit_kernel_law(made(), WORTH, points=5).rss


def test_no_shared_numbers_nearby_are_better():
    generator = np.random.default_rng(0)
    noisy = [loss_curve(c.name, SIZES, c.losses * np.exp(0.02 * generator.standard_normal(5))) for c in made()]
    found = fit_kernel_law(noisy, WORTH, points=5)

    def rss(beta, scale, level):
        return sum(
            np.sum((np.log(c.losses) - level[i] + np.log1p(SIZES**beta / (scale * WORTH[i]))) ** 2)
            for i, c in enumerate(noisy)
        )

    assert found.rss == pytest.approx(rss(found.beta, found.scale, found.level), rel=1e-9)
    for step in 0.03 * generator.standard_normal((60, 6)):
        assert rss(found.beta * np.exp(step[0]), found.scale * np.exp(step[1]), found.level + step[2:]) > found.rss


def test_curves_that_do_not_bend_are_not_identified():
    straight = [loss_curve(f"m{i}", SIZES, 2.0 * SIZES**-0.3 * (i + 1)) for i in range(3)]
    assert not fit_kernel_law(straight, [1.0, 1.0, 1.0], points=5).identified


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curves": []}, "got no curves"),
        ({"points": 0}, "points is 0; wanted at least 1"),
        ({"points": 6}, "m0 has 5 points with D > 0; wanted at least 6"),
        ({"points": 1}, "4 curves of 1 points for 4 levels"),
        ({"worth": [1.0, 2.0]}, r"worths of shape \[2\] for 4 curves"),
        ({"worth": [1.0, 0.0, np.nan, 1.0]}, "worth of m1, m2 is not a finite number above zero"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    given = {"curves": made(), "worth": WORTH, "points": 3} | change
    with pytest.raises(InputError, match=message):
        fit_kernel_law(given["curves"], given["worth"], points=given["points"])


@pytest.mark.parametrize("k", [1, 3])
def test_residual_left_is_the_matrix_exponential(k):
    generator = np.random.default_rng(1)
    factor = generator.standard_normal((12, 7))
    kernel, residual = factor @ factor.T, generator.standard_normal((12, k))
    found = residual_left(spectrum_of_matrix(kernel, precision="float64"), residual, step_size=0.03, steps=20)
    flowed = scipy.linalg.expm(-0.03 * 20 * kernel / 12) @ residual
    assert found == pytest.approx(np.sum(flowed**2) / np.sum(residual**2), rel=CLOSED_FORM)


def test_a_residual_of_zero_is_refused():
    spectrum = spectrum_of_matrix(np.eye(3), precision="float64")
    with pytest.raises(InputError, match="nothing to learn"):
        residual_left(spectrum, np.zeros(3), step_size=1.0, steps=1)
