from dataclasses import replace

import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft._types import Outputs
from ntkft.report.prediction import SETS, Problem, block, describe, predict
from tests.report.linear import PLAIN, ROWS, SIZES, LinearModel, by_hand, predicted, separate_outputs, shared_weights
from tests.tolerances import CLOSED_FORM

CASES: dict[str, tuple[LinearModel, Outputs]] = {
    "scalar": (separate_outputs(1), "scalar"),
    "full, separate outputs": (separate_outputs(2), "full"),
    "trace, separate outputs": (separate_outputs(2), "trace"),
    "full, shared weights": (shared_weights(2), "full"),
}


@pytest.mark.parametrize("case", CASES)
def test_predicted_errors_are_those_of_gradient_descent_on_the_weights(case):
    model, outputs = CASES[case]
    prediction = predicted(model, outputs)
    expected = model.descend(prediction.step_size, 40)
    for name in SETS:
        np.testing.assert_allclose(
            prediction.mse[name], expected[name][prediction.epochs], rtol=CLOSED_FORM, atol=CLOSED_FORM
        )
    assert prediction.mse["train"][-1] < 0.5 * prediction.mse["train"][0]


def test_full_and_trace_kernels_of_outputs_that_share_nothing_predict_the_same():
    full, trace = predicted(separate_outputs(2), "full"), predicted(separate_outputs(2), "trace")
    for name in SETS:
        np.testing.assert_allclose(full.mse[name], trace.mse[name], rtol=CLOSED_FORM)
    np.testing.assert_allclose(full.surface.test_mse, trace.surface.test_mse, rtol=CLOSED_FORM)
    np.testing.assert_allclose(full.surface.train_mse, trace.surface.train_mse, rtol=CLOSED_FORM)
    np.testing.assert_allclose(full.sigma, trace.sigma, rtol=CLOSED_FORM)
    np.testing.assert_allclose(full.norm.plug_in, trace.norm.plug_in, rtol=CLOSED_FORM)
    assert full.stops == pytest.approx(trace.stops, rel=CLOSED_FORM)


def test_a_trace_kernel_of_shared_weights_is_only_an_approximation():
    full, trace = predicted(shared_weights(2), "full"), predicted(shared_weights(2), "trace")
    assert np.max(np.abs(full.mse["test"] - trace.mse["test"])) > 0.01


def test_recorded_epochs_come_back_ascending_and_once():
    prediction = predicted(separate_outputs(1), "scalar", record_at=[7, 0, 7, 2])
    np.testing.assert_array_equal(prediction.epochs, [0, 2, 7])
    np.testing.assert_array_equal(
        prediction.mse["test"], predicted(separate_outputs(1), "scalar", record_at=[0, 2, 7]).mse["test"]
    )


def test_the_surface_at_all_examples_is_the_test_curve():
    prediction = predicted(shared_weights(2), "full", sizes=[6, 24], seeds=[3, 4])
    for seed in range(2):
        np.testing.assert_allclose(
            prediction.surface.test_mse[seed, 1][prediction.epochs], prediction.mse["test"], rtol=CLOSED_FORM
        )
    assert np.ptp(prediction.surface.test_mse[:, 0, -1]) > 0


def test_with_noise_every_rule_stops():
    prediction = predicted(separate_outputs(1), "scalar")
    assert set(prediction.stops) == {
        "rule, unit norm",
        "rule, C_H plug-in",
        "rule, C_H less noise",
        "kernel ridge rule",
        "SURE",
        "GCV",
        "hold-out, patience 5",
        "best on the test set",
    }
    assert np.isfinite(list(prediction.stops.values())).all()
    every = predicted(separate_outputs(1), "scalar", record_at=range(41))
    assert prediction.stops["best on the test set"] == np.argmin(every.mse["test"])
    assert 0.25 < prediction.sigma < 1.0  # 0.5 was drawn, 24 times


def test_without_noise_the_rules_of_theory_never_stop():
    # Features orthonormal over the training examples: one step of size 1 learns all there is and leaves no noise.
    model, n = separate_outputs(1, noise=0.0), SIZES["train"]
    features = model.jacobian[:, 0].copy()
    features[:n] = np.sqrt(n) * np.linalg.qr(features[:n])[0]
    model = replace(model, jacobian=features[:, None], targets=model.pretrained + features @ np.ones((6, 1)))
    prediction = predicted(model, "scalar", step_size=1.0, sizes=[n])
    assert prediction.sigma < 1e-12
    assert prediction.stops["rule, unit norm"] == prediction.stops["rule, C_H plug-in"] == np.inf
    assert prediction.stops["kernel ridge rule"] > 1e20
    assert all(1 <= prediction.stops[name] <= 40 for name in ("SURE", "GCV", "hold-out, patience 5"))


