"""The fuzzers and the ops' own tests on bindings built with the address and undefined-behaviour sanitizers:

    python -m tests.kernels.sanitize_bindings [SECONDS of fuzzing, default 60]

Builds both extensions into build/sanitize, in a package that is otherwise this one, and runs Python with the sanitizers' libraries.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.kernels.test_sanitizers import ROOT, names_of_the_build

FOLDER = ROOT / "build" / "sanitize"
FLAGS = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-sanitize=vptr"


def build() -> Path:
    """The folder of a package with sanitized extensions."""
    core = f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    package = FOLDER / "package"
    (package / "tokprune_kernels").mkdir(parents=True, exist_ok=True)
    ninja = names_of_the_build()["ninja_file"](core).replace("-O3", FLAGS).replace("$cxx -shared", f"$cxx {FLAGS} -shared")
    (FOLDER / "build.ninja").write_text(ninja)
    subprocess.run([str(Path(sys.executable).parent / "ninja"), "-C", str(FOLDER)], check=True)
    for source in (ROOT / "tokprune_kernels").iterdir():
        if source.suffix != ".so" and source.name != "__pycache__":
            link(package / "tokprune_kernels" / source.name, source)
    for name in ("_torch_ops.so", core):
        link(package / "tokprune_kernels" / name, FOLDER / name)
    for name in ("tests", "csrc", "setup.py", "pyproject.toml"):
        link(package / name, ROOT / name)
    return package


def link(place: Path, target: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def main(seconds: str = "60") -> int:
    package = build()
    libraries = [
        subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    environment = {
        **os.environ, "LD_PRELOAD": " ".join(libraries), "PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TOKPRUNE_BACKEND": "extension", "OMP_WAIT_POLICY": "PASSIVE", "TOKPRUNE_FUZZ_SECONDS": seconds,
    }  # fmt: skip
    tests = ["tests/fuzz", "tests/ops/test_memory.py", "tests/kernels/test_numpy_memory.py", "tests/ops/test_every_op.py"]
    # Children of a test would be sanitized as well, and opcheck compiles: neither is what is looked at.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not opcheck and not another_thread", *tests]
    check = "import tokprune_kernels, sys; sys.exit(not tokprune_kernels.__file__.startswith(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", check, str(package)], cwd=package, env=environment, check=True)
    return subprocess.run(command, cwd=package, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
