"""One sample generator per op: correctness, determinism and opcheck all draw from here, for every device and dtype."""

from dataclasses import dataclass, field

import pytest
import torch

from tokprune_kernels._extension import extension_status

# What holds for the kernels but not for the plain PyTorch reference, which rounds with the batch and takes any head size.
COMPILED_ONLY = pytest.mark.skipif(not extension_status().loaded, reason="a property of the compiled kernels")

RAGGED = (0, 1, 7, 16, 33, 64, 65, 0, 130)
BATCHES = {
    "ragged": RAGGED,
    "equal": (24, 24, 24),
    "single": (1,),
    "long": (390,),  # more than one chunk of query rows
    "all_empty": (0, 0),
    "no_sequences": (),
}
HEAD_DIMS = (8, 24, 32, 64, 96, 128, 136, 256)


@dataclass
class Sample:
    """Arguments of one call, and how far a result may be from the float64 reference (relative to its largest value)."""

    name: str
    args: tuple
    kwargs: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.float32

    @property
    def tolerance(self) -> float:
        return 2e-6 if self.dtype == torch.float32 else 1.6e-2


def cu_seqlens_of(lengths) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def qkv(lengths, heads=3, head_dim=32, dtype=torch.float32, seed=0):
    """Strided views of one fused QKV, as a model makes them."""
    generator = torch.Generator().manual_seed(seed)
    fused = torch.randn(sum(lengths), 3, heads, head_dim, generator=generator)
    return fused.to(dtype).unbind(1)


def scores(lengths, seed=0):
    """Importance with ties, zeros and a NaN."""
    importance = torch.rand(sum(lengths), generator=torch.Generator().manual_seed(seed)).mul(20).round().div(20)
    if len(importance) > 40:
        importance[35] = float("nan")
    return importance


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def protected_of(lengths):
    protected = torch.zeros(sum(lengths), dtype=torch.bool)
    protected[::9] = True
    return protected


def mask_of(lengths, length, dtype=torch.int64, left=False):
    columns = torch.arange(length).expand(len(lengths), length)
    bounds = torch.tensor(lengths).reshape(-1, 1)
    return (columns >= length - bounds if left else columns < bounds).to(dtype)


def _attention_arguments(dtype):
    for name, lengths in BATCHES.items():
        yield name, lengths, qkv(lengths, dtype=dtype)
    for head_dim in HEAD_DIMS:
        yield f"head_dim {head_dim}", RAGGED, qkv(RAGGED, 2, head_dim, dtype)


def varlen_attention(dtype):
    for name, lengths, (q, k, v) in _attention_arguments(dtype):
        yield Sample(name, (q, k, v, cu_seqlens_of(lengths), max(lengths, default=0), q.shape[2] ** -0.5), dtype=dtype)
    q, k, v = (10 * x for x in qkv(RAGGED, dtype=dtype))
    yield Sample("peaked", (q, k, v, cu_seqlens_of(RAGGED), 512, 0.01), dtype=dtype)


def attn_importance(dtype):
    for sample in varlen_attention(dtype):
        yield sample
        denominators = torch.arange(1, len(sample.args[3]), dtype=torch.float32) * 10
        yield Sample(sample.name + ", denominators", (*sample.args, denominators), dtype=dtype)
        lengths = sample.args[3].diff().tolist()
        key_bias, row_weights = token_weights(lengths)
        given = {"key_bias": key_bias, "row_weights": row_weights}
        yield Sample(sample.name + ", token weights", (*sample.args, denominators), given, dtype)
        yield Sample(sample.name + ", key_bias", sample.args, {"key_bias": key_bias - 1e4}, dtype)
        yield Sample(sample.name + ", row_weights", sample.args, {"row_weights": row_weights}, dtype)


def token_weights(lengths, seed=5):
    """key_bias and row_weights: what a soft removal makes of them, from keys that stay to keys that are gone."""
    key_bias, row_weights = 2 * randn(sum(lengths), seed=seed), randn(sum(lengths), seed=seed + 1).relu()
    key_bias[1::5], key_bias[2::7], key_bias[3::11] = -50.0, -1e4, 9.0
    return key_bias, row_weights


