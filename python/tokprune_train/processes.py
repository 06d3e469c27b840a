"""One process or several (torchrun): which one this is, and where it trains."""

import os

import torch
from torch import distributed


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait() -> None:
    """Until all processes are here."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def leave() -> None:
    """Part from the other processes, if there are any: a process that ends without it may be aborted (SIGABRT), since threads of gloo's
    still hold what is Python's."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def device() -> torch.device:
    """Where this process trains, and asks the teacher and calibrates before: its GPU if there is one, as transformers' Trainer
    chooses it."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")
