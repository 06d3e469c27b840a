"""All kernels of all ISAs under the address and undefined-behaviour sanitizers: nothing outside the buffers is touched."""

import platform
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_kernel_leaves_its_buffers(tmp_path):
    compiler = shutil.which("c++") or pytest.skip("needs a C++ compiler")
    if not (ROOT / "csrc").exists():
        pytest.skip("needs the sources")
    flags = ["-std=c++17", "-O2", "-fno-math-errno", "-ffp-contract=off", "-fopenmp", f"-I{ROOT}/csrc/include"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-w"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    if subprocess.run([compiler, *flags, str(probe), "-o", str(tmp_path / "probe")], capture_output=True).returncode:
        pytest.skip("the compiler has no sanitizers here")
    isa_flags = isa_flags_of_the_build()
    jobs = []
    for source in sorted([*ROOT.glob("csrc/kernels/**/*.cpp"), Path(__file__).with_name("sanitize.cpp")]):
        extra = isa_flags.get(source.stem, "") if source.parent.name == "isa" else ""
        if source.parent.name == "isa" and source.stem != "generic" and platform.machine() != "x86_64":
            continue
        command = [compiler, *flags, *extra.split(), "-c", str(source), "-o", str(tmp_path / f"{len(jobs)}.o")]
        jobs.append(subprocess.Popen(command))
        if len(jobs) % 2 == 0:
            jobs[-2].wait()
    assert [job.wait() for job in jobs] == [0] * len(jobs)
    program = tmp_path / "sanitize"
    subprocess.run([compiler, *flags, *map(str, tmp_path.glob("*.o")), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.endswith(" calls\n"), done.stderr[-3000:]


def isa_flags_of_the_build() -> dict[str, str]:
    """ISA_FLAGS of setup.py, read without building anything."""
    import setuptools

    original, setuptools.setup = setuptools.setup, lambda **_: None
    try:
        return runpy.run_path(str(ROOT / "setup.py"))["ISA_FLAGS"]
    finally:
        setuptools.setup = original
