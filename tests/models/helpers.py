"""What the model tests share: random models and batches, padding, error measures, one comparison against the oracle."""

import copy
from contextlib import contextmanager

import torch
from transformers import BertConfig, BertModel

from ..oracle import Pruning, decisions_from_importance, gap_thresholds, oracle_forward

RAGGED = (16, 0, 1, 7, 48, 16, 33, 2)  # empty, single, odd, equal and maximal lengths, the longest not first
SHARES = {2: (1.0, 0.6), 3: (1.0, 0.7, 0.5), 4: (1.0, 0.8, 0.6, 0.5), 6: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)}
DECIDED = 1e-5  # relative margin below which two correct float32 programs may decide differently
VOCABULARY = 97


def random_bert(cls=BertModel, seed=0, **config):
    """A small BERT whose every parameter is random (biases and LayerNorms too) and whose attention is not flat."""
    return random_model(cls, BertConfig, seed, **config)


def random_model(cls, config_cls, seed=0, **config):
    """As `random_bert`, of any model type with BERT's names."""
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 256}
    model = cls(config_cls(vocab_size=VOCABULARY, max_position_embeddings=64, **{**sizes, **config})).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "LayerNorm.weight" in name:
                parameter.copy_(1.0 + 0.1 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            elif "embeddings" in name:
                parameter.copy_(noise)
            else:
                gain = 1.4 if "query" in name or "key" in name else 1.0
                parameter.copy_(gain * noise / parameter.shape[1] ** 0.5)
    return model


def random_batch(lengths=RAGGED, width=None, seed=0):
    """Right-padded (ids, mask), (B, L) int64; the padding holds random ids so that a leak of it is seen."""
    width = width or max([*lengths, 1])
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (len(lengths), width), generator=generator)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    return ids, mask


def repad(ids, mask, side="right", width=None):
    """The same texts padded to `width` on `side`: (ids, mask)."""
    width = width or ids.shape[1]
    new_ids, new_mask = torch.ones(len(ids), width, dtype=ids.dtype), torch.zeros(len(ids), width, dtype=mask.dtype)
    for row, (text, live) in enumerate(zip(ids, mask)):
        tokens = text[live != 0]
        place = slice(0, len(tokens)) if side == "right" else slice(width - len(tokens), width)
        new_ids[row, place], new_mask[row, place] = tokens, 1
    return new_ids, new_mask


def encode(tokenizer, texts, **options):
    """(ids, mask) of real texts, right-padded to the longest unless told otherwise."""
    options = {"padding": True, "truncation": True, "max_length": 512, "return_tensors": "pt", **options}
    encoded = tokenizer(list(texts), **options)
    return encoded["input_ids"], encoded["attention_mask"]


def text_error(actual, expected, mask=None):
    """Largest error of a batch-first tensor, each text's measured against its own largest value.

    max_b (max |actual_b - expected_b| / max |expected_b|); a text whose expected values are all zero counts absolutely.
    mask (B, L): compare live positions only.
    """
    actual, expected = actual.detach().double(), expected.detach().double()
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} against {tuple(expected.shape)}"
    if expected.numel() == 0:
        return 0.0
    if mask is not None:
        gate = (mask != 0).reshape(*mask.shape, *[1] * (expected.dim() - 2))
        zero = torch.zeros((), dtype=torch.float64)
        actual, expected = torch.where(gate, actual, zero), torch.where(gate, expected, zero)
    difference = (actual - expected).abs().flatten(1).amax(1)
    size = expected.abs().flatten(1).amax(1)
    assert not difference.isnan().any(), "NaN in the result"
    return float((difference / torch.where(size > 0, size, torch.ones_like(size))).max())


def to_config(tk, pruning):
    """The package's PruningConfig of an oracle Pruning (None: dense)."""
    if pruning is None:
        return tk.PruningConfig.dense()
    build = {"threshold": tk.PruningConfig.ltp, "topk": tk.PruningConfig.top}[pruning.criterion]
    return build(
        pruning.values,
        count_first=pruning.count_first,
        position=pruning.position,
        score_denominator=pruning.score_denominator,
        protect_first=pruning.protect_first,
        protected_token_ids=pruning.protected_token_ids,
    )


@contextmanager
def one_thread():
    """For many small torch calls: waking a second thread costs up to ten times the work, more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_pruning(model, ids, mask, criterion="threshold", shares=None, **options):
    """A Pruning that keeps about `shares` of the tokens per layer; thresholds lie in gaps of the model's scores."""
    shares = SHARES[model.config.num_hidden_layers] if shares is None else shares
    pruning = Pruning(criterion, tuple(shares), **options)
    if criterion == "topk":
        return pruning
    with one_thread():
        return Pruning(criterion, gap_thresholds(model, ids, mask, pruning, shares), **options)


def pruned_copy(tk, model, pruning):
    """prune_model on a copy, so that the caller's model stays plain."""
    return tk.prune_model(copy.deepcopy(model), to_config(tk, pruning))


def oracle64(model, ids, mask, pruning, **options):
    """The oracle in float64 on a copy of the (plain) model's weights."""
    with torch.no_grad(), one_thread():
        return oracle_forward(copy.deepcopy(model).double(), ids, mask, pruning, **options)


def run(model, ids, mask, gradients=False, **options):
    """A forward that returns out.pruning too; gradients=True takes the differentiable path."""
    with torch.set_grad_enabled(gradients):
        return model(ids, attention_mask=mask, output_pruning=True, **options)


def decided_texts(expected):
    """(B,) bool: texts none of whose decisions is closer than DECIDED; nearly all, or the test tests nothing."""
    decided = (expected.margin > DECIDED).all(dim=0)
    assert decided.double().mean() >= 0.9, "too many undecided texts: choose other thresholds or another seed"
    return decided


def assert_matches(out, expected, tolerance):
    """Kept sets identical, importance and states within `tolerance` (text_error) of the oracle's, undecided texts aside."""
    ok = decided_texts(expected)
    pruning = out.pruning
    assert torch.equal(pruning.kept_mask[:, ok], expected.kept_mask[:, ok])
    assert torch.equal(pruning.kept_lengths[:, ok], expected.kept_lengths[:, ok])
    for ours, theirs in zip(pruning.importance, expected.importance):
        assert text_error(ours[ok], theirs[ok]) <= tolerance
    assert text_error(out.last_hidden_state[ok], expected.last_hidden_state[ok]) <= tolerance
    if expected.pooler_output is not None:
        # the pooled output of an empty text means nothing: only finite is asked of it
        assert out.pooler_output.isfinite().all()
        some = ok & (expected.kept_lengths[0] > 0)
        assert text_error(out.pooler_output[some], expected.pooler_output[some]) <= tolerance


def assert_follows_own_importance(out, ids, mask, pruning):
    """The decisions are exactly those that the rule gives for the importance the model itself reports."""
    reported = out.pruning
    expected, _ = decisions_from_importance(pruning, ids, mask, reported.kept_mask, reported.importance)
    assert torch.equal(reported.kept_mask, expected)
