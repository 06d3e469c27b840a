"""A pruned model under torch.compile against the same model as it is.

    python benches/bench_compile.py

BERT-base's shape, float32, pruned by keep ratios. One compiled program with dynamic shapes and no graph break serves all workloads; it
is compiled before timing. The encoder is one op of it, which runs what runs without compiling: embeddings and pooler, and what Python
does around the encoder, are what can differ.
"""

import torch
from engines.pruned import KEEP_RATIOS
from harness import arguments, publish, require_close, time_all
from peers import bert_base
from workloads import all_workloads

import tokprune_kernels as tk

WORKLOADS = ("1x16", "8x128", "sst2 batches of 32", "sst2 padded to 64")
TOLERANCE = 2e-6


def measure(model, compiled, workload, options):
    """One workload's row: medians of a pass over its batches."""

    def run(contender):
        return [contender(**batch).last_hidden_state for batch in workload.batches]

    with torch.inference_mode():
        for ours, expected in zip(run(compiled), run(model), strict=True):
            require_close(workload.name, ours, expected, TOLERANCE)
    times = time_all({"eager": lambda: run(model), "compiled": lambda: run(compiled)}, options.repeats)
    eager, ours = times["eager"].median_s, times["compiled"].median_s
    return {"workload": workload.name, "eager_ms": 1e3 * eager, "compiled_ms": 1e3 * ours, "compiled_vs_eager": ours / eager}


def main():
    options = arguments(__doc__)
    model = tk.prune_model(bert_base(), tk.PruningConfig.top(KEEP_RATIOS))
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    workloads = [workload for workload in all_workloads() if workload.name in WORKLOADS]
    publish("compile", [measure(model, compiled, workload, options) for workload in workloads], options)


if __name__ == "__main__":
    main()
