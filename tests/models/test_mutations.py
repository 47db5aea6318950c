"""Every attribute of the reference's own config, changed: refused by name, seen in the shapes, or the outputs follow.

A change of shapes that is not honoured fails loudly when tensors are loaded. What is left are changes of the function
alone (another number of heads, an epsilon, a window): there the reference with the changed config is asked.
"""

import json
import warnings

import numpy as np
import pytest

from ntkft import InputError
from ntkft.models import classifier, load, next_token, read_config
from ntkft.models.conversion import leaf_shapes
from ntkft.models.families import FAMILIES
from tests.models.test_families import change
from tests.models.tiny import REFERENCES, TINY, architecture_of, batch, outputs_of, tokenizer_of
from tests.tolerances import PARITY

WHY = "parity tests compare with the reference implementation; install it with the extra 'parity' and a CPU torch"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason=WHY)
    transformers = pytest.importorskip("transformers", reason=WHY)

TASKS = {"gpt2": "LMHeadModel", "vit": "ForImageClassification"}
MASKED = ("bert", "roberta", "distilbert")


def reference_class(model_type):
    """The class with the head whose outputs are compared."""
    task = TASKS.get(model_type, "ForMaskedLM" if model_type in MASKED else "ForCausalLM")
    return getattr(transformers, REFERENCES[model_type] + task)


@pytest.mark.parametrize("model_type", TINY)
def test_a_change_of_the_function_alone_is_followed(model_type, tmp_path):
    config_class, model_class = getattr(transformers, f"{REFERENCES[model_type]}Config"), reference_class(model_type)
    images = model_type == "vit"
    ids = {} if images else {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    attributes = config_class(**ids | TINY[model_type]).to_dict()
    torch.manual_seed(0)
    base = model_class(config_class(**ids | TINY[model_type], attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    base.save_pretrained(tmp_path)
    if not images:
        tokenizer_of(TINY[model_type]).save(str(tmp_path / "tokenizer.json"))
    shapes = leaf_shapes(architecture_of(attributes))
    followed = []
    for name in attributes.keys() - FAMILIES[model_type].ignored - {"model_type"}:
        changed = attributes | {name: change(attributes[name])}
        try:
            config = read_config(changed)
        except InputError:
            continue
        if config == read_config(attributes) or leaf_shapes(architecture_of(changed)) != shapes:
            continue
        followed.append(name)
        (tmp_path / "config.json").write_text(json.dumps(changed))
        reference = model_class(config_class(**changed, attn_implementation="eager")).eval()
        reference.load_state_dict(base.state_dict())
        if images:
            inputs = {"pixel_values": np.random.default_rng(1).standard_normal((3, 2, 8, 8)).astype(np.float32)}
        else:
            inputs = {k: v for k, v in batch((7, 7, 7), vocab_size=13).items() if k != "token_type_ids"}
            # RoBERTa takes a padding id for padding wherever it stands, here 0 or 1.
            inputs["input_ids"] = np.maximum(inputs["input_ids"], 2)
        arguments = {key: torch.from_numpy(array) for key, array in inputs.items()}
        expected = reference(**arguments).logits.detach().numpy()
        model = load(tmp_path, readout=classifier() if images else next_token())
        actual = outputs_of(model, inputs)
        expected = expected if images else expected[:, -1]
        assert np.abs(actual - expected).max() <= PARITY["float32"] * np.abs(expected).max(), name
    assert followed
