import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.anchoring import trust_horizon
from ntkft.anchoring.horizon import _crossing
from tests.anchoring.test_prediction import predicted, problem, real  # noqa: F401  problem is a fixture

EPOCHS = [1, 2, 4, 8, 16, 32]


def risk(outputs, problem):  # noqa: F811
    return np.mean(np.sum((outputs - problem[2][1][None]) ** 2, axis=2), axis=1)


def test_up_to_the_horizon_the_first_order_risk_is_the_real_one(problem):  # noqa: F811
    """The claim itself, on a tiny attention model: within 2 % of real training until a horizon of 1.5 %."""
    first = risk(predicted(problem, epochs=EPOCHS, anchors=[0]).linear["test"], problem)
    anchored = predicted(problem, epochs=EPOCHS, anchors=[0, 8, 16], scheme="midpoint").network["test"]
    found = trust_horizon(EPOCHS, first, risk(anchored, problem), tolerance=0.015)
    truth = risk(real(problem, "squared", EPOCHS)[0], problem)
    off = np.abs(first / truth - 1)
    assert found.reached
    assert 1 < found.epoch < EPOCHS[-1]
    assert (off[np.array(EPOCHS) <= found.epoch] <= 0.02).all()
    assert off[-1] > 0.02


def test_less_tolerance_is_an_earlier_horizon():
    first, anchored = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1.0, 0.899, 0.78, 0.65, 0.5, 0.4])
    strict, loose = (trust_horizon(EPOCHS, first, anchored, tolerance=limit) for limit in (0.01, 0.05))
    assert 2 < strict.epoch < 4 < loose.epoch < 8
    np.testing.assert_allclose(strict.gap, np.abs(first - anchored) / anchored)


def test_two_predictions_that_agree_can_be_trusted_as_far_as_they_go():
    found = trust_horizon(EPOCHS, np.ones(6), np.full(6, 1.001), tolerance=0.01)
    assert (found.epoch, found.reached) == (32, False)


def test_the_crossing_is_on_a_straight_line_in_the_logarithm_of_time():
    epochs, gap = np.expm1([1.0, 2.0, 3.0]), np.array([0.01, 0.03, 0.02])
    assert _crossing(epochs, gap, 0.02) == (pytest.approx(np.expm1(1.5)), True)
    assert _crossing(epochs, gap, 0.005) == (pytest.approx(np.expm1(0.5)), True)
    assert _crossing(epochs, gap, 0.04) == (epochs[-1], False)


def test_bad_requests_are_refused_together():
    with pytest.raises(InputError) as caught:
        trust_horizon([2, 1], np.array([1.0, np.nan]), np.ones(3), tolerance=0.0)
    for reason in ("epochs are [2, 1]; wanted", "tolerance is 0", "first-order risks at epochs [1.0] are not positive",
                   "got 3 re-anchored risks for 2 epochs"):  # fmt: skip
        assert reason in str(caught.value)
