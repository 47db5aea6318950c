"""Records of an experiment in files, so that an interrupted command goes on where it was."""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ntkft._errors import InputError


def claim(out: Path, setting: Any) -> None:
    """Make `out` the home of this setting, a dataclass; raise `InputError` when it holds another's records."""
    identity = hashlib.sha256(json.dumps(dataclasses.asdict(setting)).encode()).hexdigest()[:16]
    mark = out / "setting"
    if mark.is_file() and mark.read_text() != identity:
        raise InputError(f"{out} holds runs of another setting; choose another --out, or delete it")
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(identity)


def kept(path: Path, compute: Callable[[], dict]) -> dict:
    """The record in `path`, computed if it is not there, with the seconds of the clock and of all processors."""
    if not path.is_file():
        clock, processors = time.perf_counter(), time.process_time()
        record = compute()
        record |= {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processors}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(record, indent=1))
        os.replace(draft, path)
        print(f"{path.parent.name} {path.stem}: {record['seconds']:.0f} s", flush=True)
    return json.loads(path.read_text())
