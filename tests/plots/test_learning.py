from dataclasses import replace

import numpy as np
import pytest

from ntkft import plots
from ntkft._errors import InputError
from ntkft.dynamics import RiskSurface, over_seeds
from ntkft.finetuning import Curve, FinetuneResult
from tests.plots.drawn import (
    assert_legend_names_every_series,
    assert_nothing_is_cut_off_or_overlaps,
    legend,
    line,
    points,
)

EPOCHS = np.array([0, 1, 5, 20, 40])
PREDICTED = {
    "train": np.array([1.0, 0.8, 0.5, 0.2, 0.1]),
    "validation": np.array([1.1, 0.9, 0.7, 0.5, 0.45]),
    "test": np.array([1.0, 0.9, 0.6, 0.4, 0.35]),
}
STOPS = {"SURE": 31.0, "GCV": 7.0, "rule, unit norm": 9.4, "late": 300.0, "kernel ridge rule": np.inf, "at once": 0.0}


@pytest.fixture
def real() -> FinetuneResult:
    epochs = np.array([0, 5, 40])
    curves = {
        "train": Curve(epochs, np.array([0.5, 0.3, 0.1]), np.array([1.0, 0.6, 0.2])),
        "test": Curve(epochs, np.array([0.5, 0.35, 0.2]), np.array([1.0, 0.7, 0.4])),
    }
    nothing = np.zeros(3)
    return FinetuneResult({}, "gradient descent", epochs, np.ones(40), curves, 1.0, nothing, epochs, nothing, None)


@pytest.fixture
def surface() -> RiskSurface:
    generator = np.random.default_rng(0)
    test, train = generator.uniform(0.2, 1.0, (2, 3, 2, 41))
    return RiskSurface((0, 1, 2), (16, 32), tuple(range(41)), 0.1, test, train, None)


def test_the_learning_curve_shows_predictions_as_lines_and_what_happened_as_points(real):
    figure = plots.learning_curve(EPOCHS, PREDICTED, real, {})
    (axes,) = figure.axes
    for name in ("train", "test"):
        np.testing.assert_array_equal(line(axes, f"{name}, predicted"), [EPOCHS, PREDICTED[name]])
        np.testing.assert_array_equal(line(axes, f"{name}, real"), [real.curves[name].epochs, real.curves[name].mse])
        (marks,) = [drawn for drawn in axes.get_lines() if drawn.get_label() == f"{name}, real"]
        assert (marks.get_linestyle(), marks.get_marker()) == ("None", "o")
    assert_legend_names_every_series(figure, ["train, predicted", "train, real", "test, predicted", "test, real"])
    assert axes.get_title("left") == "Predicted and real learning curve"


def test_the_learning_curve_needs_no_real_run():
    figure = plots.learning_curve(EPOCHS, PREDICTED, None, STOPS)
    assert_legend_names_every_series(figure, ["train, predicted", "test, predicted"])
    assert figure.axes[0].get_title("left") == "Predicted learning curve"


def test_every_rule_has_a_mark_and_its_epoch_the_earliest_on_top(real):
    figure = plots.learning_curve(EPOCHS, PREDICTED, real, STOPS)
    curves, strip = figure.axes
    assert [text.get_text() for text in strip.texts] == [
        "at once: 0",
        "GCV: 7",
        "rule, unit norm: 9",
        "SURE: 31",
        "late: 300",
        "kernel ridge rule: never",
    ]
    marks = np.concatenate([points(drawn).T for drawn in strip.get_lines()])
    np.testing.assert_array_equal(marks[:, 0], [0, 7, 9.4, 31, 40, 40])
    assert np.all(np.diff(marks[:, 1]) < 0)
    assert [drawn.get_marker() for drawn in strip.get_lines()] == ["o", "o", "o", "o", ">", ">"]
    dotted = [points(drawn)[0, 0] for drawn in curves.get_lines() if drawn.get_linestyle() == ":"]
    assert dotted == [0, 7, 9.4, 31]
    assert curves.get_xlim() == strip.get_xlim()
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_rules_that_never_stop_are_all_marked_at_the_end():
    figure = plots.learning_curve(EPOCHS, PREDICTED, None, {"one": np.inf, "two": np.inf})
    curves, strip = figure.axes
    assert [points(drawn)[0, 0] for drawn in strip.get_lines()] == [40, 40]
    assert len(curves.get_lines()) == 2
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_a_real_run_longer_than_the_prediction_is_shown_whole(real):
    figure = plots.learning_curve(EPOCHS[:4], {name: curve[:4] for name, curve in PREDICTED.items()}, real, STOPS)
    assert figure.axes[0].get_xlim()[1] > 40
    assert [points(drawn)[0, 0] for drawn in figure.axes[1].get_lines()][-1] == 40


