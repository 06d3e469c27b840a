"""Who may import whom: the layers of the two packages, read from their sources."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tokprune_kernels"
TRAINING = Path(__file__).parents[1] / "python" / "tokprune_train"

# folder or file -> the third-party packages and the parts of tokprune_kernels that it may import
ALLOWED = {
    "__init__.py": (set(), {"_auto", "_extras", "_lazy_ops", "_version", "pruning_config"}),
    "_auto.py": (set(), {"_when_imported", "models"}),  # models once a pruned checkpoint is loaded
    "_lazy_ops.py": (set(), {"_when_imported", "ops"}),  # ops once one is asked for
    "_when_imported.py": (set(), set()),
    "_extras.py": (set(), set()),
    "_version.py": (set(), set()),
    "pruning_config.py": (set(), set()),
    "_extension.py": ({"torch"}, set()),
    "_gpu.py": (set(), set()),
    "reference": ({"torch"}, {"reference"}),
    "ops": ({"torch"}, {"_extension", "_gpu", "reference", "ops"}),
    "gpu": ({"torch", "triton"}, {"_gpu", "ops", "gpu"}),
    "flops.py": ({"torch"}, {"pruning_config"}),
    "packing.py": ({"torch"}, {"ops"}),
    "layers": ({"torch"}, {"_extension", "_gpu", "ops", "reference", "packing", "pruning_config", "layers", "gpu"}),
    "models": ({"huggingface_hub", "torch", "transformers"}, {"_auto", "layers", "packing", "pruning_config", "models"}),
}
# what the training side imports: packages, and of tokprune_kernels what is public beside the command line's tools
TRAINING_MAY_USE = {"torch", "transformers", "safetensors", "datasets", "accelerate", "tokprune_train"}
TRAINING_PARTS = {"cli", "flops", "ops", "pruning_config"}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ("cli", "data"))
TRAINING_SOURCES = sorted(TRAINING.rglob("*.py"))


def imports(path, root=None, package="tokprune_kernels"):
    """(other packages, parts of tokprune_kernels) that a file of a package in `root` imports, at any depth of its code."""
    here = (package, *path.relative_to(root or PACKAGE).parts[:-1])
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


@pytest.mark.parametrize("path", TRAINING_SOURCES, ids=lambda p: str(p.relative_to(TRAINING)))
def test_training_stands_on_the_package(path):
    """It imports a few large libraries and tokprune_kernels, whose inner parts it leaves alone."""
    third_party, parts = imports(path, TRAINING, "tokprune_train")
    foreign = {name for name in third_party if name not in TRAINING_MAY_USE and not is_standard(name)}
    assert not foreign, f"the training side must not import {foreign}"
    assert parts <= TRAINING_PARTS, f"the training side must not import {parts - TRAINING_PARTS} of tokprune_kernels"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_package_runs_without_the_training_side(path):
    """Command line included, which finds the training commands by their entry points."""
    third_party, _ = imports(path)
    assert not third_party & {"tokprune_train", "datasets", "accelerate"}


@pytest.mark.parametrize("path", [*SOURCES, *TRAINING_SOURCES], ids=lambda p: "/".join(p.parts[-2:]))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) < 400


def test_one_name_for_one_thing_in_every_tree():
    """Every file of the reference has a file of that name among the ops."""
    names = {path.name for path in (PACKAGE / "reference").glob("*.py")}
    assert names <= {path.name for path in (PACKAGE / "ops").glob("*.py")}
