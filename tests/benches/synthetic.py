"""Made-up results in the form that the benchmarks write them, for the tests of what is made from results."""

import csv
import json

COLUMNS = (
    "dtype", "workload", "engine", "tokens", "padded_tokens", "batches", "gflop", "ms_per_batch", "p95_ms_per_batch",
    "rounds", "live_gflops", "vs_huggingface", "vs_best_peer", "vs_ours_dense", "flops_vs_dense", "flops_vs_padded",
    "roofline_ms", "share_of_roofline",
)  # fmt: skip
# Engine -> milliseconds of a batch; every workload takes the same, so that the expected cells are easy to see.
FP32 = {
    "hf_eager": 120.0, "hf_sdpa": 100.0, "torch_compile": 80.0, "onnxruntime": 90.0, "onnxruntime_plain": 85.0,
    "openvino": 60.0, "onnxruntime_int8": 45.0, "ours_dense": 50.0, "ours_exact_cls": 46.0,
}  # fmt: skip
BF16 = {"hf_eager": 60.0, "hf_sdpa": 50.0, "torch_compile": 40.0, "openvino": 30.0, "ours_dense": 25.0, "ours_exact_cls": 23.0}  # fmt: skip
NO_PEER = "onnxruntime_int8"
PRUNED = {"ours_top": 20.0, "ours_ltp": 18.0}  # half the time in bf16
FLOPS_SAVED = {"ours_exact_cls": 1.08, "ours_top": 3.0, "ours_ltp": 3.0, "ours_top_8x": 4.0}
FIXED = ("1x16", "1x128", "1x512", "8x128")
REAL = ("sst2 batches of 32", "sst2 batches of 32, similar lengths")
PADDED = ("sst2 padded to 64",)
STAMP = {
    "packages": {"torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4"},
    "cpu": {"model": "A CPU"},
    "threads": 2,
    "active_isa": "avx2",
    "date": "2026-01-02T03:04:05Z",
}
ATTENTION = {
    "dtype": "fp32", "workload": "8x128", "vs_sdpa": 2.0, "vs_eager": 3.0, "importance_cost": 0.02,
    "share_of_peak": 0.5,
}  # fmt: skip
FIRST_CALL = {
    "dtype": "fp32", "engine": "openvino", "lengths": 10, "load_s": 3.0, "first_ms": 12.0, "worst_first_ms": 30.0, "warm_ms": 10.0,
    "first_vs_warm": 1.2, "worst_first_vs_warm": 3.0,
}  # fmt: skip
TRAINING = [
    {"dtype": "fp32", "workload": workload, "engine": engine, "ms_per_step": ms, "vs_eager": 100 / ms}
    for workload in ("sst2 batches of 32", "20news 8x512")
    for engine, ms in (("hf_eager", 100.0), ("ours_hidden", 50.0), ("ours_attention", 40.0))
]
TRAINING_MEMORY = [
    {"dtype": "fp32", "workload": "20news 8x512", "engine": engine, "peak_mb": mb, "of_eager": mb / 1000}
    for engine, mb in (("hf_eager", 1000.0), ("ours_hidden", 400.0), ("ours_attention", 350.0))
]


def ratio(other, ms):
    return other / ms if other else ""


def model_rows(skip=()):
    """Rows of model.csv without the engines in `skip`."""
    for dtype, dense in (("fp32", FP32), ("bf16", BF16)):
        faster = 2 if dtype == "bf16" else 1
        for workload in (*FIXED, *REAL, *PADDED):
            pruned = PRUNED if workload in REAL else {"ours_top_8x": 10.0} if workload in PADDED else {}
            engines = dense | {engine: ms / faster for engine, ms in pruned.items()}
            engines = {engine: ms for engine, ms in engines.items() if engine not in skip}
            peers = [ms for engine, ms in engines.items() if engine != NO_PEER and not engine.startswith("ours")]
            for engine, ms in engines.items():
                saved = FLOPS_SAVED.get(engine, 1.0)
                roofline_ms = 40 / faster / saved
                values = (
                    dtype, workload, engine, 2048, 4096, 2, 200 / saved, ms, 1.1 * ms, 9, 100e3 / ms,
                    ratio(engines.get("hf_sdpa"), ms), ratio(min(peers, default=None), ms),
                    ratio(engines.get("ours_dense"), ms), saved, 2 * saved, roofline_ms, roofline_ms / ms,
                )  # fmt: skip
                yield dict(zip(COLUMNS, values, strict=True))


def write(folder, rows):
    """Write model.csv, those of the other tables, and their machine stamps into `folder`."""
    others = {
        "attention": [ATTENTION], "first_call": [FIRST_CALL], "training": TRAINING, "training_memory": TRAINING_MEMORY,
    }  # fmt: skip
    tables = (("model", COLUMNS, list(rows)), *((name, tuple(content[0]), content) for name, content in others.items()))
    for name, columns, content in tables:
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(content)
        (folder / f"{name}.machine.json").write_text(json.dumps(STAMP))
    return folder
