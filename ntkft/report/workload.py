"""Workloads: whose kernel is measured, said in plain values that travel to a fresh process."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import DTypeLike, Int32

from ntkft._errors import InputError, refuse
from ntkft._tree import leaf_paths
from ntkft._types import ApplyFn, Outputs, PyTree
from ntkft.data import columns, documentation_sentences, parse_template, tokenize, tokenize_prompts
from ntkft.data.files import read_file
from ntkft.data.hub import read_hub
from ntkft.data.tasks import DOCS, HUB
from ntkft.kernels.factors.capture import capture
from ntkft.models import Model, load, parse_readout, random_model, read_config

RANDOM = "random"
TINY: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
"""The config of a model that takes seconds, for trying a benchmark or an experiment out."""


@dataclass(frozen=True)
class Workload:
    """A kernel to compute.

    model:       a source of `ntkft.models.load`, or the attributes of a `config.json` for random weights
    readout:     as `parse_readout` reads it; k: outputs of a linear one
    outputs:     form of the kernel
    weights:     regular expression over parameter paths; all other parameters are constants
    texts:       "random" (tokens drawn uniformly from the vocabulary), "docs", a file, or "hf:OWNER/NAME", whose
                 texts stand in `text_column`; template: a prompt to put them into, as `parse_template` reads it
    examples:    of them, drawn by `seed`; tokens: to which each is cut or padded
    """

    model: str | dict[str, Any]
    readout: str
    k: int
    outputs: Outputs
    weights: str
    texts: str
    examples: int
    tokens: int
    seed: int
    text_column: str = "text"
    template: str | None = None

    def build(self, dtype: DTypeLike = jnp.float32) -> tuple[ApplyFn, PyTree, dict[str, Int32[np.ndarray, "n t"]]]:
        """The function, the weights by path, and the inputs. Raises `InputError` on what cannot be used."""
        if self.examples < 1 or self.tokens < 1:
            raise InputError(f"got {self.examples} examples of {self.tokens} tokens; wanted at least one of each")
        model = self.load_model(dtype)
        inputs = self.inputs(model)
        return *only(model.apply_fn, model.params, self.weights), inputs

    def load_model(self, dtype: DTypeLike = jnp.float32) -> Model:
        """The whole model."""
        readout = parse_readout(self.readout, self.k)
        if isinstance(self.model, str):
            return load(self.model, readout=readout, dtype=dtype)
        return random_model(read_config(self.model), readout=readout, seed=0, dtype=dtype)

    def inputs(self, model: Model) -> dict[str, Int32[np.ndarray, "n t"]]:
        """Examples that the model can be applied to."""
        inputs = self._draw(model)
        model.check_inputs(inputs)
        return inputs

    def _draw(self, model: Model) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(self.seed)
        if self.texts == RANDOM:
            if self.template is not None:
                raise InputError(
                    f"template {self.template!r}: {RANDOM} tokens are no texts to put into it; name texts, as {DOCS!r}"
                )
            shape = self.examples, self.tokens
            ids = generator.integers(model.config.tokens.vocab_size, size=shape, dtype=np.int32)
            return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if model.tokenizer is None:
            raise InputError(f"a model with random weights has no tokenizer for {self.texts}; use {RANDOM!r} texts")
        texts = read_texts(self.texts, self.text_column)
        if len(texts) < self.examples:
            raise InputError(f"{self.texts} has {len(texts)} texts; {self.examples} are wanted: lower n")
        chosen = [texts[row] for row in generator.permutation(len(texts))[: self.examples]]
        length = {"max_length": self.tokens, "multiple": self.tokens}
        if self.template is None:
            return tokenize(chosen, model.tokenizer, **length).inputs
        return tokenize_prompts(chosen, model.tokenizer, parse_template(self.template), **length).inputs


def read_texts(source: str, column: str) -> list[str]:
    """The texts of "docs", of a file's column, or of a Hub data set's. Raises `InputError` when they cannot be read."""
    if source == DOCS:
        return list(documentation_sentences()[0])
    table: pa.Table = read_hub(source.removeprefix(HUB)) if source.startswith(HUB) else read_file(Path(source))
    refuse(f"data {source!r}", columns.check_columns(table, [column]))
    texts, problems = columns.texts(table, column)
    refuse(f"data {source!r}", problems)
    return texts


def only(apply_fn: ApplyFn, params: PyTree, regex: str) -> tuple[ApplyFn, dict[str, jax.Array]]:
    """`apply_fn` as a function of the leaves whose path matches `regex` alone, and those leaves by path.

    All other leaves are constants at the values in `params`. Raises `InputError` when no path matches.
    """
    leaves, structure = leaf_paths(params), jax.tree.structure(params)
    chosen = {path: jnp.asarray(leaf) for path, leaf in leaves.items() if re.search(regex, path)}
    if not chosen:
        raise InputError(
            f"weights: {regex!r} matches no parameter; the first of {len(leaves)} is {next(iter(leaves))!r}"
        )

    def apply_chosen(chosen: PyTree, inputs: PyTree, /) -> jax.Array:
        return apply_fn(jax.tree.unflatten(structure, (leaves | chosen).values()), inputs)

    return apply_chosen, chosen


def dense_parameters(apply_fn: ApplyFn, params: PyTree, inputs: PyTree) -> int:
    """Parameters that meet every token: all but those of tables, of which a token reads one row."""
    program = capture(apply_fn, params, inputs)
    return sum(
        block.size for block in program.blocks if any(program.sites[site].kind != "rows" for site in block.sites)
    )


def floor_flops(*, examples: int, tokens: int, parameters: int, k: int, outputs: Outputs) -> float:
    """Operations that an exact kernel of n examples cannot do without, unless its examples are short.

    Forward 2·n·t·p; backward 4·n·t·p and forming the gradients 2·n·t·p for each output; the lower triangle of the
    product, n²·p for each pair of outputs (for each output, when traced). For k = 1: (6 + 2)·n·t·p + n²·p.
    `parameters` are those that meet every token (`dense_parameters`). Sequences far shorter than the width allow less.
    """
    pairs = k**2 if outputs == "full" else k
    return float(parameters) * (examples * tokens * (2 + 6 * k) + examples**2 * pairs)
