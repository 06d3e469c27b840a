"""SentenceTransformer.encode with and without this package: all-MiniLM-L6-v2 with its real weights, on real texts.

    python benches/bench_sentence_transformers.py

Everything that encode does counts: tokenising, sorting by length, pooling, conversion to numpy. The texts are read from the folder
$TOKPRUNE_DATA (default ../shared/data beside the checkout). Dense embeddings are checked against the plain model's before anything is
timed; how close those of the pruned model stay is reported.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import torch
from harness import HERE, arguments, publish
from sentence_transformers import SentenceTransformer

import tokprune_kernels as tk
from tokprune_kernels.cli.loading import MINILM_HUB, resolve
from tokprune_kernels.cli.timing import interleave

DATA = Path(os.environ.get("TOKPRUNE_DATA", HERE.parents[1] / "shared" / "data"))
TASKS = {"20news": ("test", 128), "mrpc": ("test", 512), "sst2": ("validation", 872)}  # task: (split, texts)
TOLERANCE = 1e-5
# As in the README's example: not fitted to the model.
RATIOS = (1.0, 0.9, 0.9, 0.8, 0.8, 0.8)


def texts_of(task: str) -> list[str]:
    split, count = TASKS[task]
    found = sorted((DATA / task).glob(f"{split}*.gz"))
    if not found:
        raise SystemExit(f"no {split} texts of {task} in {DATA}: set TOKPRUNE_DATA")
    with gzip.open(found[0], "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for _, line in zip(range(count), lines)]


def load() -> SentenceTransformer:
    return SentenceTransformer(resolve(MINILM_HUB)[0], device="cpu")


def main():
    options = arguments(__doc__)
    pruned = tk.PruningConfig.top(keep_ratios=RATIOS)
    models = {
        "plain": load(),
        "dense": tk.prune_model(load(), tk.PruningConfig.dense()),
        "frozen": tk.prune_model(load(), tk.PruningConfig.dense()).freeze_for_inference(),
        "pruned": tk.prune_model(load(), pruned).freeze_for_inference(),
    }
    rows = []
    for task in TASKS:
        texts = texts_of(task)
        found = {name: model.encode(texts, show_progress_bar=False) for name, model in models.items()}
        for name in ("dense", "frozen"):
            error = float(np.abs(found[name] - found["plain"]).max())
            if not error <= TOLERANCE:
                raise SystemExit(f"{name} on {task}: embeddings differ by {error:.2g} > {TOLERANCE:g}, so nothing is timed")
        cosines = (found["pruned"] * found["plain"]).sum(axis=1)
        contenders = {
            name: lambda model=model: model.encode(texts, show_progress_bar=False) for name, model in models.items()
        }
        with torch.inference_mode():
            timings = interleave(contenders, options.repeats, 1)
        plain = timings["plain"].median_s
        rows.append(
            {
                "task": task,
                "texts": len(texts),
                "plain_ms": 1e3 * plain,
                **{f"{name}_ms": 1e3 * timings[name].median_s for name in ("dense", "frozen", "pruned")},
                **{f"{name}_vs_plain": plain / timings[name].median_s for name in ("dense", "frozen", "pruned")},
                "largest_difference": float(np.abs(found["dense"] - found["plain"]).max()),
                "cosine_pruned_mean": float(cosines.mean()),
                "cosine_pruned_least": float(cosines.min()),
            }
        )
    import sentence_transformers

    publish("sentence_transformers", rows, options, {"sentence_transformers": sentence_transformers.__version__})


if __name__ == "__main__":
    main()
