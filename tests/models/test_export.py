"""torch.export of pruned models: the same bits as the model, for other batches than the one it was traced with; and what is refused."""

import os
import subprocess
import sys

import pytest
import tokprune_kernels as tk
import torch
import transformers
from torch import nn
from torch.export import Dim
from tokprune_kernels.layers.kernels import COMPILED

from .helpers import random_batch, random_bert, repad
from .test_model_types import of_type

EXAMPLE = random_batch((16, 1, 7, 40, 33), 48)
OTHERS = (
    EXAMPLE,
    random_batch((3, 0, 20), 25, seed=1),
    repad(*random_batch((3, 2, 20), seed=2), side="left", width=30),
    random_batch((1,), 1, seed=3),
)
LTP = tk.PruningConfig.ltp([0.0, 0.02, 0.03], protected_token_ids=(5, 9))
TOP = tk.PruningConfig.top([1.0, 0.6, 0.5], score_denominator=64, exact_last_layer=False)
HEADS = ("BertModel", "BertForSequenceClassification", "BertForTokenClassification")
pytestmark = pytest.mark.skipif(not COMPILED, reason="programs hold weights that the compiled kernels packed")


def pruned(head="BertModel", pruning=LTP, **config):
    return tk.prune_model(random_bert(getattr(transformers, head), **config), pruning)


def export(model, strict=False, dynamic=True, **given):
    sizes = {0: Dim("batch", min=1, max=64), 1: Dim("length", min=1, max=64)}
    example = dict(zip(("input_ids", "attention_mask"), EXAMPLE))
    shapes = {name: sizes for name in example} | {name: None for name in given} if dynamic else None
    with torch.no_grad():
        return torch.export.export(model, (), example | given, dynamic_shapes=shapes, strict=strict)


def assert_same(program, model, batches=OTHERS):
    module = program.module()
    for ids, mask in batches:
        with torch.no_grad():
            actual, expected = (one(input_ids=ids, attention_mask=mask) for one in (module, model))
        for a, e in zip(actual.to_tuple(), expected.to_tuple(), strict=True):
            assert torch.equal(a, e)


def ops_of(program):
    return [str(node.target) for node in program.graph.nodes if "tokprune" in str(node.target)]


@pytest.mark.parametrize("strict", (False, True), ids=("", "strict"))
@pytest.mark.parametrize("head", HEADS)
def test_any_batch_and_length(head, strict):
    model = pruned(head).freeze_for_inference()
    program = export(model, strict)
    assert ops_of(program) == ["tokprune.padded_encoder.default"]  # nothing is packed at a call
    assert_same(program, model)


def test_static_shapes():
    model = pruned(pruning=TOP).freeze_for_inference()
    assert_same(export(model, dynamic=False), model, OTHERS[:1])


@pytest.mark.parametrize("strict", (False, True), ids=("", "strict"))
def test_weights_of_a_model_that_is_not_frozen_are_packed_by_the_program(strict):
    model = pruned(pruning=TOP)
    program = export(model, strict)
    assert len(ops_of(program)) == 4 * 3 + 1
    assert_same(program, model)
    with torch.no_grad():  # the program's parameters are the model's
        model.encoder.layer[0].output.dense.weight.mul_(2.0)
    assert_same(program, model)


@pytest.mark.parametrize("kind", ("distilbert", "electra", "ernie", "roberta", "xlm-roberta"))
def test_other_types(kind):
    """Positions that count from elsewhere, heads that read the first token themselves, padding on the left."""
    model = tk.prune_model(of_type(kind, "ForSequenceClassification"), LTP).freeze_for_inference()
    ids, mask = random_batch((9, 4), 12)
    ids[0, 3] = ids[1, 0] = model.config.pad_token_id  # live, and so of a position that RoBERTa does not count
    assert_same(export(model), model, (*OTHERS, (ids, mask)))


@pytest.mark.parametrize("readout", ("first", "survivor_mean"))
def test_readouts(readout):
    model = pruned(pruning=tk.PruningConfig.ltp([0.0, 0.02, 0.03], readout=readout)).freeze_for_inference()
    assert_same(export(model), model)


