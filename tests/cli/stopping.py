"""`tokprune` in processes that are stopped where they stand: killed (-9) at any touch of their files, each a fork of one that has all imported.

Run as a program it reads a job a line, JSON: argv, inside (a folder), kill_at (the touch of a file in there, from 1, at which the process
kills itself; null: none), and answers each by a line: code (negative: of the signal), touches, errors.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

_TOUCHES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")


class Runner:
    """The processes; a context manager."""

    def __enter__(self):
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def run(self, *argv, inside, kill_at=None):
        """What became of one run: a dict of code, touches, errors."""
        job = {"argv": [str(argument) for argument in argv], "inside": str(inside), "kill_at": kill_at}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _count(inside, kill_at):
    """The number of touches so far, in a list; the process ends at the one it is to end at."""
    touches = [0]

    def hook(event, arguments):
        if event in _TOUCHES and arguments and isinstance(arguments[0], (str, bytes, os.PathLike)):
            if os.fsdecode(arguments[0]).startswith(inside):
                touches[0] += 1
                if touches[0] == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return touches


def _child(job, errors, counted):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors.fileno(), 2)
    touches = _count(job["inside"], job["kill_at"])
    code = main(job["argv"])
    sys.stderr.flush()
    counted.write(str(touches[0]))
    counted.flush()
    os._exit(code)


def _serve():
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as counted:
            child = os.fork()
            if not child:
                try:
                    _child(json.loads(line), errors, counted)
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    sys.stderr.flush()
                os._exit(99)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            for stream in (errors, counted):
                stream.seek(0)
            print(json.dumps({"code": code, "touches": int(counted.read() or 0), "errors": errors.read()}), flush=True)


def files_of(folder):
    """Name -> bytes of all that is in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


if __name__ == "__main__":
    import torch
    import tokprune_train.calibration.training_free
    import tokprune_train.experiment  # noqa: F401
    from tokprune_kernels.cli.main import main
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, Trainer  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # a child has nothing of this to look through
    _serve()
