"""The experiment on selection by kernels: its smoke run, the mathematics of its cells, claims on records by hand."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.ntk_selection.claims import ADAMW, claims, costs, regret, row, spearman
from experiments.ntk_selection.figures import laws
from experiments.ntk_selection.law import WORTH, judged, predictions
from experiments.ntk_selection.run import compute, main
from experiments.ntk_selection.runs import DECAY, adamw_rule, descend, predict
from experiments.ntk_selection.setting import REAL, SMOKE, chosen
from experiments.pretrain.checkpoints import checkpoints
from experiments.pretrain.tasks import build_all
from ntkft._errors import InputError
from ntkft.finetuning import optimizers
from ntkft.models import load
from ntkft.plots.style import png
from ntkft.scaling import loss_curve, select
from tests.tolerances import CLOSED_FORM, PARITY

COSTS = ("processor time", "seconds", "cpu", "compile")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder and results of the smoke run."""
    out = tmp_path_factory.mktemp("ntk_selection")
    return out, main(["--smoke", "--out", str(out)])


@pytest.fixture(scope="module")
def last(smoke):
    """The last checkpoint with its model and rows."""
    checkpoint = chosen(checkpoints(smoke[0] / "pretrain"), SMOKE)[-1]
    (rows,) = build_all(SMOKE.tasks, SMOKE.size, [checkpoint], smoke[0], scale=SMOKE.scale, seed=SMOKE.seed).values()
    return checkpoint, load(checkpoint.path, readout=rows.readout), rows


def but_costs(record):
    """What a record says beside what it cost."""
    return {name: value for name, value in record.items() if not any(cost in name for cost in COSTS)}


