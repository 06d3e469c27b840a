"""Run Python where some packages are not installed: a process of its own, in which importing them fails as it does then."""

import subprocess
import sys

_HIDE = """
import sys

class Hidden:
    names = {names!r}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in cls.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden)
"""


def run_without(packages, script):
    """The finished process (stdout, stderr: str) of `script` in a Python without these packages."""
    return subprocess.run([sys.executable, "-c", _HIDE.format(names=tuple(packages)) + script], capture_output=True, text=True, check=False)
