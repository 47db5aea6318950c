"""The experiment on stopping rules: its smoke run."""

import numpy as np
import pytest

from experiments.stopping_rules.run import main, regret_of
from tests.minilm import needs_minilm


@needs_minilm
def test_the_smoke_run_finds_the_bounds_kept(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")])
    assert results["simulation, σ = 1 rms: bounds hold (1 or 0)"] == 1
    for name in ("regret", "plug_ins"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_regret_is_read_between_recorded_epochs_and_held_after_the_last():
    times, risk = np.array([0, 10, 20]), np.array([1.0, 0.5, 0.6])
    assert regret_of(10, times, risk) == 0
    assert regret_of(5, times, risk) == pytest.approx(0.5)
    assert regret_of(np.inf, times, risk) == pytest.approx(0.2)
