"""The price of a length that an engine has not seen: its first call at batch 1, against warm calls of the same length.

    python benches/bench_first_call.py

Every engine is loaded and called at length 128 until it is warm. Then it meets lengths around 128, each new to it: one
call that is timed as the first, then warm ones of the same length. Real texts come in all lengths, so for a service
that is no rare case. Results are checked after the timing: with a call before it, none would be the first.
"""

import gc
import statistics
import time

import torch
from engines import find
from engines.engine import OURS, PEER
from engines.pruned import PrunedRun
from harness import arguments, publish
from model_checks import check
from peers import bert_base, engine_options, present_engines, stamp
from workloads import Workload, batch_of

CENTRE = 128
LENGTHS = tuple(CENTRE + step for distance in range(3, 31, 3) for step in (-distance, distance))
WARM_UP_CALLS, WARM_CALLS = 10, 7
SETTLE_S = 0.01  # as between contenders: no engine's own idle threads are in its way


def timed(run, batch):
    """Seconds of one call."""
    time.sleep(SETTLE_S)
    start = time.perf_counter()
    run(batch)
    return time.perf_counter() - start


def first_and_warm(run, batch):
    """Seconds of the first call, and the median of the warm ones after it."""
    first = timed(run, batch)
    return first, statistics.median(timed(run, batch) for _ in range(WARM_CALLS))


def measure(engine, dtype, model, exact_run, options):
    """One engine's row."""
    generator = torch.Generator().manual_seed(0)
    centre = Workload("1x128", [batch_of([CENTRE], generator)])
    lengths = LENGTHS[: options.repeats]
    new = Workload("new lengths", [batch_of([length], generator) for length in lengths])
    start = time.perf_counter()
    run = engine.load(model, dtype, options.threads, options.cache)
    loaded = time.perf_counter() - start
    with torch.inference_mode():
        if isinstance(run, PrunedRun):
            run.tune(centre)
        for _ in range(WARM_UP_CALLS):
            run(centre.batches[0])
        pairs = [first_and_warm(run, batch) for batch in new.batches]
        check(engine, run, new, dtype, [exact_run(batch) for batch in new.batches], model)
    ratios = [first / warm for first, warm in pairs]
    return {
        "dtype": dtype,
        "engine": engine.name,
        "lengths": len(lengths),
        "load_s": loaded,
        "first_ms": 1e3 * statistics.median(first for first, _ in pairs),
        "worst_first_ms": 1e3 * max(first for first, _ in pairs),
        "warm_ms": 1e3 * statistics.median(warm for _, warm in pairs),
        "first_vs_warm": statistics.median(ratios),
        "worst_first_vs_warm": max(ratios),
    }


def main():
    options = arguments(__doc__, engine_options)
    engines, skipped = present_engines(options.engines)
    rows = []
    for dtype in options.dtypes:
        model = bert_base()
        exact_run = find("hf_sdpa").load(model, dtype, options.threads, options.cache)
        for engine in engines:
            if dtype in engine.dtypes and engine.runs(None) and engine.kind in (PEER, OURS):
                print(f"{dtype} {engine.name}", flush=True)
                rows.append(measure(engine, dtype, model, exact_run, options))
                torch._dynamo.reset()
                gc.collect()
    if rows:
        publish("first_call", rows, options, stamp(skipped))


if __name__ == "__main__":
    main()
