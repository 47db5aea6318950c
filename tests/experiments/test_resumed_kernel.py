"""The experiment that kills and resumes a kernel, with a tiny model."""

from experiments.resumed_kernel.run import main


def test_a_kernel_killed_twice_is_the_kernel(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert 0 < results["share of the work found after the second kill"] < 1
