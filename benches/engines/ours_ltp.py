"""Ours, pruned by LTP's kind of thresholds, put where they keep about as many of a workload's tokens as ours_top."""

import torch

import tokprune_kernels as tk

from .pruned import keep_ratios, pruned


def calibrated(model, workload):
    """One threshold a layer, layer by layer: the quantile of its scores that keeps its ratio of the tokens alive."""
    ratios = keep_ratios(model.config.num_hidden_layers)
    thresholds = [0.0] * len(ratios)
    for layer, ratio in enumerate(ratios):
        if ratio == 1.0:
            continue
        model.set_pruning(tk.PruningConfig.ltp(thresholds))
        seen = [model(**batch, output_pruning=True).pruning for batch in workload.batches]
        alive = torch.cat([one.importance[layer][one.kept_mask[layer]] for one in seen])
        thresholds[layer] = float(alive.quantile(1 - ratio))
    return tk.PruningConfig.ltp(thresholds)


ENGINE = pruned("ours_ltp", calibrated)
