import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft.anchoring import Network, trust_horizon
from ntkft.anchoring.horizon import _crossing
from ntkft.dynamics import dual_coefficients, gradient_descent
from ntkft.linearize import linearize
from ntkft.spectra import spectrum_of_matrix
from tests.anchoring.test_prediction import kernel_fn
from tests.finetuning.tiny import attention, attention_params, sentences

N, M, EPOCHS = 7, 5, [1, 2, 4, 8, 16, 32]


@pytest.fixture(scope="module")
def looked_at():
    """A function of the model and the tolerance: the horizon on M other examples."""
    params, inputs = attention_params(0), sentences(1, N + M)
    y = np.random.default_rng(2).normal(size=(N + M, 2))
    train, other = take_examples(inputs, slice(0, N)), take_examples(inputs, slice(N, N + M))
    start = np.asarray(attention(params, train))
    spectral = spectrum_of_matrix(kernel_fn(params, train), precision="float64")
    duals = dual_coefficients(spectral, y[:N] - start, gradient_descent(0.004), EPOCHS)
    cross = kernel_fn(params, other, train)

    def look(model, tolerance, epochs=EPOCHS, judged="validation"):
        network = Network.of(model, train, {"validation": other}, micro_batch=4)
        duals_of = duals[: len(epochs)]
        return trust_horizon(network, params, cross, duals_of, y[N:], judged=judged, epochs=epochs, tolerance=tolerance)

    return look, linearize(attention, params)


def test_a_linear_model_can_be_trusted_for_ever(looked_at):
    look, linear = looked_at
    found = look(linear, 1e-6)
    assert not found.reached
    assert found.epoch == EPOCHS[-1]
    np.testing.assert_allclose(found.network, found.linear, rtol=1e-9)


def test_less_tolerance_is_an_earlier_horizon_where_the_gap_is_the_tolerance(looked_at):
    look, _ = looked_at
    strict, loose = look(attention, 0.01), look(attention, 0.05)
    assert 0 < strict.epoch < loose.epoch
    assert strict.reached
    np.testing.assert_array_equal(strict.gap, loose.gap)
    before = [gap for epoch, gap in zip(EPOCHS, strict.gap, strict=True) if epoch <= strict.epoch]
    after = [gap for epoch, gap in zip(EPOCHS, strict.gap, strict=True) if epoch > strict.epoch]
    assert all(gap <= 0.01 for gap in before)
    assert after[0] > 0.01


def test_the_crossing_is_on_a_straight_line_in_the_logarithm_of_time():
    epochs, gap = np.expm1([1.0, 2.0, 3.0]), np.array([0.01, 0.03, 0.02])
    assert _crossing(epochs, gap, 0.02) == (pytest.approx(np.expm1(1.5)), True)
    assert _crossing(epochs, gap, 0.005) == (pytest.approx(np.expm1(0.5)), True)
    assert _crossing(epochs, gap, 0.04) == (epochs[-1], False)


def test_bad_requests_are_refused_together(looked_at):
    look, linear = looked_at
    with pytest.raises(InputError) as caught:
        look(linear, 0.0, epochs=[2, 1], judged="test")
    for reason in ("epochs are [2, 1]; wanted", "tolerance is 0", "no examples named 'test'; there are 'validation'"):
        assert reason in str(caught.value)
