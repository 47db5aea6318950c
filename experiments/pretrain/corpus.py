"""Documents: all public docstrings of installed packages, or the paragraphs of a user's own text.

Docstrings are read from source files with `ast`: nothing is imported, so nothing runs, warns or picks a backend. What
packages attach only when they are imported (NumPy's ufuncs, compiled modules) is therefore not among them. Public are
all names without a leading underscore, in whatever module they are written; tests and vendored packages are left out.
"""

import ast
import hashlib
import importlib.util
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.pretrain.sizes import END
from ntkft._errors import InputError

LONG = 40
"""Characters from which on a line that stands in two documents is a copy; headings and names are shared by right."""

LEFT_OUT = {"test", "tests", "testing", "site-packages", "dist-packages", "_vendor", "idlelib", "lib2to3"}
"""Folders that are not read."""


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, each text once."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    """Never seen in training, by neither tokenizer nor model; near copies of what is are left out."""
    repeated: float
    """Share of the long lines of the held-out part that the training part has too."""
    sizes: dict[str, int]
    """Bytes that each package adds."""

    @property
    def digest(self) -> str:
        """SHA-256 over all documents: equal digests mean equal texts in an equal order."""
        return _digest("\0".join((*self.train, "", *self.held_out)))


def package_corpus(packages: Sequence[str], *, held_out: float, seed: int) -> Corpus:
    """Docstrings of `packages`, the share `held_out` of them drawn with `seed` and set apart.

    Of equal docstrings the first is kept. A held-out one with most of its long lines in the training part is a near
    copy (packages repeat whole paragraphs), and dropped. The order is that of the drawn permutation, so that any
    stretch of the corpus has something of every package. Raises `InputError` for a package that is not installed.
    """
    sizes, documents = {}, dict[str, None]()
    for package in packages:
        before = len(documents)
        documents |= dict.fromkeys(docstrings(package))
        sizes[package] = sum(len(text.encode()) for text in list(documents)[before:])
    return _split(list(documents), sizes, held_out, seed)


def text_corpus(path: Path, *, held_out: float, seed: int) -> Corpus:
    """Documents of a text file, which stand between `<|endoftext|>`; without any, between blank lines."""
    text = read_text(path)
    pieces = text.split(END) if END in text else text.split("\n\n")
    documents = dict.fromkeys(piece.strip() for piece in pieces if piece.strip())
    return _split(list(documents), {path.name: len(text.encode())}, held_out, seed)


def text_digest(path: Path) -> str:
    """SHA-256 of a text file; raises `InputError` when it cannot be read."""
    return _digest(read_text(path))


def read_text(path: Path) -> str:
    """The text of a file in UTF-8; raises `InputError` when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--texts {path}: cannot be read ({error}); give a text file in UTF-8") from error


def docstrings(package: str) -> Iterator[str]:
    """Public docstrings of a package, file by file, in the order in which they are written; without indentation.

    Raises `InputError` for a package that is not installed.
    """
    folder = _folder(package)
    files = {path.relative_to(folder): path for path in folder.rglob("*.py")}
    for name in sorted(files, key=Path.as_posix):
        if LEFT_OUT.isdisjoint(name.parts) and not name.name.startswith("test_"):
            yield from _docstrings(files[name])


def _folder(package: str) -> Path:
    if package == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"corpus: package {package!r} is not installed; install it, or train on --texts of your own")
    return Path(next(iter(spec.submodule_search_locations)))


def _docstrings(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's escape sequences
        try:
            module = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # templates, and files for other versions of Python
            return
    for node in (module, *_public(module)):
        if text := (ast.get_docstring(node) or "").strip():
            yield text


def _public(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public classes, functions and methods; not what is defined inside functions, which nobody can call."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not child.name.startswith("_"):
                yield child
                if isinstance(child, ast.ClassDef):
                    yield from _public(child)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _public(child)


def _split(documents: list[str], sizes: dict[str, int], held_out: float, seed: int) -> Corpus:
    order = np.random.default_rng(seed).permutation(len(documents))
    shuffled, first = [documents[position] for position in order], round(held_out * len(documents))
    train = tuple(shuffled[first:])
    known = {line for text in train for line in _long_lines(text)}
    copied = {text: [line in known for line in _long_lines(text)] for text in shuffled[:first]}
    kept = {text: lines for text, lines in copied.items() if 2 * sum(lines) <= len(lines)}
    count = sum(map(len, kept.values()))
    return Corpus(train, tuple(kept), sum(map(sum, kept.values())) / max(count, 1), sizes)


def _long_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if len(line.strip()) >= LONG]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
