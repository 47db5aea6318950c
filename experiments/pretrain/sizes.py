"""What is trained: GPT-2 architectures by name, and the setting that all of them share.

One rule sets the peak learning rate of every size, rate/√width: wider layers sum more terms, and take smaller steps.
"""

from dataclasses import dataclass
from typing import Any

from ntkft._errors import refuse

END = "<|endoftext|>"
"""The token between documents."""


@dataclass(frozen=True)
class Size:
    """Width, blocks and heads of a GPT-2; the feed-forward network is 4·width wide."""

    width: int
    layers: int
    heads: int


SIZES = {
    "0.3M": Size(48, 4, 3),
    "1M": Size(96, 5, 3),
    "3M": Size(192, 5, 6),
    "10M": Size(320, 7, 10),
    "30M": Size(512, 9, 8),
    "100M": Size(896, 11, 14),
    "300M": Size(1024, 24, 16),
}
"""Names say the parameters at a vocabulary of 4,096 tokens; from 30M on they want a GPU."""

TINY = {"tiny": Size(16, 2, 2)}
"""What --smoke trains."""

DEPENDENCIES = (
    *("numpy", "scipy", "matplotlib", "jax", "flax", "optax", "orbax", "neural_tangents", "jaxtyping"),
    *("huggingface_hub", "safetensors", "tokenizers", "pyarrow", "zarr", "rich", "tyro", "absl"),
)
"""Packages that this one depends on, so that they are always installed."""


@dataclass(frozen=True)
class Setting:
    """Corpus, tokenizer and training; runs of one setting may be compared."""

    packages: tuple[str, ...]
    """Read for their docstrings; "stdlib" is Python's standard library."""
    texts: str | None
    """Digest of the user's own text, which then takes the place of docstrings."""
    sizes: tuple[str, ...]
    """Trained unless others are asked for."""
    held_out: float
    """Share of the documents that no model is trained on."""
    held_out_rows: int
    """Rows of `context` predictions that held-out loss is measured on."""
    vocabulary: int
    context: int
    batch: int
    """Rows per update; an update sees batch·context tokens."""
    steps: int
    warmup: int
    """Steps over which the learning rate rises; a cosine then takes it down to a tenth."""
    rate: float
    """Peak learning rate times the root of the width."""
    decay: float
    """Weight decay of kernels and tables, in units of the learning rate; biases and norms have none."""
    clip: float
    """Largest norm of a gradient."""
    save_every: int
    """Steps between saved states: what an interrupt can cost at most."""
    seed: int
    """Of held-out documents, initial weights and the order of rows."""

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Steps after which a checkpoint is written: 0, the powers of two, and the last."""
        powers = (2**k for k in range(self.steps.bit_length()))
        return tuple(sorted({0, self.steps, *(step for step in powers if step < self.steps)}))

    def __post_init__(self):
        counts = ("held_out_rows", "context", "batch", "steps", "warmup", "save_every")
        problems = [
            f"{name} is {getattr(self, name)}; it must be at least 1" for name in counts if getattr(self, name) < 1
        ]
        if self.warmup >= self.steps:
            problems.append(f"warmup is {self.warmup} of {self.steps} steps; it must end before the last")
        if not 0 < self.held_out < 1:
            problems.append(f"held_out is {self.held_out}; wanted a share between 0 and 1")
        if self.vocabulary <= 257:
            problems.append(f"vocabulary is {self.vocabulary}; 256 bytes and {END} leave it no pair to learn")
        refuse("pretrain", problems)


REAL = Setting(
    packages=("stdlib", *DEPENDENCIES),
    texts=None,
    sizes=("0.3M", "1M", "3M", "10M"),
    held_out=0.02,
    held_out_rows=256,
    vocabulary=4096,
    context=128,
    batch=8,
    steps=3072,
    warmup=128,
    rate=0.05,
    decay=0.1,
    clip=1.0,
    save_every=256,
    seed=0,
)
SMOKE = Setting(
    packages=("optax",),
    texts=None,
    sizes=("tiny",),
    held_out=0.1,
    held_out_rows=24,
    vocabulary=300,
    context=32,
    batch=4,
    steps=128,
    warmup=8,
    rate=0.12,
    decay=0.1,
    clip=1.0,
    save_every=128,
    seed=0,
)


def attributes(size: Size, setting: Setting) -> dict[str, Any]:
    """The `config.json` of a size: GPT-2 with a tied head, without dropout."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": setting.vocabulary,
        "n_positions": setting.context,
        "n_embd": size.width,
        "n_layer": size.layers,
        "n_head": size.heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }
