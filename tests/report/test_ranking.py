"""Predicted risks of checkpoints: those of gradient descent on the weights, stopped where validation is lowest."""

from dataclasses import replace

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft._types import Outputs
from ntkft.dynamics import accuracy
from ntkft.report.prediction import Problem, set_rows
from ntkft.report.ranking import KernelRisk, epoch_grid, kernel_risk, rank
from tests.report.linear import SIZES, LinearModel, separate_outputs, shared_weights
from tests.tolerances import CLOSED_FORM

CASES: dict[str, tuple[LinearModel, Outputs]] = {
    "scalar": (separate_outputs(1), "scalar"),
    "trace, separate outputs": (separate_outputs(2), "trace"),
    "full, shared weights": (shared_weights(2), "full"),
}


@pytest.mark.parametrize("case", CASES)
def test_risks_are_those_of_gradient_descent_on_the_weights(case):
    model, outputs = CASES[case]
    found = kernel_risk(case, model.problem(outputs), judge="validation", step=0.5, epochs=150)
    assert found.step_size == pytest.approx(model.step_size(0.5), rel=CLOSED_FORM)
    really = model.descend(found.step_size, 150)
    there = really["validation"][found.epochs]
    np.testing.assert_allclose(found.curve, there, rtol=CLOSED_FORM)
    assert found.epoch == found.epochs[np.argmin(there)]
    assert found.risk == pytest.approx(there.min(), rel=CLOSED_FORM)
    assert found.test_risk == pytest.approx(really["test"][found.epoch], rel=CLOSED_FORM)
    assert found.accuracy is None  # these targets are no classes


@pytest.mark.parametrize("case", CASES)
def test_cross_validation_is_that_of_gradient_descent_on_the_weights(case):
    model, outputs = CASES[case]
    found = kernel_risk(case, without_validation(model.problem(outputs)), judge="gcv", step=0.5, epochs=80)
    n, k = SIZES["train"], model.targets.shape[1]
    rows = model.jacobian[:n].reshape(n * k, -1)
    step = np.eye(n * k) - found.step_size / n * rows @ rows.T
    left = np.array([np.trace(np.linalg.matrix_power(step, int(t))) / (n * k) for t in found.epochs])
    really = model.descend(found.step_size, 80)
    expected = really["train"][found.epochs] / left**2
    np.testing.assert_allclose(found.curve, expected, rtol=CLOSED_FORM)
    assert 0 < found.epoch == found.epochs[np.argmin(expected)]
    assert len(found.errors) == n
    assert found.risk == pytest.approx(expected.min(), rel=CLOSED_FORM)
    assert found.test_risk == pytest.approx(really["test"][found.epoch], rel=CLOSED_FORM)
    assert found.accuracy is None


def without_validation(whole):
    """The problem with its training and test rows only."""
    kept = np.r_[: SIZES["train"], SIZES["train"] + SIZES["validation"] : sum(SIZES.values())]
    kernel = whole.kernel.total[kept]
    kernel = replace(whole.kernel, total=kernel[..., kept, :] if kernel.ndim == 4 else kernel[:, kept], groups={})
    return Problem(kernel, SIZES | {"validation": 0}, whole.targets[kept], whole.pretrained[kept])


@pytest.mark.parametrize("last", [1, 64, 65, 1_000, 1_000_000])
def test_epochs_are_all_to_64_and_then_two_per_cent_apart(last):
    epochs = epoch_grid(last)
    np.testing.assert_array_equal(epochs[:65], np.arange(min(last, 64) + 1))
    assert epochs[-1] == last
    later = epochs[epochs >= 64]
    assert np.all(np.diff(later) >= 1)
    assert np.all(np.diff(later) <= 0.02 * later[:-1] + 1)  # + 1 for whole epochs
    assert len(epochs) < 600


