"""The experiment on losses and optimisers: its smoke run."""

from experiments.training_rules.run import main
from tests.minilm import needs_minilm


@needs_minilm
def test_one_kernel_follows_the_linearised_model_on_both_losses(tmp_path, compiled_anew):  # programs of 90 MB: weights
    results = main(["--smoke", "--out", str(tmp_path)])
    assert (
        results["cross-entropy, linearised: largest error, %"]
        < 0.001
        < results["cross-entropy, network: largest error, %"]
    )
    assert (tmp_path / "rules.png").read_bytes().startswith(b"\x89PNG")
