"""BERT-base's shape through every engine: Hugging Face, torch.compile, ONNX Runtime, OpenVINO, ours dense and pruned.

    python benches/bench_model.py
    python benches/bench_model.py --dtypes fp32 --engines hf_sdpa ours_dense --only 1x128 "sst2 batches of 32"

Weights are random and seeded (accuracy is not claimed), texts are random tokens with the lengths of real ones. Every
engine is checked on every workload before it is timed there. A run of some engines or workloads replaces only its own
rows of results/model.csv.
"""

import gc

import torch
from engines import NAMES, find
from engines.pruned import PrunedRun
from engines.twins import DTYPES
from harness import arguments, publish, save, time_all
from model_checks import check
from model_rows import Measured, merged, read, rows_of
from peers import bert_base, engine_options, present_engines, stamp
from roofline import Roofline
from workloads import all_workloads

SETTLE_S = 0.01  # OpenMP's idle threads spin for about 5 ms


def more_options(parser):
    names = [workload.name for workload in all_workloads()]
    engine_options(parser)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="WORKLOAD", help=", ".join(names))
    parser.add_argument("--budget", type=float, default=45.0, help="seconds per workload and dtype, if 5 rounds fit")


def kept_lengths(run, batch, layers):
    """(layers + 1, B) tokens in each layer and at the end: all that are live, unless the run prunes."""
    if isinstance(run, PrunedRun):
        return run.kept_lengths(batch)
    return batch["attention_mask"].sum(1).expand(layers + 1, -1)


def measure(workload, dtype, engines, runs, exact_run, model, options):
    """Check and time all engines on one workload; their rows."""
    print(f"{dtype} {workload.name}", flush=True)
    with torch.inference_mode():
        exact = [exact_run(batch) for batch in workload.batches]
        for engine in engines:
            if isinstance(runs[engine.name], PrunedRun):
                runs[engine.name].tune(workload)
            check(engine, runs[engine.name], workload, dtype, exact, model)
        layers = model.config.num_hidden_layers
        kept = {e.name: [kept_lengths(runs[e.name], batch, layers) for batch in workload.batches] for e in engines}
    contenders = {e.name: (lambda run=runs[e.name]: [run(batch) for batch in workload.batches]) for e in engines}
    limits = {"budget_s": options.budget, "at_least": min(5, options.repeats), "settle_s": SETTLE_S}
    roofline = Roofline.measure(options.threads, rounds=3)  # each time: a shared machine's ceilings drift in an hour
    timings = time_all(contenders, options.repeats, warmup=1, **limits)
    configs = {e.name: getattr(runs[e.name], "config", model.config) for e in engines}
    measured = [Measured(e, timings[e.name], kept[e.name], configs[e.name]) for e in engines]
    return rows_of(dtype, workload, measured, roofline)


def measure_dtype(dtype, engines, workloads, options):
    """Load the engines once and yield the rows of each workload."""
    model = bert_base()
    runs = {}
    for engine in engines:
        print(f"{dtype} loading {engine.name}", flush=True)
        runs[engine.name] = engine.load(model, dtype, options.threads, options.cache)
    exact_run = find("hf_sdpa").load(model, dtype, options.threads, options.cache)
    for workload in workloads:
        here = [engine for engine in engines if engine.runs(workload.padded_to)]
        if here:
            yield measure(workload, dtype, here, runs, exact_run, model, options)


def main():
    options = arguments(__doc__, more_options)
    engines, skipped = present_engines(options.engines)
    every_workload = all_workloads()
    workloads = [workload for workload in every_workload if workload.name in options.only]
    order = (tuple(DTYPES), [workload.name for workload in every_workload], NAMES)
    extra = stamp(skipped) | {"budget_s": options.budget}
    rows = read(options.out / "model.csv")
    for dtype in options.dtypes:
        chosen = [engine for engine in engines if dtype in engine.dtypes]
        for new in measure_dtype(dtype, chosen, workloads, options):
            rows = merged(rows, new, order)
            save("model", rows, options, extra)  # after each workload, so that a run that is stopped loses one
        torch._dynamo.reset()  # the compiled model of this dtype
        gc.collect()
    if rows:
        publish("model", rows, options, extra)


if __name__ == "__main__":
    main()
