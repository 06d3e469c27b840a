"""One process or several (torchrun): which one this is, and where it trains."""

import os

import torch


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device() -> torch.device:
    """Where this process trains, and asks the teacher and calibrates before: its GPU if there is one, as transformers' Trainer
    chooses it."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
