"""Byte-pair GPTs of four sizes, pretrained from scratch on documentation, with checkpoints all along the way.

Claim     (a) At the end of the same 3.1 million tokens, held-out loss is lower the larger the model; (b) every size is
          below what frequencies of tokens predict, and from 1M on below what frequencies of pairs do; (c) a run that
          was interrupted ends at the same bits as one that was not; (d) a checkpoint, loaded as a Hugging Face GPT-2
          directory, has the logits of the model in memory to 1e-5. (a) is not borne out from 3M to 10M (README.md).
Source    Radford et al. 2019 (architecture, tokenizer); Kaplan et al. 2020 (loss falls with size; 6·N·D operations).
Setting   `sizes.REAL`. All public docstrings of Python's standard library and 17 packages, 2 % of them held out; AdamW,
          3,072 steps of 8 × 128 tokens; checkpoints after 0, 1, 2, 4, …, 2,048 and 3,072 steps.
Command   python -m experiments.pretrain.run                            (from the root of the repository)
          --sizes 10M          trains these only, so that processes side by side share; then the command itself compares
          --sizes 30M 100M     larger ones, for a GPU
          --texts FILE         a user's own text in place of docstrings: documents between <|endoftext|> or blank lines
          --steps N            a longer training; with --texts or --steps nothing is compared with expected.toml
Minutes   about 90 on two CPU cores, 2 GB of memory and 0.5 GB of disk; seconds with --smoke. A command that was
          interrupted goes on where it was.
Expected  expected.toml
"""

import argparse
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments._check import check
from experiments._kept import claim
from experiments.pretrain.checkpoints import Checkpoint, checkpoints, place
from experiments.pretrain.corpus import text_digest
from experiments.pretrain.sizes import REAL, SIZES, SMOKE, TINY, Setting
from experiments.pretrain.tokenizer import Text, prepare
from experiments.pretrain.training import State, every_token, train
from ntkft.cli.console import progress
from ntkft.models import load
from ntkft.plots.style import GREY, SERIES, SMALL, new_axes, save

FOLDER = Path(__file__).parent


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train what is not there yet, draw, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/pretrain"))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, metavar="NAME", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--texts", type=Path, help="a text file to train on")
    parser.add_argument("--steps", type=int, help="updates; the schedule of the learning rate ends with them")
    parser.add_argument("--smoke", action="store_true", help="one tiny model on the docstrings of optax")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    if options.texts:
        setting = replace(setting, texts=text_digest(options.texts))
    if options.steps:
        setting = replace(setting, steps=options.steps)
    claim(options.out, setting)

    text = prepare(options.out, setting, options.texts)
    trained = {name: run(name, setting, text, options.out) for name in options.sizes or setting.sizes}
    save(draw(checkpoints(options.out), text.facts, setting), options.out / "loss.png")
    if options.sizes:
        return {}
    results = claims([each for each in checkpoints(options.out) if each.size in setting.sizes], text.facts, setting)
    results["exported against in memory, largest relative difference of logits"] = max(
        exported_difference(place(options.out / name, setting.steps), state, text) for name, state in trained.items()
    )
    results["resumed against uninterrupted, largest difference"] = resumed_difference(setting, text)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    for name, value in results.items():
        print(f"{name:72} {value:.5g}")
    if setting in (REAL, SMOKE):
        count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
        print(f"all {count} values as expected")
    return results


def run(name: str, setting: Setting, text: Text, out: Path) -> State:
    """Train a size, or what is left of it, under a progress bar."""
    with progress(f"pretraining {name}") as report:
        return train(name, (SIZES | TINY)[name], setting, text, out / name, report)


def claims(found: list[Checkpoint], facts: dict[str, Any], setting: Setting) -> dict[str, float]:
    """Where every size ends, against the next size and against counting."""
    last = [each for each in found if each.step == setting.steps]
    results: dict[str, float] = {
        "corpus, MB": sum(facts["bytes"].values()) / 1e6,
        "training tokens, millions": facts["tokens"]["train"] / 1e6,
        "held-out long lines that training has too, %": 100 * facts["repeated"],
        "unigram: held-out loss": facts["unigram loss"],
        "bigram: held-out loss": facts["bigram loss"],
    }
    for each in last:
        results[f"{each.size}: parameters, millions"] = each.parameters / 1e6
        results[f"{each.size}: without embeddings, millions"] = each.non_embedding / 1e6
        results[f"{each.size}: held-out loss"] = each.loss
        results[f"{each.size}: perplexity"] = each.perplexity
        for counts in ("unigram", "bigram"):
            results[f"{each.size}: held-out loss / {counts}"] = each.loss / facts[f"{counts} loss"]
    falls = [larger.loss < smaller.loss for smaller, larger in pairwise(last)]
    return results | {"next larger size has the lower loss, times": float(sum(falls))}


def exported_difference(path: Path, state: State, text: Text) -> float:
    """Largest difference of logits, relative to the largest, between a checkpoint and the weights it was made of."""
    rows = jnp.asarray(text.held_out[:4, :-1])
    inputs = {"input_ids": rows, "attention_mask": jnp.ones_like(rows)}
    model = load(path, readout=every_token())
    stored, held = (np.asarray(model.apply_fn(params, inputs)) for params in (model.params, state.params))
    return float(np.abs(stored - held).max() / np.abs(held).max())


def resumed_difference(setting: Setting, text: Text) -> float:
    """Largest difference of weights and moments after six steps of a tiny model: interrupted after three, and not."""
    short = replace(setting, steps=6, warmup=2, save_every=4)

    def end(folder: Path, report: Callable[[int, int], None]) -> State:
        return train("tiny", TINY["tiny"], short, text, folder, report)

    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise InterruptedError

    def proceed(done: int, total: int) -> None:
        pass

    with TemporaryDirectory() as folder:
        straight = end(Path(folder) / "straight", proceed)
        with suppress(InterruptedError):
            end(Path(folder) / "resumed", interrupt)
        resumed = end(Path(folder) / "resumed", proceed)
    differences = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), straight, resumed)
    return max(jax.tree.leaves(differences))


def draw(found: list[Checkpoint], facts: dict[str, Any], setting: Setting) -> Figure:
    """Held-out loss over tokens: a line for each size, and what counting reaches on the same tokens."""
    source = f"docstrings of {len(setting.packages)} packages" if setting.texts is None else "own text"
    megabytes, context = sum(facts["bytes"].values()) / 1e6, setting.context
    title = f"Held-out loss along pretraining\n{source}, {megabytes:.1f} MB, context {context}, seed {setting.seed}"
    figure, axes = new_axes(
        title, "tokens seen in training (first mark: none)", "held-out loss, nats per token", height=4.6
    )
    left = setting.batch * setting.context / 2
    sizes = dict.fromkeys(each.size for each in found)
    for size, colour in zip(sizes, SERIES, strict=False):
        mine = [each for each in found if each.size == size]
        last = mine[-1]
        tokens = [max(each.tokens, left) for each in mine]
        label = f"{size}: {last.parameters / 1e6:.2f} M, {last.non_embedding / 1e6:.2f} M in blocks"
        axes.plot(tokens, [each.loss for each in mine], "o-", color=colour, linewidth=1.5, markersize=3.5, label=label)
    for name, style in (("unigram", ":"), ("bigram", "--")):
        axes.axhline(facts[f"{name} loss"], color=GREY, linestyle=style, linewidth=1.2, label=f"{name} counts")
    axes.set_xscale("log")
    figure.legend(fontsize=SMALL, edgecolor="none", loc="outside lower left", ncols=2)
    return figure


if __name__ == "__main__":
    main()
