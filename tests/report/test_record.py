import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.finetuning import Curve, FinetuneResult
from ntkft.report.record import description_record, finetune_record, parting, prediction_record, to_json, to_plain
from tests.report.linear import predicted, separate_outputs, shared_weights


def read_strictly(text: str):
    """JSON without the NaN and Infinity that Python would let pass."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def run(**changes: Any) -> FinetuneResult:
    """A run of three recorded epochs; `changes` say what is different."""
    epochs = np.array([0, 2, 5])
    curve = Curve(epochs, np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.6, 0.4]), None, np.zeros((3, 7, 1)))
    plain: dict[str, Any] = {
        "params": {"w": jnp.ones(3)},
        "optimizer": "gradient descent",
        "epochs": epochs,
        "training_loss": np.array([0.5, 0.45, 0.4, 0.35, 0.3]),
        "curves": {"test": curve},
        "parameter_norm": 2.0,
        "parameter_distance": np.array([0.0, 0.5, 1.0]),
        "kernel_epochs": np.array([0, 5]),
        "kernel_drift": np.array([0.0, 0.1]),
        "diverged_at": None,
    }
    return FinetuneResult(**plain | changes)


@pytest.mark.parametrize("outputs", ["scalar", "full", "trace"])
def test_a_prediction_survives_strict_json(outputs):
    model = separate_outputs(1) if outputs == "scalar" else shared_weights(2)
    record = prediction_record(predicted(model, outputs))
    assert read_strictly(to_json(record)) == record


def test_a_prediction_holds_all_that_its_figures_show():
    prediction = predicted(separate_outputs(1), "scalar")
    record = read_strictly(to_json(prediction_record(prediction)))
    described, surface = prediction.description, prediction.surface
    np.testing.assert_array_equal(record["spectrum"]["eigenvalues"], described.spectrum.eigenvalues)
    assert set(record["spectrum"]["groups"]) == {"first", "second"}
    np.testing.assert_array_equal(record["spectrum"]["groups"]["first"], described.spectrum.groups["first"])
    assert record["spectrum"]["floor"] == described.spectrum.floor
    assert record["spectrum"]["effective_rank"] == described.effective_rank
    fit = record["decay"]["fit"]
    assert (fit["window"], fit["preferred"]) == (list(described.fit.window), described.fit.preferred)
    for form in ("through_origin", "with_intercept", "exponential"):
        line = getattr(described.fit, form)
        assert (fit[form]["rate"], fit[form]["log_scale"]) == (line.rate, line.log_scale)
    assert record["decay"]["interval"]["with_intercept"] == list(described.interval.with_intercept)
    np.testing.assert_array_equal(record["decay"]["over_n"]["with_intercept"], described.over_n.with_intercept)
    np.testing.assert_array_equal(record["alignment"]["energy"], prediction.alignment.energy)
    np.testing.assert_array_equal(record["epochs"], prediction.epochs)
    for name, values in prediction.mse.items():
        np.testing.assert_array_equal(record["mse"][name], values)
    assert record["stops"] == prediction.stops
    assert record["norm"]["plug_in"] == prediction.norm.plug_in
    np.testing.assert_array_equal(record["surface"]["test_mse"], surface.test_mse)
    assert (record["surface"]["sizes"], record["surface"]["seeds"]) == (list(surface.sizes), list(surface.seeds))
    assert record["surface"]["test_accuracy"] is None  # targets are not classes
    assert "eigenvectors" not in record["spectrum"]


def test_a_description_is_the_first_part_of_a_prediction():
    prediction = predicted(separate_outputs(1), "scalar")
    description = description_record(prediction.description)
    assert description == {name: prediction_record(prediction)[name] for name in ("spectrum", "decay")}


def test_rules_that_never_stop_are_read_back_as_infinite():
    prediction = replace(predicted(separate_outputs(1), "scalar"), stops={"rule, unit norm": float("inf")})
    stops = read_strictly(to_json(prediction_record(prediction)))["stops"]
    assert stops == {"rule, unit norm": "inf"}
    assert float(stops["rule, unit norm"]) == np.inf


def test_a_run_is_recorded_without_its_parameters_and_predictions():
    record = read_strictly(to_json(finetune_record(run())))
    assert record == {
        "optimizer": "gradient descent",
        "status": "finished",
        "diverged_at": None,
        "epochs": [0, 2, 5],
        "training_loss": [0.5, 0.45, 0.4, 0.35, 0.3],
        "curves": {"test": {"epochs": [0, 2, 5], "loss": [0.5, 0.3, 0.2], "mse": [1.0, 0.6, 0.4], "accuracy": None}},
        "parameter_norm": 2.0,
        "parameter_distance": [0.0, 0.5, 1.0],
        "parameter_drift": [0.0, 0.25, 0.5],
        "kernel_epochs": [0, 5],
        "kernel_drift": [0.0, 0.1],
    }


def test_a_diverged_run_from_zero_parameters_is_strict_json_too():
    result = run(diverged_at=4, parameter_norm=0.0, training_loss=np.array([1.0, 1e300, np.inf, np.nan]))
    record = read_strictly(to_json(finetune_record(result)))
    assert (record["status"], record["diverged_at"]) == ("diverged", 4)
    assert record["parameter_drift"] == [None, None, None]
    assert record["training_loss"] == [1.0, 1e300, "inf", None]


@dataclass(frozen=True)
class Point:
    at: tuple[int, float]


def test_everything_plain_has_one_form():
    record = {
        "nothing": None,
        "numbers": [True, 3, 0.1, float("nan"), float("inf"), -float("inf")],
        "numpy": [np.bool_(True), np.int64(3), np.float64(0.1), np.float32(0.5), np.array(7), np.array("word")],
        "arrays": [np.array([[1, 2]]), np.array([0.5, np.nan]), np.array([True]), np.zeros((0, 2))],
        "jax": [jnp.array([1.5, 2.0]), jnp.array([0.5, jnp.inf], jnp.bfloat16)],
        8: {"nested": (Point((1, np.inf)), Path("a") / "b")},
    }
    expected = {
        "nothing": None,
        "numbers": [True, 3, 0.1, None, "inf", "-inf"],
        "numpy": [True, 3, 0.1, 0.5, 7, "word"],
        "arrays": [[[1, 2]], [0.5, None], [True], []],
        "jax": [[1.5, 2.0], [0.5, "inf"]],
        "8": {"nested": [{"at": [1, "inf"]}, "a/b"]},
    }
    assert to_plain(record) == expected
    assert to_plain(expected) == expected
    assert read_strictly(to_json(record)) == expected


def test_json_keeps_every_digit_and_every_letter():
    values = np.random.default_rng(0).standard_normal(50)
    text = to_json({"λ̂": values})
    np.testing.assert_array_equal(read_strictly(text)["λ̂"], values)
    assert "λ̂" in text


def test_what_has_no_plain_form_is_refused_by_name():
    with pytest.raises(InputError, match=r"to_json: record\['a'\]\[1\] is of type set, which has no plain form"):
        to_json({"a": [1, {2}]})
    with pytest.raises(InputError, match=r"to_json: record\['z'\] is an array of complex128"):
        to_json({"z": np.array([1j])})
    with pytest.raises(InputError, match=r"record is of type bytes"):
        to_plain(b"raw")


EPOCHS = np.array([0, 1, 4, 9])


def parted(predicted_mse, tolerance=0.05, real=(1.0, 0.8, 0.5, 0.4)):
    return parting(np.array(predicted_mse), np.array(real), EPOCHS, tolerance)


def test_prediction_and_reality_part_at_the_first_epoch_beyond_the_tolerance():
    assert parted([1.0, 0.8, 0.5, 0.4]) is None
    assert parted([1.0, 0.8, 0.6, 0.4]) == 4
    assert parted([1.0, 0.75, 0.6, 0.4]) == 1
    assert parted([1.0, 0.8, 0.5, 0.3]) == 9
    assert isinstance(parted([1.0, 0.8, 0.6, 0.4]), int)


def test_the_tolerance_itself_still_agrees_on_both_sides():
    real = [1.0, 1.0, 1.0, 1.0]
    assert parted([1.0, 1.25, 0.75, 1.0], 0.25, real) is None
    assert parted([1.0, 1.0, 0.74, 1.0], 0.25, real) == 4
    assert parted([1.0, 1.26, 1.0, 1.0], 0.25, real) == 1
    assert parted(real, 0.0, real) is None


def test_errors_of_zero_agree_and_what_is_not_a_number_does_not():
    assert parted([1.0, 0.0, 0.5, 0.4], real=(1.0, 0.0, 0.5, 0.4)) is None
    assert parted([1.0, 0.1, 0.5, 0.4], real=(1.0, 0.0, 0.5, 0.4)) == 1
    assert parted([1.0, 0.8, np.nan, 0.4]) == 4
    assert parted([1.0, 0.8, 0.5, 0.4], real=(1.0, 0.8, 0.5, np.nan)) == 9


def test_parting_of_lists_that_do_not_belong_together_is_refused():
    with pytest.raises(InputError, match=r"parting: got \[3\] predicted and \[4\] real errors for \[4\] epochs"):
        parted([1.0, 0.8, 0.5])
    with pytest.raises(InputError, match=r"epochs are \[0, 4, 2\]; wanted them ascending"):
        parting(np.ones(3), np.ones(3), np.array([0, 4, 2]), 0.1)
    for bad in (-0.1, np.nan, np.inf):
        with pytest.raises(InputError, match=r"tolerance is .*; wanted a relative error of at least 0"):
            parted([1.0, 0.8, 0.5, 0.4], bad)
