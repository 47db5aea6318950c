import json

import pytest

from experiments._check import MissedError, check
from experiments.early_stopping_sobolev.run import FOLDER, main


def test_the_smoke_setting_reproduces_the_exact_values_and_writes_its_files(tmp_path):
    results = main(["--smoke", "--out", str(tmp_path)])
    assert results["stopping time, σ = 0.1, step 0.25"] == 260
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["results"] == results
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    missed = results | {"stopping time, σ = 1, step 1": 3}
    missed.pop("eigenvalue 2")
    with pytest.raises(
        MissedError, match=r"(?s)2 of 17 values.*eigenvalue 2: got nothing.*step 1: got 3, wanted 2 ± 0"
    ):
        check(missed, FOLDER / "expected.toml", ["anchors"])
    with pytest.raises(SystemExit, match="holds a run with other settings; choose another --out"):
        main(["--out", str(tmp_path)])
