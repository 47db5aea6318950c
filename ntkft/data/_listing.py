"""Long lists in messages: the first few, and how many more there are."""

from collections.abc import Iterable

SHOWN = 8


def listing(words: Iterable[str]) -> str:
    """`a, b, c and 17 more`."""
    words = list(words)
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
