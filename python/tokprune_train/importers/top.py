"""Checkpoints of ToP's official code (Li et al., KDD 2023): a BERT or RoBERTa, and beside it zs.pt with masks over bins of ranks.

config.json and the weights do not say that anything is pruned, nor does zs.pt say at which layers: its rows are those of the
training's `--prune_location`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import tokprune_kernels as tk

from ..objectives.gates import FIRST_ONLY
from .checkpoint import Imported, build, configuration, head_of, read_config, read_weights

MASKS = "zs.pt"
_CLASSES = {"ToPBert": "Bert", "ToPRoberta": "Roberta", "Bert": "Bert", "Roberta": "Roberta"}


def import_top(folder: str | Path, layers: Sequence[int], as_shares: bool = False) -> Imported:
    """The model of a folder that ToP's official code saved, pruned by the masks in its zs.pt.

    A layer keeps [CLS] and, of the others, the share of its bins that are on (`count_first=False`). The official code's importance
    averages over padded and pruned rows as well; here only living rows count.

    layers: at whose entry zs.pt's rows prune, ascending, counted from 0 (the official training's `--prune_location`).
    as_shares: take the share of the bins also where those that are on are not the first ones. The same number of tokens stays as in
    the official code, but others: those that rank highest.

    Raises ValueError for a folder that is no such checkpoint, layers that do not fit, or such a mask without as_shares.
    """
    fields = read_config(folder)
    prefix, head = head_of(fields.get("architectures"), tuple(_CLASSES))
    fields = {name: value for name, value in fields.items() if name not in ("architectures", "pruning")}
    config = configuration(folder, fields.pop("model_type", _CLASSES[prefix].lower()), fields)
    masks = read_masks(folder)
    ratios = keep_ratios(*masks, layers, config.num_hidden_layers, as_shares)
    model = build(_CLASSES[prefix] + head, config, read_weights(folder))
    return Imported(tk.prune_model(model, tk.PruningConfig.top(ratios, count_first=False)))


def read_masks(folder: str | Path) -> tuple[Tensor, Tensor]:
    """(token_z (n, bins), pruner_z (n,)) of a folder's zs.pt, both bool; nothing is unpickled but tensors.

    Raises ValueError where there is none, or it holds something else.
    """
    path = Path(folder) / MASKS
    if not path.is_file():
        raise ValueError(f"{str(folder)!r} has no {MASKS}, in which ToP's official code saves what it learned of pruning")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the loader raises for files that are none, or that hold objects
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"cannot read {str(path)!r}, which must hold tensors only: {first}") from error
    if not isinstance(held, dict) or set(held) != {"token_z", "pruner_z"}:
        names = ", ".join(map(str, held)) if isinstance(held, dict) else type(held).__name__
        raise ValueError(f"{str(path)!r} must hold token_z and pruner_z, and nothing else is known how to prune by; it holds {names}")
    tokens, pruners = (held[name] for name in ("token_z", "pruner_z"))
    if not all(isinstance(one, Tensor) for one in (tokens, pruners)):
        raise ValueError(f"token_z and pruner_z in {str(path)!r} must be tensors")
    if tokens.dim() != 2 or not tokens.numel() or pruners.numel() != tokens.shape[0]:
        raise ValueError(
            f"token_z in {str(path)!r} must be (layers, bins) and pruner_z (layers,), got {tuple(tokens.shape)} and {tuple(pruners.shape)}"
        )
    return tokens > 0, pruners.reshape(-1) > 0


def keep_ratios(tokens: Tensor, pruners: Tensor, layers: Sequence[int], num_layers: int, as_shares: bool = False) -> list[float]:
    """One ratio for each layer of the model: the share of the bins that are on; 1.0 where the pruner is off or there is none.

    tokens (n, bins) and pruners (n,) bool, see `read_masks`.   layers, as_shares: see `import_top`. Raises ValueError as there.
    """
    layers = list(layers)
    ascending = all(left < right for left, right in zip(layers, layers[1:]))
    if len(layers) != len(tokens) or not ascending or layers[0] < 1 or layers[-1] >= num_layers:
        last = ",".join(map(str, range(num_layers - len(tokens), num_layers)))
        raise ValueError(
            f"layers must name, ascending and from 1 to {num_layers - 1}, where the {len(tokens)} rows of token_z prune; got "
            f"{','.join(map(str, layers)) or 'none'}. ToP's own evaluation takes the last ones: --layers {last}"
        )
    ratios = [1.0] * num_layers
    scattered = []
    for layer, mask, prunes in zip(layers, tokens, pruners.tolist(), strict=True):
        if not prunes:
            continue
        on = int(mask.sum())
        if not bool(mask[:on].all()):
            scattered.append(layer)
        ratios[layer] = on / len(mask) if on else FIRST_ONLY
    if scattered and not as_shares:
        raise ValueError(
            f"the bins that are on in layer(s) {', '.join(map(str, scattered))} are not the first ones: no keep ratio says which tokens the "
            "official code keeps there. With --as-shares as many stay, those that rank highest"
        )
    return ratios
