"""Train a pruned classifier: fine-tune a dense model first, then learn where to prune it.

  tokprune train dense --model MODEL --data DATA --output runs/dense
  tokprune train ltp   --model runs/dense/model --data DATA --output runs/ltp --speedup 2.2
  tokprune train top   --model runs/dense/model --data DATA --output runs/top --speedup 2.2

The output folder gets model/ (PrunedBertForSequenceClassification.from_pretrained loads it, pruning included), result.json
(score by really removing tokens, FLOPs, what was learned, all settings, the machine) and one folder a stage with its log.
Under torchrun the batch is shared out among the processes.
"""

from tokprune_kernels.cli.arguments import add_threads_argument, number, positive_int, whole_number
from tokprune_kernels.cli.output import folder_to_write
from tokprune_kernels.cli.pruning_arguments import add_position_argument, add_pruning_arguments, add_score_denominator_argument

from .data_arguments import add_data_arguments

HELP = "fine-tune a dense model, or learn where to prune it (LTP, ToP)"
NEEDS = ("transformers", "accelerate", "datasets")

METHODS = {
    "dense": "ordinary fine-tuning; what pruning starts from",
    "ltp": "Learned Token Pruning: a learned threshold on importance per layer",
    "top": "ToP: learned keep ratios under a constraint on FLOPs or measured time",
    "hard": "weights only, under keep ratios or thresholds that are given: the last stage of the other methods",
    "fixed": "baseline: thresholds rising linearly, not learned",
    "topk": "baseline: keep ratios falling linearly (SpAtten's cascade), not learned",
}


def add_arguments(parser):
    methods = parser.add_subparsers(title="methods", metavar="METHOD", dest="method", required=True)
    for method, help_text in METHODS.items():
        sub = methods.add_parser(method, help=help_text, description=help_text)
        _add_common(sub)
        if method != "dense":
            _add_distillation(sub)
        if method in ("ltp", "top"):
            _add_soft_stage(sub)
            _add_constraint(sub, required=method == "top")
        _ADDERS.get(method, lambda _: None)(sub)


def _add_common(parser):
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder or hub id of a BERT checkpoint")
    parser.add_argument("--output", type=folder_to_write, required=True, metavar="FOLDER", help="for model, logs and result")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted training of that folder stopped")
    add_data_arguments(parser)
    group = parser.add_argument_group("training (the last stage, where there are two)")
    group.add_argument("--train-split", metavar="NAME", help="rows to train on (default: train)")
    group.add_argument("--limit", type=positive_int, metavar="N", help="train on the first N rows only")
    group.add_argument(
        "--min-length", type=whole_number(0), default=0, metavar="N", help="leave out training texts of fewer tokens (default: none are left out)"
    )
    group.add_argument("--epochs", type=number(least=0, most=1e6), default=2.0, metavar="X", help="default 2; may be a fraction")
    group.add_argument("--batch", type=positive_int, default=32, metavar="N", help="rows a step, over all processes (default 32)")
    group.add_argument("--lr", type=number(least=0), default=3e-5, metavar="X", help="learning rate of the weights (default 3e-5)")
    group.add_argument("--weight-decay", type=number(least=0), default=0.01, metavar="X", help="default 0.01")
    group.add_argument("--warmup", type=number(least=0, most=1), default=0.06, metavar="X", help="share of the steps (default 0.06)")
    group.add_argument("--dropout", type=number(least=0, most=1), metavar="X", help="of the hidden states (default: the model's own)")
    group.add_argument("--freeze-embeddings", action="store_true", help="leave the embeddings as they are")
    group.add_argument("--bf16", action="store_true", help="mixed precision")
    group.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="default 0")
    group.add_argument("--checkpoints", type=whole_number(0), default=0, metavar="N", help="write N checkpoints a stage, for --resume")
    add_threads_argument(group)


def _add_distillation(parser):
    parser.add_argument("--teacher", metavar="MODEL", help="dense model that teaches (default: the one that is started from)")
    parser.add_argument(
        "--distillation", type=number(least=0, most=1), default=0.5, metavar="X", help="the dense model's share of the loss (default 0.5)"
    )
    parser.add_argument(
        "--state-distillation",
        type=number(),
        default=0.0,
        metavar="X",
        help="weight of the distillation of the state that the dense model's head reads (default 0: none)",
    )
    parser.add_argument(
        "--layer-distillation",
        type=number(),
        default=0.0,
        metavar="X",
        help="weight of the distillation of the dense model's [CLS] after every layer (default 0: none)",
    )
    parser.add_argument(
        "--token-distillation",
        type=number(),
        default=0.0,
        metavar="X",
        help="weight of the distillation of the states of the tokens that are still alive, between the layers; the dense model then "
        "runs on every batch, too, and speaks on no text before the training (default 0: none)",
    )
    parser.add_argument(
        "--importance-distillation",
        type=number(),
        default=0.0,
        metavar="X",
        help="weight of the distillation of the tokens' importance: every layer learns to score the tokens alive as the dense "
        "model does (default 0: none)",
    )
    parser.add_argument(
        "--importance-from",
        choices=("attention", "saliency"),
        default="attention",
        help="what the dense model's score of a token is: the mean of its layers' importance (default), or how much of its "
        "answer hangs on the token, by gradients",
    )
    parser.add_argument(
        "--joined",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="train on N more texts, made of two training texts each, that the dense model labels (default 0)",
    )
    parser.add_argument("--answers", type=folder_to_write, metavar="FOLDER", help="keep what the dense model says there, for other trainings on the same texts")
    parser.add_argument(
        "--teacher-temperature", type=number(above=0), default=2.0, metavar="X", help="softens what the dense model says (default 2)"
    )