def test_a_run_that_was_interrupted_says_what_an_uninterrupted_one_does(smoke, tmp_path):
    out, results = smoke
    for name in ("predicted", "rankings"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    kept = {path: json.loads(path.read_text()) for path in out.glob("docs/*.json")}
    assert len(kept) == 3 * (3 + len(SMOKE.rates))
    for kind in ("kernel", "alone", "descent", "adamw-32-0.003"):
        (out / "docs" / f"tiny-0000016-{kind}.json").unlink()
    assert but_costs(main(["--smoke", "--out", str(out)])) == but_costs(results)
    for path, record in kept.items():
        assert but_costs(json.loads(path.read_text())) == but_costs(record), path
    (out / "setting").write_text("another")
    with pytest.raises(InputError, match="holds runs of another setting"):
        main(["--smoke", "--out", str(out)])


def test_shares_are_a_partition_of_the_cells(smoke):
    out, _ = smoke
    found = chosen(checkpoints(out / "pretrain"), SMOKE)
    parts = [compute(found, SMOKE, out, out, slice(first, None, 2)) for first in (0, 1)]
    assert sorted(each["step"] for part in parts for each in part) == list(SMOKE.stages)


def test_before_training_the_prediction_is_the_error_of_the_pretrained_outputs(smoke, last):
    checkpoint, model, rows = last
    x, y = rows.part("validation")
    error = float(np.mean(np.sum((np.asarray(model.apply_fn(model.params, x)) - y) ** 2, axis=1)))
    record = json.loads((smoke[0] / "docs" / f"tiny-{checkpoint.step:07d}-kernel.json").read_text())
    assert record["curve"][0] == pytest.approx(error, rel=PARITY["float32"])


def test_at_a_small_step_really_trained_risk_is_that_of_the_kernel(last):
    checkpoint, model, rows = last
    setting = replace(SMOKE, step=1e-3)
    kernel = predict(model, rows, checkpoint, setting)
    real = descend(model, rows, checkpoint, setting, kernel["step_size"])
    curve = np.array(kernel["curve"])[real["epochs"]]
    assert real["epochs"][-1] == SMOKE.checks[-1]
    # Both start alike; what training changes is of first order in the step, what the kernel leaves out of second.
    np.testing.assert_allclose(np.array(real["validation"])[1:] - curve[0], curve[1:] - curve[0], rtol=0.01)


def test_before_training_cross_validation_is_the_training_error_and_steps_are_those_of_the_prediction(smoke, last):
    checkpoint, model, rows = last
    x, y = rows.part("train")
    error = float(np.mean(np.sum((np.asarray(model.apply_fn(model.params, x)) - y) ** 2, axis=1)))
    alone, kernel = (
        json.loads((smoke[0] / "docs" / f"tiny-{checkpoint.step:07d}-{kind}.json").read_text())
        for kind in ("alone", "kernel")
    )
    assert alone["curve"][0] == pytest.approx(error, rel=PARITY["float32"])
    assert alone["step_size"] == pytest.approx(kernel["step_size"], rel=PARITY["float32"])
    assert alone["operations"] < kernel["operations"] / 1.5


def test_operations_are_counted_as_stated(last):
    checkpoint, model, rows = last
    p, t, (n, v, m) = checkpoint.non_embedding, rows.tokens, rows.sizes.values()
    run = descend(model, rows, checkpoint, replace(SMOKE, checks=(3,)), 1e-4)
    counted = 6 * p * t * n * 3 + 2 * p * t * v * 4  # measured at 0, 1, 2 and 3
    assert run["operations"] == counted
    assert run["judged"] == counted / (counted + 2 * p * t * m * 4)


def test_a_rate_in_the_state_is_the_rule_of_the_library():
    start = jnp.array([1.0, -2.0, 3.0], jnp.float32)
    moved = []
    for rule in (optimizers.adamw(0.1, DECAY), adamw_rule(0.1)):
        params, state = start, rule.transform.init(start)
        for _ in range(5):
            steps, state = rule.transform.update(params**3 - 2, state, params)
            params = jnp.asarray(optax.apply_updates(params, steps))
        moved.append(np.asarray(params))
    np.testing.assert_allclose(*moved, rtol=PARITY["float32"])
    assert np.abs(moved[0] - np.asarray(start)).min() > 0.1


def by_hand(place: int, task: str, risk: float, score: float) -> dict:
    """A cell of the smoke setting with this real risk and predicted risk, in units of the mean predictor's."""
    unit = {"train": 4.0, "validation": 2.0, "test": 3.0}
    spent = {"cpu": 8.0, "compile": 0.0, "operations": 100.0, "judged": 0.5}

    def run(risk):
        return spent | {"epochs": [0, 1, 3], "validation": [2.4, 2.0, 2 * risk], "test": [3.6, 3.0, 3 * risk]}

    return {
        "task": task,
        "size": "tiny",
        "step": SMOKE.stages[place],
        "parameters": 10,
        "loss": 4.0 - place,
        "unit": unit,
        "kernel": {"curve": [2.4, 2 * score, 2.1], "head": 2.0 + place, "left": 0.2 * (place + 1)}
        | {"cpu": 1.0, "compile": 0.0, "operations": 10.0, "judged": 1.0},
        "alone": {"curve": [4.4, 4 * score, 4.2], "cpu": 0.5, "compile": 0.0, "operations": 4.0, "judged": 1.0},
        "descent": run(risk) if task == "a" else None,
        "adamw": {"0.001": run(2 * risk), "0.003": run(risk)},
        "curve": {str(n): run(risk * (1 + 0.5 / n)) for n, _ in SMOKE.points},
    }


def test_claims_follow_from_records():
    risks = [0.8, 0.6, 0.7]
    cells = [by_hand(i, "a", risk, risk) for i, risk in enumerate(risks)]
    cells += [by_hand(i, "b", risk, 1.6 - risk) for i, risk in enumerate(risks)]  # turned round
    rows = [row(cell, SMOKE) for cell in cells]
    assert [each[ADAMW] for each in rows] == pytest.approx(risks * 2)
    assert [each["kernel"] for each in rows[:3]] == pytest.approx(risks)
    found = claims(cells, rows)
    assert found["AdamW, kernel: Spearman, mean over tasks"] == pytest.approx(0)
    assert found["AdamW, kernel: Spearman, lowest of the tasks"] == pytest.approx(-1)
    assert found["gradient descent, kernel: Spearman, mean over tasks"] == pytest.approx(1)
    assert found["AdamW, validation: Spearman, all cells"] == pytest.approx(1)
    assert found["AdamW, kernel: regret, %"] == pytest.approx(100 * (0.8 / 0.6 - 1) / 2)
    assert "AdamW, parameters: regret, %" not in found  # all of one size
    assert found["gradient descent, lowest validation risk: median error, %"] == pytest.approx(0, abs=1e-9)
    assert found["kernels / AdamW: processor time"] == pytest.approx(1 / 8)  # two runs, half of each is the judge's
    assert found["kernels / gradient descent: operations"] == pytest.approx(0.1)
    assert found["kernels / AdamW, tiny: operations"] == pytest.approx(10 / 200)
    assert [each["alone"] for each in rows[:3]] == pytest.approx(risks)
    assert found["gradient descent, alone: Spearman, mean over tasks"] == pytest.approx(1)
    assert found["kernels of training examples / gradient descent: operations"] == pytest.approx(4 / 100)


def test_rankings():
    values = np.array([0.3, 0.1, 0.7, 0.2])
    assert spearman(values, values) == pytest.approx(1)
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert spearman(values, -values) == pytest.approx(-1)
    assert np.isnan(spearman(values, np.ones(4)))
    assert regret(values, values) == 0
    assert regret(np.array([1.0, 1.0, 2.0, 2.0]), values) == pytest.approx(1)  # 0.3 or 0.1, by chance


def test_programs_at_hand_are_those_of_the_fastest_run():
    cell = {"task": "a", "size": "tiny"}
    slow, fast = ({"cpu": cpu, "judged": 1.0, "operations": 10.0} for cpu in (9.0, 2.0))
    found = costs([(cell, slow), (cell, fast), (cell | {"size": "other"}, slow)])
    assert (found["processor time"], found["processor time, programs at hand"]) == (20.0, 13.0)


def test_laws_are_given_what_the_smaller_sets_show():
    cells = [by_hand(i, "a", risk, risk) for i, risk in enumerate([0.8, 0.6, 0.7])]
    found = predictions(cells, SMOKE)
    shown = [loss_curve(str(i), [0, 4, 8, 16], [1.2, *(r * (1 + 0.5 / n) for n in (4, 8, 16))])
             for i, r in enumerate([0.8, 0.6, 0.7])]  # fmt: skip
    expected = select(shown, method="ats", budget=16, target=32).scores
    np.testing.assert_allclose(found["ats"], expected, rtol=CLOSED_FORM)
    assert "vanilla" not in found  # four numbers, three points
    scores = judged({"a": cells}, SMOKE)
    assert scores["a curve, kernel, no curve: log-RMSD"] == pytest.approx(0, abs=CLOSED_FORM)
    assert scores[f"a curve, {WORTH}: Spearman"] == pytest.approx(1)
    assert "a curve, size: log-RMSD" not in scores
    assert png(laws({"a": cells}, SMOKE)).startswith(b"\x89PNG")


def test_checkpoints_that_are_not_there_are_named(smoke):
    found = checkpoints(smoke[0] / "pretrain")
    with pytest.raises(InputError, match=r"there is no 0\.3M at step 0, 0\.3M at step 128"):
        chosen(found, REAL)
