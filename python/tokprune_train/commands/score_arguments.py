"""The argument that says what importance is divided by, shared by training and calibration."""


def add_score_denominator(parser, of: str = "") -> None:
    """Add --score-denominator; of: begins its help."""
    help_text = f"{of}kept (default), sqrt_kept (spares long texts), initial, or a number"
    parser.add_argument("--score-denominator", default="kept", metavar="D", help=help_text)


def denominator_from(args) -> str | int:
    """As PruningConfig takes it."""
    given = args.score_denominator
    return int(given) if given.isdigit() else given
