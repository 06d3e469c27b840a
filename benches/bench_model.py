"""A BERT-base shaped model on real lengths: Hugging Face padded, ours packed dense, ours pruned.

    python benches/bench_model.py

Weights are random and seeded (accuracy is not claimed), texts are random tokens with the lengths of real ones. The
FLOPs reductions are those that the run really had (tk.flops), against padded dense and against packed dense.
"""

import copy

import torch
from harness import arguments, dtype_name, lengths_of, publish, require_close, time_all
from transformers import BertConfig, BertModel

import tokprune_kernels as tk

# Keep ratios of ToP's kind and, for LTP's kind, thresholds put at the quantiles of the scores that keep as many: about
# 30% of the FLOPs of packed dense are left.
KEEP_RATIOS = [1.0, 0.65, 0.65, 0.65, 0.8, 0.8, 0.8, 1.0, 0.9, 1.0, 1.0, 1.0]
# Task, texts in a batch, batches, most rounds.
WORKLOADS = (("sst2", 32, 4, 15), ("20news", 8, 1, 7))


def batches_of(task, size, count):
    generator = torch.Generator().manual_seed(0)
    for start in range(0, size * count, size):
        lengths = torch.tensor(lengths_of(task)[start : start + size])
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        ids = torch.randint(1000, 30000, mask.shape, generator=generator) * mask
        yield {"input_ids": ids, "attention_mask": mask}


def calibrated_thresholds(model, batches):
    """One threshold a layer, layer by layer, so that about KEEP_RATIOS of the tokens alive stay."""
    thresholds = [0.0] * len(KEEP_RATIOS)
    for layer, ratio in enumerate(KEEP_RATIOS):
        if ratio == 1.0:
            continue
        model.set_pruning(tk.PruningConfig.ltp(thresholds))
        seen = [model(**batch, output_pruning=True)["pruning"] for batch in batches]
        alive = torch.cat([one.importance[layer][one.kept_mask[layer]] for one in seen])
        thresholds[layer] = float(alive.quantile(1 - ratio))
    return thresholds


def measure(task, size, count, rounds, dtype, options):
    torch.manual_seed(0)
    dense = BertModel(BertConfig(attn_implementation="sdpa")).eval().to(dtype)
    batches = list(batches_of(task, size, count))
    twins = {name: tk.prune_model(copy.deepcopy(dense), tk.PruningConfig.dense()) for name in ("packed", "top", "ltp")}
    twins["top"].set_pruning(tk.PruningConfig.top(KEEP_RATIOS))
    with torch.inference_mode():
        twins["ltp"].set_pruning(tk.PruningConfig.ltp(calibrated_thresholds(twins["ltp"], batches)))
        flops, lengths = {}, torch.cat([batch["attention_mask"].sum(1) for batch in batches])
        for name, model in twins.items():
            kept = torch.cat([model(**b, output_pruning=True)["pruning"].kept_lengths for b in batches], dim=1)
            flops[name] = float(tk.flops.encoder_flops(kept, model.config).sum())
        for batch in batches:
            live = batch["attention_mask"].bool()
            exact, ours = dense(**batch).last_hidden_state, twins["packed"](**batch).last_hidden_state
            require_close(f"{task} packed", ours[live], exact[live], 1e-5 if dtype == torch.float32 else 5e-2)
    padded = sum(float(tk.flops.dense_flops(b["attention_mask"].sum(1), dense.config, padded_to="longest").sum()) for b in batches)
    models = {"huggingface": dense, **twins}
    contenders = {name: (lambda model=model: [model(**batch) for batch in batches]) for name, model in models.items()}
    timings = time_all(contenders, min(rounds, options.repeats), warmup=1)
    median = {name: timing.median_s for name, timing in timings.items()}
    for name in models:
        reduction = flops["packed"] / flops[name] if name in flops else None
        yield {
            "dtype": dtype_name(dtype),
            "workload": f"{task} batches of {size}",
            "model": name,
            "ms_per_batch": 1e3 * median[name] / count,
            "p95_ms_per_batch": 1e3 * timings[name].p95_s / count,
            "live_gflops": flops.get(name, flops["packed"]) / median[name] / 1e9,
            "texts_per_s": len(lengths) / median[name],
            "time_vs_huggingface": median["huggingface"] / median[name],
            "time_vs_packed": median["packed"] / median[name],
            "flops_vs_padded": padded / flops[name] if name in flops else 1.0,
            "flops_vs_packed": reduction,
            "flops_saved_as_time": median["packed"] / median[name] / reduction if reduction else None,
        }


def main():
    options = arguments(__doc__)
    rows = [
        row
        for dtype in (torch.float32, torch.bfloat16)
        for workload in WORKLOADS
        for row in measure(*workload, dtype, options)
    ]
    publish("model", rows, options)


if __name__ == "__main__":
    main()
