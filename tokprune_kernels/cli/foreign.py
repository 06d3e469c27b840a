"""Pruned checkpoints of other programs, which as they are would load as models that prune nothing, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import CliError

# Of LTP's official code.
_LTP = "ltp"
# Where ToP's official code saves its masks, beside an ordinary BERT's configuration and weights.
_TOP_MASKS = "zs.pt"


def refuse_foreign(name: str, model_type: str | None = None) -> None:
    """Raise CliError for a checkpoint of LTP's or ToP's official code that has not been imported.

    name: folder or hub id.   model_type: of its config.json; None: read it, if it is a folder that has one.
    """
    if (model_type or _model_type(name)) == _LTP:
        _refuse(name, "LTP", "cannot be loaded as it is", f"ltp {name} --output FOLDER --max-length N")
    if (Path(name) / _TOP_MASKS).is_file():
        _refuse(name, "ToP", f"would prune nothing, without what its {_TOP_MASKS} says", f"top {name} --output FOLDER --layers L,L,...")


def _model_type(name: str) -> str | None:
    try:
        fields = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # who loads it says what is wrong with it
        return None
    return fields.get("model_type") if isinstance(fields, dict) else None


def _refuse(name: str, method: str, why: str, command: str) -> None:
    raise CliError(f"{name!r} is a checkpoint of {method}'s official code and {why}: first `tokprune import {command}`")
