"""One source of the schemas: the file, which the compiled library defines by itself and Python reads."""

import json
import os
import subprocess
import sys

import pytest
import torch

import tokprune_kernels as tk
from tokprune_kernels.ops import registration, schemas

from .samples import COMPILED_ONLY


def run_python(code, **environment):
    """Output of a fresh interpreter; the last argument of the code is the compiled library's path."""
    command = [sys.executable, "-c", code, str(schemas.FILE.parents[1] / "_torch_ops.so")]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


LIBRARY_ALONE = """
import json, sys, torch
torch.ops.load_library(sys.argv[1])
ops = torch.ops.tokprune
found = {name: str(getattr(ops, name).default._schema) for name in NAMES}
tagged = [name for name in NAMES if torch.Tag.pt2_compliant_tag in getattr(ops, name).default.tags]
index = [x.tolist() for x in ops.pack_index(torch.tensor([[0, 1], [1, 1]]))]
print(json.dumps([found, tagged, index, "tokprune_kernels" in sys.modules]))
"""


@COMPILED_ONLY
def test_the_library_alone_has_all_ops():
    """As a program that runs exported models loads it: no import of the package."""
    found, tagged, index, imported = json.loads(run_python(LIBRARY_ALONE.replace("NAMES", repr(schemas.NAMES))))
    assert not imported and index == [[1, 2, 3], [0, 1, 3], [0, 0, 1]]
    for name, schema in schemas.SCHEMAS.items():
        assert torch._C.parse_schema(found[name]) == torch._C.parse_schema(f"tokprune::{schema}")
    if torch.__version__ >= torch.torch_version.TorchVersion("2.12"):  # older ones cannot be told from C++
        assert tagged == schemas.NAMES


@COMPILED_ONLY
def test_python_defines_none_beside_the_library():
    assert schemas.DEFINED_HERE == []
    assert schemas.differing() == []


def test_python_defines_all_without_it():
    code = "import tokprune_kernels.ops as o, torch; print(o.schemas.DEFINED_HERE == o.schemas.NAMES, o.schemas.differing(),"
    code += "all(torch.Tag.pt2_compliant_tag in getattr(torch.ops.tokprune, n).default.tags for n in o.schemas.NAMES))"
    assert run_python(code, TOKPRUNE_BACKEND="reference").split() == ["True", "[]", "True"]


@COMPILED_ONLY
@pytest.mark.parametrize("order", ("load(); use()", "use(); load()"))
@pytest.mark.parametrize("backend", ("extension", "reference"))
def test_library_and_package_go_together_in_any_order(order, backend):
    code = "import sys, torch\ndef load(): torch.ops.load_library(sys.argv[1])\ndef use():\n    global ops\n    import tokprune_kernels.ops as ops\n"
    code += f"{order}\nprint(ops.pack_index(torch.ones(1, 2))[0].tolist())"
    assert run_python(code, TOKPRUNE_BACKEND=backend).strip() == "[0, 1]"


@COMPILED_ONLY
def test_a_library_of_other_schemas_is_refused(monkeypatch):
    monkeypatch.setitem(schemas.SCHEMAS, "unpack", "unpack(Tensor packed, Tensor token_idx) -> Tensor")
    monkeypatch.setattr(registration, "_register_gpu", lambda: None)
    with pytest.raises(ImportError, match="take other arguments for unpack.*rebuild"):
        registration.register_kernels()


@COMPILED_ONLY
def test_path_of_the_library():
    assert os.path.samefile(tk.get_torch_library(), schemas.FILE.parents[1] / "_torch_ops.so")


def test_no_library_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(tk, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="pip install"):
        tk.get_torch_library()
