"""Tiny checkpoints on disk, written with safetensors and tokenizers alone, and tiny batches."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.pre_tokenizers import ByteLevel, Whitespace

from ntkft.models.conversion import leaf_shapes, pack, tensor_rules
from ntkft.models.families import family_of, read_config
from ntkft.models.loading import Model, architecture

BERT = {
    "model_type": "bert",
    "vocab_size": 13,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
ROBERTA = BERT | {"model_type": "roberta", "pad_token_id": 0}
DISTILBERT = {
    "model_type": "distilbert",
    "vocab_size": 13,
    "dim": 8,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 12,
    "max_position_embeddings": 16,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 17, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
GPT_NEO = {
    "model_type": "gpt_neo",
    "vocab_size": 17,
    "max_position_embeddings": 16,
    "hidden_size": 8,
    "num_layers": 2,
    "num_heads": 2,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 3,
}
OPT = {
    "model_type": "opt",
    "vocab_size": 17,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 12,
    "max_position_embeddings": 16,
    "word_embed_proj_dim": 8,
}
GPT_NEOX = {
    "model_type": "gpt_neox",
    "vocab_size": 17,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
LLAMA = GPT_NEOX | {"model_type": "llama", "hidden_size": 8, "num_key_value_heads": 1, "head_dim": None}
MISTRAL = LLAMA | {"model_type": "mistral", "sliding_window": 3}
QWEN2 = {name: value for name, value in LLAMA.items() if name != "head_dim"} | {"model_type": "qwen2"}
QWEN3 = LLAMA | {"model_type": "qwen3", "head_dim": 6}
VIT = {
    "model_type": "vit",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 2,
}
TINY: dict[str, dict] = {
    attributes["model_type"]: attributes
    for attributes in (BERT, ROBERTA, DISTILBERT, GPT2, GPT_NEO, OPT, GPT_NEOX, LLAMA, MISTRAL, QWEN2, QWEN3, VIT)
}

REFERENCES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "distilbert": "DistilBert",
    "gpt2": "GPT2",
    "gpt_neo": "GPTNeo",
    "opt": "OPT",
    "gpt_neox": "GPTNeoX",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "vit": "ViT",
}
"""How the reference implementation begins the names of its classes."""


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


def tokenizer_of(attributes: dict) -> Tokenizer:
    """Word pieces for encoders, byte pairs for decoders."""
    return wordpiece() if attributes["model_type"] in ("bert", "roberta", "distilbert") else byte_pairs()


def architecture_of(attributes: dict):
    """Shapes of the model with all of its components."""
    return architecture(read_config(attributes))


def random_tensors(attributes: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the architecture, with all of its components, in the names of the family's table."""
    config, leaves = read_config(attributes), leaf_shapes(architecture_of(attributes))
    rng = np.random.default_rng(seed)
    values = {leaf: (rng.standard_normal(shape) / 3).astype(np.float32) for leaf, shape in leaves.items()}
    return {
        rule.tensor: np.ascontiguousarray(pack(rule, config, values))
        for rule in tensor_rules(family_of(attributes).names, config.layers)
        if all(leaf in leaves for leaf in rule.leaves)
    }


def write_checkpoint(directory: Path, attributes: dict, tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A complete checkpoint directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(attributes))
    tokenizer_of(attributes).save(str(directory / "tokenizer.json"))
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
