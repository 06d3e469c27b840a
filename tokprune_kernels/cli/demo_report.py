"""What `tokprune demo` prints."""

from .pruning_arguments import describe
from .report import BASELINE_LABELS, speed_table, timing_note
from .survivors import draw_survivors
from .table import format_pairs, format_table
from .terminal import Terminal

_SHOWN_TEXTS = (3, 6)  # a short and a middle one
_STAGES = (4, 6)  # rows of kept_mask shown: entering layer 4 (0-based), and at the end


def print_demo(result, measured, prunings, texts, offsets, kept_masks):
    """Print the demo's result.

    result: what --json writes. measured: a `Measurement`. prunings: method -> PruningConfig.
    texts: list of str. offsets: for each text the character ranges of its tokens.
    kept_masks: method -> (num_layers + 1, B, L) bool.
    """
    terminal = Terminal()
    for title, lines in (
        ("token pruning on a real BERT", _head(result, prunings)),
        ("tokens alive, all texts together", _by_layer(result)),
        ("each text by itself", _by_text(result, texts, terminal)),
        ("words that survive", _words(texts, offsets, kept_masks, terminal)),
        ("speed", _speed(result, measured, terminal)),
    ):
        print(f"{terminal.bold(title)}\n\n{lines}\n")
    print(f"all {len(result['checks'])} checks passed")


def _head(result, prunings):
    data, machine = result["input"], result["machine"]
    first, *others = result["checks"]
    pairs = [
        ("model", f"{result['model']['name']}, from {result['model']['source']}"),
        (
            "texts",
            f"{data['texts']} in one batch, {data['shortest']} to {data['longest']} tokens: {data['tokens']} tokens in "
            f"{data['padded_places']} padded places",
        ),
        *((name, describe(config)) for name, config in prunings.items()),
        ("", "(set by hand: this model was not trained for pruning)"),
        ("kernels", result["implementation"]["summary"]),
        ("machine", f"{machine['cpu']['model']}, {machine['threads']} threads, torch {machine['packages']['torch']}"),
        ("check", f"{first['name']}: {first['detail']}"),
        ("", f"and {len(others)} more: kept tokens follow the rule, pruned states equal plain PyTorch"),
    ]
    return format_pairs(pairs, indent="  ")


def _by_layer(result):
    rows = [[method, *(sum(layer) for layer in kept)] for method, kept in result["kept_lengths"].items()]
    layers = len(rows[0]) - 2
    return _indented(format_table(["in layer", *map(str, range(1, layers + 1)), "at the end"], rows))


def _by_text(result, texts, terminal):
    rows = []
    for number, text in enumerate(texts):
        row = [text if len(text) <= 25 else f"{text[:22]}..."]
        for method, kept in result["kept_lengths"].items():
            before, after = kept[0][number], kept[-1][number]
            row += [after, terminal.bar(after / before, 10), f"{result['cosine'][method]['survivors'][number]:.3f}"]
        rows.append([row[0], before, *row[1:]])
    methods = list(result["kept_lengths"])
    headers = ["", "tokens", *(header for method in methods for header in (f"{method} keeps", "", "cosine"))]
    table = format_table(headers, rows, align="lr" + "rlr" * len(methods))
    return _indented(f"{table}\n\n{_cosines(result)}")


def _cosines(result):
    rows = []
    for method, cosine in result["cosine"].items():
        for what, words in (("survivors", "its survivors"), ("all", "all tokens, the dropped ones as they left")):
            values = cosine[what]
            rows.append([f"{method}: mean over {words}", f"{sum(values) / len(values):.3f}", f"{min(values):.3f}"])
    return format_table(["cosine of the embedding to the dense one", "mean", "min"], rows)


def _words(texts, offsets, kept_masks, terminal):
    parts = []
    for number in _SHOWN_TEXTS:
        text, pieces = texts[number], offsets[number]
        parts.append(draw_survivors(text, pieces, [True] * len(pieces), terminal, indent="  "))
        for method, kept in kept_masks.items():
            for stage in _STAGES:
                label = f"  {method} " + ("at the end" if stage == len(kept) - 1 else f"into layer {stage + 1}")
                drawn = draw_survivors(text, pieces, kept[stage][number].tolist(), terminal, indent=" " * 20)
                parts.append(label.ljust(20) + drawn.lstrip(" "))
        parts.append("")
    return "\n".join(parts).rstrip()


def _speed(result, measured, terminal):
    labels = BASELINE_LABELS | {name: f"packed, {name}" for name in measured.timings if name not in BASELINE_LABELS}
    table = speed_table(labels, measured, result["input"]["texts"], terminal.times)
    longest = result["input"]["max_length"]
    most = measured.flops[f"padded to {longest}"] / 1e9
    return _indented(
        f"{table}\n\n{timing_note(measured, result['machine'])}\n"
        "factors are against Hugging Face on the same padded batch\n"
        f"(padded to {longest}, the model's maximum, it would be {most:.2f} GFLOPs)"
    )


def _indented(text):
    return "\n".join(f"  {line}".rstrip() for line in text.split("\n"))
