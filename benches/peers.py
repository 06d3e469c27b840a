"""What the benchmarks of whole models share: the options that choose engines, the model, and what was left out."""

import argparse
from pathlib import Path

import torch
from engines import NAMES, find
from engines.engine import Engine
from engines.twins import DTYPES
from transformers import BertConfig, BertModel

from tokprune_kernels.cli.machine import installed_version

CACHE = Path(__file__).parents[1] / "build" / "peers"
PACKAGES = ("onnx", "onnxruntime", "openvino")


def engine_options(parser: argparse.ArgumentParser) -> None:
    """Add --dtypes, --engines and --cache."""
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=tuple(DTYPES))
    parser.add_argument("--engines", nargs="+", choices=NAMES, default=NAMES, metavar="ENGINE", help=" ".join(NAMES))
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for exported models, kept between runs")


def present_engines(names: list[str]) -> tuple[list[Engine], dict[str, str]]:
    """The engines that can run here, and for the others what they miss, which is printed too."""
    engines = [find(name) for name in names]
    skipped = {engine.name: reason for engine in engines if (reason := engine.missing())}
    for name, reason in skipped.items():
        print(f"skipped: {name} {reason}")
    return [engine for engine in engines if engine.name not in skipped], skipped


def bert_base() -> BertModel:
    """BERT-base's shape with random, seeded weights, fp32, in eval mode."""
    torch.manual_seed(0)
    return BertModel(BertConfig(attn_implementation="sdpa")).eval()


def stamp(skipped: dict[str, str]) -> dict:
    """For the machine stamp: versions of the engines' packages, and which engines were skipped and why."""
    return {"engine_packages": {name: installed_version(name) for name in PACKAGES}, "skipped": skipped}