def _add_soft_stage(parser):
    group = parser.add_argument_group("soft stage (learns where to prune)")
    group.add_argument("--soft-epochs", type=number(least=0, most=1e6), default=1.0, metavar="X", help="default 1")
    group.add_argument("--soft-lr", type=number(least=0), metavar="X", help="learning rate of the weights (default: that of --lr)")
    group.add_argument(
        "--masks",
        choices=("attention", "hidden"),
        default="attention",
        help="what a token's weight multiplies: its share in attention, which removal is the limit of (default), or its "
        "hidden state, as the papers' code does",
    )


def _add_constraint(parser, required):
    group = parser.add_argument_group("constraint")
    group.add_argument(
        "--speedup", type=number(most=1e6), required=required, metavar="X", help="FLOPs, or time, to be X times less than packed dense"
    )
    group.add_argument(
        "--latency", action="store_true", help="constrain the time of this machine, measured first, instead of FLOPs"
    )
    group.add_argument("--ramp", type=number(least=0, most=1), default=0.5, metavar="X", help="share of the soft stage over which it tightens (default 0.5)")
    group.add_argument("--multiplier-lr", type=number(least=0), default=0.02, metavar="X", help="learning rate of the multipliers (default 0.02)")
    group.add_argument(
        "--multiplier-start", type=number(), default=0.0, metavar="X", help="of the squared distance to the target at first: holds a start that meets it (default 0)"
    )


def _add_ltp(parser):
    group = parser.add_argument_group("thresholds")
    group.add_argument("--regularizer", type=number(least=0), default=0.05, metavar="X", help="LTP's lambda, without --speedup (default 0.05)")
    group.add_argument(
        "--start", type=number(), default=0.3, metavar="X", help="share of the last layer's scores below its first threshold, without --speedup (default 0.3)"
    )
    group.add_argument(
        "--start-power", type=number(), metavar="X", help="with --speedup: the first thresholds rise as the X-th power of the depth (default: the best of some)"
    )
    group.add_argument("--start-threshold", type=number(), metavar="X", help="instead: where a line of first thresholds ends, as in the paper")
    _add_line_start(group)
    group.add_argument(
        "--temperature", type=number(above=0), nargs=2, default=(0.3, 0.05), metavar=("FIRST", "LAST"), help="of the masks, in median scores (default 0.3 0.05)"
    )
    group.add_argument("--threshold-lr", type=number(least=0), default=0.01, metavar="X", help="in median scores (default 0.01)")
    add_score_denominator_argument(group, "kept")


def _add_top(parser):
    group = parser.add_argument_group("gates")
    group.add_argument("--bins", type=whole_number(1, 10_000), default=10, metavar="N", help="rank bins a layer (default 10)")
    group.add_argument(
        "--coarse", choices=("on", "learned"), default="on", help="may every layer prune, or is that learned too (default on)"
    )
    group.add_argument("--gate-lr", type=number(least=0), default=0.04, metavar="X", help="default 0.04")
    group.add_argument(
        "--score-temperature",
        type=number(least=0),
        default=0.3,
        metavar="X",
        help="lets the task move the scores that rank, through a sigmoid of this width (default 0.3 mean scores; ToP: 0)",
    )
    position = "where tokens leave: at the entry of the next layer, as in ToP (default), or right after the attention that ranked them, "
    add_position_argument(group, "before_layer", position + "which costs less for the same answers")
    group.add_argument(
        "--count-first",
        action="store_true",
        help="keep ratios of all tokens, [CLS] among them (default: of the others, as in ToP)",
    )
    group.add_argument("--ranking", type=number(least=0), default=0.01, metavar="X", help="weight of the ranking distillation (default 0.01)")


def _add_fixed(parser):
    parser.add_argument("--final-threshold", type=number(), required=True, metavar="X", help="where the line of thresholds ends")
    _add_line_start(parser)
    add_position_argument(parser, "after_attention", "where tokens leave (default after_attention)")
    add_score_denominator_argument(parser, "kept")


def _add_line_start(parser):
    parser.add_argument(
        "--line-start",
        type=int,
        choices=(0, 1),
        default=0,
        help="of a line of thresholds: 0 as in LTP's code, the first layer prunes nothing and the last one's is a step below the "
        "line's end (default), or 1, the last one's is its end",
    )


def _add_topk(parser):
    parser.add_argument("--final-keep", type=number(), required=True, metavar="X", help="share of the tokens left in the last layer")
    parser.add_argument("--whole-layers", type=positive_int, metavar="N", help="first layers that keep all (default: SpAtten's rule)")
    position = "where tokens leave: after a layer's attention, as in LTP's code (default), or at the layer's entry, one attention earlier"
    add_position_argument(parser, "after_attention", position)
    add_score_denominator_argument(parser, "kept")


_ADDERS = {"ltp": _add_ltp, "top": _add_top, "hard": add_pruning_arguments, "fixed": _add_fixed, "topk": _add_topk}


def run(args):
    from tokprune_kernels.cli.errors import CliError

    from .. import processes
    from ..data.reading import DataError
    from ..experiment import run_experiment

    try:
        return run_experiment(args)
    except DataError as error:
        raise CliError(f"unusable data: {error}") from error
    except ValueError as error:
        raise CliError(str(error)) from error
    finally:
        processes.leave()
