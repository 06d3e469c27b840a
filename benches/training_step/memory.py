"""Peak memory of one training step, in a process of its own: python benches/training_step/memory.py WORKLOAD CONTENDER DTYPE

It prints one number, bytes: the high-water mark of resident memory after the step less what was resident before, when model,
optimiser state and everything that a first step loads were there already. Gradients are part of the step.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import subprocess
import sys
from pathlib import Path

BENCHES = Path(__file__).parents[1]
TINY = (2, 8)  # texts and tokens of the step before, which makes the optimiser's state and loads what is loaded lazily


def peak_of_step(workload: str, contender: str, dtype: str, threads: int) -> int:
    """Bytes that a step of `contender` needs at its peak besides model and optimiser state, from a fresh process.

    The mark of a process that has timed anything before is of no use: it never falls, and freed memory is used again.
    """
    command = [sys.executable, __file__, workload, contender, dtype]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def resident() -> tuple[int, int]:
    """Resident memory of this process now and its high-water mark, bytes, as Linux counts them.

    getrusage's ru_maxrss is that mark as well, but a child begins with its parent's there.
    """
    status = Path("/proc/self/status").read_text()
    return tuple(1024 * int(re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)[1]) for name in ("VmRSS", "VmHWM"))


def measure(workload: str, contender: str, dtype: str) -> int:
    """What the script prints."""
    from training_step.batches import WORKLOADS
    from training_step.steps import TrainingStep, start_line, student_of

    texts = WORKLOADS[workload]
    rows = texts.rows()
    step = TrainingStep(student_of(contender, texts.labels, start_line(rows, texts.labels)), dtype)
    batch = texts.collated(rows)[0]
    number, length = TINY
    step({name: values[:number, :length] if values.dim() == 2 else values[:number] for name, values in batch.items()})
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator keeps would be used again, and not be counted
    before, mark = resident()
    step(batch)
    peak = resident()[1]
    if peak <= mark:
        raise SystemExit(f"{contender} on {workload}: the step stays below what loading needed, so its peak is not seen")
    return peak - before


if __name__ == "__main__":
    sys.path.insert(0, str(BENCHES))
    print(measure(*sys.argv[1:]))
