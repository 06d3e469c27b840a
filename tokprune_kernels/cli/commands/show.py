"""Show which words of a text a pruned model still has in each layer, and what that makes of its answer.

  tokprune show runs/top/model "a gripping film with a plot that nobody will remember"
  tokprune show runs/mrpc/model "He left early." --pair "He went home early."

A line for every layer whose attention sees fewer tokens than the one before; what has left is dimmed, or a dot. Word pieces
count for themselves; [CLS] and [SEP] are not drawn. Of a pair the second text stands below the first.
"""

import sys

from ..arguments import positive_int
from ..output import add_json_argument, write_json
from ..pruning_arguments import DEFAULT_HELP, add_pruning_arguments, check_pruning_arguments, describe, pruning_from
from ..texts import TEXT_HELP

HELP = "which words survive, layer by layer"
NEEDS = ("transformers",)
_PRUNED = "pruned"


def add_arguments(parser):
    parser.epilog = DEFAULT_HELP
    parser.add_argument("model", metavar="MODEL", help="folder or hub id of a checkpoint")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="what to show it on")
    parser.add_argument("--pair", action="append", metavar="TEXT", help="what TEXT is paired with; once for each TEXT, in their order")
    parser.add_argument("--text", metavar="FILE", help=f"instead: {TEXT_HELP}")
    parser.add_argument("--max-texts", type=positive_int, default=8, metavar="N", help="the first N texts, or pairs, of the file (default 8)")
    parser.add_argument("--max-length", type=positive_int, metavar="N", help="cut texts at N tokens (default: what the model can take)")
    add_pruning_arguments(parser)
    add_json_argument(parser)


def run(args):
    from ..batches import longest_allowed
    from ..comparison import Comparison
    from ..errors import CliError
    from ..loading import load_model, load_tokenizer, resolve

    check_pruning_arguments(args)
    texts = _texts(args)
    name, _ = resolve(args.model)
    loaded, tokenizer = load_model(name), load_tokenizer(name)
    config = loaded.model.config
    if not tokenizer.is_fast:
        raise CliError(f"the tokenizer of {args.model!r} does not say where in a text its tokens are: a fast one is needed")
    pruning, origin = pruning_from(args, config.num_hidden_layers, loaded.saved_pruning)
    try:
        comparison = Comparison(loaded.model, {_PRUNED: pruning})
    except ValueError as error:
        raise CliError(f"cannot prune {args.model!r}: {error}") from error
    longest = longest_allowed(config, tokenizer, args.max_length)
    shown = [_shown(comparison, tokenizer, texts[number : number + 1], longest) for number in range(len(texts))]
    described = f"{describe(pruning)} ({origin})"
    write_json(args.json, {"command": "show", "model": args.model, "pruning": pruning.to_dict() | {"origin": origin}, "texts": shown})
    _print(described, shown)
    return 0


def _texts(args):
    from ..errors import UsageError
    from ..texts import Texts, read_texts

    if bool(args.texts) == (args.text is not None):
        raise UsageError("give texts, or a file of them with --text, and not both")
    if args.pair is not None and args.text is not None:
        raise UsageError("--pair goes with texts that are given here; pairs in a file are lines of JSON with text and text_pair")
    if args.pair is not None and len(args.pair) != len(args.texts):
        raise UsageError(f"--pair must be given once for each text: got {len(args.pair)} for {len(args.texts)}")
    if args.text is not None:
        return read_texts(args.text, args.max_texts)
    for text in (*args.texts, *(args.pair or ())):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # Python's way to hand on the bytes of an argument that it cannot read
            raise UsageError(f"the text {text[:40]!r} is not in the encoding of this terminal, {sys.getfilesystemencoding()}: give it in a file, with --text") from None
    return Texts(args.texts, args.pair)


def _shown(comparison, tokenizer, one, longest):
    """One text, or pair, as JSON types: its tokens, which text they are of (0, 1; None: of neither, as [CLS]) and where in it, which of
    them each layer has, and both answers."""
    from ..batches import model_inputs
    from ..comparison import PADDED

    batch = tokenizer(one.first, one.second, truncation=True, max_length=longest, return_tensors="pt", return_offsets_mapping=True)
    inputs = model_inputs(batch, one, comparison.models[PADDED].config)
    output, seen = comparison.observe(_PRUNED, inputs)
    config = comparison.models[PADDED].config
    return {
        "text": one.first[0],
        "text_pair": one.second and one.second[0],
        "tokens": tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()),
        "text_of": batch.sequence_ids(0),
        "offsets": batch["offset_mapping"][0].tolist(),
        "alive": seen.kept_mask[:, 0].tolist(),
        "importance": seen.importance[:, 0].tolist(),
        "answers": {"dense": _answer(comparison.run(PADDED, inputs), config), "pruned": _answer(output, config)},
    }


def _answer(output, config):
    """The likeliest label and its probability, the number of a regression, or None where there is no classifier."""
    if "logits" not in output:
        return None
    logits = output["logits"][0].float()
    if logits.dim() != 1:
        return None
    if len(logits) == 1:
        return {"value": float(logits[0])}
    probability, label = logits.softmax(dim=0).max(dim=0)
    return {"label": config.id2label[int(label)], "probability": float(probability)}


def _print(described, shown):
    from ..terminal import Terminal, plain

    terminal = Terminal()
    print(f"pruning  {plain(described)}\n")
    for one in shown:
        alive, layers = one["alive"], len(one["alive"]) - 1
        print(terminal.bold(", ".join([f"{len(one['tokens'])} tokens, {sum(alive[-1])} at the end", *_said(one["answers"])])))
        for row, kept in enumerate(alive):
            if row and kept == alive[row - 1]:
                continue
            label = ("  in layer 1" if not row else "  at the end" if row == layers else f"  in layer {row + 1}").ljust(14)
            print(label + _drawn(one, kept, terminal, indent=" " * 14).lstrip(" "))
        print()


def _drawn(one, kept, terminal, indent):
    from ..survivors import draw_survivors

    parts = []
    for number, text in enumerate(filter(lambda text: text is not None, (one["text"], one["text_pair"]))):
        places = [place for place, of in enumerate(one["text_of"]) if of == number]
        offsets, alive = [one["offsets"][place] for place in places], [kept[place] for place in places]
        parts.append(draw_survivors(text, offsets, alive, terminal, indent=indent))
    return "\n".join(parts)


def _said(answers):
    return [f"{name}: {_in_words(answer)}" for name, answer in answers.items() if answer is not None]


def _in_words(answer):
    from ..terminal import plain

    return f"{answer['value']:.3f}" if "value" in answer else f"{plain(str(answer['label']))} {100 * answer['probability']:.1f} %"
