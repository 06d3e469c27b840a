"""Made-up finished trainings in the folders that `tokprune train` leaves, for the tests of what is made from them."""

import json

LAYERS = 3
STAMP = {
    "packages": {"torch": "2.13.0", "transformers": "5.23.0"},
    "cpu": {"model": "A CPU"},
    "threads": 2,
    "date": "2026-01-02T03:04:05Z",
}
PRUNING = {
    "dense": {},
    "ltp": {"criterion": "threshold", "thresholds": [0.0, 0.01, 0.02]},
    "fixed": {"criterion": "threshold", "thresholds": [0.01, 0.02, 0.03]},
    "top": {"criterion": "topk", "keep_ratios": [1.0, 0.7, 0.5]},
    "topk": {"criterion": "topk", "keep_ratios": [1.0, 0.8, 0.6]},
}


def result(method, seed, score, packed, speedup=None, model="/somewhere/runs/sst2/dense-seed0/model"):
    """What result.json holds, as far as it is read; the score stands in every metric."""
    arguments = {"method": method, "model": model, "data": "/somewhere/texts/sst2", "output": "/somewhere/out", "seed": seed, "max_length": 64}
    if method in ("ltp", "top"):
        arguments |= {"speedup": speedup, "latency": False}
    return {
        "method": method,
        "arguments": arguments,
        "pruning": {"criterion": None, "thresholds": None, "keep_ratios": None} | PRUNING[method],
        "evaluation": {
            "metrics": {"accuracy": score, "f1": score},
            "flops_reduction": {"packed": packed, "longest": 1.1 * packed, "maximum": 2.5 * packed},
            "tokens_alive": [1.0, 0.8, 0.6, 0.5],
            "rows": 872,
            "max_length": 64,
        },
        "train_seconds": 12.5,
        "machine": STAMP,
    }


def write(root, data, name, seed, content, log_lines=3):
    """A finished training, weights included, as RESULT/DATA/NAME-seedK; returns its folder."""
    folder = root / data / f"{name}-seed{seed}"
    stages = {"dense": ["dense"], "ltp": ["soft", "hard"], "top": ["soft", "hard"]}.get(content["method"], ["hard"])
    for stage in stages:
        (folder / stage).mkdir(parents=True)
        lines = [{"step": 50 * (n + 1), "loss": 1 / 3, "saved": 0.1 * n, "target": 0.5} for n in range(log_lines)]
        (folder / stage / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def write_all(root):
    """Two data sets: SST-2 with three methods on two seeds, MRPC with a dense model and a baseline on one."""
    for seed in (0, 1):
        dense = f"/somewhere/runs/sst2/dense-seed{seed}/model"
        better = 0.01 * seed
        write(root, "sst2", "dense", seed, result("dense", seed, 0.90 + better, 1.0, model="/models/all-MiniLM-L6-v2"))
        write(root, "sst2", "ltp-2.1x", seed, result("ltp", seed, 0.895 + better, 2.0, 2.2, dense))
        write(root, "sst2", "top-3x", seed, result("top", seed, 0.87 + better, 3.0, 3.2, dense))
    write(root, "mrpc", "dense", 0, result("dense", 0, 0.88, 1.0))
    write(root, "mrpc", "topk", 0, result("topk", 0, 0.86, 1.5))
    return root
