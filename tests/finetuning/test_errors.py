"""Every mistake in the arguments has its sentence."""

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.finetuning import adamw, finetune, gradient_descent, l2_sp, momentum, sign_descent
from tests.finetuning.tiny import linear, linear_case

PARAMS, X, Y = linear_case(0, k=2)


def run(**changes):
    options = {
        "apply_fn": linear,
        "params": PARAMS,
        "train": (X, Y),
        "loss": "squared",
        "optimizer": gradient_descent(0.1),
        "epochs": 3,
        "batch_size": None,
        "record_at": [],
        "evaluate": {},
    } | changes
    return finetune(options.pop("apply_fn"), options.pop("params"), options.pop("train"), **options)


def with_nan(array):
    array = array.copy()
    array[-1, 1] = np.nan
    return array


CLASSES = np.arange(8) % 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (X, Y[:5])}, "train: 8 examples but 5 targets; every example needs one"),
        ({"evaluate": {"test": (X[:3], Y)}}, r"evaluate\['test'\]: 3 examples but 8 targets"),
        ({"train": (X, with_nan(Y))}, "train: targets are NaN or infinite in 1 of 8 rows, first row 7; drop or mend"),
        ({"train": (X, Y[:, 0])}, r"got float64 \[8\]; the squared loss .* \[n, k\] = \[8, 2\]"),
        ({"train": (X, Y.astype(int))}, r"got int64 \[8, 2\]; the squared loss .* floating"),
        ({"train": (X, Y), "loss": "cross_entropy"}, r"got float64 \[8, 2\]; the cross-entropy .* integer .* = \[8\]"),
        ({"train": (X, CLASSES + 1), "loss": "cross_entropy"}, "classes run from 1 to 2; .* 2 outputs allow 0 to 1"),
        ({"train": (X[:0], Y[:0])}, "train: holds no examples"),
        ({"loss": "hinge"}, "loss is 'hinge'; wanted one of squared, cross_entropy"),
        ({"epochs": -1}, "epochs is -1; wanted 0 or more"),
        ({"record_at": [1, 4, 9]}, r"record_at holds \[4, 9\], outside 0 to epochs = 3; train longer or drop them"),
        ({"record_at": [-1]}, r"record_at holds \[-1\], outside 0 to epochs = 3"),
        (
            {"drift_at": [2], "kernel_fn": lambda params: np.ones((1, 1))},
            r"drift_at holds \[2\], which are not recorded; add them to record_at",
        ),
        ({"drift_at": [3]}, "drift_at without kernel_fn; kernel drift needs"),
        ({"kernel_fn": lambda params: np.ones((1, 1))}, "kernel_fn without drift_at; kernel drift needs"),
        ({"batch_size": 4}, "batch_size without seed; minibatches need one"),
        ({"batch_size": 9, "seed": 0}, "batch_size is 9; wanted 1 to n = 8, or None for all examples at once"),
        ({"micro_batch": 0}, "micro_batch is 0; wanted 1 or more"),
        ({"keep_predictions": ["test"]}, r"keep_predictions names \['test'\], which evaluate does not hold: \[\]"),
        (
            {"params": {"w": with_nan(PARAMS["w"])}},
            "initial parameters: leaf 'w' holds 1 NaN or infinite",
        ),
        (
            {"apply_fn": lambda params, inputs: linear(params, inputs)[:, 0]},
            r"apply_fn returns float64 \[1\] for one example; wanted floating \[1, k\]",
        ),
        (
            {"evaluate": {"test": (np.where(np.arange(8)[:, None] == 5, np.inf, X), Y)}},
            r"before training, the outputs or losses of 1 examples of evaluate\['test'\] .* first example 5",
        ),
        ({"epochs": -2, "micro_batch": 0}, r"2 problems(.|\n)*epochs is -2(.|\n)*micro_batch is 0"),
    ],
)
def test_bad_input_gets_its_sentence(changes, message):
    with pytest.raises(InputError, match=message):
        run(**changes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: gradient_descent(0), r"gradient_descent: step_size is 0\.0; wanted a positive, finite number"),
        (lambda: gradient_descent(float("nan")), "step_size is nan"),
        (lambda: momentum(0.1, 1), r"momentum: beta is 1\.0; wanted 0 ≤ beta < 1"),
        (lambda: momentum(-1, -1), "momentum: 2 problems"),
        (lambda: l2_sp(0, -1, {}), "l2_sp: 2 problems"),
        (lambda: sign_descent(0), "sign_descent: step_size is 0.0; wanted a positive, finite number"),
        (lambda: adamw(0.1, -0.5), r"adamw: weight_decay is -0\.5; wanted a finite number that is not negative"),
    ],
)
def test_bad_settings_of_an_optimiser_get_their_sentence(build, message):
    with pytest.raises(InputError, match=message):
        build()
