"""Ours, pruned by ToP's kind of keep ratios."""

import tokprune_kernels as tk

from .pruned import keep_ratios, pruned

ENGINE = pruned("ours_top", lambda model, workload: tk.PruningConfig.top(keep_ratios(model.config.num_hidden_layers)))
