"""Where a GPU exists: every op on it against the reference, the two modes against each other, and no host sync in a graph."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

pytest.importorskip("triton", reason="needs triton")

import tokprune_kernels as tk  # noqa: E402
import tokprune_kernels.ops  # noqa: E402, F401  (defines torch.ops.tokprune)
from tests.ops.samples import GENERATORS  # noqa: E402
from tokprune_kernels import reference  # noqa: E402
from tokprune_kernels.gpu.graphs import RECORDED_AT_WHEN_FULL  # noqa: E402
from tokprune_kernels.gpu.linear import linear_into  # noqa: E402
from tokprune_kernels.layers.kernels import FUSED_ROWS  # noqa: E402
from tokprune_kernels.ops.registration import GPU_MODULES  # noqa: E402
from tokprune_kernels.reference.linear import ACTIVATIONS, FUNCTIONS  # noqa: E402

from .comparing import TOLERANCES, call, comparable, difference, largest_head, widened  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CASES = [(name, dtype) for name in GPU_MODULES for dtype in TOLERANCES if comparable(name, dtype)]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_matches_the_reference(name, dtype):
    for sample in GENERATORS[name](dtype):
        if largest_head(sample) > 128:
            continue
        expected = call(getattr(reference, name), sample, widened(name))
        actual = call(getattr(torch.ops.tokprune, name), sample, torch.Tensor.cuda)
        again = call(getattr(torch.ops.tokprune, name), sample, torch.Tensor.cuda)
        for number, (a, e, b) in enumerate(zip(actual, expected, again, strict=True)):
            assert difference(a.cpu(), e) <= TOLERANCES[dtype], f"[{sample.name}] output {number}"
            assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), f"[{sample.name}] output {number}: other bits"


@pytest.fixture
def model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    # Weights large enough for scores that lie apart: near-uniform ones would be ranked by how each mode rounds. float16, because
    # bfloat16 has an eighth of its digits: the two modes, which round at other places, are then 5% apart after three such layers.
    sizes = {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}
    config = transformers.BertConfig(**sizes, initializer_range=0.3)
    return tk.prune_model(transformers.BertModel(config).eval().to("cuda", torch.float16), tk.PruningConfig.top([1.0, 0.6, 0.5]))


def inputs(lengths, length=48):
    mask = (torch.arange(length) < torch.tensor(lengths)[:, None]).long().cuda()
    return {"input_ids": torch.randint(1000, 20000, mask.shape, device="cuda"), "attention_mask": mask}


def test_both_modes_agree(model):
    """And a graph gives what its first two calls gave, the one that was not recorded and the one that was."""
    batch, results = inputs([48, 1, 0, 17]), []
    for mode in ("exact", "graph", "graph", "graph"):
        model.set_gpu_mode(mode)
        with torch.inference_mode():
            results.append(model(**batch).last_hidden_state)
    assert difference(results[1].cpu(), results[0].float().cpu()) <= 3e-2
    assert torch.equal(results[1], results[2]) and torch.equal(results[1], results[3])


def test_a_graph_serves_all_lengths_and_never_waits(model):
    model.set_gpu_mode("graph")
    with torch.inference_mode():
        for _ in range(2):  # compiles, records
            model(**inputs([48, 48, 48]))
        batches = [inputs(lengths) for lengths in ([48, 20, 3], [1, 1, 1], [30, 0, 48])]
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            outputs = [model(**batch).last_hidden_state for batch in batches]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert len(model.encoder.graphs._graphs) == 1
        model.set_gpu_mode("exact")
        for batch, output in zip(batches, outputs, strict=True):
            assert difference(output.cpu(), model(**batch).last_hidden_state.float().cpu()) <= 3e-2


def test_threads_take_turns(model):
    """Calls of one graph from several threads and streams at once: each gets the answer to its own texts."""
    model.set_gpu_mode("graph")
    batches = [inputs(lengths) for lengths in ([48, 20, 3], [1, 1, 1], [30, 0, 48], [7, 48, 12])]
    with torch.inference_mode():
        expected = [[model(**batch).last_hidden_state for batch in batches] for _ in range(2)][1]

    def serve(number):
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            results = [model(**batches[number]).last_hidden_state for _ in range(50)]
            torch.cuda.current_stream().synchronize()
        return all(torch.equal(result, expected[number]) for result in results)

    torch.cuda.synchronize()
    with ThreadPoolExecutor(len(batches)) as pool:
        assert all(pool.map(serve, range(len(batches))))


def test_many_shapes_do_not_record_for_ever(model):
    """Where the cache is full, a shape must come often to take another one's place."""
    model.set_gpu_mode("graph")
    with torch.inference_mode():
        model(**inputs([5]))
        graphs = model.encoder.graphs._graphs
        graphs.limit = 2
        for _ in range(3):
            for texts in range(1, 5):
                model(**inputs([9] * texts))
        assert len(graphs) == 2
        kept = set(graphs._recorded)
        for _ in range(RECORDED_AT_WHEN_FULL):
            model(**inputs([9] * 4))
        assert len(graphs) == 2 and set(graphs._recorded) != kept


def test_moving_a_model_leaves_nothing_behind(model):
    model.set_gpu_mode("graph")
    with torch.inference_mode():
        for _ in range(2):
            model(**inputs([48, 3]))
    assert len(model.encoder.graphs._graphs) == 1
    model.to("cpu")
    assert len(model.encoder.graphs._graphs) == 0


def test_padding_past_the_positions(model):
    """Texts that fit are run though their padding does not: only the host could know, so such batches run exactly."""
    length = model.config.max_position_embeddings + 8
    with torch.inference_mode():
        model.set_gpu_mode("graph")
        output = model(**inputs([40, 3], length)).last_hidden_state
    assert output.shape[1] == length and bool(output[0, :40].isfinite().all())


@pytest.mark.parametrize("rows", [5000, 700, 130, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_products(rows, activation):
    """By every tile, with some rows through an index and some past the count, which are left alone."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*size, generator=generator) for size in ((rows + 7, 192), (768, 192), (768,)))
    x, weight, bias = (given.to("cuda", torch.float16) for given in (x, weight / 14, bias))
    index = torch.randperm(rows + 7, generator=generator)[:rows].int().cuda()
    out, count = x.new_full((rows, 768), 9.0), torch.tensor([rows - 2], device="cuda", dtype=torch.int32)
    linear_into(out, x, weight, bias, activation, count, index)
    expected = FUNCTIONS[activation](torch.nn.functional.linear(x.double()[index[:-2].long()], weight.double(), bias.double()))
    assert difference(out[:-2].cpu(), expected.cpu()) <= TOLERANCES[torch.float16]
    assert bool((out[-2:] == 9.0).all())


def test_large_batches_in_exact_mode(model):
    """Their activation is part of the product from FUSED_ROWS on; nothing of a text changes by that but rounding."""
    model.set_pruning(None)
    model.set_gpu_mode("exact")
    batch = inputs([48] * (FUSED_ROWS // 48 + 1))
    with torch.inference_mode():
        together = model(**batch).last_hidden_state
        apart = model(**{name: value[:8] for name, value in batch.items()}).last_hidden_state
    assert difference(together[:8].cpu(), apart.float().cpu()) <= 3e-2
