"""Compare an experiment's results with the values it promises.

`expected.toml` has one section per setting; every entry is `name = { value = …, tolerance = … }` and passes when
|result − value| ≤ tolerance.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path


class MissedError(AssertionError):
    """Results that are not what the experiment promises; the message lists every one."""


def check(results: Mapping[str, float], expected: Path, sections: Sequence[str]) -> int:
    """Number of values compared, or `MissedError` listing every miss, results that are absent included."""
    promised = tomllib.loads(expected.read_text())
    wanted = {name: entry for section in sections for name, entry in promised[section].items()}
    misses = [
        f"{name}: got {results.get(name, 'nothing')}, wanted {entry['value']} ± {entry['tolerance']}"
        for name, entry in wanted.items()
        if name not in results or not abs(results[name] - entry["value"]) <= entry["tolerance"]
    ]
    if misses:
        raise MissedError(f"{len(misses)} of {len(wanted)} values in {expected} missed:\n  " + "\n  ".join(misses))
    return len(wanted)
