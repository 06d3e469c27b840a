"""Pruned BERT by masking: the definition the package is tested against.

Everything runs on the padded batch with boolean alive-masks and full attention maps of shape (B, heads, L, L), in the
model's own dtype (float32 or float64). Nothing is removed: a token that is not alive is masked as a key, left out of
the column means as a query, and its hidden state is frozen. Written from the definitions alone (importance, decision,
position, exit state), it shares no code with `tokprune_kernels`, so a shared mistake cannot hide.
"""

import math
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Pruning:
    """What to prune: `values` holds one threshold or one keep ratio per layer."""

    criterion: str  # "threshold" | "topk"
    values: tuple[float, ...]
    position: str = "after_attention"  # or "before_layer"
    score_denominator: str | int = "kept"  # "kept" | "sqrt_kept" | "initial" | the number itself
    protect_first: bool = True
    protected_token_ids: tuple[int, ...] = ()
    count_first: bool = True  # False: a keep ratio is of the tokens past the first


@dataclass
class OracleOutput:
    """Results on the padded batch; fields mean what the package's outputs of the same name mean.

    margin: (num_layers, B) relative distance between the decision made at that layer and the nearest score that would
    have changed it; infinite where nothing was decided. Two correct implementations may differ below rounding only.
    """

    last_hidden_state: torch.Tensor  # (B, L, H): final states, exit states, zeros at padding
    hidden_states: tuple[torch.Tensor, ...]  # num_layers + 1 of (B, L, H)
    pooler_output: torch.Tensor | None  # (B, H), from each text's first live token
    kept_lengths: torch.Tensor  # (num_layers + 1, B) int64
    kept_mask: torch.Tensor  # (num_layers + 1, B, L) bool
    importance: torch.Tensor  # (num_layers, B, L), 0 where not alive
    margin: torch.Tensor  # (num_layers, B)


def oracle_forward(
    model,
    input_ids,
    attention_mask=None,
    pruning=None,
    *,
    token_type_ids=None,
    position_ids=None,
    forced_kept_mask=None,
):
    """Run an ordinary `transformers.BertModel` (eval mode) with masked pruning.

    pruning=None prunes nothing. forced_kept_mask (num_layers + 1, B, L) bool replaces every decision: row l says which
    tokens are alive in layer l's attention, the last row which are alive at the end.
    """
    live = _live(input_ids, attention_mask)
    decider = _Decider(pruning, input_ids, live, len(model.encoder.layer), forced_kept_mask)
    return _run(model, input_ids, live, decider, token_type_ids, position_ids)


def _live(input_ids, attention_mask):
    return torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask != 0


def _run(model, input_ids, live, decider, token_type_ids=None, position_ids=None):
    if position_ids is None:
        position_ids = (live.long().cumsum(dim=1) - 1).clamp(min=0)  # index among the live ones: padding side is moot
        if hasattr(model.embeddings, "create_position_ids_from_input_ids"):  # RoBERTa's: counted from the padding's id
            position_ids = position_ids + model.embeddings.padding_idx + 1
    x = model.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
    if hasattr(model, "embeddings_project"):  # ELECTRA's narrow embeddings
        x = model.embeddings_project(x)
    state = torch.where(live[..., None], x, torch.zeros_like(x))
    alive, importance = live, None
    kept, scores, hidden_states = [], [], [state]
    for index, layer in enumerate(model.encoder.layer):
        if decider.position == "before_layer" and index > 0:
            alive = decider.decide(index, index, importance, alive)
        kept.append(alive)
        context, importance = _attention(layer.attention.self, state, alive, decider.denominators(alive))
        scores.append(importance)
        if decider.position == "after_attention":
            alive = decider.decide(index, index + 1, importance, alive)
        attended = layer.attention.output(context, state)
        output = layer.output(layer.intermediate(attended), attended)
        state = torch.where(alive[..., None], output, state)  # the dead keep their exit state
        hidden_states.append(state)
    kept.append(alive)

    kept_mask = torch.stack(kept)
    return OracleOutput(
        last_hidden_state=state,
        hidden_states=tuple(hidden_states),
        pooler_output=_pool(model, state, live),
        kept_lengths=kept_mask.sum(dim=-1),
        kept_mask=kept_mask,
        importance=torch.stack(scores),
        margin=decider.margin,
    )


