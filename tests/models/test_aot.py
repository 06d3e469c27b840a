"""AOTInductor: an exported model compiled once, run from Python and by a C++ program that CMake builds against libtorch."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import tokprune_kernels as tk
import torch
from tokprune_kernels.layers.kernels import COMPILED

from .helpers import text_error
from .test_export import OTHERS, export, pruned

SOURCE = Path(__file__).with_name("aot_program.cpp")
CMAKE = f"""
cmake_minimum_required(VERSION 3.18)
project(aot_program LANGUAGES CXX)
find_package(Torch REQUIRED)
add_executable(aot_program "{SOURCE}")
set_property(TARGET aot_program PROPERTY CXX_STANDARD 20)
target_link_libraries(aot_program ${{TORCH_LIBRARIES}} ${{CMAKE_DL_LIBS}})
"""
# Inductor's embeddings and LayerNorm round differently.
TOLERANCE = 1e-5
COMPILER = os.environ.get("CXX", "g++")
pytestmark = [
    pytest.mark.skipif(not COMPILED, reason="programs hold weights that the compiled kernels packed"),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs a C++ compiler ({COMPILER})"),
]


@pytest.fixture(scope="module")
def model():
    model = pruned("BertForSequenceClassification").freeze_for_inference()
    model.config.return_dict = False
    return model


@pytest.fixture(scope="module")
def package(model, tmp_path_factory):
    """Path of the compiled model."""
    path = tmp_path_factory.mktemp("aot") / "model.pt2"
    with torch.no_grad():
        return torch._inductor.aoti_compile_and_package(export(model), package_path=str(path))


def test_from_python(model, package):
    compiled = torch._inductor.aoti_load_package(package)
    for ids, mask in OTHERS:
        with torch.no_grad():
            assert text_error(compiled(input_ids=ids, attention_mask=mask)[0], model(ids, mask)[0]) < TOLERANCE


def test_from_cpp(model, package, tmp_path):
    cmake = shutil.which("cmake") or pytest.skip("needs cmake")
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    build = tmp_path / "build"
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in ([cmake, "-S", str(tmp_path), "-B", str(build), prefix], [cmake, "--build", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for batch, length in ((3, 12), (1, 5), (7, 40)):
        command = [str(build / "aot_program"), tk.get_torch_library(), package, str(batch), str(length)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        ids = torch.arange(batch * length).reshape(batch, length) % 90 + 1
        mask = (torch.arange(length) < 3 * torch.arange(1, batch + 1)[:, None]).long()
        with torch.no_grad():
            expected = model(ids, mask)[0]
        assert text_error(torch.tensor([float(x) for x in done.stdout.split()]).view_as(expected), expected) < TOLERANCE
