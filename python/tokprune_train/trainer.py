"""transformers.Trainer for a Student: its parameter groups, and the progress of the training told to it.

Resuming, mixed precision, several processes, gradient accumulation and loggers are Trainer's own. Its checkpoints are written whole or not at
all (checkpoints.py), and a loss that is not finite ends the training (finite.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokprune_kernels.cli.storing import write_text
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from . import checkpoints, processes
from .data.encoding import Collator
from .finite import LossWatch, NotFiniteError, check_weights
from .student import Student


@dataclass(frozen=True)
class Settings:
    """How one stage is trained.

    epochs: may be a fraction.   batch_size: rows per step over all processes.   learning_rate: of the model's weights, linear
    warm-up over `warmup` (share of the steps), then linear decay to 0.   freeze_embeddings: leave them as they are.
    bf16: mixed precision.   seed: of the order of the rows, dropout, new heads and sampled gates.
    checkpoints: write this many on the way (0: none), to resume from.
    """

    epochs: float = 2.0
    batch_size: int = 32
    learning_rate: float = 3e-5
    weight_decay: float = 0.01
    warmup: float = 0.06
    freeze_embeddings: bool = False
    bf16: bool = False
    seed: int = 0
    checkpoints: int = 0
    log_every: int = 50


class StudentTrainer(Trainer):
    """Trainer with the Student's own parameter groups, whole checkpoints, and finite losses only."""

    def __init__(self, student: Student, rows: Sequence[dict], collator: Collator, settings: Settings, folder: Path):
        arguments = training_arguments(settings, len(rows), folder)
        self.settings, self.losses = settings, LossWatch()
        self._beside: Path | None = None  # where a checkpoint is being written
        super().__init__(model=student, args=arguments, train_dataset=rows, data_collator=collator)
        self.add_callback(StudentCallback(student, folder / "log.jsonl"))
        if arguments.disable_tqdm:
            self.remove_callback(PrinterCallback)
        else:
            self.remove_callback(ProgressCallback)
            self.add_callback(ProgressCallback)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """As Trainer's; raises NotFiniteError, before the weights move, for a loss that is not finite."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.losses.see(loss, self.state.global_step)
        return loss

    def log(self, logs, start_time=None):
        """As Trainer's, of losses that are finite."""
        self.losses.check()
        super().log(logs, start_time)

    def check_finite(self) -> None:
        """Raise NotFiniteError for a loss or a weight that is not finite."""
        self.losses.check()
        check_weights(self.model)

    def _save_checkpoint(self, model, trial):
        self.check_finite()
        with checkpoints.written(Path(self.args.output_dir), self.state.global_step, self.model) as self._beside:
            super()._save_checkpoint(model, trial)
        self._beside = None

    def _get_output_dir(self, trial):
        return super()._get_output_dir(trial) if self._beside is None else str(self._beside)

    def create_optimizer(self, model=None):
        """AdamW over the weights, without decay on biases and norms, and over the pruner's own groups."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(parameter_groups(self.model, self.settings), fused=True)
        return self.optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        """Linear warm-up and decay for the weights; the pruner's groups keep their rate until the last fifth of the training.

        Were they to decay with the weights, a constraint whose target ramps up would be met later and later, or never.
        """
        if self.lr_scheduler is None:
            optimizer = optimizer or self.optimizer
            warmup = self.args.warmup_steps
            schedules = [
                partial(_hold if group.get("pruner") else _linear, steps=num_training_steps, warmup=warmup)
                for group in optimizer.param_groups
            ]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedules)
        return self.lr_scheduler


def _linear(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (steps - step) / max(1, steps - warmup))


def _hold(step: int, steps: int, warmup: int) -> float:
    return min(1.0, max(0.0, (steps - step) / max(1.0, 0.2 * steps)))


def parameter_groups(student: Student, settings: Settings) -> list[dict]:
    """The optimiser's groups; frozen embeddings stop asking for gradients."""
    if settings.freeze_embeddings:
        student.model.base_model.embeddings.requires_grad_(False)
    trained = [parameter for parameter in student.model.parameters() if parameter.requires_grad]
    rate = {"lr": settings.learning_rate}
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": settings.weight_decay, **rate},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0, **rate},
    ]
    if student.pruner is not None:
        groups += [{"weight_decay": 0.0, "pruner": True, **group} for group in student.pruner.parameter_groups()]
    return groups