def test_everything_given_and_nothing_but_ids():
    model = pruned(pruning=tk.PruningConfig.top([1.0, 0.6, 0.5])).freeze_for_inference()
    ids, mask = EXAMPLE
    given = {"token_type_ids": ids % 2, "position_ids": torch.arange(ids.shape[1]).flip(0)[None]}
    with torch.no_grad():
        program = torch.export.export(model, (ids, mask), given)
        assert torch.equal(program.module()(ids, mask, **given)[0], model(ids, mask, **given)[0])
        program = torch.export.export(model, (ids,))
        assert torch.equal(program.module()(ids)[0], model(ids)[0])
        states = model.embeddings.word_embeddings(ids)
        program = torch.export.export(model, (), {"inputs_embeds": states, "attention_mask": mask.double()})
        assert torch.equal(program.module()(inputs_embeds=states, attention_mask=mask.double())[0], model(ids, mask)[0])


def test_bfloat16():
    model = pruned(pruning=tk.PruningConfig.dense()).bfloat16().freeze_for_inference()
    assert_same(export(model), model)


LOADED = """
import sys, torch
torch.ops.load_library(sys.argv[1])
program, (ids, mask, expected) = torch.export.load(sys.argv[2]), torch.load(sys.argv[3])
actual = program.module()(input_ids=ids, attention_mask=mask)
assert torch.equal(actual[0], expected)
assert not {"tokprune_kernels", "transformers"} & set(sys.modules)
"""


def test_a_saved_program_runs_without_this_package(tmp_path):
    """Nor transformers, whose output classes it would name: return_dict=False gives a tuple."""
    model = pruned("BertForSequenceClassification").freeze_for_inference()
    model.config.return_dict = False
    files = [str(tmp_path / name) for name in ("model.pt2", "example.pt")]
    torch.export.save(export(model), files[0])
    ids, mask = OTHERS[2]
    with torch.no_grad():
        torch.save((ids, mask, model(ids, mask)[0]), files[1])
    command = [sys.executable, "-c", LOADED, tk.get_torch_library(), *files]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


class Adapted(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x)


def adapted():
    model = pruned()
    model.encoder.layer[1].output.dense = Adapted(model.encoder.layer[1].output.dense)
    return model


def hooked():
    model = pruned()
    model.encoder.layer[2].register_forward_hook(lambda module, inputs, output: None)
    return model


def config_by_hand():
    model = pruned()
    model.config.pruning = TOP.to_dict()
    return model


REFUSED = {
    "training": (lambda: pruned().train(), {}, r"call model.eval\(\)"),
    "output_pruning": (pruned, {"output_pruning": True}, "leave out output_pruning"),
    "hidden states": (pruned, {"output_hidden_states": True}, "leave out .*output_hidden_states"),
    "attention maps": (pruned, {"output_attentions": True}, "leave out .*output_attentions"),
    "float64": (lambda: pruned().double(), {}, r"torch.float64 on cpu: call model.float\(\)"),
    "adapter": (adapted, {}, "layer 1 cannot be exported.*[Mm]erge"),
    "hook": (hooked, {}, "layer 2 cannot be exported.*without hooks"),
    "activation": (lambda: pruned(hidden_act="silu"), {}, "gelu or relu"),
    "by hand": (config_by_hand, {}, "set_pruning"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, given, message = REFUSED[name]
    model = make()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        export(model, dynamic=False, **given)
    with pytest.raises(Exception, match=f"(?s){message}"):  # inside an error of the tracer
        export(model, strict=True, dynamic=False, **given)


def test_gradients_of_a_program_are_refused():
    model = pruned()
    program = torch.export.export(model, EXAMPLE)
    with pytest.raises(RuntimeError, match="for inference"):
        program.module()(*EXAMPLE).last_hidden_state.sum().backward()


@pytest.mark.parametrize("head", HEADS[:2])
def test_torch_jit_trace_is_refused(head):
    """It would keep how many tokens of the example stayed."""
    with pytest.raises(RuntimeError, match="torch.jit.trace.*torch.export"):
        torch.jit.trace(pruned(head), EXAMPLE, strict=False)


@pytest.mark.parametrize("dynamo", (False, True))
def test_onnx_is_refused(tmp_path, dynamo):
    if dynamo:
        pytest.importorskip("onnxscript", reason="the dynamo exporter needs it")
    with pytest.raises(Exception) as caught:
        torch.onnx.export(pruned(), EXAMPLE, str(tmp_path / "model.onnx"), dynamo=dynamo)
    assert "no ONNX operators for token pruning" in str(caught.value) and "torch.export" in str(caught.value)