def attn_importance_backward(dtype):
    """The attention's own samples, with every subset of the optional inputs in turn."""
    for number, sample in enumerate(varlen_attention(dtype)):
        q, *_, cu_seqlens, _, _ = sample.args
        total = q.shape[0]
        grads = randn(*q.shape, dtype=dtype, seed=1), randn(total, seed=2) * 5
        optional = {
            "denominators": torch.arange(1, len(cu_seqlens), dtype=torch.float32) * 10,
            "key_bias": token_weights(cu_seqlens.diff().tolist())[0],
            "row_weights": token_weights(cu_seqlens.diff().tolist())[1],
        }
        for given in (number % 8, 7 - number % 8):
            kwargs = {name: x for bit, (name, x) in enumerate(optional.items()) if given >> bit & 1}
            yield BackwardSample(f"{sample.name}, {' '.join(kwargs)}", (*grads, *sample.args), kwargs, dtype)
    (_, sample) = list(varlen_attention(dtype))[:2]
    q = sample.args[0]
    sums = torch.ones((), dtype=dtype).expand(q.shape), torch.ones(()).expand(q.shape[0])  # as tensor.sum() sends them
    yield BackwardSample("expanded", (*sums, *sample.args), dtype=dtype)
    turned = randn(q.shape[1], q.shape[0], q.shape[2], dtype=dtype).transpose(0, 1), randn(q.shape[0], 2)[:, 1]
    yield BackwardSample("strided", (*turned, *sample.args), dtype=dtype)


@dataclass
class BackwardSample(Sample):
    """Differences of nearly equal sums, taken over the rows of a sequence."""

    @property
    def tolerance(self) -> float:
        return 5e-6 if self.dtype == torch.float32 else 1.6e-2


def _keep(values):
    for name, lengths in BATCHES.items():
        for value in values:
            for capacity in (False, True):
                args = (scores(lengths), cu_seqlens_of(lengths), value)
                yield Sample(f"{name} {value} {capacity=}", args, {"capacity": capacity})
                extra = {"protected": protected_of(lengths), "protect_first": False, "capacity": capacity}
                yield Sample(f"{name} {value} {capacity=} protected", args, extra)


def keep_threshold(dtype):
    yield from _keep((0.0, 0.5, 2.0, -1.0))


def keep_topk(dtype):
    yield from _keep((0.01, 0.3, 0.5, 1.0))
    for name, lengths in BATCHES.items():
        for value in (1e-15, 0.3, 1.0):
            args = (scores(lengths), cu_seqlens_of(lengths), value)
            extra = {"protected": protected_of(lengths), "capacity": value == 0.3, "count_first": False}
            yield Sample(f"{name} {value} past the first", args, extra)


def compact(dtype):
    idx = torch.tensor([0, 1, 2, 5, 9, 9, 3], dtype=torch.int32)
    yield Sample("rows", (randn(10, 37, dtype=dtype), idx, 7), dtype=dtype)
    yield Sample("fewer", (randn(10, 37, dtype=dtype), idx, 3), dtype=dtype)
    yield Sample("none", (randn(10, 37, dtype=dtype), idx, 0), dtype=dtype)
    yield Sample("one-dimensional", (torch.arange(10), idx, 7))
    yield Sample("three-dimensional", (randn(10, 4, 8, dtype=dtype), idx, 7), dtype=dtype)
    yield Sample("five-dimensional", (randn(10, 2, 1, 3, 2, dtype=dtype), idx, 7), dtype=dtype)
    many = torch.randperm(4000, generator=torch.Generator().manual_seed(0))[:3000].sort().values.to(torch.int32)
    yield Sample("large", (randn(4000, 96, dtype=dtype), many, 3000), dtype=dtype)


def compact_many(dtype):
    idx = torch.tensor([0, 2, 3, 8], dtype=torch.int32)
    yield Sample("mixed", ([randn(9, 16, dtype=dtype), torch.arange(9), torch.ones(9, dtype=torch.bool)], idx, 4), dtype=dtype)


def prune_attention(dtype):
    for name, lengths in BATCHES.items():
        q, k, v = qkv(lengths, dtype=dtype)
        args = (q, k, v, randn(len(q), 48, dtype=dtype), cu_seqlens_of(lengths), max(lengths, default=0), 0.2)
        yield Sample(f"{name} threshold", args, {"threshold": 0.02}, dtype)
        yield Sample(f"{name} ratio", args, {"keep_ratio": 0.4}, dtype)
        yield Sample(f"{name} ratio past the first", args, {"keep_ratio": 0.4, "count_first": False}, dtype)
        extra = {"protected": protected_of(lengths), "protect_first": False, "keep_ratio": 0.2}
        yield Sample(f"{name} protected", args, extra, dtype)
        fixed = {"denominators": torch.full((len(lengths),), 64.0), "threshold": 0.02}
        yield Sample(f"{name} denominators", args, fixed, dtype)


def pack_index(dtype):
    for mask_dtype in (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32):
        yield Sample(f"right {mask_dtype}", (mask_of(RAGGED, 130, mask_dtype),))
        yield Sample(f"left {mask_dtype}", (mask_of(RAGGED, 140, mask_dtype, left=True),))
    yield Sample("holes", ((randn(5, 40) > 0),))
    yield Sample("no positions", (torch.ones(3, 0, dtype=torch.bool),))
    yield Sample("no texts", (torch.ones(0, 4, dtype=torch.bool),))


