"""The experiment on kernel behaviour, on eight sentences."""

from experiments.kernel_behaviour.run import main
from tests.minilm import needs_minilm


@needs_minilm
def test_every_method_leaves_a_record_and_a_second_command_only_reads_them(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    records = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("docs-13-*.json")}
    assert len(records) == 3
    assert main(["--smoke", "--out", str(tmp_path)]) == results
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("docs-13-*.json")} == records
    assert (tmp_path / "accuracies.png").is_file()
    assert (tmp_path / "behaviour.png").is_file()