def _attention(module, state, alive, denominators):
    """Full attention maps; returns context (B, L, H) and importance (B, L) = 1/(N_h D) sum_h sum_q A_h[q, i]."""
    batch, length, _ = state.shape
    heads, width = module.num_attention_heads, module.attention_head_size

    def split(x):
        return x.view(batch, length, heads, width).transpose(1, 2)

    query, key, value = split(module.query(state)), split(module.key(state)), split(module.value(state))
    logits = query @ key.transpose(2, 3) / math.sqrt(width)
    dead_key = ~alive & alive.any(dim=1, keepdim=True)  # an empty text would give NaN rows; its maps are never read
    probabilities = logits.masked_fill(dead_key[:, None, None, :], float("-inf")).softmax(dim=-1)
    rows = torch.where(alive[:, None, :, None], probabilities, torch.zeros_like(probabilities))
    importance = rows.sum(dim=(1, 2)) / (heads * denominators[:, None])
    context = (probabilities @ value).transpose(1, 2).reshape(batch, length, heads * width)
    return context, torch.where(alive, importance, torch.zeros_like(importance))


def _pool(model, state, live):
    """The model's own pooler on each text's first live token (column 0 for an empty text)."""
    if getattr(model, "pooler", None) is None:
        return None
    first = live.long().argmax(dim=1)
    return model.pooler(state[torch.arange(len(state), device=state.device), first][:, None])


class _Decider:
    """Applies one pruning description to a batch, text by text."""

    def __init__(self, pruning, input_ids, live, num_layers, forced_kept_mask):
        self.pruning, self.live, self.forced = pruning, live, forced_kept_mask
        self.position = pruning.position if pruning is not None else "after_attention"
        self.margin = torch.full((num_layers, len(live)), float("inf"), dtype=torch.float64)
        ids = pruning.protected_token_ids if pruning is not None else ()
        self.protected = torch.isin(input_ids, torch.tensor(ids, dtype=input_ids.dtype, device=input_ids.device))
        if pruning is not None:
            assert len(pruning.values) == num_layers, "one value per layer"

    def denominators(self, alive):
        """(B,) what importance is divided by; at least 1 so that an empty text divides by something."""
        kind = self.pruning.score_denominator if self.pruning is not None else "kept"
        if kind == "sqrt_kept":
            return alive.sum(dim=1).clamp(min=1).double() ** 0.5
        if kind in ("kept", "initial"):
            return (alive if kind == "kept" else self.live).sum(dim=1).clamp(min=1)
        return torch.full((len(alive),), kind, device=alive.device)

    def decide(self, layer, row, importance, alive):
        """Who of `alive` (B, L) stays by `importance` (B, L); `row` is the row of forced_kept_mask that answers it."""
        if self.forced is not None:
            return self.forced[row]
        if self.pruning is None:
            return alive
        kept = torch.zeros_like(alive)
        for text in range(len(alive)):
            places = alive[text].nonzero().flatten()
            if len(places) == 0:
                continue
            keep, margin = decide_text(
                importance[text, places].detach(), self.protected[text, places], self.pruning, self.pruning.values[layer]
            )
            kept[text, places[keep]] = True
            self.margin[layer, text] = margin
        return kept


def decide_text(scores, protected, pruning, value):
    """One text's decision: scores (n,), protected (n,) bool -> keep (n,) bool, relative margin."""
    forced = protected.clone() | scores.isnan()
    if pruning.protect_first:
        forced[0] = True
    if pruning.criterion == "threshold":
        return _by_threshold(scores, forced, value)
    return _by_rank(scores, forced, value, pruning.count_first)


