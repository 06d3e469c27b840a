"""What downstream C++ links: the static library and its headers, without torch; and that ISA code cannot leak."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import tokprune_kernels

PROGRAM = r"""
#include <tokprune/openmp.h>
#include <tokprune/tokprune.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <vector>

using namespace tokprune;

int main() {
  const int64_t tokens = 7, heads = 2, head_dim = 8, width = heads * head_dim;
  const std::vector<int32_t> cu_seqlens{0, 3, 7};
  std::vector<float> qkv(tokens * 3 * width), context(tokens * width), importance(tokens);
  for (size_t i = 0; i < qkv.size(); ++i) qkv[i] = std::sin(static_cast<float>(i));
  AttentionArgs args{};
  args.dtype = DType::kFloat32;
  args.q = qkv.data();
  args.k = qkv.data() + width;
  args.v = qkv.data() + 2 * width;
  args.q_stride = args.k_stride = args.v_stride = 3 * width;
  args.context = context.data();
  args.importance = importance.data();
  args.cu_seqlens = cu_seqlens.data();
  args.batch = 2;
  args.heads = heads;
  args.head_dim = head_dim;
  args.scale = 0.3f;
  check_cu_seqlens(args.cu_seqlens, args.batch, tokens, tokens);
  const Executor executor = openmp_executor(2);
  void* memory = std::aligned_alloc(64, (attention_workspace(args, executor) + 63) / 64 * 64);
  attention(active_kernels(), args, memory, executor);
  std::free(memory);
  float sums[2] = {0, 0};
  for (int i = 0; i < tokens; ++i) sums[i >= 3] += importance[i];
  try {
    kernels_for("mmx");
    return 2;
  } catch (const std::invalid_argument&) {
  }
  std::printf("%s %.5f %.5f\n", isa_name(active_kernels()), sums[0], sums[1]);
  return 0;
}
"""


@pytest.fixture
def library():
    """Path of the static library."""
    path = Path(tokprune_kernels.get_library_dir(), "libtokprune.a")
    return path if path.exists() else pytest.skip("the compiled library is not built")


def test_a_cpp_program_links_without_torch(tmp_path, library):
    compiler = shutil.which("c++") or pytest.skip("needs a C++ compiler")
    (tmp_path / "main.cpp").write_text(PROGRAM)
    command = [compiler, "-std=c++17", "-fopenmp", "-Wall", "-Wextra", "-Werror", f"-I{tokprune_kernels.get_include()}"]
    subprocess.run([*command, "main.cpp", str(library), "-o", "main"], cwd=tmp_path, check=True, timeout=120)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(r"\w+ 1\.00000 1\.00000\n", done.stdout)


def test_isa_objects_share_no_symbol_that_the_linker_could_mix_up(library):
    """A weak symbol in an ISA's object may become everybody's copy: AVX-512 code on a machine without it."""
    nm = shutil.which("nm") or pytest.skip("needs nm")
    listing = subprocess.run([nm, "--defined-only", str(library)], capture_output=True, text=True, check=True).stdout
    objects = dict(re.findall(r"^(\w+)\.cpp\.o:\n((?:.+\n)*)", listing, re.MULTILINE))
    assert "generic" in objects
    for isa in ("generic", "avx2", "avx512", "avx512_bf16"):
        kinds = [line.split()[-2] for line in objects.get(isa, "").splitlines()]
        assert not [kind for kind in kinds if kind in "WVwvu"], isa
        assert [kind for kind in kinds if kind in "DR"] == ["D"] * bool(kinds), f"{isa} exports more than its table"
