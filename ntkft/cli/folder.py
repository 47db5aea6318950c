"""Output folders: each belongs to one run, named by what was asked for; another run is kept out of it."""

import dataclasses
import json
import os
from pathlib import Path

from ntkft._errors import InputError

_COST_ONLY = {"method", "memory", "tile", "out", "json"}
"""Options that change how long a run takes or where it goes, not its numbers."""


def claim(folder: Path, command: str, *options: object, data: str, parameters: str) -> None:
    """Make `folder` the home of this run; raise `InputError` naming what differs when it is another's.

    The identity is the command, its options and the digests of data and parameters. A folder that is not empty and
    has no `run.json` belongs to somebody else.
    """
    identity = {"command": command, "data digest": data, "parameters digest": parameters}
    for part in options:
        given = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else part
        assert isinstance(given, dict)
        identity |= {name: str(value) for name, value in given.items() if name not in _COST_ONLY}
    record = folder / "run.json"
    if record.is_file():
        found = json.loads(record.read_text())
        differing = sorted(name for name in identity | found if identity.get(name) != found.get(name))
        if differing:
            raise InputError(
                f"output folder {folder} holds a different run (other {', '.join(differing)}); nothing was changed. "
                "Name another folder with --out, or delete this one"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"output folder {folder} exists and is not one of ntkft's; name another with --out")
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "run.json.new"
    draft.write_text(json.dumps(identity, indent=1))
    os.replace(draft, record)