def test_accuracy_counts_the_rows_on_the_right_side_at_the_best_epoch():
    model = separate_outputs(1)
    signed = replace(model, targets=np.where(model.targets > 0, 1.0, -1.0))
    found = kernel_risk("signed", signed.problem("scalar"), judge="validation", step=0.5, epochs=30)
    n, weights = SIZES["train"], np.zeros(signed.jacobian.shape[2])
    for _ in range(found.epoch):
        residual = (signed.targets - signed.pretrained)[:n] - signed.jacobian[:n] @ weights
        weights += found.step_size / n * np.einsum("ikp,ik->p", signed.jacobian[:n], residual)
    outputs = signed.pretrained + signed.jacobian @ weights
    for rows, value in (("validation", found.accuracy), ("test", found.test_accuracy)):
        part = set_rows(SIZES, rows)
        assert value == np.mean((outputs[part] >= 0) == (signed.targets[part] > 0))
    assert accuracy(outputs[None], signed.targets) is not None


def test_test_rows_are_not_needed():
    model = separate_outputs(1)
    whole = model.problem("scalar")
    kept = SIZES["train"] + SIZES["validation"]
    kernel = replace(whole.kernel, total=whole.kernel.total[:kept, :kept], groups={})
    problem = Problem(kernel, SIZES | {"test": 0}, model.targets[:kept], model.pretrained[:kept])
    found = kernel_risk("no test", problem, judge="validation", step=0.5, epochs=20)
    assert (found.test_risk, found.test_accuracy) == (None, None)
    np.testing.assert_array_equal(
        found.curve, kernel_risk("test", whole, judge="validation", step=0.5, epochs=20).curve
    )


def test_a_ranking_orders_by_risk_and_compares_row_by_row():
    risks = [
        kernel_risk(f"seed {s}", separate_outputs(1, seed=s).problem("scalar"), judge="validation", step=0.5, epochs=20)
        for s in range(4)
    ]
    found = rank(risks)
    assert list(found.risks) == sorted(each.risk for each in risks)
    by_name = {each.name: each for each in risks}
    for name, risk, (behind, error) in zip(found.names, found.risks, found.behind, strict=True):
        assert risk == by_name[name].risk
        differences = by_name[name].errors - by_name[found.names[0]].errors
        assert behind == pytest.approx(risk - found.risks[0], abs=CLOSED_FORM)
        assert error == pytest.approx(np.sqrt(np.var(differences, ddof=1) / len(differences)), rel=CLOSED_FORM)


def test_rows_that_are_hard_for_all_do_not_blur_a_ranking():
    first = kernel_risk("first", separate_outputs(1).problem("scalar"), judge="validation", step=0.5, epochs=20)
    second = replace(first, name="second", errors=first.errors + 0.1)
    assert rank([second, first]).behind[1] == (pytest.approx(0.1), pytest.approx(0, abs=CLOSED_FORM))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 2.0}, "step is 2; wanted 0 < step < 2"),
        ({"epochs": 0}, "epochs is 0; wanted at least 1"),
        (
            {"sizes": SIZES | {"validation": 0}},
            "the validation set has no rows; wanted at least one, or the judge 'gcv'",
        ),
        ({"judge": "gcv"}, "the judge 'gcv' does not read the 10 validation rows"),
        ({"sizes": SIZES | {"train": 0}}, "the train set has no rows"),
        ({"sizes": SIZES | {"test": 5}}, "kernel: 46 rows; wanted 39"),
    ],
)
def test_what_cannot_be_predicted_is_refused(change, message):
    problem = separate_outputs(1).problem("scalar")
    options = {"judge": "validation", "step": 0.5, "epochs": 5} | {
        name: value for name, value in change.items() if name != "sizes"
    }
    with pytest.raises(InputError, match=message):
        kernel_risk("x", replace(problem, sizes=change.get("sizes", SIZES)), **options)


def test_rankings_that_mean_nothing_are_refused():
    one = kernel_risk("one", separate_outputs(1).problem("scalar"), judge="validation", step=0.5, epochs=5)
    other = replace(one, name="other", errors=one.errors[:4])
    for given, message in (
        ([one], "got 1 checkpoints; wanted at least two"),
        ([one, one], "one is there 2 times"),
        ([one, other], "got validation of 10 rows and validation of 4 rows; wanted the same"),
        ([one, replace(other, judge="gcv", errors=one.errors)], "got gcv of 10 rows and validation of 10 rows"),
    ):
        with pytest.raises(InputError, match=message):
            rank(given)
    assert isinstance(one, KernelRisk)