def training_arguments(settings: Settings, rows: int, folder: Path) -> TrainingArguments:
    """Trainer's arguments for a stage; the global batch is shared out among the processes."""
    shares = processes.count()
    if settings.batch_size % shares:
        raise ValueError(f"a batch of {settings.batch_size} rows cannot be shared out among {shares} processes: choose a multiple")
    if rows < settings.batch_size:
        raise ValueError(f"{rows} rows do not fill a batch of {settings.batch_size}: choose a smaller batch, or more rows")
    steps = max(1, int(settings.epochs * (rows // settings.batch_size)))
    cpu = processes.device().type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size // shares,
        warmup_steps=int(settings.warmup * steps),
        lr_scheduler_type="linear",
        bf16=settings.bf16,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and shares > 1 else None,
        save_strategy="steps" if settings.checkpoints else "no",
        save_steps=max(1, steps // (settings.checkpoints + 1)),
        save_total_limit=1,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,  # there are none, see finite.py
        report_to="none",
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=not cpu,
        label_names=["labels"],
    )
    # One process trains on one GPU: Trainer would spread it over all that it sees by nn.DataParallel, a batch for each.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def train(trainer: StudentTrainer, folder: Path, resume: bool) -> None:
    """Run the stage; with `resume` from the newest complete checkpoint in its folder, if there is one.

    Raises NotFiniteError, a ValueError, where a loss or the weights stop being finite.
    """
    checkpoint = checkpoints.newest(folder) if resume else None
    if checkpoint is not None:
        checkpoints.restore_pruning(checkpoint, trainer.model)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.check_finite()
    except NotFiniteError as error:
        raise NotFiniteError(
            f"{error} (stage {folder.name!r}, {trainer.state.max_steps} steps): the training stops, and nothing that came of it is scored or "
            f"saved; {checkpoints.said_of_newest(folder)}. Start again in another folder with lower learning rates (--lr and the method's "
            "own), or look for what is out of range in the data or the weights of the loss's terms"
        ) from error
    finally:
        _close_bar(trainer)


def _close_bar(trainer: StudentTrainer) -> None:
    """A bar that is cut off would be drawn once more when the program ends, after the line that says why."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ProgressCallback) and callback.training_bar is not None:
            callback.training_bar.close()
            callback.training_bar = None


class StudentCallback(TrainerCallback):
    """Tells the student how far the training is, keeps its pruner's parameters in range, and writes log.jsonl."""

    def __init__(self, student: Student, log: Path):
        self.student, self.log = student, log

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            cut_log(self.log, state.global_step)

    def on_step_begin(self, args, state, control, **kwargs):
        self.student.step, self.student.progress = state.global_step, state.global_step / state.max_steps

    def on_step_end(self, args, state, control, **kwargs):
        if self.student.pruner is not None:
            self.student.pruner.after_step()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or logs is None:
            return
        if self.student.pruner is not None and self.student.task_loss is not None:  # None: gone on with after the last step
            logs |= {"task_loss": float(self.student.task_loss)} | self.student.pruner.metrics(self.student.progress)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def cut_log(log: Path, step: int) -> None:
    """Leave the lines up to a step, after which the training goes on: those that follow will come again, and the one that sums up."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
    told = [(line, json.loads(line)) for line in lines if line.endswith("\n")]
    write_text(log, "".join(line for line, values in told if step and values["step"] <= step and "train_runtime" not in values))
