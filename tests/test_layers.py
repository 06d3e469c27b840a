"""Who may import whom: the layers of the package, read from its sources."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tokprune_kernels"

# folder or file -> the third-party packages and the parts of tokprune_kernels that it may import
ALLOWED = {
    "__init__.py": (set(), {"_version", "pruning_config"}),
    "_version.py": (set(), set()),
    "pruning_config.py": (set(), set()),
    "_extension.py": ({"torch"}, set()),
    "reference": ({"torch"}, {"reference"}),
    "ops": ({"torch"}, {"_extension", "reference", "ops"}),
    "gpu": ({"torch", "triton"}, {"ops", "gpu"}),
    "flops.py": ({"torch"}, {"pruning_config"}),
    "packing.py": ({"torch"}, {"ops"}),
    "layers": ({"torch"}, {"_extension", "ops", "reference", "packing", "pruning_config", "layers"}),
    "models": ({"torch", "transformers"}, {"layers", "packing", "pruning_config", "models"}),
}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ("cli", "data"))


def imports(path):
    """(third-party packages, parts of tokprune_kernels) that a file imports, at any depth of its code."""
    here = ("tokprune_kernels", *path.relative_to(PACKAGE).parts[:-1])
    third_party, parts = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "tokprune_kernels" else [module]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "tokprune_kernels":
                parts.update(rest[:1])
            else:
                third_party.add(first)
    return third_party, parts


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports(path):
    top = path.relative_to(PACKAGE).parts[0]
    assert top in ALLOWED, f"{top} has no rule: add one"
    packages, parts = ALLOWED[top]
    third_party, used = imports(path)
    foreign = {name for name in third_party if name not in packages and not is_standard(name)}
    assert not foreign, f"{top} must not import {foreign}"
    assert used <= parts, f"{top} must not import {used - parts} of the package"


def is_standard(name):
    return name in sys.stdlib_module_names


def test_the_reader_sees_every_kind_of_import(tmp_path, monkeypatch):
    """The rules hold only if the reading does."""
    source = "import numpy.linalg\nfrom .attention import x\nfrom ..ops import y\nfrom .. import flops\n"
    source += "def f():\n    import triton\n"
    (tmp_path / "reference").mkdir()
    file = tmp_path / "reference" / "norm.py"
    file.write_text(source + "from tokprune_kernels.layers.loop import z\nfrom tokprune_kernels import packing\n")
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    assert imports(file) == ({"numpy", "triton"}, {"reference", "ops", "flops", "layers", "packing"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) < 400


def test_one_name_for_one_thing_in_every_tree():
    """Every file of the reference has a file of that name among the ops."""
    names = {path.name for path in (PACKAGE / "reference").glob("*.py")}
    assert names <= {path.name for path in (PACKAGE / "ops").glob("*.py")}
