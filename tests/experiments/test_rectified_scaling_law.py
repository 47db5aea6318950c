"""The experiment on the two laws: its smoke run, and the slopes that it draws."""

import json

import numpy as np

from experiments.rectified_scaling_law.figures import slopes
from experiments.rectified_scaling_law.run import main
from ntkft.scaling import Rectified, Vanilla, loss_curve


def test_the_smoke_run_keeps_its_claims(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["results"] == results
    for name in ("laws_made", "pre_power_phase"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    floors = {each["name"]: "E" not in each["interval"]["not_identified"] for each in record["curves"]["made"]}
    assert all(found == name.startswith("floor") for name, found in floors.items())


def test_slopes_of_a_power_law_are_its_exponent_measured_or_not():
    sizes, law = np.array([200.0, 400.0, 3200.0]), Vanilla(B=5.0, beta=0.3, E=0.0, alpha=0.5)
    np.testing.assert_allclose(slopes([law], sizes), [[0.15, 0.15]], rtol=1e-12)
    np.testing.assert_allclose(slopes([loss_curve("a", sizes, law.at(sizes))], sizes), [[0.15, 0.15]], rtol=1e-12)
    bent = Rectified(B=800.0, D_l=250.0, beta=0.5, E=1.0)
    fine = np.array([1e4, 1.0001e4])
    np.testing.assert_allclose(slopes([bent], fine)[0], -bent.log_slope(fine[:1]), rtol=1e-4)
