"""The experiment on model selection: its smoke run, the published values, and what each variant of `pooled` fits."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments._check import check
from experiments.model_selection.run import FOLDER, REAL, SMOKE, TABLES, available, by_method, choice, main, synthetic
from experiments.model_selection.variants import VARIANTS, predict
from ntkft.cli.loss_table import read_loss_table
from ntkft.scaling import fit_pooled, loss_curve

SIZES = np.array([0, *(200 * 2**i for i in range(8))])
TARGET = 400_000.0


def test_the_smoke_run_keeps_its_claims(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "results.json").read_text())["results"] == results
    assert (tmp_path / "correlation.png").read_bytes().startswith(b"\x89PNG")


def test_the_published_values_are_reproduced_to_rounding(shared_data):
    folder = shared_data / "rectified_scaling_law"
    results = {}
    for table in TABLES:
        curves = read_loss_table(folder / f"{table}.csv")
        found, _ = by_method(curves, ["ats", "subtuning", "zeroshot", "size"], REAL)
        results |= {f"{table}, {key}": value for key, value in found.items()}
    assert check(results, FOLDER / "expected.toml", ["published"]) == 2 * 4 * 7 * 2


def curves(losses):
    """Four models; `losses` gives those of model i at `SIZES`, and at `TARGET`, which is returned beside the curves."""
    models = [loss_curve(f"m{i}", SIZES, losses(i, SIZES)) for i in range(4)]
    return models, np.array([float(losses(i, np.array([TARGET]))[0]) for i in range(4)])


def falling(i, n, beta):
    """Law without a floor, knees at 3, 9, 27, 81 thousand examples."""
    return (3 + 0.5 * i) / (1 + (n / (3e3 * 3**i)) ** beta)


# Shared numbers are searched to 1e-4; the extrapolation is over a factor of 16 in D.
@pytest.mark.parametrize(
    ("name", "losses", "tolerance"),
    [
        ("pooled", lambda i, n: falling(i, n, 0.5), 1e-3),
        ("own exponents", lambda i, n: falling(i, n, 0.4 + 0.1 * i), 1e-3),
        ("one floor", lambda i, n: 0.3 + falling(i, n, 0.6), 1e-3),
        ("D = 0 included", lambda i, n: falling(i, n, 0.5), 1e-3),
    ],
)
def test_a_variant_extrapolates_the_law_that_it_fits(name, losses, tolerance):
    models, truth = curves(losses)
    np.testing.assert_allclose(predict(VARIANTS[name], models, TARGET, 6), truth, rtol=tolerance)


def test_floors_of_their_own_are_found_where_the_curves_show_them():
    models, _ = curves(lambda i, n: 0.5 + 0.1 * i + falling(0, n, 0.9))
    shown = predict(VARIANTS["own floors"], models, float(SIZES[-1]), 8)
    np.testing.assert_allclose(shown, [curve.losses[-1] for curve in models], rtol=1e-3)


def test_without_a_bend_a_power_law_is_continued():
    models = [loss_curve(f"m{i}", SIZES[1:], (3 + i) * SIZES[1:] ** -0.2) for i in range(3)]
    found = predict(VARIANTS["no bend: a line each"], models, TARGET, 3)
    np.testing.assert_allclose(found, [(3 + i) * TARGET**-0.2 for i in range(3)], rtol=1e-10)


def test_the_variant_without_change_is_pooled_itself():
    models = [curve.up_to(25_600) for curve in synthetic(seed=5)]
    for points in (3, 5):
        expected = fit_pooled(models, points=points).at(TARGET)
        np.testing.assert_allclose(predict(VARIANTS["pooled"], models, TARGET, points), expected, rtol=1e-3)


def test_the_loss_at_zero_is_seen_by_one_variant_only():
    models = synthetic(seed=6)
    moved = [replace(curve, losses=curve.losses * np.where(curve.sizes == 0, 2, 1)) for curve in models]
    for name in ("pooled", "D = 0 included"):
        before, after = (predict(VARIANTS[name], each, TARGET, 3) for each in (models, moved))
        assert np.allclose(before, after, rtol=1e-12) == (name == "pooled")


def test_points_are_as_many_as_the_budget_has():
    models = [curve.up_to(3200) for curve in synthetic(seed=0)]
    assert [available(models, points) for points in (3, 5, 6)] == [3, 5, 5]


def test_a_choice_is_judged_on_the_other_table():
    means = {"a": {3: 70.0, 4: 80.0}, "b": {3: 95.0, 4: 85.0}}
    results = {f"{t}, pooled, {p} points: mean PearCorr, %": v for t, each in means.items() for p, v in each.items()}
    results |= {"a, ats: mean PearCorr, %": 75.0, "b, ats: mean PearCorr, %": 80.0}
    found = choice(results, ["a", "b"], SMOKE)
    assert (found["points chosen on a"], found["points chosen on b"]) == (4, 3)
    assert found["b, points chosen on a: mean PearCorr, %"] == 85
    assert found["b, points chosen on a: beyond ats, %"] == 5
    assert found["a, points chosen on b: beyond ats, %"] == -5
