import numpy as np
import pytest

import ntkft
from ntkft._errors import InputError
from ntkft._tree import take_examples
from ntkft.batched import compile_outputs, compile_pullback
from ntkft.dynamics import dual_coefficients, gradient_descent
from ntkft.finetuning import optimizers
from ntkft.linearize import linearize
from ntkft.spectra import spectrum
from ntkft.taskvectors import task_vector
from tests.finetuning.tiny import attention, attention_case, descend, flat, flat_jacobian
from tests.tolerances import CLOSED_FORM


@pytest.mark.parametrize("micro_batch", [3, 7, 32])
def test_outputs_do_not_depend_on_the_micro_batch(micro_batch):
    params, inputs, _ = attention_case(0)
    outputs = compile_outputs(attention, micro_batch)(params, inputs)
    np.testing.assert_allclose(outputs, attention(params, inputs), atol=CLOSED_FORM)


def test_the_pullback_of_dual_coefficients_is_how_far_training_moves_the_linearised_model():
    params, inputs, targets = attention_case(0)
    start = np.asarray(attention(params, inputs))
    kernel = ntkft.empirical_ntk(attention, params, inputs, outputs="full", method="jacobian")
    dual = dual_coefficients(spectrum(kernel), targets - start, gradient_descent(0.005), [12])[0]
    trained = descend(linearize(attention, params), params, (inputs, targets), optimizers.gradient_descent(0.005), 12)
    real = flat(task_vector(trained.params, params))
    assert np.linalg.norm(real) > 0.01
    for micro_batch in (3, 7, 32):
        vector = compile_pullback(attention, micro_batch)(params, inputs, dual)
        np.testing.assert_allclose(flat(vector), real, atol=1e-9)
    np.testing.assert_allclose(
        flat(vector), flat_jacobian(attention, params, inputs).T @ dual.ravel(), atol=CLOSED_FORM
    )
    length = np.sqrt(dual.ravel() @ np.asarray(kernel.total).reshape(dual.size, -1) @ dual.ravel())
    assert np.linalg.norm(flat(vector)) == pytest.approx(length, rel=1e-9)


def test_examples_that_fill_a_micro_batch_up_do_not_count():
    params, inputs, _ = attention_case(1)
    one = take_examples(inputs, slice(0, 1))
    pulled = flat(compile_pullback(attention, 4)(params, one, np.ones((1, 2))))
    np.testing.assert_allclose(pulled, flat_jacobian(attention, params, one).sum(axis=0), atol=CLOSED_FORM)


def test_dual_coefficients_of_other_examples_are_refused():
    params, inputs, _ = attention_case(1)
    with pytest.raises(InputError, match=r"got dual coefficients \[6, 2\]; wanted \[7, k\]"):
        compile_pullback(attention, 4)(params, inputs, np.ones((6, 2)))
