"""The model that everything downstream uses: a pure function, its parameters and their groups.

`load` fills it from a checkpoint, `random_model` from a seed. Flax stays behind this file: the NNX module is split
once into a graph definition and a nested dict of parameters, and `apply_fn` merges the two on every call.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding
from jax.typing import DTypeLike
from tokenizers import Tokenizer

from ntkft._errors import InputError
from ntkft._tree import leaf_paths
from ntkft._types import ApplyFn, Array, PyTree
from ntkft.models.checkpoint import Checkpoint, read_checkpoint
from ntkft.models.config import Tokens, TransformerConfig
from ntkft.models.conversion import to_params
from ntkft.models.families import family_of, read_config
from ntkft.models.inputs import check_inputs, check_layout
from ntkft.models.readouts import BoundReadout, Readout
from ntkft.models.transformer import Transformer

DTYPES = ("float32", "float64", "bfloat16", "float16")

GROUPS = {
    "q": r"^layers/\d+/attention/query/kernel$",
    "k": r"^layers/\d+/attention/key/kernel$",
    "v": r"^layers/\d+/attention/value/kernel$",
    "o": r"^layers/\d+/attention/output/kernel$",
    "mlp": r"^layers/\d+/mlp/(up|gate|down)/kernel$",
    "norm": r"^(embeddings/norm|layers/\d+/(attention/(query|key)|attention|mlp)_norm|final_norm)/(scale|bias)$",
    "bias": r"^layers/\d+/(attention/(query|key|value|output)|mlp/\w+)/bias$",
    "embedding": r"^(embeddings/(token|position|token_type|first|(project|patch)/(kernel|bias))|project/kernel)$",
    "head": r"^(head|lm_head|pooler|classifier)/",
}
"""Parameter groups: name -> regular expression over leaf paths.

"norm" holds scales and biases of norms, "bias" all other biases of the blocks, "head" everything that is applied after
the last block: a fresh head, the LM head's own weights, the pooler, the checkpoint's classifier. A decoder that is
tied to the token embedding is that embedding, and so in "embedding".
"""


@dataclass(frozen=True, eq=False)
class Model:
    """A model as a pure function of its parameters."""

    name: str
    """The source it was loaded from."""
    apply_fn: ApplyFn = field(repr=False)
    """(params, inputs) -> outputs `[n, k]`; deterministic, row i depends on example i only."""
    params: PyTree = field(repr=False)
    """Nested dict of arrays of one dtype, in which `apply_fn` also computes; layers are keyed by integers."""
    config: TransformerConfig
    tokenizer: Tokenizer | None = field(repr=False)
    """Without padding or truncation, whatever `tokenizer.json` says: both are decisions about data."""
    groups: dict[str, str] = field(repr=False)
    """The entries of `GROUPS` that match a leaf: a partition of the parameters."""
    readout: str
    """Description of the readout."""
    checkpoint: Checkpoint | None = field(repr=False)
    """What it was loaded from: attributes, and tensors that are read when asked for; None for a random model."""
    left_out: tuple[str, ...] = field(repr=False)
    """Names of the checkpoint's tensors that this readout does not use."""
    mask_token: int | None = field(repr=False)
    """Id of the token that every example must hold exactly once; None when no mask is read."""
    forward: Callable[[PyTree, Mapping[str, Array], Callable[[Transformer], Transformer]], jax.Array] = field(
        repr=False
    )
    """`apply_fn` with one more argument, which changes the transformer before it is applied: where adapters enter."""
    lora: "LoRA | None" = field(repr=False)
    """What `attach_lora` added; None for a model without adapters."""

    def check_inputs(self, inputs: Mapping[str, Array]) -> None:
        """Raise `InputError` naming every array and the first examples that this model cannot be applied to.

        `apply_fn` itself checks names and shapes; the values it cannot see under `jit` turn into NaN there.
        """
        check_inputs(self.config, self.mask_token, inputs)


