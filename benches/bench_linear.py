"""Our packed linear layer against oneDNN with prepacked weights and torch's own, at BERT-base's shapes.

    python benches/bench_linear.py

Contenders: ours (packed_linear), onednn (what torch.compile runs on frozen weights: reordered once, for the very number
of rows it is then called with, its best case), torch (torch.nn.functional.linear on plain weights). All with bias.

weights "warm": one weight, called again and again, so that it stays in cache. "cold": the calls go round copies of the
weight that no cache holds together, as the layers of a model do; for few rows only, as many rows hide the reading.
The roofline of a cold call counts weight, input and output from memory once; of a warm one only the multiply-adds.
"""

import itertools
import math

import torch
from harness import arguments, dtype_name, publish, require_close, time_all
from roofline import Roofline, linear_bytes

import tokprune_kernels as tk

ROWS = (1, 16, 63, 128, 512, 1000, 4096)
SHAPES = ((768, 2304), (768, 768), (768, 3072), (3072, 768))  # (in, out): fused QKV, output projection, feed-forward
COLD_ROWS = 128  # with fewer rows than this, both kinds are measured
COLD_BYTES = 256e6  # of all copies together
LEAST_COPIES = 12
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
# A sample of warm calls: a loop that is long enough for what the other contenders left in the caches not to count.
WARM_ROWS, MOST_CALLS = 2048, 20


def engines(bias, rows):
    """Name -> (function that makes of a plain weight what the engine keeps, call(x, kept weight))."""
    out_features = len(bias)
    reorder, onednn_linear = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    return {
        "ours": (tk.ops.pack_weight, lambda x, w: tk.ops.packed_linear(x, w, bias, out_features)),
        "onednn": (lambda w: reorder(w, rows), lambda x, w: onednn_linear(x, w, bias, "none", [], "")),
        "torch": (torch.clone, lambda x, w: torch.nn.functional.linear(x, w, bias)),
    }


def looped(call, x, weights, calls):
    """A function that calls `calls` times, each time with the next weight of an endless round."""
    following = itertools.cycle(weights)

    def run():
        for weight in itertools.islice(following, calls):
            call(x, weight)

    return run


def measure(rows, shape, dtype, kind, roofline, options):
    in_features, out_features = shape
    generator = torch.Generator().manual_seed(0)
    sizes = ((rows, in_features), (out_features, in_features), (out_features,))
    x, weight, bias = (torch.randn(*size, generator=generator).to(dtype) for size in sizes)
    weight /= in_features**0.5
    name, flops, tolerance = dtype_name(dtype), 2.0 * rows * in_features * out_features, TOLERANCE[dtype]
    copies = max(LEAST_COPIES, math.ceil(COLD_BYTES / weight.nbytes)) if kind == "cold" else 1
    calls = copies if kind == "cold" else min(MOST_CALLS, max(1, WARM_ROWS // rows))
    contenders = {}
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    for engine, (keep, call) in engines(bias, rows).items():
        weights = [keep(weight) for _ in range(copies)]
        require_close(f"{engine} {name} {rows}x{shape}", call(x, weights[0]), exact, tolerance)
        contenders[engine] = looped(call, x, weights, calls)
    median = {engine: timing.median_s / calls for engine, timing in time_all(contenders, options.repeats).items()}
    moved = linear_bytes(rows, in_features, out_features, name) if kind == "cold" else 0
    return {
        "dtype": name,
        "m": rows,
        "k": in_features,
        "n": out_features,
        "weights": kind,
        "ours_us": 1e6 * median["ours"],
        "gflops": flops / median["ours"] / 1e9,
        "share_of_peak": flops / median["ours"] / roofline.peak_flops[name],
        "share_of_roofline": roofline.seconds(flops, moved, name) / median["ours"],
        "vs_onednn": median["onednn"] / median["ours"],
        "vs_torch": median["torch"] / median["ours"],
    }


def main():
    options = arguments(__doc__)
    roofline = Roofline.measure(options.threads)
    rows = [
        measure(rows, shape, dtype, kind, roofline, options)
        for dtype in (torch.float32, torch.bfloat16)
        for rows in ROWS
        for shape in SHAPES
        for kind in (("warm", "cold") if rows < COLD_ROWS else ("warm",))
    ]
    publish("linear", rows, options, {"ceilings": roofline.to_dict()})


if __name__ == "__main__":
    main()