def pack(dtype):
    for sample in pack_index(dtype):
        (mask,) = sample.args
        yield Sample(sample.name, (randn(*mask.shape, 20, dtype=dtype), mask), dtype=dtype)
    yield Sample("ids", (torch.arange(12).reshape(3, 4), mask_of((4, 1, 0), 4)))


def unpack(dtype):
    for lengths, length in ((RAGGED, 130), (RAGGED, 140), ((0, 0), 3), ((4, 4), 4)):
        token_idx = mask_of(lengths, length).flatten().nonzero().flatten().to(torch.int32)
        yield Sample(f"{lengths}", (randn(len(token_idx), 20, dtype=dtype), token_idx, len(lengths), length), dtype=dtype)


def store_exits_(dtype):
    token_idx = torch.tensor([1, 2, 5, 6, 7, 11], dtype=torch.int32)
    for keep in ([], [0], [1, 3, 5], [0, 1, 2, 3, 4, 5]):
        args = (torch.zeros(12, 16, dtype=dtype), randn(6, 16, dtype=dtype), token_idx, torch.tensor(keep, dtype=torch.int32))
        yield Sample(f"keep {keep}", args, dtype=dtype)


def add_layer_norm(dtype):
    for rows, width in ((0, 8), (1, 1), (5, 7), (9, 64), (33, 384), (40, 770)):
        args = tuple(randn(rows, width, dtype=dtype, seed=seed) for seed in (0, 1))
        scale = tuple(randn(width, dtype=dtype, seed=seed) for seed in (2, 3))
        yield Sample(f"{rows}x{width}", (*args, *scale, 1e-12), dtype=dtype)
    wide = randn(6, 3, 32, dtype=dtype)
    yield Sample("strided", (wide[:, 1], wide[:, 2], randn(32, dtype=dtype), randn(32, dtype=dtype), 1e-5), dtype=dtype)


def pack_weight(dtype):
    for shape in ((64, 16), (1, 1), (70, 33), (130, 8)):
        yield Sample(f"{shape}", (randn(*shape, dtype=dtype),), dtype=dtype)


def packed_linear(dtype):
    from tokprune_kernels import reference

    rows = torch.tensor([3, 0, 3], dtype=torch.int32)
    for count, width, out in ((0, 8, 8), (1, 8, 70), (5, 33, 64), (13, 384, 200), (200, 1100, 65)):
        x, weight = randn(count, width, dtype=dtype), randn(out, width, dtype=dtype, seed=1) / width**0.5
        packed, bias = reference.pack_weight(weight), randn(out, dtype=dtype, seed=2)
        for activation in range(4):
            yield Sample(f"{count}x{width}x{out} {activation}", (x, packed, bias, out, activation), dtype=dtype)
        yield Sample(f"{count}x{width}x{out} no bias", (x, packed, None, out), dtype=dtype)
        if count > 3:
            yield Sample(f"{count}x{width}x{out} rows", (x, packed, bias, out, 1, rows), dtype=dtype)


def encoder_weights(layers, hidden, wide, dtype, seed=0):
    """The twelve tensors a layer of the `encoder` op."""
    from tokprune_kernels import reference

    weights = []
    for layer in range(layers):
        seeds = iter(range(seed + 100 * layer, seed + 100 * layer + 99))
        norm = (None, hidden)
        for width, out in ((hidden, 3 * hidden), (hidden, hidden), norm, (hidden, wide), (wide, hidden), norm):
            if width is None:
                weights.append(1 + randn(out, dtype=dtype, seed=next(seeds)) / 4)
            else:
                weights.append(reference.pack_weight(randn(out, width, dtype=dtype, seed=next(seeds)) * 2 / width**0.5))
            weights.append(randn(out, dtype=dtype, seed=next(seeds)) / 4)
    return weights


