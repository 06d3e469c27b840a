"""One training from its command-line arguments: settings, recipe, evaluation, and the folder that results go to."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from dataclasses import asdict, is_dataclass
from pathlib import Path

from torch import nn
from transformers import AutoConfig

import tokprune_kernels as tk
from tokprune_kernels.cli.arguments import use_threads
from tokprune_kernels.cli.batches import longest_allowed
from tokprune_kernels.cli.errors import CliError, UsageError
from tokprune_kernels.cli.foreign import refuse_foreign
from tokprune_kernels.cli.loading import load_config, load_tokenizer, resolve
from tokprune_kernels.cli.machine import installed_version, machine_stamp
from tokprune_kernels.cli.pruning_arguments import describe, pruning_from
from tokprune_kernels.cli.storing import whole_folder, write_text
from tokprune_kernels.cli.table import format_pairs
from tokprune_kernels.cli.terminal import Progress

from . import processes
from .beginning import start_of
from .commands.data_arguments import columns_from
from .evaluation import Evaluation
from .objectives.cost import FlopsCost, LatencyCost
from .pruners.base import Constraint
from .recipes import dense, fixed, ltp, top
from .report import evaluation_pairs
from .student import Teaching
from .trainer import Settings
from .workspace import RESULT, Workspace, open_workspace


def run_experiment(args: Namespace) -> int:
    """Train as `tokprune train` was asked to; see commands/train.py for the arguments. Returns the exit code."""
    use_threads(args)
    output = Path(args.output)
    if _is_finished(output):
        if not args.resume:
            raise CliError(f"{args.output!r} holds a finished training: choose another folder, or remove it")
        print(f"{args.output} is finished: nothing to resume")
        return 0
    machine = machine_stamp()
    workspace = _workspace(args, output)
    workspace.begin(start_of(args, workspace.base, workspace.teacher, [*workspace.train_rows, *workspace.eval_rows]))
    start = time.monotonic()
    model, options = _RECIPES[args.method](workspace, args)
    seconds = time.monotonic() - start
    if processes.is_first():
        evaluation = workspace.evaluate(model)
        _save(workspace, model)
        result = _result(args, model, evaluation, options, seconds, machine)
        write_text(output / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
        workspace.finish()
        _print(evaluation, model, output)
    return 0


def _is_finished(output: Path) -> bool:
    """Whether there is a result that can be read; one that cannot is no reason to keep what it is beside from being made again."""
    try:
        return "evaluation" in json.loads((output / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def settings_from(args: Namespace, **changes) -> Settings:
    """The settings of a stage."""
    values = {
        "epochs": args.epochs,
        "batch_size": args.batch,
        "learning_rate": args.lr,
        "weight_decay": args.weight_decay,
        "warmup": args.warmup,
        "freeze_embeddings": args.freeze_embeddings,
        "bf16": args.bf16,
        "seed": args.seed,
        "checkpoints": args.checkpoints,
    }
    return Settings(**values | changes)


def _workspace(args: Namespace, output: Path) -> Workspace:
    name, _ = resolve(args.model)
    for given in (args.model, getattr(args, "teacher", None)):
        if given is not None:
            refuse_foreign(given)
            load_config(resolve(given)[0])  # refuses what cannot be a model, before anything is made of it
    tokenizer = load_tokenizer(name)
    max_length = longest_allowed(AutoConfig.from_pretrained(name), tokenizer, args.max_length)
    return open_workspace(
        name,
        args.data,
        output,
        tokenizer,
        max_length,
        train_split=args.train_split,
        eval_split=args.eval_split,
        columns=columns_from(args),
        limit=args.limit,
        min_length=args.min_length,
        joined=getattr(args, "joined", 0),
        seed=args.seed,
        teacher=resolve(args.teacher)[0] if getattr(args, "teacher", None) else None,
        answers_folder=Path(args.answers) if getattr(args, "answers", None) else None,
        dropout=args.dropout,
        resume=args.resume,
        bf16=args.bf16,
        progress=_progress,
    )


def _dense(workspace: Workspace, args: Namespace):
    settings = settings_from(args)
    return dense.run(workspace, settings), settings


def _ltp(workspace: Workspace, args: Namespace):
    options = ltp.Options(
        start=args.start,
        start_power=args.start_power,
        start_threshold=args.start_threshold,
        line_start=args.line_start,
        regularizer=args.regularizer,
        temperature=tuple(args.temperature),
        threshold_lr=args.threshold_lr,
        teaching=_teaching(args),
        masks=args.masks,
        score_denominator=args.score_denominator,
        soft=_soft(args),
        hard=settings_from(args),
    )
    return ltp.run(workspace, options, _constraint(workspace, args, "after_attention")), options


def _top(workspace: Workspace, args: Namespace):
    options = top.Options(
        bins=args.bins,
        coarse=args.coarse,
        gate_lr=args.gate_lr,
        ranking=args.ranking,
        score_temperature=args.score_temperature,
        position=args.position,
        count_first=args.count_first,
        teaching=_teaching(args),
        masks=args.masks,
        soft=_soft(args),
        hard=settings_from(args),
    )
    return top.run(workspace, options, _constraint(workspace, args, args.position)), options


def _fixed(workspace: Workspace, args: Namespace):
    settings = settings_from(args)
    return fixed.thresholds(workspace, args.final_threshold, args.line_start, settings, _teaching(args), **_pruning_options(args)), settings


def _topk(workspace: Workspace, args: Namespace):
    settings = settings_from(args)
    return fixed.ratios(workspace, args.final_keep, args.whole_layers, settings, _teaching(args), **_pruning_options(args)), settings


def _pruning_options(args: Namespace) -> dict:
    return {"position": args.position, "score_denominator": args.score_denominator}


def _hard(workspace: Workspace, args: Namespace):
    config, settings = AutoConfig.from_pretrained(workspace.base), settings_from(args)
    saved = getattr(config, "pruning", None)
    if args.pruning is None and args.keep_ratios is None and args.thresholds is None and saved is None:
        raise UsageError("say what is pruned: give --pruning, --keep-ratios or --thresholds (the model's config.json has no pruning)")
    pruning, _ = pruning_from(args, config.num_hidden_layers, saved)
    return fixed.given(workspace, pruning, settings, _teaching(args)), settings


_RECIPES = {"dense": _dense, "ltp": _ltp, "top": _top, "hard": _hard, "fixed": _fixed, "topk": _topk}


def _teaching(args: Namespace) -> Teaching:
    return Teaching(
        answers=args.distillation,
        states=args.state_distillation,
        layers=args.layer_distillation,
        tokens=args.token_distillation,
        importance=args.importance_distillation,
        importance_from=args.importance_from,
        temperature=args.teacher_temperature,
    )


def _soft(args: Namespace) -> Settings:
    return settings_from(args, epochs=args.soft_epochs, learning_rate=args.soft_lr or args.lr)


def _constraint(workspace: Workspace, args: Namespace, position: str) -> Constraint | None:
    if args.speedup is None:
        return None
    if not args.speedup > 1:
        raise ValueError(f"--speedup must be above 1, got {args.speedup}")
    if args.latency:
        cost = LatencyCost(workspace.latency_table(args.batch), position)
    else:
        cost = FlopsCost(AutoConfig.from_pretrained(workspace.base), position)
    return Constraint(cost, 1 - 1 / args.speedup, args.ramp, args.multiplier_lr, args.multiplier_start)


def _save(workspace: Workspace, model: nn.Module) -> None:
    with whole_folder(workspace.output / "model") as folder:
        model.save_pretrained(folder)
        workspace.tokenizer.save_pretrained(folder)


def _result(args: Namespace, model: nn.Module, evaluation: Evaluation, options, seconds: float, machine: dict) -> dict:
    arguments = {name: value for name, value in vars(args).items() if name not in ("run", "command")}
    packages = {name: installed_version(name) for name in ("accelerate", "datasets")}
    return {
        "method": args.method,
        "arguments": arguments,
        "options": asdict(options) if is_dataclass(options) else options,
        "processes": processes.count(),
        "pruning": tk.PruningConfig.from_dict(model.config.pruning).to_dict(),
        "evaluation": evaluation.to_dict(),
        "train_seconds": round(seconds, 1),
        "machine": machine | {"packages": machine["packages"] | packages},
    }


def _print(evaluation: Evaluation, model: nn.Module, output: Path) -> None:
    pruning = tk.PruningConfig.from_dict(model.config.pruning)
    print(format_pairs([("pruning", describe(pruning)), *evaluation_pairs(evaluation), ("saved in", str(output))]))


def _progress(what: str):
    return Progress(what) if processes.is_first() else None
