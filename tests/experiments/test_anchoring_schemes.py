"""The experiment on schemes of re-anchoring: its smoke run."""

from experiments.anchoring_schemes.run import REAL, main
from tests.minilm import needs_minilm


@needs_minilm
def test_a_midpoint_step_is_nearer_than_the_first_kernel_and_so_is_a_lazy_model(tmp_path, compiled_anew):
    results = main(["--smoke", "--out", str(tmp_path)])
    first = results["euler, 1 kernels, linear: largest error, %"]
    assert first == results["first order, α = 1: largest error, %"]
    assert results["midpoint, 3 kernels, network: largest error, %"] < first
    assert results["first order, α = 4: largest error, %"] < first
    assert (tmp_path / "schemes.png").read_bytes().startswith(b"\x89PNG")


def test_anchors_ascend_from_zero_and_get_sparser():
    assert REAL.anchors(4) == [0, 12, 35, 65]
    assert REAL.anchors(2) == [0, 35]
