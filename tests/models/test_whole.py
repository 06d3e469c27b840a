"""The encoder as one op against the same layers run one by one from Python: same bits, whatever is pruned."""

import copy
import itertools

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

import tokprune_kernels as tk
from tests.ops.samples import COMPILED_ONLY, mask_of
from tokprune_kernels.layers import whole

pytestmark = COMPILED_ONLY

LENGTHS = (40, 1, 23, 0, 33)
OPTIONS = {"protected_token_ids": tuple(range(5, 60))}
PRUNINGS = {
    "dense": tk.PruningConfig.dense(),
    "ltp": tk.PruningConfig.ltp([0.0, 0.02, 0.025, 0.03]),
    "ltp all layers": tk.PruningConfig.ltp([0.02, 0.02, 0.03, 0.04], score_denominator=64, **OPTIONS),
    "ltp before": tk.PruningConfig.ltp([0.0, 0.02, 0.03, 0.04], position="before_layer", score_denominator="initial"),
    "ltp by roots": tk.PruningConfig.ltp([0.1, 0.13, 0.16, 0.2], score_denominator="sqrt_kept"),
    "ltp by roots before": tk.PruningConfig.ltp([0.0, 0.13, 0.0, 0.2], position="before_layer", score_denominator="sqrt_kept"),
    "top": tk.PruningConfig.top([1.0, 0.7, 1.0, 0.5]),
    "top after": tk.PruningConfig.top([0.9, 0.7, 0.8, 0.5], position="after_attention", **OPTIONS),
    "top past the first": tk.PruningConfig.top([1.0, 0.7, 1.0, 0.5], count_first=False, **OPTIONS),
    "top past the first, after": tk.PruningConfig.top([0.9, 0.7, 0.8, 0.5], position="after_attention", count_first=False),
    "unprotected": tk.PruningConfig.top([1.0, 0.7, 0.6, 0.5], protect_first=False),
}
SHAPES = {"panels": (128, 4, 200), "odd panels": (96, 3, 130)}


def model_of(model_class, shape, dtype=torch.float32):
    hidden, heads, wide = SHAPES[shape]
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": wide, "num_hidden_layers": 4}
    model = model_class(BertConfig(vocab_size=200, **sizes)).eval()
    for parameter in model.parameters():  # attention that is not nearly uniform, biases that are not zero
        parameter.data.add_(torch.randn_like(parameter) / 12)
    return tk.prune_model(model.to(dtype), tk.PruningConfig.dense())


def inputs(left=False):
    mask = mask_of(LENGTHS, 42, left=left)
    return {"input_ids": torch.randint(5, 200, mask.shape, generator=torch.Generator().manual_seed(1)), "attention_mask": mask}


@pytest.fixture
def runs(monkeypatch):
    """How often the op was called."""
    calls, run = [], whole.WholeEncoder.run
    monkeypatch.setattr(whole.WholeEncoder, "run", lambda *args: calls.append(None) or run(*args))
    return calls


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model_class", (BertModel, BertForSequenceClassification))
def test_same_bits_as_layer_by_layer(model_class, shape, dtype, runs):
    model = model_of(model_class, shape, dtype)
    for (name, pruning), left in itertools.product(PRUNINGS.items(), (False, True)):
        model.set_pruning(pruning)
        with torch.inference_mode():
            runs.clear()
            one_op = model(**inputs(left))
            assert len(runs) == 1, name
            by_layer = model(**inputs(left), output_pruning=True)  # what was pruned is recorded layer by layer
            assert len(runs) == 1, name
        assert set(one_op) == set(by_layer) - {"pruning"}
        for key in one_op:
            assert torch.equal(one_op[key], by_layer[key]), f"{name} {left=} {key}"
        if not pruning.is_dense:
            assert int(by_layer["pruning"].kept_lengths[-1].sum()) < sum(LENGTHS), f"{name} prunes nothing here"


@pytest.mark.parametrize("name", ("dense", "ltp all layers", "top"))
def test_more_rows_than_one_block_takes(name):
    """Blocks are 288 rows a thread; states are updated in place while later blocks still read theirs."""
    model, threads = model_of(BertModel, "panels"), torch.get_num_threads()
    model.set_pruning(PRUNINGS[name])
    mask = mask_of((300, 1, 170, 250, 0, 401), 401)
    batch = {"input_ids": torch.randint(5, 200, mask.shape, generator=torch.Generator().manual_seed(1)), "attention_mask": mask}
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            one_op, by_layer = model(**batch), model(**batch, output_pruning=True)
    finally:
        torch.set_num_threads(threads)
    assert int(by_layer.pruning.kept_lengths[2].sum()) > 288
    assert torch.equal(one_op.last_hidden_state, by_layer.last_hidden_state)


@pytest.mark.parametrize("name", PRUNINGS)
def test_the_exact_last_layer_changes_no_logit(name):
    model, exact = model_of(BertForSequenceClassification, "panels"), PRUNINGS[name].to_dict()
    with torch.inference_mode():
        logits = []
        for wanted in (True, False):
            model.set_pruning({**exact, "exact_last_layer": wanted})
            logits.append(model(**inputs()).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("model_class, exact, readout", [
    (BertForSequenceClassification, True, "first_only"),
    (BertForSequenceClassification, False, "first"),
    (BertModel, True, "all"),
])  # fmt: skip
def test_which_rows_the_last_layer_computes(model_class, exact, readout, monkeypatch):
    model, seen = model_of(model_class, "panels"), []
    model.set_pruning({**PRUNINGS["ltp"].to_dict(), "exact_last_layer": exact})
    op = whole.OPS.encoder
    monkeypatch.setattr(whole.OPS, "encoder", lambda *args: seen.append(args[14]) or op(*args))
    with torch.inference_mode():
        model(**inputs())
    assert seen == [whole.READOUTS[readout]]


def test_what_is_no_plain_module_is_run_layer_by_layer(runs):
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x) + 1

    model = model_of(BertModel, "panels")
    wrapped = copy.deepcopy(model)
    layer = wrapped.encoder.layer[2].attention.self
    layer.query = Wrapped(layer.query)
    with torch.inference_mode():
        difference = model(**inputs()).last_hidden_state - wrapped(**inputs()).last_hidden_state
    assert len(runs) == 1  # the first model alone
    assert float(difference.abs().max()) > 1e-3


def test_threads_do_not_share_their_scratch():
    """Calls from several Python threads at once give what each gives alone."""
    from concurrent.futures import ThreadPoolExecutor

    model = model_of(BertModel, "panels")
    model.set_pruning(PRUNINGS["top"])
    batches = [{key: value[row : row + 2] for key, value in inputs().items()} for row in (0, 1, 2, 3)] * 6

    def run(batch):
        with torch.inference_mode():
            return model(**batch).last_hidden_state

    alone = [run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, batches))
    assert all(map(torch.equal, alone, together))