def _by_threshold(scores, forced, threshold):
    if threshold <= 0.0:
        return torch.ones_like(forced), float("inf")
    keep = forced | (scores >= threshold)
    free = scores[~forced].double()
    margin = float(((free - threshold).abs() / threshold).min()) if len(free) else float("inf")
    if not keep.any():
        ranked = scores.double().sort(descending=True).values
        keep[int((scores == scores.max()).nonzero()[0])] = True  # ties to the lower position
        if len(ranked) > 1:
            margin = min(margin, float((ranked[0] - ranked[1]) / ranked[0]))
    return keep, margin


def _by_rank(scores, forced, ratio, count_first):
    count = len(scores)
    ranked = math.ceil(ratio * count - 1e-9) if count_first else 1 + math.ceil(ratio * (count - 1) - 1e-9)
    k = max(1, ranked, int(forced.sum()))
    values, must = scores.tolist(), forced.tolist()
    # NaN scores are all in `must`; their key must not compare as NaN
    order = sorted(range(count), key=lambda i: (not must[i], 0.0 if must[i] else -values[i], i))
    keep = torch.zeros_like(forced)
    keep[order[:k]] = True
    chosen, left = [values[i] for i in order[:k] if not must[i]], [values[i] for i in order[k:]]
    margin = (min(chosen) - max(left)) / min(chosen) if chosen and left else float("inf")
    return keep, margin


def decisions_from_importance(pruning, input_ids, attention_mask, kept_mask, importance):
    """What the pruning rule decides for someone else's importance and alive sets.

    Returns kept_mask (num_layers + 1, B, L) and the margin (num_layers, B) of those decisions. An implementation whose
    decisions follow its own scores gets its own kept_mask back exactly, in any dtype, however its rounding differs from
    the oracle's.
    """
    live = _live(input_ids, attention_mask)
    num_layers = len(importance)
    decider = _Decider(pruning, input_ids, live, num_layers, None)
    rows = [live]
    for index in range(num_layers):
        if pruning.position == "after_attention":
            rows.append(decider.decide(index, index + 1, importance[index], kept_mask[index]))
        elif index + 1 < num_layers:
            rows.append(decider.decide(index + 1, index + 1, importance[index], kept_mask[index]))
        else:
            rows.append(kept_mask[index])
    return torch.stack(rows), decider.margin


class _GapDecider(_Decider):
    """Chooses each layer's threshold when its scores are known, then decides by it."""

    def __init__(self, pruning, input_ids, live, shares):
        self.shares, self.thresholds = shares, [0.0] * len(shares)
        pruning = replace(pruning, criterion="threshold", values=tuple(self.thresholds))
        super().__init__(pruning, input_ids, live, len(shares), None)

    def decide(self, layer, row, importance, alive):
        if self.shares[layer] < 1.0:
            self.thresholds[layer] = _middle_of_widest_gap(importance[alive].double(), self.shares[layer])
            self.pruning = replace(self.pruning, values=tuple(self.thresholds))
        return super().decide(layer, row, importance, alive)


def _middle_of_widest_gap(scores, share, window=0.05):
    """A number that about `share` of the scores exceed; the gap is looked for within `window` quantiles either side."""
    scores = scores.sort().values
    low = max(0, int((1.0 - share - window) * len(scores)))
    high = min(len(scores) - 1, max(low + 1, int((1.0 - share + window) * len(scores))))
    near = scores[low : high + 1]
    widest = int((near[1:] / near[:-1]).argmax())
    return float((near[widest] * near[widest + 1]).sqrt())


def gap_thresholds(model, input_ids, attention_mask, pruning, shares):
    """Thresholds that keep about `shares[l]` of the alive tokens at layer l and lie in the widest gap nearby.

    A threshold in the middle of a gap between scores leaves no token whose fate rounding could change, so that kept
    sets can be compared without any exemption. A share of 1.0 gives threshold 0.0 (nothing pruned there). All other
    settings are `pruning`'s. Returns a tuple, one threshold per layer.
    """
    live = _live(input_ids, attention_mask)
    decider = _GapDecider(pruning, input_ids, live, shares)
    with torch.no_grad():
        _run(model, input_ids, live, decider)
    return tuple(decider.thresholds)