def encoder(dtype):
    """Three layers, that prune at the second and third: every readout, position and criterion."""
    hidden, heads, layers = 48, 3, 3
    weights, eps = encoder_weights(layers, hidden, 70, dtype), [1e-12, 1e-5] * layers
    for name, lengths in BATCHES.items():
        total, batch = sum(lengths), len(lengths)
        x, length = randn(total, hidden, dtype=dtype), max(lengths, default=0)
        token_idx = mask_of(lengths, length + 2).flatten().nonzero().flatten().to(torch.int32)
        start = (x, cu_seqlens_of(lengths), length, weights, eps, heads, 1, 0.2)
        # No score reaches 2: only protected tokens stay, whatever the rounding before the decision, which in bfloat16 is coarse.
        rules = [("dense", [], False, False), ("protected", [0.0, 2.0, 0.0], False, True)]
        if dtype == torch.float32:
            rules += [("threshold", [0.0, 0.02, 0.03], False, False), ("topk", [1.0, 0.6, 0.7], True, False)]
        for rule, keep, topk, fixed in rules:
            for before in (False, True):
                for readout in (0, 1, 2, 3):
                    place = {"token_idx": token_idx, "places": batch * (length + 2)} if readout in (0, 3) else {}
                    if fixed:
                        place["protected"] = protected_of(lengths)
                    label = f"{name} {rule} {before=} {readout=}"
                    yield EncoderSample(label, (*start, keep, topk, before), {"readout": readout, **place}, dtype)
        if dtype == torch.float32:
            past = {"readout": 0, "token_idx": token_idx, "places": batch * (length + 2), "count_first": False}
            for before in (False, True):
                yield EncoderSample(f"{name} past the first {before=}", (*start, [1.0, 0.5, 0.5], True, before), past, dtype)
        extra = {"denominators": torch.full((batch,), 64.0), "protect_first": False, "protected": protected_of(lengths)}
        extra |= {"token_idx": token_idx, "places": batch * (length + 2)}
        threshold = 0.01 if dtype == torch.float32 else 2.0
        yield EncoderSample(f"{name} denominators", (*start, [threshold] * 3, False, False), extra, dtype)
        roots = extra | {"denominators": None, "sqrt_rows": True}
        threshold = 0.15 if dtype == torch.float32 else 20.0
        yield EncoderSample(f"{name} square roots", (*start, [threshold] * 3, False, False), roots, dtype)
    wide = encoder_weights(1, 64, 64, dtype)  # the panels of keys and values begin where those of the queries end
    last = (randn(40, 64, dtype=dtype), cu_seqlens_of((40,)), 40, wide, [1e-5] * 2, 2, 3, 0.2, [], False, False)
    yield EncoderSample("whole panels", last, {"readout": 2}, dtype)
    yield EncoderSample("no layers", (*last[:3], [], [], 2, 0, 0.2, [], False, False), {"readout": 1}, dtype)


def padded_encoder(dtype):
    """As `encoder`, from a padded batch: padding on both sides and in the middle, every readout, denominator and criterion."""
    hidden, layers = 48, 3
    layer_arguments = (encoder_weights(layers, hidden, 70, dtype), [1e-12, 1e-5] * layers, 3, 1, 0.2)
    masks = {"ragged": mask_of(RAGGED, 140), "left": mask_of(RAGGED, 130, torch.bool, left=True), "holes": randn(5, 40) > 0}
    masks |= {"full": torch.ones(3, 24), "no positions": torch.ones(3, 0), "no texts": torch.ones(0, 4), "empty": torch.zeros(2, 3)}
    fixed = [0.0, 2.0, 0.0], False, False  # only protected tokens stay, whatever the rounding before the decision
    for name, mask in masks.items():
        start = randn(*mask.shape, hidden, dtype=dtype), mask, *layer_arguments
        protected = torch.zeros(mask.shape, dtype=torch.bool)
        protected[:, ::9] = True
        for readout in (0, 1, 2, 3):
            extra = {"readout": readout, "protected": protected}
            yield EncoderSample(f"{name} dense {readout=}", (*start, [], False, False), {"readout": readout}, dtype)
            yield EncoderSample(f"{name} protected {readout=}", (*start, *fixed), extra, dtype)
        if dtype == torch.float32:
            yield EncoderSample(f"{name} topk", (*start, [1.0, 0.6, 0.7], True, True), {}, dtype)
            yield EncoderSample(f"{name} past the first", (*start, [1.0, 0.5, 0.5], True, True), {"count_first": False}, dtype)
            for denominator, threshold in ((0, 0.02), (-1, 0.15), (-2, 0.02), (64, 0.01)):
                extra = {"denominator": denominator, "protect_first": False}
                yield EncoderSample(f"{name} {denominator=}", (*start, [threshold] * 3, False, False), extra, dtype)


@dataclass
class EncoderSample(Sample):
    """Several layers let rounding add up."""

    @property
    def tolerance(self) -> float:
        return 1e-5 if self.dtype == torch.float32 else 5e-2


GENERATORS = {
    generator.__name__: generator
    for generator in (
        attn_importance,
        attn_importance_backward,
        varlen_attention,
        keep_threshold,
        keep_topk,
        compact,
        compact_many,
        prune_attention,
        pack_index,
        pack,
        unpack,
        store_exits_,
        add_layer_norm,
        pack_weight,
        packed_linear,
        encoder,
        padded_encoder,
    )
}
