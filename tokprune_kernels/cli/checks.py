"""Is the answer right? Asked before anything is timed, with the models and the texts that will be timed."""

from dataclasses import asdict, dataclass

import torch

from tokprune_kernels import reference
from tokprune_kernels.models.adapters import find_adapter

from .batches import has_token_types

# Largest difference allowed: absolute, or as a share of the largest value expected. bfloat16 has 8 bits
# of mantissa, and every layer rounds to them several times, in another order in each implementation.
_TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.bfloat16: (0.05, 0.05)}


@dataclass(frozen=True)
class Check:
    """One thing that was compared: what, whether it holds, and by how much."""

    name: str
    passed: bool
    detail: str

    def to_dict(self) -> dict:
        """Return the check as JSON types."""
        return asdict(self)


def check_close(
    name: str,
    got: torch.Tensor,
    expected: torch.Tensor,
    live: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Check:
    """Compare two tensors of the same shape by their largest difference.

    live: bool, the shape of the first dimensions of both: those that are compared (padding is undefined).
    dtype: whose rounding to allow for; default: the dtype of `expected`.
    """
    if got.shape != expected.shape:
        return Check(name, False, f"shapes differ: {tuple(got.shape)} and {tuple(expected.shape)}")
    if live is not None:
        got, expected = got[live], expected[live]
    if got.numel() == 0:
        return Check(name, True, "nothing to compare")
    difference = (got.double() - expected.double()).abs().max().item()
    absolute, share = _TOLERANCE[dtype or expected.dtype]
    allowed = max(absolute, share * expected.double().abs().max().item())
    detail = f"largest difference {difference:.1e}, allowed {allowed:.1e}"
    return Check(name, difference <= allowed, detail)  # a NaN is not <= anything


def check_decisions(name: str, batch: dict, pruning, config) -> Check:
    """Check that the kept tokens are exactly those that `config` keeps by the reported importance.

    batch: input_ids and attention_mask (B, L). pruning: the `PruningOutput` of a run with `config`.
    """
    kept, importance = pruning.kept_mask, pruning.importance
    shift = 1 if config.position == "after_attention" else 0  # row of kept_mask that layer 0 decides
    protected = torch.isin(batch["input_ids"], torch.tensor(config.protected_token_ids, dtype=batch["input_ids"].dtype))
    wrong = [] if torch.equal(kept[0], batch["attention_mask"] != 0) else ["input"]
    for row in range(1, len(kept)):
        expected, layer = kept[row - 1].clone(), row - shift
        if layer < len(importance) and config.prunes_at(layer):
            alive = kept[row - 1]
            expected[alive] = _decide(importance[row - 1], alive, protected, layer, config)
        if not torch.equal(expected, kept[row]):
            wrong.append(str(layer))
    detail = f"not at layer {', '.join(wrong)}" if wrong else f"in all {len(importance)} layers"
    return Check(name, not wrong, detail)


def _decide(importance, alive, protected, layer, config):
    """Return which of the tokens alive (T,) the reference keeps, as (T,) bool."""
    lengths = alive.sum(dim=1)
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    options = {
        "protected": protected[alive] if config.protected_token_ids else None,
        "protect_first": config.protect_first,
    }
    if config.criterion == "threshold":
        keep_idx, _ = reference.keep_threshold(importance[alive], cu_seqlens, config.thresholds[layer], **options)
    else:
        options["count_first"] = config.count_first
        keep_idx, _ = reference.keep_topk(importance[alive], cu_seqlens, config.keep_ratios[layer], **options)
    kept = torch.zeros(int(lengths.sum()), dtype=torch.bool)
    kept[keep_idx.long()] = True
    return kept


def check_states(name: str, base_model, batch: dict, hidden: torch.Tensor, pruning, config) -> list[Check]:
    """Check the shortest, a middle and the longest text of a batch against plain PyTorch, each by itself.

    The plain run uses Hugging Face's own modules and really drops the tokens that the checked run dropped, so rounding
    cannot lead the two to different decisions (`check_decisions` says whether those were right).
    base_model: the plain Hugging Face model. hidden: last hidden state (B, L, H) of the pruned run.
    """
    lengths = pruning.kept_lengths[0]
    order = lengths.argsort()[(lengths == 0).sum() :].tolist()
    rows = sorted({order[0], order[len(order) // 2], order[-1]}) if order else []
    names = ("input_ids", "token_type_ids") if has_token_types(base_model.config) else ("input_ids",)
    checks = []
    for row in rows:
        live = batch["attention_mask"][row] != 0
        text = {name: batch[name][row][live] for name in names if name in batch}
        ids = text["input_ids"]
        expected, scores = plain_forward(base_model, text, pruning.kept_mask[:, row][:, live], config)
        label, reported = f"{name}, text of {len(ids)} tokens", pruning.importance[:, row][:, live]
        checks.append(check_close(f"{label}: hidden states", hidden[row][live], expected))
        # Times the length: a mean of 1 in every text. Importance is float32, but made of states in the model's dtype.
        checks.append(check_close(f"{label}: importance", len(ids) * reported, len(ids) * scores, dtype=hidden.dtype))
    return checks


def plain_forward(base_model, text: dict, kept: torch.Tensor, config) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one text through plain PyTorch, dropping the tokens that `kept` drops.

    text: input_ids and, where they count, token_type_ids (n,) int64. kept: (num_layers + 1, n) bool, row l: alive in layer l's attention. config: PruningConfig.
    Returns hidden states (n, H), exit states included, and importance (num_layers, n) float32.
    """
    adapter, _ = find_adapter(base_model)
    ids = text["input_ids"]
    final = base_model.embeddings(**{name: values[None] for name, values in text.items()})
    if hasattr(base_model, "embeddings_project"):  # ELECTRA's narrow embeddings
        final = base_model.embeddings_project(final)
    final = final[0]
    importance = torch.zeros(len(kept) - 1, len(ids))
    for number, layer in enumerate(map(adapter.layer_modules, adapter.encoder(base_model).layer)):
        alive, survivors = kept[number], kept[number + 1]
        x = final[alive]
        heads = [part(x).view(len(x), layer.heads, layer.head_dim) for part in (layer.query, layer.key, layer.value)]
        rows = {"kept": len(x), "sqrt_kept": len(x) ** 0.5, "initial": len(ids)}.get(config.score_denominator, config.score_denominator)
        bounds = torch.tensor([0, len(x)], dtype=torch.int32)
        context, importance[number, alive] = reference.attn_importance(*heads, bounds, len(x), layer.scale, torch.tensor([float(rows)]))
        stays = survivors[alive] if config.position == "after_attention" else torch.ones_like(alive[alive])
        attended = layer.norm_attention(layer.attention_out(context.flatten(1)[stays]) + x[stays])
        output = layer.norm_output(layer.down(layer.activation(layer.up(attended))) + attended)
        final = final.clone()
        final[survivors if config.position == "after_attention" else alive] = output
    return final, importance
