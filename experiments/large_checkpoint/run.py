"""A checkpoint of 1.3 billion parameters on a small machine: loaded in bfloat16, and its kernel.

Claim     A checkpoint with the shapes of GPT-Neo-1.3B, in shards, (a) is loaded in bfloat16 within 6 GB of host memory
          and without ever holding much more than its parameters; (b) its exact kernel for every parameter group, on 8
          examples of 32 tokens, is computed on the same two cores; the groups add up to the total, and it is positive
          semi-definite.
Setting   `REAL`. Random weights (N(0, 0.02²), norms 1, biases 0; seed 0), written as shards of 1 GB; a fresh regression
          head on the last token; random tokens. Loading and kernel run in a fresh process.
Command   python -m experiments.large_checkpoint.run                    (from the root of the repository)
Minutes   about 15 on two CPU cores, 8 GB of memory and 3 GB of disk; seconds with --smoke
Expected  expected.toml
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE

from experiments._check import check
from ntkft.kernels import empirical_ntk
from ntkft.models import load, read_config, readouts, write_checkpoint
from ntkft.models.loading import architecture
from ntkft.report.cost import held_bytes, peak_bytes
from ntkft.report.fresh_process import in_fresh_process

FOLDER = Path(__file__).parent
NEO: dict[str, Any] = {
    "model_type": "gpt_neo",
    "vocab_size": 50257,
    "max_position_embeddings": 2048,
    "hidden_size": 2048,
    "num_layers": 24,
    "num_heads": 16,
    "attention_types": [[["global", "local"], 12]],
    "window_size": 256,
}
REAL = {"attributes": NEO, "examples": 8, "tokens": 32, "shard": "1GB", "memory": "8GB"}
SMOKE = {
    "attributes": NEO
    | {"vocab_size": 101, "max_position_embeddings": 32, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
    | {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "examples": 4,
    "tokens": 8,
    "shard": "10KB",
    "memory": "1GB",
}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Write the checkpoint if it is not there, load it, compute, compare with `expected.toml`, return the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/large_checkpoint"))
    parser.add_argument("--smoke", action="store_true", help="the same path with a tiny checkpoint")
    options = parser.parse_args(arguments)
    setting = SMOKE if options.smoke else REAL
    checkpoint = options.out / "checkpoint"
    if not checkpoint.is_dir():
        print("writing the checkpoint", flush=True)
        in_fresh_process(write, directory=str(checkpoint), **{name: setting[name] for name in ("attributes", "shard")})
    sizes = [path.stat().st_size for path in checkpoint.glob("*.safetensors")]
    print(f"{len(sizes)} shards, {sum(sizes) / 1e9:.2f} GB", flush=True)
    results = in_fresh_process(
        measure, directory=str(checkpoint), **{name: setting[name] for name in ("examples", "tokens", "memory")}
    )
    results["peak while loading, over what the parameters take"] = (
        results["memory while loading, GB"] - results["process before, GB"]
    ) / results["parameters, GB"]
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    for name, value in results.items():
        print(f"{name:72} {value:.4g}")
    count = check(results, FOLDER / "expected.toml", ["smoke" if options.smoke else "real"])
    print(f"all {count} values as expected")
    return results


def write(*, directory: str, attributes: dict[str, Any], shard: str) -> None:
    """A checkpoint with these attributes and random weights in bfloat16."""
    generator = np.random.default_rng(0)

    def draw(path, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(("scale", "bias")):
            return np.full(leaf.shape, float(name.endswith("scale")), jnp.bfloat16)
        return (0.02 * generator.standard_normal(leaf.shape, np.float32)).astype(jnp.bfloat16)

    shapes = {name: part for name, part in architecture(read_config(attributes)).items() if name != "classifier"}
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    write_checkpoint(directory, attributes, params, Tokenizer(BPE()), shard_size=shard)


def measure(*, directory: str, examples: int, tokens: int, memory: str) -> dict[str, float]:
    """Load it and compute the kernel of every group, with the memory and the time that either takes."""
    before, clock = held_bytes(), time.perf_counter()
    readout = readouts.regression(pool="last", scale=1.0, seed=0)
    model = load(directory, readout=readout, dtype="bfloat16")
    loaded = time.perf_counter()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    results = {
        "parameters, millions": sum(leaf.size for leaf in jax.tree.leaves(model.params)) / 1e6,
        "parameters, GB": size / 1e9,
        "process before, GB": before / 1e9,
        "memory while loading, GB": peak_bytes() / 1e9,
        "seconds to load": loaded - clock,
    }
    ids = np.random.default_rng(0).integers(model.config.tokens.vocab_size, size=(examples, tokens), dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    kernel = empirical_ntk(model.apply_fn, model.params, inputs, outputs="scalar", groups=model.groups, memory=memory)
    total = np.asarray(kernel.total, np.float64)
    parts = np.sum([np.asarray(kernel.groups[name], np.float64) for name in model.groups], axis=0)
    values = np.linalg.eigvalsh(total)
    return results | {
        "memory with the kernel, GB": peak_bytes() / 1e9,
        "seconds for the kernel": time.perf_counter() - loaded,
        "parameter groups": len(model.groups),
        "groups against total, relative": float(np.abs(parts - total).max() / np.abs(total).max()),
        "smallest eigenvalue / largest": float(values[0] / values[-1]),
    }


if __name__ == "__main__":
    main()
