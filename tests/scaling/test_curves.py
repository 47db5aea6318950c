"""A curve is sorted, checked, and cut where it is asked to be."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.scaling import loss_curve


def test_points_are_sorted_by_size_whatever_their_order():
    curve = loss_curve("a", [400, 0, 200], [2.0, 4.0, 3.0], 10**9)
    np.testing.assert_array_equal(curve.sizes, [0, 200, 400])
    np.testing.assert_array_equal(curve.losses, [4, 3, 2])
    assert curve.sizes.dtype == curve.losses.dtype == np.float64
    assert (curve.name, curve.parameters) == ("a", 1e9)


def test_a_budget_includes_its_own_size_and_zero_is_not_fine_tuned():
    curve = loss_curve("a", [0, 200, 400, 800], [4.0, 3.0, 2.0, 1.0], 5)
    np.testing.assert_array_equal(curve.up_to(400).sizes, [0, 200, 400])
    np.testing.assert_array_equal(curve.up_to(399).losses, [4, 3])
    np.testing.assert_array_equal(curve.fine_tuned.sizes, [200, 400, 800])
    np.testing.assert_array_equal(curve.up_to(0).fine_tuned.sizes, [])
    assert curve.up_to(400).parameters == curve.fine_tuned.parameters == 5


def test_a_loss_is_what_was_measured_or_none():
    curve = loss_curve("a", [0, 200], [4.0, 3.0])
    assert curve.at(200) == 3
    assert curve.at(0) == 4
    assert curve.at(300) is None
    assert curve.parameters is None


@pytest.mark.parametrize(
    ("sizes", "losses", "parameters", "message"),
    [
        ([0, 200], [1.0], None, r"losses of a: got sizes \(2,\) and losses \(1,\)"),
        ([0, 200], [1.0, 0.0], None, "the loss at 200 examples is 0; wanted a finite number above zero"),
        ([0, 200], [1.0, -2.0], None, "the loss at 200 examples is -2"),
        ([0, 200], [float("nan"), 1.0], None, "the loss at 0 examples is nan"),
        ([0, 200], [1.0, float("inf")], None, "the loss at 200 examples is inf"),
        ([-1, 200], [1.0, 2.0], None, "a size that is negative or not finite"),
        ([0, float("nan")], [1.0, 2.0], None, "a size that is negative or not finite"),
        ([200, 200], [1.0, 2.0], None, "got a size twice; wanted one loss for each"),
        ([0, 200], [1.0, 2.0], 0, "got 0 parameters; wanted a number above zero, or None"),
        ([0, 200], [1.0, 2.0], float("nan"), "got nan parameters"),
        ([200, 200], [-1.0, 2.0], -3, "losses of a: 3 problems"),
    ],
)
def test_what_is_no_curve_is_refused(sizes, losses, parameters, message):
    with pytest.raises(InputError, match=message):
        loss_curve("a", sizes, losses, parameters)
