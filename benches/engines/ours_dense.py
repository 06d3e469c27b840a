"""Ours, packed: padding is removed, no token is."""

import tokprune_kernels as tk

from .pruned import pruned

ENGINE = pruned("ours_dense", lambda model, workload: tk.PruningConfig.dense(), at_padded_task=None)
