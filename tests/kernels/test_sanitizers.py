"""All kernels of all ISAs under sanitizers: nothing outside the buffers is touched, nothing undefined done, and no thread gets in
another's way. `make sanitize` runs more of the random rounds, on other seeds, than the test suite does.
"""

import os
import platform
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Random rounds of each sanitizer, and the first seed.
ROUNDS = int(os.environ.get("TOKPRUNE_SANITIZE_ROUNDS", "4"))
SEED = os.environ.get("TOKPRUNE_SANITIZE_SEED", "0")
FLAGS = ["-std=c++17", "-g", "-fno-math-errno", "-ffp-contract=off", f"-I{ROOT}/csrc/include", "-w", "-pthread"]
SANITIZERS = {"address": ["-O2", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], "thread": ["-O1", "-fsanitize=thread"]}


@pytest.fixture(scope="module", params=SANITIZERS)
def program(request, tmp_path_factory):
    """(sanitizer, path) of tests/kernels/sanitize.cpp built with it and with all kernels."""
    folder, flags = tmp_path_factory.mktemp(request.param), FLAGS + SANITIZERS[request.param]
    compiler = shutil.which("c++") or pytest.skip("needs a C++ compiler")
    if not (ROOT / "csrc").exists():
        pytest.skip("needs the sources")
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    if subprocess.run([compiler, *flags, str(probe), "-o", str(folder / "probe")], capture_output=True).returncode:
        pytest.skip("the compiler has no such sanitizer here")
    if subprocess.run([str(folder / "probe")], capture_output=True).returncode:
        pytest.skip("the sanitizer does not run here")
    isa_flags, jobs = names_of_the_build()["ISA_FLAGS"], []
    for source in sorted([*ROOT.glob("csrc/kernels/**/*.cpp"), Path(__file__).with_name("sanitize.cpp")]):
        extra = isa_flags.get(source.stem, "") if source.parent.name == "isa" else ""
        if source.parent.name == "isa" and source.stem != "generic" and platform.machine() != "x86_64":
            continue
        command = [compiler, *flags, *extra.split(), "-c", str(source), "-o", str(folder / f"{len(jobs)}.o")]
        jobs.append(subprocess.Popen(command))
        if len(jobs) % 2 == 0:
            jobs[-2].wait()
    assert [job.wait() for job in jobs] == [0] * len(jobs)
    subprocess.run([compiler, *flags, *map(str, folder.glob("*.o")), "-o", str(folder / "sanitize")], check=True)
    return request.param, folder / "sanitize"


def run(path, *arguments):
    done = subprocess.run([str(path), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith(" calls\n"), done.stderr[-5000:]


def test_awkward_shapes(program):
    sanitizer, path = program
    if sanitizer == "thread":
        pytest.skip("one caller, one worker: nothing to see")
    run(path, "fixed")


def test_ragged_random_shapes_by_many_callers(program):
    sanitizer, path = program
    run(path, "random", SEED, ROUNDS, 1 if sanitizer == "address" else 4)


def names_of_the_build() -> dict:
    """What setup.py defines, read without building anything."""
    import setuptools

    original, setuptools.setup = setuptools.setup, lambda **_: None
    try:
        return runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = original
