"""Tune in triton's interpreter, on a clock that finds every tile faster than the one before: prints what was tried and chosen.

A process of its own, see interpret.py. Lines of JSON: [kernel, last tile tried, tile chosen, what was told].
"""

import itertools
import json
import os
from dataclasses import asdict, replace

os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402

from tokprune_kernels.gpu import configs, tune  # noqa: E402

if __name__ == "__main__":
    torch.set_num_threads(1)
    lengths = torch.tensor([5, 0, 131, 17])
    for trial in tune.trials(16, 2, lengths, torch.float32, "cpu"):
        tried, told, clock = list(itertools.islice(trial.candidates, 0, None, 31))[:2], [], itertools.count(100, -1)
        best = tune.fastest(replace(trial, candidates=tried), lambda run, clock=clock: 1.5 ** next(clock), told.append)
        assert trial.key not in configs.OVERRIDES
        print(json.dumps([trial.key[0], asdict(tried[-1]), asdict(best), told]))