def test_one_recorded_epoch_makes_a_figure():
    before = {name: curve[:1] for name, curve in PREDICTED.items()}
    plots.png(plots.learning_curve(EPOCHS[:1], before, None, {"SURE": 0.0}))


def test_a_real_curve_without_squared_errors_is_refused(real):
    classes = replace(real, curves=real.curves | {"test": replace(real.curves["test"], mse=None)})
    with pytest.raises(InputError, match=r"learning_curve: the real test curve has no squared error to draw"):
        plots.learning_curve(EPOCHS, PREDICTED, classes, {})


def test_risk_over_n_shows_the_mean_over_seeds_where_each_rule_stops(surface):
    figure = plots.risk_over_n(surface, STOPS, {32: 0.5})
    (axes,) = figure.axes
    mean = surface.test_mse.mean(axis=0)
    series = {
        "before training": 0,
        "epoch 0: at once": 0,
        "epoch 7: GCV": 7,
        "epoch 9: rule, unit norm": 9,
        "epoch 31: SURE": 31,
        "epoch 40 or later": 40,
    }
    for label, epoch in series.items():
        np.testing.assert_array_equal(line(axes, label), [surface.sizes, mean[:, epoch]])
    np.testing.assert_array_equal(line(axes, "real, epoch 40"), [[32], [0.5]])
    *before, later = series
    assert_legend_names_every_series(
        figure, [*before, f"{later}: late;\nkernel ridge rule", "90 % over seeds, epoch 40", "real, epoch 40"]
    )
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_the_band_is_the_interval_over_seeds_at_the_last_epoch(surface):
    (axes,) = plots.risk_over_n(surface, {}, {}).axes
    (band,) = axes.collections
    outline = np.asarray(band.get_paths()[0].vertices)
    interval = over_seeds(surface.test_mse[:, :, -1], level=0.9)
    for size, low, high in zip(surface.sizes, interval.low, interval.high, strict=True):
        at = outline[outline[:, 0] == size, 1]
        np.testing.assert_allclose([at.min(), at.max()], [low, high], rtol=1e-12)


def test_one_seed_has_no_band_and_no_real_risk_no_star(surface):
    single = replace(surface, seeds=(0,), test_mse=surface.test_mse[:1], train_mse=surface.train_mse[:1])
    figure = plots.risk_over_n(single, {"SURE": np.inf}, {})
    assert_legend_names_every_series(figure, ["before training", "epoch 40 or later: SURE"])


def test_rules_that_agree_share_a_line_and_all_are_named(surface):
    stops = {"SURE": 12.0, "GCV": 12.3, "hold-out, patience 10": 11.6, "best on the test set": 12.0, "rule": 40.0}
    figure = plots.risk_over_n(surface, stops, {})
    shared, last = (entry.replace("\n", " ") for entry in legend(figure) if entry.startswith("epoch"))
    assert shared == "epoch 12: hold-out, patience 10; SURE; best on the test set; GCV"
    assert last == "epoch 40: rule"
    assert_nothing_is_cut_off_or_overlaps(figure)


def test_the_surface_over_epochs_shows_mean_range_and_lowest_of_every_size(surface):
    epochs = np.asarray(surface.epochs)
    figure = plots.risk_over_epochs(
        surface.sizes, epochs, surface.test_mse, {surface.sizes[0]: (np.array([0, 5]), np.array([0.9, 0.7]))}
    )
    (axes,) = figure.axes
    mean = surface.test_mse.mean(axis=0)
    for index, size in enumerate(surface.sizes):
        np.testing.assert_array_equal(line(axes, f"n = {size}"), [epochs, mean[index]])
        outline = np.asarray(axes.collections[index].get_paths()[0].vertices)
        assert outline[:, 1].max() == surface.test_mse[:, index].max()
    stars = [np.asarray(drawn.get_xydata())[0] for drawn in axes.lines if drawn.get_marker() == "*"]
    np.testing.assert_array_equal(stars, [[epochs[row.argmin()], row.min()] for row in mean])
    np.testing.assert_array_equal(line(axes, f"real, n = {surface.sizes[0]}"), [[0, 5], [0.9, 0.7]])
    assert_nothing_is_cut_off_or_overlaps(figure)
