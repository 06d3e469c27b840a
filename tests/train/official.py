"""Small checkpoints in the formats of LTP's and ToP's official code, and their forward passes written out: padded, masked, in plain PyTorch."""

import json
import math

import torch
from torch.nn import functional
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification, IBertConfig, IBertForSequenceClassification

LAYERS, BINS = 4, 10
WIDTH = 24  # what texts are padded to
_SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 40, "num_labels": 3,
}  # fmt: skip


def texts(lengths=(24, 9, 17, 12, 20)):
    """Right-padded (ids, mask) of WIDTH places; the padding is id 1, each text begins with 2."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(WIDTH) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(3, 60, (len(lengths), WIDTH), generator=generator)
    ids[:, 0] = 2
    return torch.where(mask == 1, ids, 1), mask


def _randomised(model, seed):
    """Weights under which attention is not flat."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "LayerNorm.weight" in name:
                parameter.copy_(1 + 0.1 * noise)
            else:
                gain = 0.5 if name.endswith(("query.weight", "key.weight")) else 0.3
                parameter.copy_(noise if "embeddings" in name else gain * noise)
    return model


def write_ltp(folder, final=0.04, learned=(0.0, -0.02, 0.006, 0.004), **changes):
    """A folder as LTP's code saves it: I-BERT's tensors, its quantisation buffers among them, and a threshold in every layer.

    The seed is one with which no [CLS] is pruned.
    """
    config = IBertConfig(**_SIZES, pad_token_id=1, type_vocab_size=1)
    state = dict(_randomised(IBertForSequenceClassification(config), 38).state_dict())
    for layer, value in enumerate(learned):
        state[f"ibert.encoder.layer.{layer}.attention.self.pruner.keep_threshold"] = torch.tensor(value)
    state["ibert.embeddings.position_ids"] = torch.arange(40)[None]
    fields = config.to_dict() | {
        "model_type": "ltp", "architectures": ["LTPForSequenceClassification"], "prune_mode": "absolute_threshold",
        "final_token_threshold": final, "scoring_mode": "mean", "quant_mode": False,
        "prune_kwargs": {"final_token_threshold": final, "num_hidden_layers": LAYERS},
    }  # fmt: skip
    return _write(folder, fields | changes, state)


def write_top(folder, masks, pruners=None, head="ForSequenceClassification", **more):
    """A folder as ToP's code saves it: a plain BERT, and masks (layers, bins) in zs.pt."""
    kind = {"ForSequenceClassification": BertForSequenceClassification, "ForQuestionAnswering": BertForQuestionAnswering}[head]
    config = BertConfig(**{**_SIZES, "num_labels": 2 if "Question" in head else 3}, hidden_act="gelu")
    state = dict(_randomised(kind(config), 1).state_dict())
    state["bert.embeddings.position_ids"] = torch.arange(40)[None]
    fields = config.to_dict() | {"architectures": [f"ToPBert{head}"], "output_attentions": True, "output_hidden_states": True}
    _write(folder, fields, state)
    masks = torch.tensor(masks, dtype=torch.float32)
    pruners = torch.ones(len(masks)) if pruners is None else torch.tensor(pruners, dtype=torch.float32)
    torch.save({"token_z": masks, "pruner_z": pruners} | more, folder / "zs.pt")
    return folder


def _write(folder, fields, state):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("[PAD]\n")
    return folder


class Official:
    """Either forward on a padded batch. Tokens that have left are masked as keys and go on being computed."""

    def __init__(self, folder, base, eps):
        self.state, self.base, self.eps = torch.load(folder / "pytorch_model.bin", weights_only=True), base, eps
        self.heads = _SIZES["num_attention_heads"]

    def linear(self, x, name):
        return functional.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, x, name):
        weight = self.state[f"{name}.weight"]
        return functional.layer_norm(x, weight.shape, weight, self.state[f"{name}.bias"], self.eps)

    def embed(self, ids, positions):
        table = {what: self.state[f"{self.base}.embeddings.{what}_embeddings.weight"] for what in ("word", "position", "token_type")}
        x = table["word"][ids] + table["position"][positions] + table["token_type"][0]
        return self.norm(x, f"{self.base}.embeddings.LayerNorm")

    def attend(self, x, alive, layer, zeroed):
        """Context and scores (B, L): the mean over heads and padded length of what the living rows give; zeroed: dead rows get no context."""
        name = f"{self.base}.encoder.layer.{layer}.attention.self"
        query, key, value = (
            self.linear(x, f"{name}.{part}").unflatten(2, (self.heads, -1)).transpose(1, 2) for part in ("query", "key", "value")
        )
        logits = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        probabilities = (logits + torch.where(alive, 0.0, -10000.0)[:, None, None, :]).softmax(dim=-1)
        living = probabilities * alive[:, None, :, None]
        context = (living if zeroed else probabilities) @ value
        return context.transpose(1, 2).flatten(2), living.mean(dim=(1, 2))

    def rest(self, context, x, layer):
        name = f"{self.base}.encoder.layer.{layer}"
        x = self.norm(self.linear(context, f"{name}.attention.output.dense") + x, f"{name}.attention.output.LayerNorm")
        wide = functional.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(self.linear(wide, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")


def ltp_forward(folder, ids, mask, final, learned):
    """(logits, alive at the end (B, L), [CLS]'s least score)."""
    code, alive = Official(folder, "ibert", 1e-12), mask == 1
    x, least = code.embed(ids, (ids != 1).cumsum(dim=1) * (ids != 1) + 1), float("inf")
    for layer in range(LAYERS):
        context, scores = code.attend(x, alive, layer, zeroed=True)
        x = code.rest(context, x, layer)
        threshold = torch.tensor(final * layer / LAYERS) + torch.tensor(learned[layer])
        if threshold != 0:
            alive = scores >= max(1e-5, threshold)
            least = min(least, float((scores[:, 0] - threshold).min()))
    return code.linear(torch.tanh(code.linear(x[:, 0], "classifier.dense")), "classifier.out_proj"), alive, least


def top_forward(folder, ids, mask, layers):
    """(last hidden states (B, L, H) with what leaves as it left, alive at the end, logits)."""
    code, alive, held = Official(folder, "bert", 1e-12), mask == 1, torch.load(folder / "zs.pt", weights_only=True)
    x = code.embed(ids, torch.arange(WIDTH).expand_as(ids))
    left, scores = x, None
    for layer in range(LAYERS):
        if layer in layers and held["pruner_z"][layers.index(layer)] > 0:
            bins = held["token_z"][layers.index(layer)]
            for text in range(len(ids)):
                others = [place for place in range(1, WIDTH) if alive[text, place]]
                for rank, place in enumerate(sorted(others, key=lambda place: -float(scores[text, place]))):
                    alive[text, place] = bins[rank * len(bins) // len(others)] > 0
        context, scores = code.attend(x, alive, layer, zeroed=False)
        x = code.rest(context, x, layer)
        left = torch.where(alive[..., None], x, left)
    if "qa_outputs.weight" in code.state:
        return left, alive, code.linear(left, "qa_outputs")
    return left, alive, code.linear(torch.tanh(code.linear(left[:, 0], "bert.pooler.dense")), "classifier")
