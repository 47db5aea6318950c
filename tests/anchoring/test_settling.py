"""Directions with too long a step are learnt at once and stay; all others are as if nothing were."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.anchoring import Network, predict_anchored
from ntkft.anchoring.settling import settle
from tests.finetuning.tiny import linear, linear_case
from tests.tolerances import CLOSED_FORM

PARAMS, X, Y = linear_case(0, n=8, p=3, k=2)
KERNEL = X @ X.T  # the same for both outputs
VALUES, VECTORS = np.linalg.eigh(KERNEL)
STEPS = [0, 1, 2, 7]


def forms(params, x1, x2=None):
    return x1 @ (x1 if x2 is None else x2).T


def full(params, x1, x2=None):
    return np.einsum("ij,ab->iajb", forms(params, x1, x2), np.eye(2))


def train(step_size, kernel_fn=forms, **options):
    network = Network.of(linear, X, {"train": X}, micro_batch=8)
    return predict_anchored(
        network, PARAMS, Y, kernel_fn, loss="squared", step_size=step_size, epochs=STEPS, anchors=[0], scheme="euler",
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("kernel_fn", [forms, full])
def test_the_unstable_direction_is_learnt_at_once_and_the_others_at_their_pace(kernel_fn):
    step_size = 2.5 / (VALUES[-1] / 8)
    assert step_size * VALUES[-2] / 8 < 2
    found = train(step_size, kernel_fn, unstable="settle")
    assert found.settled == (1 if kernel_fn is forms else 2)
    left = 1 - step_size * VALUES / 8
    left[-1] = 0.0
    start = Y - X @ PARAMS["w"]
    for index, t in enumerate(STEPS):
        expected = Y - (VECTORS * left**t) @ VECTORS.T @ start
        np.testing.assert_allclose(found.network["train"][index], expected, atol=CLOSED_FORM)
        np.testing.assert_allclose(found.linear["train"][index], expected, atol=CLOSED_FORM)


def test_where_every_direction_is_stable_nothing_changes():
    step_size = 1.9 / (VALUES[-1] / 8)
    kernel, back, count = settle(KERNEL, 2, loss="squared", step_size=step_size)
    assert kernel is KERNEL
    assert back is None
    assert count == 0
    plain, settled = train(step_size), train(step_size, unstable="settle")
    assert settled.settled == 0
    np.testing.assert_array_equal(plain.network["train"], settled.network["train"])


def test_a_flatter_loss_takes_longer_steps():
    step_size = 2.5 / (VALUES[-1] / 8)
    assert settle(KERNEL, 2, loss="cross_entropy", step_size=step_size)[2] == 0
    assert settle(KERNEL, 2, loss="cross_entropy", step_size=2 * step_size)[2] == 1


def test_it_is_refused_unless_asked_for():
    with pytest.raises(InputError, match="at or above the stability limit"):
        train(2.5 / (VALUES[-1] / 8))
    with pytest.raises(InputError, match="got unstable='clip'; wanted 'refuse' or 'settle'"):
        train(0.01, unstable="clip")
