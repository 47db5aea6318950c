"""The house rules that a reader relies on: imports only point down, the root is the map, files hold one idea."""

import ast
from pathlib import Path

import pytest

import ntkft

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ntkft"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up. A module may import from its own layer and from those before it.
LAYERS = [
    ["_errors", "_types", "_tree", "_special_tokens"],
    ["models", "data"],
    ["linearize", "batched"],
    ["kernels"],
    ["spectra"],
    ["dynamics"],
    ["taskvectors"],
    ["anchoring"],
    ["finetuning"],
    ["scaling", "hmm", "trajectories", "emergence"],
    ["plots"],
    ["report"],
    ["cli"],
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def _layer(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(file: Path) -> set[str]:
    """Layers of this package that a file imports at run time, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "ntkft" else [node.module]
        found |= {name.split(".")[1] for name in names if name and name.startswith("ntkft.")}
    return found


def test_every_file_has_a_layer():
    assert {_layer(file) for file in FILES} - {"__init__"} == set(HEIGHT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_only_point_down(file):
    if _layer(file) == "__init__":
        return  # the root's map names every layer
    own = _layer(file)
    upward = {name for name in _imports(file) if name in HEIGHT and HEIGHT[name] > HEIGHT[own]}
    assert not upward, f"{file.name} ({own}) imports {upward}"
    beside = {name for name in _imports(file) if HEIGHT.get(name) == HEIGHT[own]} - {own}
    assert HEIGHT[own] == 0 or not beside, f"{file.name} ({own}) imports its neighbour {beside}"


def test_the_root_is_a_map_of_at_most_forty_lines():
    assert len((PACKAGE / "__init__.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_hold_one_idea_and_say_which(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), f"{file} has no module docstring"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_private_names_of_jax_stay_inside_the_fence(file):
    if file.name == "_neural_tangents.py":
        return
    assert "jax._src" not in file.read_text()
    assert "jax.interpreters" not in file.read_text()


def test_every_name_of_the_map_resolves_to_what_it_says():
    for name in ntkft.__all__:
        assert getattr(ntkft, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'finetuned'"):
        ntkft.finetuned  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
