"""What stands in for a package that is not installed: a sentence that names the extra, and a star import of the rest."""

import re
from pathlib import Path

import pytest
import tokprune_kernels as tk
from tokprune_kernels._extras import EXTRAS, MissingPackage, is_installed, needing

from .hidden import run_without

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
MODELS = 'pip install "tokprune-kernels[models]", or in a checkout pip install --no-build-isolation ".[models]"'


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_extras_are_those_of_the_project(extra):
    (listed,) = re.findall(rf"^{extra} = \[(.*)\]$", PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    assert EXTRAS[extra] == tuple(re.findall(r'"([\w-]+)', listed))


def test_models_without_transformers_name_the_extra_in_one_sentence():
    done = run_without(
        ["transformers"],
        """
import tokprune_kernels as tk
for name in ("prune_model", "PrunedBertModel", "PrunedBertConfig", "PrunedBertForSequenceClassification"):
    try:
        getattr(tk, name)
    except ImportError as error:
        print(error)
from tokprune_kernels import prune_model
""",
    )
    sentences = done.stdout.splitlines()
    assert len(sentences) == 4
    assert sentences[0] == f"tokprune_kernels.prune_model needs transformers, not installed here: {MODELS}"
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith(sentences[0]) and "No module named" not in done.stderr


def test_what_transformers_itself_needs_is_said_likewise():
    done = run_without(["safetensors"], "import tokprune_kernels; tokprune_kernels.PrunedBertModel")
    assert done.returncode == 1 and f"tokprune_kernels.PrunedBertModel needs safetensors, not installed here: {MODELS}" in done.stderr


def test_star_import_gives_what_there_is():
    script = """
from tokprune_kernels import *
import tokprune_kernels as tk
assert set(tk.__all__) <= set(globals()) and dir(tk) == sorted(tk.__all__)
print(PruningConfig.dense().is_dense, "prune_model" in globals(), ops.__name__)
"""
    for hidden, models in (((), True), (("transformers",), False)):
        done = run_without(hidden, script)
        assert done.stdout.split() == ["True", str(models), "tokprune_kernels.ops"], done.stderr


def test_an_attribute_that_is_none_is_still_none():
    assert not hasattr(tk, "prune_modle")


@pytest.mark.parametrize(
    ("packages", "missing", "extra"),
    [(("transformers",), "transformers", "[models]"), (("transformers", "datasets"), "datasets", "[train]"), (("transformers",), "accelerate", "[train]"), ((), "torch", "")],
)
def test_the_smallest_extra_that_has_it(monkeypatch, packages, missing, extra):
    with pytest.raises(MissingPackage) as caught, needing("this", packages):
        raise ModuleNotFoundError(name=f"{missing}.inner")
    assert str(caught.value).startswith(f"this needs {missing}, ") and f'"tokprune-kernels{extra}"' in str(caught.value)
    assert caught.value.name == missing


def test_a_module_of_our_own_is_no_missing_package():
    with pytest.raises(ModuleNotFoundError) as caught, needing("this", ()):
        import tokprune_kernels.nosuch
    assert not isinstance(caught.value, MissingPackage)


def test_installed(monkeypatch):
    assert is_installed("torch") and not is_installed("nosuch_package")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert not is_installed("torch")
