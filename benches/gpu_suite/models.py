"""BERT-base end to end, with random weights: Hugging Face, torch.compile, a packed flash BERT, ours in both modes, dense and pruned."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import BertConfig, BertModel

import tokprune_kernels as tk
from tokprune_kernels.gpu.graphs import RECORDED_AT

from .timing import available, time_on_gpu

LENGTHS = Path(__file__).parents[1] / "lengths"
SHAPES = ((1, 16), (1, 128), (8, 128), (32, 128), (128, 128), (256, 128), (64, 512), (256, 512))
REAL = {"sst2": 256, "mrpc": 128, "20news": 64}
RATIOS = [1.0, 0.75, 0.75, 0.75, 0.8, 0.8, 0.8, 0.8, 0.85, 0.85, 0.9, 0.9]
MODES, PRUNINGS = ("exact", "graph"), {"dense": None, "top": tk.PruningConfig.top(RATIOS)}
# Compiling anew for every shape takes longer than measuring: only these, once all others are done.
COMPILED = {(1, 128): ("reduce-overhead", "max-autotune"), (32, 128): ("reduce-overhead",)}
REPLAYS = 20


def model_rows(dtype: torch.dtype, deadline_s: float, clock: Callable[[], float]) -> Iterator[list[dict]]:
    """For each workload a row for each contender; those of `COMPILED` come twice, the second time with what was compiled for them.

    Workloads that would start past the deadline are left out, said aloud, as are those with a wrong result; SystemExit after these.
    """
    torch.manual_seed(0)
    # Weights large enough for scores that lie apart: near-uniform ones would be ranked by how each mode rounds.
    model = BertModel(BertConfig(attn_implementation="sdpa", initializer_range=0.05)).eval().to("cuda", dtype)
    ours = {(mode, pruning): _pruned(model, mode, pruning) for mode in MODES for pruning in PRUNINGS}
    in_float32 = _pruned(model.float(), "exact", "top")
    model.to(dtype)
    wrong = []
    for name, lengths, compiled in _workloads():
        if clock() > deadline_s:
            print(f"left out: {name}: no time is left", flush=True)
            continue
        try:
            yield _measure(name, lengths, compiled, model, ours, in_float32, dtype)
        except WrongResult as error:
            wrong.append(str(error))
            print(f"WRONG: {error}, so nothing of it is timed", flush=True)
    if wrong:
        raise SystemExit("; ".join(wrong))


def _pruned(model: BertModel, mode: str, pruning: str) -> nn.Module:
    """A copy that runs in this mode and prunes so: what is timed sets nothing."""
    ours = tk.prune_model(copy.deepcopy(model), PRUNINGS[pruning])
    ours.set_gpu_mode(mode)
    return ours


def _workloads():
    for texts, length in SHAPES:
        yield f"{texts}x{length}", [length] * texts, ()
    for task, texts in REAL.items():
        yield f"{task} batch of {texts}", json.loads((LENGTHS / f"{task}.json").read_text())[:texts], ()
    for (texts, length), compiled in COMPILED.items():
        yield f"{texts}x{length}", [length] * texts, compiled


def _measure(name, lengths, compiled, model, ours, in_float32, dtype):
    print(name, flush=True)
    live = torch.tensor(lengths, device="cuda")
    mask = (torch.arange(max(lengths), device="cuda") < live[:, None]).long()
    ids = torch.randint(1000, 30000, mask.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(0)) * mask
    batch = {"input_ids": ids, "attention_mask": mask}

    def runs(mode, pruning):
        return lambda: ours[mode, pruning](**batch).last_hidden_state

    with torch.inference_mode():
        expected = model(**batch).last_hidden_state[mask != 0].double()
        for mode in MODES:
            _require_close(f"{name} {mode}", runs(mode, "dense")()[mask != 0], expected)
        _require_no_sync(runs("graph", "top"))
        truth = in_float32(**batch).last_hidden_state[mask != 0]
        _require_as_right(f"{name} pruned", *(_share_right(runs(mode, "top")()[mask != 0], truth) for mode in MODES), len(truth))
        _require_same_bits(f"{name} graph", runs("graph", "top"))
        kept = ours["exact", "top"](**batch, output_pruning=True).pruning.kept_lengths
        contenders = {"hf_sdpa": lambda: model(**batch).last_hidden_state}
        for mode in compiled:
            contenders |= available(f"torch_compile_{mode}", lambda mode=mode: _compiled(model, mode, batch))
        packed = available("flash_packed", lambda: _flash_packed(model, ids, mask, live))
        for call in packed.values():
            _require_close(f"{name} flash_packed", call(), expected)
        contenders |= packed
        contenders |= {f"ours_{pruning}_{mode}": runs(mode, pruning) for mode in MODES for pruning in PRUNINGS}
        inner = 20 if mask.numel() <= 4096 else 3
        times = time_on_gpu(contenders, rounds=9, inner=inner)
    unpruned = float(tk.flops.dense_flops(live.cpu(), model.config).sum())
    fewer = float(tk.flops.encoder_flops(kept.cpu(), model.config, position="before_layer").sum())
    return [
        {
            "workload": name, "dtype": str(dtype).removeprefix("torch."), "contender": contender, "ms": ms,
            "live_tflops": (fewer if "top" in contender else unpruned) / ms / 1e9,
            "flops_reduction": unpruned / fewer if "top" in contender else 1.0,
        }
        for contender, ms in times.items()
    ]  # fmt: skip


class WrongResult(Exception):
    """What is to be timed does not compute what it should."""


def _require_close(name, actual, expected) -> None:
    error = float((actual.double() - expected).abs().max() / expected.abs().max())
    if not error <= 5e-2:
        raise WrongResult(f"{name}: relative error {error:.2g}")


def _share_right(actual, truth) -> float:
    """The share of the tokens that are as in float32. Not all are: where rounding swaps two tokens at a cut, others go."""
    return float(((actual.float() - truth).abs().amax(dim=1) <= 5e-2 * float(truth.abs().max())).float().mean())


def _require_as_right(name, exact: float, graph: float, tokens: int) -> None:
    """Graph mode, which rounds at other places than exact mode, must be as often right as that, but for chance: a swap is two tokens."""
    print(f"{name}: as in float32: {exact:.1%} of the tokens in exact mode, {graph:.1%} in graph mode", flush=True)
    if not graph >= exact - 0.1 - 2 / tokens:
        raise WrongResult(f"{name}: graph mode is less often as in float32 than exact mode is")


def _require_same_bits(name, call) -> None:
    first = call()
    if not all(torch.equal(first, call()) for _ in range(REPLAYS)):
        raise WrongResult(f"{name}: other bits in another run")


def _require_no_sync(call) -> None:
    """Run until it is recorded, then again where a host sync is an error."""
    for _ in range(RECORDED_AT):
        call()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _compiled(model, mode, batch):
    compiled = torch.compile(model, mode=mode, dynamic=False)
    return lambda: compiled(**batch).last_hidden_state


def _flash_packed(model, ids, mask, live):
    """What a user would write: padding removed once, flash attention over the packed rows, torch's linear layers."""
    cu_seqlens = nn.functional.pad(live.cumsum(0), (1, 0)).int()
    longest, index = int(live.max()), mask.flatten().nonzero().flatten()
    positions = (mask.cumsum(1) - 1).flatten()[index]
    heads, width = model.config.num_attention_heads, model.config.hidden_size

    def run():
        x = model.embeddings(input_ids=ids.flatten()[index][None], position_ids=positions[None])[0]
        for layer in model.encoder.layer:
            own = layer.attention.self
            q, k, v = (part(x).view(-1, heads, width // heads) for part in (own.query, own.key, own.value))
            context = torch.ops.aten._flash_attention_forward(
                q, k, v, cu_seqlens, cu_seqlens, longest, longest, 0.0, False, False, scale=(width // heads) ** -0.5
            )[0]
            x = layer.attention.output(context.flatten(1), x)
            x = layer.output(layer.intermediate(x), x)
        return x

    return run
