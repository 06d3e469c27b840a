"""Run the GPU launchers in triton's interpreter, on the samples of every op, against the float64 reference.

A process of its own: triton reads TRITON_INTERPRET when a kernel is decorated. Writes JSON, {op: [[sample, output, error, tolerance], ...]},
errors relative to the largest value; a shape or an integer that differs is an infinite one.
"""

import argparse
import json
import os
from importlib import import_module
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402

from tests.gpu.comparing import call, difference, largest_head, widened  # noqa: E402
from tests.ops.samples import GENERATORS  # noqa: E402
from tokprune_kernels import reference  # noqa: E402
from tokprune_kernels.ops.registration import GPU_MODULES  # noqa: E402

# Of these one sample in so many is run: interpreted, a long text takes seconds.
EVERY = {"float32": {"attn_importance": 2, "attn_importance_backward": 2}, "float16": dict.fromkeys(GPU_MODULES, 3)}
# Whole encoders on the longest texts: dense, and a rule each way.
LONG = ("long dense before=False", "long threshold before=True", "long topk before=False", "long past the first before=True")


def run(name: str, dtype: torch.dtype) -> list[tuple[str, int, float, float]]:
    launcher = getattr(import_module(f"tokprune_kernels.gpu.{GPU_MODULES[name]}"), name)
    rows = []
    samples = [sample for sample in GENERATORS[name](dtype) if largest_head(sample) <= 128]
    for sample in samples[:: EVERY[str(dtype).removeprefix("torch.")].get(name, 1)]:
        expected = call(getattr(reference, name), sample, widened(name))
        actual = call(launcher, sample)
        assert len(actual) == len(expected)
        for number, (a, e) in enumerate(zip(actual, expected, strict=True)):
            rows.append((sample.name, number, difference(a, e), sample.tolerance))
    return rows


def run_whole(dtype: torch.dtype) -> list[tuple[str, int, float, float]]:
    """gpu.encoder.run_encoder against the reference of the `encoder` op, which gives every token's last state."""
    from tokprune_kernels.gpu.encoder import LayerTensors, Rules, run_encoder
    from tokprune_kernels.reference.linear import unpack_weight

    rows = []
    for sample in GENERATORS["encoder"](torch.float32):
        x, cu_seqlens, longest, weights, eps, heads, activation, scale, keep, topk, before = sample.args
        given = dict(sample.kwargs)
        if given.get("readout", 0) or not len(weights) or (sample.name.startswith("long") and not sample.name.startswith(LONG)):
            continue
        if dtype != torch.float32 and not sample.name.split()[1] in ("dense", "protected"):
            continue  # rounding may move a score across a threshold, and other tokens stay
        expected = reference.encoder(*sample.args, **given)
        tensors, hidden = [], x.shape[1]
        for tensor, bias in zip(weights[::2], weights[1::2], strict=True):
            inner = hidden if tensor.dim() == 1 else tensor.shape[1]
            tensors += [tensor if tensor.dim() == 1 else unpack_weight(tensor, len(bias), inner).contiguous(), bias]
        layers = [LayerTensors(*(t.to(dtype) for t in tensors[at : at + 12])) for at in range(0, len(tensors), 12)]
        own = {name: given[name] for name in ("protect_first", "sqrt_rows", "count_first") if name in given}
        rules = Rules(heads, scale, activation, tuple(eps), tuple(keep), topk, before, **own)
        out = torch.zeros_like(expected, dtype=dtype)
        # Room for more tokens than there are: what lies past them must not matter.
        spare = torch.full((5, hidden), float("nan"), dtype=dtype)
        places = torch.cat([given["token_idx"], torch.full((5,), 10**9, dtype=torch.int32)])
        protected = given.get("protected")
        if protected is not None:
            protected = torch.cat([protected, torch.ones(5, dtype=torch.bool)])
        run_encoder(layers, rules, torch.cat([x.to(dtype), spare]), cu_seqlens, longest, places, out, given.get("denominators"), protected)
        rows.append((sample.name, 0, difference(out, expected), sample.tolerance if dtype == torch.float32 else 5e-2))
    return rows


def run_models(dtype: torch.dtype) -> list[tuple[str, int, float, float]]:
    """Whole models packed and run without a host sync, against the same model on the CPU's kernels."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel, RobertaConfig, RobertaForSequenceClassification

    import tokprune_kernels as tk
    from tokprune_kernels.layers import without_sync
    from tokprune_kernels.models import encoder

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 70,
        "max_position_embeddings": 64, "initializer_range": 0.3,
    }  # fmt: skip
    config = BertConfig(**sizes)
    ids, lengths = torch.randint(5, 50, (5, 40)), torch.tensor([40, 1, 0, 17, 33])
    right = torch.arange(40) < lengths[:, None]
    rules = {
        "dense": tk.PruningConfig.dense(),
        "ltp": tk.PruningConfig.ltp([0.01, 0.02, 0.04]),
        "ltp by roots": tk.PruningConfig.ltp([0.1, 0.15, 0.2], score_denominator="sqrt_kept"),
        "top": tk.PruningConfig.top([1.0, 0.6, 0.5]),
        "top after attention": tk.PruningConfig.top([0.7, 0.6, 0.5], position="after_attention"),
        "protected": tk.PruningConfig.ltp([0.02, 0.03, 0.05], protected_token_ids=(7, 9), score_denominator="initial"),
        "top past the first": tk.PruningConfig.top([1.0, 0.6, 0.5], count_first=False),
        "first may go": tk.PruningConfig.top([1.0, 0.4, 0.3], protect_first=False),
    }
    rows = []
    offset = RobertaConfig(**sizes)  # positions start at 2, and the head reads column 0 itself
    some = {name: rules[name] for name in ("ltp", "first may go")}
    kinds = ((BertModel, config, rules), (BertForSequenceClassification, config, rules), (RobertaForSequenceClassification, offset, some))
    for kind, own, its_rules in kinds:
        model = kind(own).eval()
        for name, rule in its_rules.items():
            model = tk.prune_model(model, rule)
            for side, mask in (("right", right.long()), ("left", right.flip(1).float()), ("no mask", None)):
                results = []
                for mode in ("exact", "graph"):
                    model.set_gpu_mode(mode)
                    encoder.available = lambda device: True  # the interpreter's device is the CPU
                    with torch.inference_mode():
                        results.append(model(ids, attention_mask=mask).to_tuple())
                    encoder.available = without_sync.available
                for number, (exact, graph) in enumerate(zip(*results, strict=True)):
                    rows.append((f"{kind.__name__} {name} {side}", number, difference(graph, exact), 3e-5))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=EVERY, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="OP")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, args.dtype)
    results = {name: run(name, dtype) for name in GPU_MODULES if name in (args.only or GPU_MODULES)}
    if "encoder" in (args.only or ["encoder"]):
        results["encoder"] = run_whole(dtype)
    if "models" in (args.only or ["models"]) and dtype == torch.float32:  # the CPU has no kernels for float16
        results["models"] = run_models(dtype)
    args.out.write_text(json.dumps(results))