def test_a_step_size_that_diverges_is_refused_with_the_limit():
    for model, outputs in CASES.values():
        if outputs == "trace":  # the mean kernel drives each output
            limit = 2 / np.linalg.eigvalsh(model.problem("full").block("train").total.reshape(48, 48) / 24)[-1]
        else:
            order = model.problem(outputs).block("train").total.reshape(24 * model.jacobian.shape[1], -1)
            limit = 2 / np.linalg.eigvalsh(order / 24)[-1]
        with pytest.raises(InputError, match=rf"at or above the stability limit 2/λ̂₁ = {limit:.4g} "):
            predicted(model, outputs, step_size=limit * 1.001)
        predicted(model, outputs, step_size=limit * 0.999, sizes=[24])


def test_a_block_of_a_full_kernel_holds_the_right_entries():
    model = shared_weights(3)
    problem = model.problem("full")
    cut = problem.block("test")
    flat = model.jacobian[34:].reshape(12 * 3, -1) @ model.jacobian[:24].reshape(24 * 3, -1).T
    np.testing.assert_allclose(cut.total, flat.reshape(12, 3, 24, 3), rtol=CLOSED_FORM, atol=CLOSED_FORM)
    np.testing.assert_allclose(sum(cut.groups.values()), cut.total, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert not cut.symmetric


@pytest.mark.parametrize("outputs", ["full", "trace", "scalar"])
def test_a_block_is_the_kernel_of_its_examples(outputs):
    jacobian = shared_weights(1 if outputs == "scalar" else 2).jacobian
    rows = slice(5, 11)
    cut = block(by_hand(jacobian, {"all": jacobian}, outputs), rows, rows)
    alone = by_hand(jacobian[rows], {"all": jacobian[rows]}, outputs)
    np.testing.assert_allclose(cut.total, alone.total, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    np.testing.assert_allclose(cut.groups["all"], alone.total, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert cut.symmetric
    assert (cut.outputs, cut.precision) == (outputs, "float64")


def test_the_window_is_a_quarter_of_n_or_half_of_what_is_above_the_floor_and_stated():
    generator = np.random.default_rng(0)

    def described(rank, **options):
        features = generator.standard_normal((40, 1, rank)) / np.arange(1, rank + 1)[None, None]
        return describe(by_hand(features, {"all": features}, "scalar"), **options)

    assert described(60).fit.window == (1, 10)  # 40 / 4
    assert described(12).fit.window == (1, 6)  # 12 / 2
    assert described(4).fit.window == (1, 3)  # the least that can be fitted
    assert described(60, window=25).fit.window == (1, 25)
    assert described(60, window=25).over_n.sizes == (25, 40)
    with pytest.raises(InputError, match=r"window \(1, 0\) does not fit 40 eigenvalues"):
        described(60, window=0)


def test_the_interval_comes_from_half_of_the_examples_whatever_the_window():
    features = np.random.default_rng(0).standard_normal((16, 1, 30))
    kernel = by_hand(features, {"all": features}, "scalar")
    for window, size in ((None, 8), (8, 8), (12, 12)):
        interval = describe(kernel, window=window).interval
        assert interval.size == size
        assert interval.with_intercept[0] < interval.with_intercept[1]


def test_a_full_kernel_has_windows_longer_than_its_number_of_examples():
    features = np.random.default_rng(0).standard_normal((8, 3, 40))
    described = describe(by_hand(features, {"all": features}, "full"), window=14)
    assert described.fit.window == (1, 14)
    assert described.over_n.sizes == (5, 8)  # 5 examples have 15 eigenvalues


def test_accuracy_is_predicted_for_classes_and_left_out_otherwise():
    model = separate_outputs(1)
    classes = replace(model, targets=np.sign(model.targets))
    prediction = predicted(classes, "scalar")
    assert set(prediction.accuracy) == set(SETS)
    surface = prediction.surface.test_accuracy
    assert surface is not None
    np.testing.assert_array_equal(prediction.accuracy["test"], surface[0, 1][prediction.epochs])
    assert predicted(model, "scalar").accuracy == {}


def test_epochs_that_cannot_be_recorded_are_refused_together():
    model = separate_outputs(1)
    with pytest.raises(InputError, match=r"(?s)2 problems.*recorded epoch -1 is outside 0 … 40.*recorded epoch 41 is"):
        predicted(model, "scalar", record_at=[-1, 3, 41])
    with pytest.raises(InputError, match=r"(?s)epochs is 0; wanted at least 1.*recorded epoch 2 is outside 0 … 0"):
        predicted(model, "scalar", epochs=0, record_at=[0, 2])
    with pytest.raises(InputError, match=r"predict: got no epochs to record; wanted at least one"):
        predicted(model, "scalar", record_at=[])


def test_rows_that_do_not_add_up_are_refused_together():
    model = separate_outputs(1)
    kernel = model.problem("scalar").kernel
    sizes = SIZES | {"validation": 0}
    with pytest.raises(
        InputError,
        match=r"(?s)the validation set has no rows.*kernel: 46 rows; wanted 36, those of all sets.*targets: 46 rows",
    ):
        predict(Problem(kernel, sizes, model.targets, model.pretrained), step_size=0.1, **PLAIN)
    with pytest.raises(InputError, match=rf"targets: 45 rows; wanted {ROWS}, those of all sets"):
        predict(Problem(kernel, SIZES, model.targets[1:], model.pretrained[1:]), step_size=0.1, **PLAIN)
