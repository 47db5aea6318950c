"""The demo in miniature: everything it promises is there, it resumes, and it keeps out of other folders."""

import json

import pytest

from ntkft.cli import main
from tests.minilm import needs_minilm

pytestmark = needs_minilm

FIGURES = {"decay", "groups", "alignment", "learning_curve", "risk_over_epochs", "risk_over_n"}


def test_the_demo_writes_its_report_resumes_and_refuses_another_run(tmp_path, capsys):
    command = ["demo", "--n=12", "--validation=4", "--test=8", "--epochs=3", f"--out={tmp_path / 'demo'}"]
    assert main(command) == 0
    assert "within 1% of the real test error" in capsys.readouterr().err.replace("\n", " ")
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["comparison"]["epochs"] == [0, 1, 2, 3]
    assert report["comparison"]["real_test_mse"] == report["finetuning"]["curves"]["test"]["mse"]
    # Before training, prediction and reality are the same outputs.
    assert report["comparison"]["predicted_test_mse"][0] == pytest.approx(
        report["comparison"]["real_test_mse"][0], rel=1e-6
    )
    groups = report["prediction"]["spectrum"]["groups"]
    assert sum(map(sum, groups.values())) == pytest.approx(
        sum(report["prediction"]["spectrum"]["eigenvalues"]), rel=1e-4
    )
    html = (tmp_path / "demo" / "report.html").read_text()
    assert html.count("data:image/png;base64,") == len(FIGURES)
    assert {file.stem for file in (tmp_path / "demo").glob("*.png")} == FIGURES

    assert main(command) == 0
    assert json.loads((tmp_path / "demo" / "report.json").read_text()) == report
    assert main([*command, "--epochs=4"]) == 2
    assert "holds a different run (other epochs)" in capsys.readouterr().err.replace("\n", " ")
