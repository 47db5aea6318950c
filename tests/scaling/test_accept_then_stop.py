"""Lines through points that lie on one, and where they stop."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.scaling import accept_then_stop, loss_curve
from tests.tolerances import CLOSED_FORM

SIZES = 200.0 * 2 ** np.arange(10)
WIGGLE = 0.003 * (-1.0) ** np.arange(10)


def curve(logs, sizes=SIZES):
    return loss_curve("made", sizes, np.exp(logs))


def test_a_straight_line_keeps_all_but_one_point():
    logs = 3 - 0.2 * np.log(SIZES) + WIGGLE
    found = accept_then_stop(curve(logs))
    slope, intercept = np.polyfit(np.log(SIZES[1:]), logs[1:], 1)
    assert found.kept == 9
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept), rel=CLOSED_FORM)
    assert found.at(1e6) == pytest.approx(np.exp(intercept + slope * np.log(1e6)), rel=CLOSED_FORM)


@pytest.mark.parametrize("kink", [3, 4, 6])
def test_the_points_before_a_kink_are_left_out(kink):
    x = np.log(SIZES)
    logs = 3 - 0.3 * np.maximum(x - x[-kink], 0) + WIGGLE
    assert accept_then_stop(curve(logs)).kept == kink


def test_a_point_is_accepted_up_to_the_tolerance_in_standard_deviations():
    logs = 3 - 0.2 * np.log(SIZES[-4:]) + np.r_[0, WIGGLE[:3]]
    x = np.log(SIZES[-4:])
    slope, intercept = np.polyfit(x[1:], logs[1:], 1)
    deviations = abs(logs[0] - intercept - slope * x[0]) / np.std(logs[1:] - intercept - slope * x[1:])
    longer = curve(np.r_[0.0, logs], SIZES[-5:])  # the first point is far off: never accepted
    assert accept_then_stop(longer, tolerance=1.001 * deviations).kept == 4
    assert accept_then_stop(longer, tolerance=0.999 * deviations).kept == 3


def test_at_least_the_fewest_points_are_kept():
    logs = 3 - 0.1 * np.log(SIZES) - 0.05 * np.arange(10) ** 2  # bends everywhere
    assert accept_then_stop(curve(logs), tolerance=0.0).kept == 3
    assert accept_then_stop(curve(logs), fewest=5, tolerance=0.0).kept == 5


@pytest.mark.parametrize("points", [2, 3])
def test_a_short_curve_keeps_everything(points):
    logs = 3 - 0.2 * np.log(SIZES[:points]) + WIGGLE[:points]
    found = accept_then_stop(curve(logs, SIZES[:points]))
    assert found.kept == points
    slope = np.polyfit(np.log(SIZES[:points]), logs, 1)[0]
    assert found.slope == pytest.approx(slope, rel=CLOSED_FORM)


def test_the_loss_at_zero_is_not_used_and_a_unit_of_loss_moves_the_line_alone():
    logs = 3 - 0.2 * np.log(SIZES) + WIGGLE
    found = accept_then_stop(curve(logs))
    assert accept_then_stop(curve(np.r_[9.0, logs], np.r_[0, SIZES])) == found
    scaled = accept_then_stop(curve(logs + np.log(7)))
    assert scaled.kept == found.kept
    assert scaled.at(1e7) == pytest.approx(7 * found.at(1e7), rel=CLOSED_FORM)


def test_one_point_is_refused():
    with pytest.raises(InputError, match="made has 1 points with D > 0; wanted at least 2: raise the budget"):
        accept_then_stop(curve([1.0, 0.5], np.array([0.0, 200.0])))
