"""Slopes, knee and steepest point of the laws, against differences and a dense search."""

from dataclasses import astuple
from itertools import product
from typing import cast

import numpy as np
import pytest
from scipy.optimize import OptimizeResult, minimize_scalar

from ntkft.scaling import Rectified, Vanilla

GPT2_FLAN = Rectified(B=856.4, D_l=260.7, beta=0.5005, E=1.2423)
LAWS = [GPT2_FLAN, Rectified(B=20.0, D_l=9.0, beta=0.2, E=0.3), Rectified(B=5e4, D_l=2e4, beta=0.9, E=1e-3)]


@pytest.mark.parametrize("law", LAWS)
def test_the_log_slope_is_the_derivative(law):
    x, step = np.linspace(0, 20, 41), 1e-4
    difference = (np.log(law.at(np.exp(x + step))) - np.log(law.at(np.exp(x - step)))) / (2 * step)
    # Central differences: step² of a third derivative, and rounding over the step.
    np.testing.assert_allclose(law.log_slope(np.exp(x)), difference, atol=1e-8)


@pytest.mark.parametrize("law", LAWS)
def test_the_slope_is_steepest_where_it_says(law):
    def slope(x):
        return float(law.log_slope(np.exp(x)))

    x = np.log(law.steepest)
    found = minimize_scalar(slope, bounds=(x - 5, x + 5), method="bounded", options={"xatol": 1e-10})
    assert cast(OptimizeResult, found).x == pytest.approx(
        x, abs=1e-6
    )  # a minimum is flat: half of the digits of float64
    assert slope(x) <= min(slope(y) for y in np.linspace(-10, 40, 2001))


def test_the_published_parameters_of_gpt2_on_flan_are_steepest_at_244_825_examples():
    # D* moves by two thousandths with the last printed digit of β: the corners of what was rounded enclose it.
    half = np.array([0.05, 0.05, 0.00005, 0.00005])
    corners = [
        Rectified(*(np.array(astuple(GPT2_FLAN)) + signs * half)).steepest for signs in product((-1, 1), repeat=4)
    ]
    assert min(corners) < 244_825 < max(corners)
    assert max(corners) < 1.005 * min(corners)


@pytest.mark.parametrize("law", LAWS)
def test_the_knee_is_where_the_falling_part_is_halved(law):
    start = law.at(np.zeros(1))
    np.testing.assert_allclose(law.at(np.array([law.knee])) - law.E, (start - law.E) / 2, rtol=1e-12)
    np.testing.assert_allclose(start, law.B / law.D_l + law.E, rtol=1e-15)
    assert law.knee < law.steepest


def test_slopes_of_both_ends():
    np.testing.assert_array_equal(GPT2_FLAN.log_slope(np.zeros(1)), 0)
    pure = Rectified(B=20.0, D_l=9.0, beta=0.2, E=0.0)
    assert pure.steepest == np.inf
    np.testing.assert_allclose(pure.log_slope(np.array([1e60])), -0.2, rtol=1e-10)
    np.testing.assert_allclose(GPT2_FLAN.log_slope(np.array([1e30])), 0, atol=1e-10)


def test_the_vanilla_law_is_a_power_of_a_shifted_power():
    law = Vanilla(B=50.0, beta=0.4, E=0.7, alpha=1.3)
    np.testing.assert_allclose(law.at(np.array([100.0])), (50 / 100**0.4 + 0.7) ** 1.3, rtol=1e-14)
    np.testing.assert_array_equal(law.at(np.zeros(1)), np.inf)
    np.testing.assert_allclose(law.at(np.array([1e60])), 0.7**1.3, rtol=1e-12)


def test_without_what_pretraining_is_worth_both_laws_are_one():
    sizes = np.geomspace(1, 1e6, 9)
    rectified, vanilla = Rectified(B=50.0, D_l=0.0, beta=0.4, E=0.7), Vanilla(B=50.0, beta=0.4, E=0.7, alpha=1.0)
    np.testing.assert_allclose(rectified.at(sizes), vanilla.at(sizes), rtol=1e-14)


def test_a_number_gives_a_number():
    for law in (GPT2_FLAN, Vanilla(B=50.0, beta=0.4, E=0.7, alpha=1.0)):
        assert float(law.at(800.0)) == law.at(np.array([800.0]))[0]