@dataclass(frozen=True, eq=False)
class LoRA:
    """What the low-rank adapters of a model were added to, and how they are scaled (`ntkft.models.lora`)."""

    base: Model
    """The model without them; its parameters are held fixed, but for those that are trained beside the adapters."""
    rank: int
    alpha: float


def load(
    source: str | os.PathLike[str],
    *,
    readout: Readout,
    dtype: DTypeLike = jnp.float32,
    sharding: Sharding | Callable[[str, tuple[int, ...]], Sharding] | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Model:
    """The model of a checkpoint, with the outputs that `readout` chooses.

    `source` is "minilm" (the embedded default), a directory with `config.json`, `tokenizer.json` and safetensors (one
    file, or shards with their index), or a Hub id `owner/name`, of which `revision` names a branch, tag or commit and
    `token` opens a gate; what the cache of `huggingface_hub` holds is not fetched again. Only the parts that the
    readout needs are built. Parameters are cast to `dtype`; matrix products on GPU and TPU follow
    `jax.default_matmul_precision`.

    `sharding` puts parameters straight onto a mesh: one for all, or a function of a leaf's path and shape.

    Cost: tensors are read, checked, cast and placed one at a time. Host memory: the largest tensor twice, and on a CPU
    the parameters themselves. Raises `InputError` for a source, config, tensor, tokenizer, readout or dtype that cannot
    be used; the message lists everything that is wrong with it.
    """
    number_type = _number_type(dtype)
    checkpoint = read_checkpoint(source, revision=revision, token=token)
    config = read_config(checkpoint.attributes)
    if checkpoint.tokenizer is not None and isinstance(config.front, Tokens):
        _check_tokenizer(checkpoint.name, checkpoint.tokenizer, config)
    bound = readout.bind(config, checkpoint.tokenizer)
    graph, wanted = _abstract(config, readout.components)
    params, left_out = to_params(
        f"checkpoint {checkpoint.name}, readout {readout.description}",
        checkpoint.tensors,
        family_of(checkpoint.attributes).names,
        config,
        architecture(config),
        wanted,
        number_type,
        place := _placement(sharding),
    )
    return _assemble(checkpoint, config, readout, bound, graph, params, number_type, left_out, place)


def random_model(
    config: TransformerConfig, *, readout: Readout, seed: int | np.integer, dtype: DTypeLike = jnp.float32
) -> Model:
    """A model of the given shape with random weights and no tokenizer, for tests, benchmarks and width studies.

    Kernels are N(0, 1/d_in) (truncated at two standard deviations), embeddings N(0, 1/d), LayerNorm scales 1, biases
    0, drawn in float32 so that every `dtype` gets the same numbers. Raises `InputError` for a readout that does not
    fit and a dtype that cannot be used.
    """
    number_type = _number_type(dtype)
    bound = readout.bind(config, None)
    graph, state = nnx.split(Transformer(config, readout.components, rngs=nnx.Rngs(int(seed))))
    params = jax.tree.map(lambda leaf: leaf.astype(number_type), nnx.to_pure_dict(state))
    return _assemble(None, config, readout, bound, graph, params, number_type, (), _placement(None))


def abstract_model(
    config: TransformerConfig, *, readout: Readout, checkpoint: Checkpoint | None = None, dtype: DTypeLike = jnp.float32
) -> Model:
    """The model with shapes in place of parameters, to be traced and counted before anything is loaded.

    Raises `InputError` for a readout that does not fit and a dtype that cannot be used.
    """
    number_type = _number_type(dtype)
    bound = readout.bind(config, None if checkpoint is None else checkpoint.tokenizer)
    graph, wanted = _abstract(config, readout.components)

    def shape(leaf: jax.ShapeDtypeStruct | np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, number_type)

    params = jax.tree.map(shape, wanted)
    return _assemble(checkpoint, config, readout, bound, graph, params, number_type, (), lambda path, leaf: shape(leaf))


def _placement(
    sharding: Sharding | Callable[[str, tuple[int, ...]], Sharding] | None,
) -> Callable[[str, np.ndarray], jax.Array]:
    if sharding is None:
        return lambda path, leaf: jnp.asarray(leaf)
    of = (lambda path, shape: sharding) if isinstance(sharding, Sharding) else sharding
    return lambda path, leaf: jax.device_put(leaf, of(path, leaf.shape))


def architecture(config: TransformerConfig) -> PyTree:
    """Shapes of all parameters, those of every component included, without allocating them."""
    return _abstract(config, config.components)[1]


def _abstract(config: TransformerConfig, components: tuple[str, ...]) -> tuple[nnx.GraphDef, PyTree]:
    """Graph definition and shapes of a transformer, without allocating it."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(config, components, rngs=nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def _assemble(
    checkpoint: Checkpoint | None,
    config: TransformerConfig,
    readout: Readout,
    bound: BoundReadout,
    graph: nnx.GraphDef,
    backbone: PyTree,
    dtype: np.dtype,
    left_out: tuple[str, ...],
    place: Callable[[str, np.ndarray], Any],
) -> Model:
    head = {key: place(f"head/{key}", value.astype(dtype)) for key, value in bound.head.items()}
    params = {**backbone, "head": head} if head else backbone
    structure = jax.tree.structure(params)
    name, tokenizer = (checkpoint.name, checkpoint.tokenizer) if checkpoint else ("random", None)

    def forward(params: PyTree, inputs: Mapping[str, Array], change: Callable[[Transformer], Transformer]) -> jax.Array:
        check_layout(config, inputs)
        check_structure(name, params, structure)
        transformer = nnx.merge(graph, {key: tree for key, tree in params.items() if key != "head"})
        return bound.read(change(transformer), params.get("head"), inputs)

    def apply_fn(params: PyTree, inputs: Mapping[str, Array], /) -> jax.Array:
        return forward(params, inputs, lambda transformer: transformer)

    return Model(
        name,
        apply_fn,
        params,
        config,
        tokenizer,
        groups_of(params),
        readout.description,
        checkpoint,
        left_out,
        bound.mask_token,
        forward,
        None,
    )


def groups_of(params: PyTree) -> dict[str, str]:
    """The entries of `GROUPS` that match a leaf."""
    paths = list(leaf_paths(params))
    return {group: regex for group, regex in GROUPS.items() if any(re.search(regex, path) for path in paths)}


def check_structure(name: str, params: PyTree, structure: Any) -> None:
    """Raise `InputError` naming the leaves by which parameters differ from the structure of a model's own.

    NNX merges leaves by their order: with other keys, say "10" before "2", layers would be exchanged silently.
    """
    if jax.tree.structure(params) != structure:
        raise InputError(f"parameters of {name}: {_difference(params, structure)}; keep the structure of Model.params")


def _number_type(dtype: DTypeLike) -> np.dtype:
    """The dtype asked for; refuses those that are not floating, and float64 where JAX would truncate it."""
    number_type = jnp.dtype(dtype)
    if number_type.name not in DTYPES:
        raise InputError(f"dtype: got {number_type.name}; choose one of {', '.join(DTYPES)}")
    if jax.dtypes.canonicalize_dtype(number_type) != number_type:
        raise InputError(
            'dtype: float64 needs jax.config.update("jax_enable_x64", True) before the first array is made'
        )
    return number_type


def _check_tokenizer(name: str, tokenizer: Tokenizer, config: TransformerConfig) -> None:
    rows = config.tokens.vocab_size
    if (size := tokenizer.get_vocab_size()) > rows:
        raise InputError(
            f"checkpoint {name}: its tokenizer has {size} tokens, its embedding {rows} rows; "
            "they do not belong together"
        )


def _difference(params: PyTree, structure: Any) -> str:
    got = set(leaf_paths(params))
    wanted = set(leaf_paths(jax.tree.unflatten(structure, [np.zeros(())] * structure.num_leaves)))
    missing, unknown = sorted(wanted - got), sorted(got - wanted)
    if missing or unknown:
        return f"missing {', '.join(missing) or 'nothing'}, unknown {', '.join(unknown) or 'nothing'}"
    return "the paths agree, but not the types of the keys (layers are keyed by integers) or of the containers"
