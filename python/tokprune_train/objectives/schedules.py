"""Keep ratios that are not learned: the baselines."""

import math


def spatten_keep_ratios(final_keep: float, num_layers: int, whole_layers: int | None = None) -> list[float]:
    """SpAtten's schedule (Wang et al., HPCA 2021) as LTP's baseline: the first layers whole, then fewer tokens layer by layer.

    The share of a text's *original* tokens that a layer works on falls linearly from 1 in the last whole layer to final_keep
    in the last layer. A ratio is relative to the tokens alive: this layer's share over that of the layer before.

    LTP's code lets tokens go after the attention of the layer (position "after_attention"): with "before_layer" the same list
    prunes one attention earlier.

    Args:
        final_keep: share in the last layer, in (0, 1].
        num_layers: of the model.
        whole_layers: first layers that prune nothing, in 1..num_layers - 1; None: max(3, 15% of the layers, rounded up).

    Returns:
        one ratio for each layer, for PruningConfig.top with either position.

    Raises:
        ValueError: final_keep or whole_layers is out of its range. A model of 3 layers or fewer needs whole_layers.
    """
    if not 0 < final_keep <= 1:
        raise ValueError(f"final_keep must be in (0, 1], the share of the tokens in the last layer, got {final_keep}")
    # In integers: 0.15 * 20 is a little more than 3.
    whole = max(3, math.ceil(15 * num_layers / 100)) if whole_layers is None else whole_layers
    if not 1 <= whole < num_layers:
        raise ValueError(
            f"whole_layers must be in 1..{num_layers - 1} for a model of {num_layers} layers, got {whole}"
            + (": the schedule's default needs more layers, give whole_layers" if whole_layers is None else "")
        )
    pruning = num_layers - whole
    shares = [1.0] * whole + [1 - (1 - final_keep) * step / pruning for step in range(1, pruning + 1)]
    return [1.0] + [share / before for before, share in zip(shares, shares[1:])]
