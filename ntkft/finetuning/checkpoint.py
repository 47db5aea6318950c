"""What survives an interrupt: a folder that knows which run it holds.

    run.json     the identity of the run: digests of parameters and data, loss, optimiser, plan; and the *probe*
    <epoch>/     parameters, optimiser state and everything recorded so far, by orbax; only the latest is kept

An epoch's folder appears in one rename when it is complete, so parameters and history always agree. A model and an
optimiser are functions, which have no digest: the optimiser is known by its description, the model by its probe, a few
outputs away from the initial parameters (where a model and its linearisation differ, as they do not at θ₀).
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ntkft._errors import InputError, refuse
from ntkft._types import PyTree
from ntkft.finetuning.descent import State
from ntkft.finetuning.history import Progress

PROBE_EXAMPLES = 4
"""The probe is taken on the first training examples."""
PROBE_TOLERANCE = 1e-3
"""Largest difference of probes of one model, relative to the largest output: other machines round differently."""


def displace(params: PyTree) -> PyTree:
    """Parameters at which to take the probe: near enough to be finite, far enough to tell models apart."""
    return jax.tree.map(lambda leaf: leaf * 1.01 + 0.01, params)


def claim(folder: Path, identity: dict[str, Any], probe: np.ndarray) -> None:
    """Make `folder` the home of this run, or raise `InputError` when it holds anything else; nothing is overwritten."""
    record, draft = folder / "run.json", folder / "run.json.draft"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if set(folder.iterdir()) - {draft}:
            raise InputError(f"finetune: checkpoint folder {folder} holds other files; name a new or empty folder")
        draft.write_text(json.dumps({"identity": identity, "probe": probe.tolist()}, indent=1))
        os.replace(draft, record)
        return
    try:
        held = json.loads(record.read_text())
        held_identity, held_probe = dict(held["identity"]), np.asarray(held["probe"], np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"finetune: {record} cannot be read ({error}); name another checkpoint folder") from error
    problems = [
        f"{key} was {held_identity.get(key, 'not set')}, now {identity.get(key, 'not set')}"
        for key in identity | held_identity
        if held_identity.get(key) != identity.get(key)
    ]
    if held_probe.shape != probe.shape or np.abs(held_probe - probe).max() > PROBE_TOLERANCE * np.abs(probe).max():
        problems.append("apply_fn is another function (its outputs at displaced parameters differ)")
    refuse(f"finetune: checkpoint folder {folder} holds another run; name another folder", problems)


def save(folder: Path, run: Progress) -> None:
    """Write all of `run` under its last recorded epoch; then the previous epoch's folder goes."""
    history = {"table": run.table} if run.kernel is None else {"table": run.table, "kernel": run.kernel}
    with _manager(folder) as manager:
        manager.save(
            run.last_recorded,
            args=ocp.args.Composite(state=ocp.args.StandardSave(run.state), history=ocp.args.StandardSave(history)),
        )


def restore(folder: Path, template: State) -> Progress | None:
    """The run at its latest recorded epoch, its state on the devices of `template`; None when nothing is saved yet."""
    with _manager(folder) as manager:
        epoch = manager.latest_step()
        if epoch is None:
            return None
        held = manager.restore(
            epoch,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(template), history=ocp.args.StandardRestore()),
        )
    return Progress(held.state, held.history["table"], held.history.get("kernel"))


def _manager(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.resolve(), options=options)
