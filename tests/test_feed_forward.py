"""The feed-forward part in blocks of rows gives the bits of the whole."""

import pytest
import torch

from tokprune_kernels._extension import extension_status

transformers = pytest.importorskip("transformers", reason="needs transformers")


@pytest.mark.skipif(not extension_status().loaded, reason="packed layers need the compiled kernels")
@pytest.mark.parametrize("rows", (1, 7, 40))
def test_blocks_do_not_change_a_bit(monkeypatch, rows):
    from tokprune_kernels import PruningConfig, prune_model
    from tokprune_kernels.layers import packed_layer

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96
    )
    ids = torch.randint(0, 50, (5, 23))
    models = [prune_model(transformers.BertModel(config).eval(), PruningConfig.ltp([0.03, 0.0])) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    with torch.inference_mode():
        # Recording what is pruned runs the layers one by one.
        whole = models[0](ids, output_pruning=True).last_hidden_state
        monkeypatch.setattr(packed_layer, "FEED_FORWARD_BYTES", rows * 96 * 4)
        assert torch.equal(models[1](ids, output_pruning=True).last_hidden_state, whole)
        layer = models[1].encoder.packed_layers._snapshot.layers[0]
    assert layer.block_rows == rows
