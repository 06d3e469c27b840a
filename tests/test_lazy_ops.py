"""`torch.ops.tokprune` after `import tokprune_kernels`, in either order with torch, and what that import leaves alone."""

import os
import subprocess
import sys

import pytest


def run(code, **environment):
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("imports", ("import torch, tokprune_kernels", "import tokprune_kernels, torch"))
def test_the_ops_are_there_after_the_import(imports):
    code = f"{imports}; print(torch.ops.tokprune.pack_index(torch.ones(1, 2))[0].tolist(), torch.ops.tokprune.compact.default)"
    assert run(code) == "[0, 1] tokprune.compact.default"


def test_from_several_threads_at_once():
    code = (
        "import tokprune_kernels, torch; from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(*set(pool.map(lambda _: str(torch.ops.tokprune.compact.default), range(8))))"
    )
    assert run(code) == "tokprune.compact.default"


def test_what_is_no_op_is_an_attribute_error():
    assert run("import tokprune_kernels, torch; print(hasattr(torch.ops.tokprune, 'nothing'))") == "False"


def test_the_import_itself_is_light():
    code = (
        "import sys, tokprune_kernels; light = 'torch' not in sys.modules; import torch; torch.ops.tokprune\n"
        "print(light, *(name in sys.modules for name in ('tokprune_kernels.ops', 'transformers', 'triton')))"
    )
    assert run(code) == "True False False False"


def test_a_missing_library_is_heard_of_when_an_op_is_asked_for():
    code = (
        "import tokprune_kernels, torch; from pathlib import Path; from tokprune_kernels import _extension\n"
        "_extension.LIBRARY = Path('/nowhere/_torch_ops.so')\n"
        "try:\n    torch.ops.tokprune.compact\nexcept ImportError as error:\n    print('nowhere' in str(error))"
    )
    assert run(code, TOKPRUNE_BACKEND="extension") == "True"


def test_ops_are_named_as_torchs_own():
    """Exported programs name them so, and are loaded where this package is not."""
    code = "import tokprune_kernels, torch; print(torch.ops.tokprune.pack.default.__module__, torch.ops.aten.add.Tensor.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch._ops.tokprune", "torch._ops.aten"]
