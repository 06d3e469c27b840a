"""The arguments that name a data set, shared by training and evaluation."""

from tokprune_kernels.cli.arguments import positive_int


def add_data_arguments(parser) -> None:
    """Add --data and what goes with it."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        required=True,
        metavar="SOURCE",
        help="a folder with train.jsonl and validation.jsonl or test.jsonl (or .json, .csv, .tsv; .gz too), one such file, a folder saved "
        "by datasets, or a name on the hub, its configuration after a colon (nyu-mll/glue:sst2)",
    )
    group.add_argument("--eval-split", metavar="NAME", help="rows to evaluate on (default: validation, else test)")
    for what, usual in (("text", "text, sentence, sentence1, ..."), ("pair", "text_pair, sentence2, ..."), ("label", "label")):
        group.add_argument(f"--{what}-column", metavar="NAME", help=f"default: the first there is of {usual}")
    group.add_argument(
        "--max-length", type=positive_int, metavar="N", help="cut texts at N tokens (default: what the model can take)"
    )


def columns_from(args) -> dict[str, str | None]:
    """The columns that were named."""
    return {what: getattr(args, f"{what}_column") for what in ("text", "pair", "label")}
