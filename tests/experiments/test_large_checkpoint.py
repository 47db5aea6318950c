"""The experiment on a large checkpoint: its smoke run, with a small one."""

from experiments.large_checkpoint.run import main


def test_a_sharded_checkpoint_is_written_loaded_and_its_kernel_computed(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert len(list((tmp_path / "checkpoint").glob("model-*.safetensors"))) > 1
    assert results["smallest eigenvalue / largest"] > 0
