"""Tiny checkpoints on disk, written with safetensors and tokenizers alone, and tiny batches."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.pre_tokenizers import ByteLevel, Whitespace

from ntkft.models.conversion import leaf_shapes, tensor_rules
from ntkft.models.families import family_of, read_config
from ntkft.models.loading import Model
from ntkft.models.transformer import Transformer

BERT = {
    "model_type": "bert",
    "vocab_size": 13,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 17, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}


def wordpiece() -> Tokenizer:
    """Thirteen tokens; "goodbad" is two of them, "ugly" is unknown."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "##bad", "the", "film", "was", "fine", "."]
    tokenizer = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words[:5]])
    return tokenizer


def byte_pairs() -> Tokenizer:
    """Byte-level pairs in which " good" and " bad" are one token each, but "good" is three."""
    words = ["Ġ", "g", "o", "d", "b", "a", "oo", "Ġg", "Ġgoo", "Ġgood", "Ġb", "ad", "Ġbad"]
    merges = [("Ġ", "g"), ("o", "o"), ("Ġg", "oo"), ("Ġgoo", "d"), ("Ġ", "b"), ("a", "d"), ("Ġb", "ad")]
    tokenizer = Tokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return tokenizer


TOKENIZERS = {"bert": wordpiece, "gpt2": byte_pairs}


def random_tensors(attributes: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the architecture, with all of its components, in the names of the family's table."""
    config = read_config(attributes)
    components = ("lm_head", "pooler") if config.pooler else ("lm_head",)
    model = nnx.eval_shape(lambda: Transformer(config, components, rngs=nnx.Rngs(0)))
    leaves = leaf_shapes(nnx.to_pure_dict(nnx.state(model)))
    rng = np.random.default_rng(seed)
    tensors = {}
    for rule in tensor_rules(family_of(attributes).names, config.layers):
        if all(leaf in leaves for leaf in rule.leaves):
            tensor = np.concatenate([rng.standard_normal(leaves[leaf]) / 3 for leaf in rule.leaves], axis=-1)
            tensors[rule.tensor] = np.ascontiguousarray(tensor.T if rule.transposed else tensor).astype(np.float32)
    return tensors


def write_checkpoint(directory: Path, attributes: dict, tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A complete checkpoint directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(attributes))
    TOKENIZERS[attributes["model_type"]]().save(str(directory / "tokenizer.json"))
    save_file(random_tensors(attributes) if tensors is None else tensors, directory / "model.safetensors")
    return directory


def batch(lengths: tuple[int, ...], *, vocab_size: int, seed: int = 0, side: str = "right") -> dict[str, np.ndarray]:
    """Random ids (never the padding id 0) of the given lengths, padded to the longest."""
    rng = np.random.default_rng(seed)
    tokens = max(lengths)
    mask = np.stack([np.arange(tokens) < length for length in lengths]).astype(np.int32)
    ids = rng.integers(1, vocab_size, mask.shape).astype(np.int32) * mask
    types = rng.integers(0, 2, mask.shape).astype(np.int32) * mask
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return arrays if side == "right" else jax.tree.map(lambda array: array[:, ::-1].copy(), arrays)


def outputs_of(model: Model, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Outputs of the compiled model; compiling once is much quicker than once per operation."""
    return np.asarray(jax.jit(model.apply_fn)(model.params, inputs))
