"""The experiment on approximate kernels, with a tiny model."""

from experiments.approximate_kernels.run import main


def test_approximations_keep_the_error_that_they_state(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert results["random: largest projection error / stated"] > 0
    assert (tmp_path / "projection.png").is_file()
