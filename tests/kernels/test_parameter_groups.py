"""Kernels of some of the weights: what a fine-tuning method that trains only those would have.

A group's kernel is the kernel of the model as a function of that group's leaves alone. So one call gives, for example,

    partition = {"lora": r"lora/", "head": r"^head/", "frozen": r"^(?!.*lora/)(?!head/)"}
    kernel = ntkft.empirical_ntk(apply_fn, params, x, outputs="scalar", groups=partition)
    kernel.groups["lora"]                            # LoRA factors only
    kernel.groups["lora"] + kernel.groups["head"]    # LoRA and a trained head

Sets that overlap (attention only, biases only) are sums over a partition fine enough for both, in the same call.
"""

import re
from functools import cache

import jax
import numpy as np
import pytest

import ntkft
from ntkft._tree import leaf_paths
from ntkft.kernels.kernel import Kernel
from tests.case_parts import WIDTH, decode, decoder_block, decoder_params, normal, tokens
from tests.cases import CASES
from tests.references import dense_kernel
from tests.tolerances import KERNEL_F64, kernel_error

PARTITION = {
    "attention weights": "attention/.*/kernel",
    "attention biases": "attention/.*/bias",
    "head weight": "^head/kernel",
    "head bias": "^head/bias",
    "other biases": "(norm|down|up)/bias",
    "rest": "embeddings/(position|token)|scale|mlp/.*/kernel",
}
SUBSETS = {
    "attention only": (("attention weights", "attention biases"), "attention/"),
    "biases only": (("attention biases", "head bias", "other biases"), "bias$"),
    "head only": (("head weight", "head bias"), "^head/"),
}


def _kernel_alone(apply_fn, params, inputs, regex) -> np.ndarray:
    """The dense kernel of the function of the leaves that match, all others closed over."""
    leaves, structure = leaf_paths(params), jax.tree.structure(params)
    chosen = {path: leaf for path, leaf in leaves.items() if re.search(regex, path)}

    def apply_chosen(chosen, inputs):
        return apply_fn(jax.tree.unflatten(structure, (leaves | chosen).values()), inputs)

    return dense_kernel(apply_chosen, chosen, inputs, None, "full")


@cache
def _bert() -> Kernel:
    case = CASES["bert"]()
    return ntkft.empirical_ntk(case.apply_fn, case.params, case.inputs, outputs="full", groups=PARTITION)


@pytest.mark.parametrize("subset", list(SUBSETS))
def test_a_subset_of_the_weights_has_the_kernel_of_the_function_of_those_alone(subset):
    names, regex = SUBSETS[subset]
    case = CASES["bert"]()
    alone = _kernel_alone(case.apply_fn, case.params, case.inputs, regex)
    assert kernel_error(sum(_bert().groups[name] for name in names), alone) <= KERNEL_F64


def test_lora_factors_have_the_kernel_of_a_model_that_trains_only_them():
    draw = normal(30)
    params = jax.tree.map(
        jax.numpy.asarray,
        {"base": decoder_params(draw), "lora": {"a": draw(WIDTH, 2), "b": draw(2, WIDTH)}, "head": draw(WIDTH, 2)},
    )

    def apply_fn(params, inputs):
        def block(weights, hidden, mask):
            return decoder_block(weights, hidden, mask) + (hidden @ params["lora"]["a"]) @ params["lora"]["b"]

        return decode(params["base"], inputs, block) @ params["head"]

    x = tokens(30)
    partition = {"lora": "^lora/", "head": "^head", "frozen": "^base/"}
    kernel = ntkft.empirical_ntk(apply_fn, params, x, outputs="full", groups=partition)
    assert kernel_error(kernel.groups["lora"], _kernel_alone(apply_fn, params, x, "^lora/")) <= KERNEL_F64
    both = _kernel_alone(apply_fn, params, x, "^lora/|^head")
    assert kernel_error(kernel.groups["lora"] + kernel.groups["head"], both) <= KERNEL_F64
