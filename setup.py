"""Builds libtokprune.a (torch-free kernels), _torch_ops.so (torch ops) and _core (numpy) with ninja.

Nothing here looks at the build host's CPU: an x86-64 binary carries every ISA and chooses at run time.
"""

import importlib.util
import platform
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
PACKAGE = ROOT / "tokprune_kernels"
CSRC = ROOT / "csrc"
VERSION = re.search(r'__version__ = "(.+)"', (PACKAGE / "_version.py").read_text()).group(1)
AVX512 = "-mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq"
ISA_FLAGS = {"generic": "", "avx2": "-mavx2 -mfma", "avx512": AVX512, "avx512_bf16": f"{AVX512} -mavx512bf16"}
# -ffp-contract=off: products and sums fuse only where the code says so, the same in every tile.
# -Wno-*uninitialized: false alarms of GCC 12 inside its own AVX-512 headers.
CXXFLAGS = "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=off -Wall -Wno-uninitialized -Wno-maybe-uninitialized"
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # stable ABI of torch 2.10


def torch_directory() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None:
        raise SystemExit("torch is needed to build: pip install torch, then pip install --no-build-isolation .")
    return Path(spec.origin).parent


def ninja_file(core_name: str) -> str:
    import pybind11

    torch = torch_directory()
    x86 = platform.machine() in ("x86_64", "AMD64")
    python_include = sysconfig.get_paths()["include"]
    torch_flags = f"{TORCH_TARGET} -isystem {torch}/include -isystem {torch}/include/torch/csrc/api/include"
    core_flags = (f"-fopenmp -isystem {pybind11.get_include()} -isystem {python_include} "
                  f"""'-DTOKPRUNE_VERSION="{VERSION}"' '-DTOKPRUNE_COMPILER=__VERSION__'""")
    lines = [
        "cxx = c++", f"cxxflags = {CXXFLAGS} -I{CSRC}/include",
        "rule cxx\n  command = $cxx $cxxflags $flags -MMD -MF $out.d -c $in -o $out\n  description = compile $out\n  depfile = $out.d\n  deps = gcc",
        "rule ar\n  command = rm -f $out && ar rcs $out $in\n  description = archive $out",
        "rule link\n  command = $cxx -shared -o $out $in $libs\n  description = link $out",
    ]

    def objects(sources, flags=lambda source: ""):
        outputs = []
        for source in sorted(sources):
            outputs.append(f"{source.relative_to(CSRC)}.o")
            lines.append(f"build {outputs[-1]}: cxx {source}\n  flags = {flags(source)}")
        return " ".join(outputs)

    isa = [s for s in (CSRC / "kernels/isa").glob("*.cpp") if x86 or s.stem == "generic"]
    kernels = objects((CSRC / "kernels").glob("*.cpp")) + " " + objects(isa, lambda s: ISA_FLAGS[s.stem])
    lines.append(f"build lib/libtokprune.a: ar {kernels}")
    # --no-as-needed: the stable ABI is C functions of libtorch_cpu, which must be named as needed.
    ops = objects((CSRC / "torch").glob("*.cpp"), lambda s: torch_flags)
    lines.append(f"build _torch_ops.so: link {ops} lib/libtokprune.a\n"
                 f"  libs = -L{torch}/lib -Wl,--no-as-needed -ltorch_cpu -Wl,--as-needed")
    core = objects((CSRC / "python").glob("*.cpp"), lambda s: core_flags)
    lines.append(f"build {core_name}: link {core} lib/libtokprune.a\n  libs = -fopenmp")
    return "\n".join(lines) + "\n"


class NinjaBuild(build_ext):
    def run(self):
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        core_name = f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        (build / "build.ninja").write_text(ninja_file(core_name))
        ninja = shutil.which("ninja") or str(Path(sysconfig.get_path("scripts")) / "ninja")
        subprocess.run([ninja, "-C", str(build)], check=True)
        package = PACKAGE if self.inplace else Path(self.build_lib).resolve() / PACKAGE.name
        for name in ("lib/libtokprune.a", "_torch_ops.so", core_name):
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            # A new file, not a rewritten one: a process that has the old one mapped must not crash.
            (package / name).unlink(missing_ok=True)
            shutil.copy2(build / name, package / name)
        shutil.copytree(CSRC / "include", package / "include", dirs_exist_ok=True)


# Named for the wheel tag; NinjaBuild makes every binary.
setup(ext_modules=[Extension("tokprune_kernels._core", sources=[])], cmdclass={"build_ext": NinjaBuild})
