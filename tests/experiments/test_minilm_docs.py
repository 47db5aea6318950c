import json

from experiments.minilm_docs.run import main
from tests.minilm import needs_minilm

pytestmark = needs_minilm


def test_in_the_linear_regime_the_prediction_is_within_one_percent_of_real_fine_tuning(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["linear regime: largest difference, %"] <= 1
    assert results["linear regime: fall of the real test error, %"] > 5
