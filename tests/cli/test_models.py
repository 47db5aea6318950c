"""`ntkft models`: the families, and what a checkpoint is before it is loaded."""

import json

import pytest

from ntkft.cli import main
from ntkft.models.families import FAMILIES
from tests.models.tiny import GPT2, VIT, write_checkpoint


def test_every_family_is_listed(capsys):
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model_types"] == list(FAMILIES)
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in FAMILIES)


def test_a_checkpoint_is_counted_and_its_kernel_costed(tmp_path, capsys):
    source = str(write_checkpoint(tmp_path / "gpt2", GPT2))
    assert main(["models", source, "--n=10", "--tokens=6", "--k=2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model_type"] == "gpt2"
    assert sum(record["parameters"].values()) == record["total"]
    assert record["bytes"] == {"float32": 4 * record["total"], "bfloat16": 2 * record["total"]}
    cost = record["cost"]
    assert cost["flops"] == cost["sweep_flops"] + cost["form_flops"] > 0
    assert cost["gradients_bytes"] == 4 * 10 * 2 * cost["parameters"]
    assert main(["models", source, "--n=10", "--tokens=6"]) == 0
    shown = capsys.readouterr().out
    assert "exact kernel of 10 examples, 1 output" in shown
    (total,) = (line.split("│")[1:-1] for line in shown.splitlines() if "total" in line)
    _, parameters, share, single, half = (cell.strip() for cell in total)
    assert (parameters, share) == (f"{record['total']:,}", "100.0%")
    assert float(single) == pytest.approx(record["bytes"]["float32"] / 1e6, abs=5e-3)  # two decimals are shown
    assert float(half) == pytest.approx(record["bytes"]["bfloat16"] / 1e6, abs=5e-3)


def test_an_image_has_one_size(tmp_path, capsys):
    source = str(write_checkpoint(tmp_path / "vit", VIT))
    assert main(["models", source, "--n=10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"]["flops"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/place"], "no such directory"),
        (["GPT2", "--n=10"], "the cost of a kernel depends on the length of the examples; give --tokens too"),
        (["GPT2", "--n=10", "--tokens=99"], "sequences have 99 tokens, the model 16 positions"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(tmp_path, capsys, arguments, message):
    source = str(write_checkpoint(tmp_path / "gpt2", GPT2))
    assert main(["models", *[source if each == "GPT2" else each for each in arguments]]) == 2
    assert message in capsys.readouterr().err


def test_commands_that_take_texts_refuse_a_vision_model(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "vit", VIT)
    flags = ["--n=4", "--validation=2", "--test=2", "--max-length=8", "--seed=0", "--outputs=scalar", "--labels=stats"]
    flags += ["--labels=special", "--readout=regression:pool=first,scale=1,seed=0", f"--out={tmp_path / 'K.zarr'}"]
    assert main(["kernel", f"--model={source}", *flags]) == 2
    assert "reads images; the commands take texts" in capsys.readouterr().err
