"""The command line: `ntkft COMMAND`; each command is one file, named after it."""

from ntkft.cli.app import main

__all__ = ["main"]
