"""What every recipe needs: data, tokenizer, models to start from, and the folder that results go to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

import tokprune_kernels as tk
from tokprune_kernels.cli.storing import sweep, write_text
from tokprune_kernels.cli.weights import refuse_tokens

from . import answers, checkpoints, processes
from .beginning import check_start, keep_start
from .calibration.latency_table import LatencyTable
from .calibration.measure import measure_latency_table
from .calibration.rows import CALIBRATION_ROWS, spread
from .calibration.starts import nearest_start
from .data.encoding import Collator, encode
from .data.joining import UNLABELLED, joined_texts, label_by_teacher
from .data.reading import DataError, pick_split, read_dataset
from .data.task import Task, check_texts, find_columns, find_task
from .evaluation import Evaluation, evaluate
from .pruners.base import Constraint
from .starting import load_classifier, need_trained_head, trained_head
from .student import Student, Teaching
from .teacher import teach
from .trainer import Settings, StudentTrainer, train

RESULT = "result.json"
STAGES = ("dense", "soft", "hard")
_LATENCY = "latency.json"
START_ROWS = 256


@dataclass
class Workspace:
    """Tokenised data, a tokenizer, and an output folder with one sub-folder a stage.

    joined: how many of the training rows are texts put together anew, which only the teacher labels (data.joining).
    base: folder or hub id of the model to start from.   teacher: of the one that teaches; None: the same.
    answers_folder: keeps what the teacher says; None: it is asked anew.
    train_rows, eval_rows: see data.encoding.encode.
    dropout: of the hidden states; None: what the model has.
    bf16: the teacher's gradients in mixed precision.
    progress: what -> function (done, wanted), for long work that is not Trainer's.
    start: of a training that has not begun yet, see `begin`.
    """

    base: str
    output: Path
    tokenizer: PreTrainedTokenizerBase
    task: Task
    train_rows: Sequence[dict]
    eval_rows: Sequence[dict]
    max_length: int
    joined: int = 0
    teacher: str | None = None
    answers_folder: Path | None = None
    dropout: float | None = None
    resume: bool = False
    bf16: bool = False
    progress: Callable[[str], Callable] | None = None
    start: dict | None = None

    @property
    def collator(self) -> Collator:
        """Makes the batches."""
        return Collator(self.tokenizer.pad_token_id or 0)

    def load_model(self, pruning: tk.PruningConfig | None = None) -> nn.Module:
        """The model to start from, with a head that fits the task, packed and pruned as `pruning` says (None: dense)."""
        return self._load(self.base, pruning)

    def _load(self, name: str, pruning: tk.PruningConfig | None = None) -> nn.Module:
        model = load_classifier(name, self.task, self.dropout)
        refuse_tokens(self.base, self.tokenizer, model.config.vocab_size)
        return tk.prune_model(model.to(processes.device()), pruning)

    def student(self, model: nn.Module, pruner: nn.Module | None, teaching: Teaching) -> Student:
        """With the teacher beside it where it is asked for every batch."""
        return Student(model, pruner, teaching, self._load(self.teacher or self.base) if teaching.beside else None)

    def begin(self, start: dict) -> None:
        """Go on with what is in the output folder, where `resume` says so, or take note that something else begins there.

        start: see beginning.start_of. Raises ValueError where another training was begun there than is to be gone on with.
        """
        self.resume = self.resume and check_start(self.output, start)
        self.start = None if self.resume else start
        if processes.is_first() and self.output.is_dir():
            sweep(self.output)

    def run_stage(self, name: str, student: Student, settings: Settings, callbacks: Sequence[TrainerCallback] = ()) -> None:
        """Train the student; its log and checkpoints go to the sub-folder `name`. A stage that was at its end is not trained again."""
        folder = self.output / name
        if self.resume and checkpoints.restore_end(folder, student):
            return
        if processes.is_first():
            self._note_start()
        folder.mkdir(parents=True, exist_ok=True)
        trainer = StudentTrainer(student, self.train_rows, self.collator, settings, folder)
        for callback in callbacks:
            trainer.add_callback(callback)
        train(trainer, folder, self.resume)
        if processes.is_first():
            checkpoints.keep_end(folder, student)

    def _note_start(self) -> None:
        """At the first step of a new training: from here on it is what is gone on with, and not what an earlier one left."""
        if self.start is None:
            return
        for stage in STAGES:
            checkpoints.forget_all(self.output / stage)
        keep_start(self.output, self.start)
        self.start = None

    def finish(self) -> None:
        """Let go of what only going on needs; the logs and the last checkpoints stay."""
        for stage in STAGES:
            checkpoints.forget_end(self.output / stage)

    def calibration_rows(self) -> Sequence[dict]:
        """Some training rows, evenly spread, for what is measured before or between stages.

        They are texts of the data set itself: joined ones are longer than what the model will meet, and sparsity, thresholds and
        the best start hang on the length.
        """
        rows = [row for row in self.train_rows if not row.get(UNLABELLED)]
        return [rows[place] for place in spread(len(rows))]

    def nearest_start(self, model: nn.Module, shapes: Sequence[tk.PruningConfig], constraint: Constraint) -> tk.PruningConfig:
        """See calibration.starts; on few rows, which many forward passes go over."""
        need_trained_head(self.base)
        rows = self.calibration_rows()[:: CALIBRATION_ROWS // START_ROWS]
        return nearest_start(model, shapes, constraint.cost, constraint.target, rows, self.collator)

    def latency_table(self, texts: int) -> LatencyTable:
        """Time of the model's layers on this machine, in batches of `texts` texts as long as the training rows; also saved, since no two
        measurements agree, and what is gone on with is under the first."""
        file = self.output / _LATENCY
        if self.resume and file.is_file():
            try:
                return LatencyTable.from_json(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"cannot go on under the times in {str(file)!r}: {error}") from error
        lengths = [len(row["input_ids"]) for row in self.train_rows]
        table = measure_latency_table(self.load_model().to("cpu"), texts, lengths, progress=self.progress and self.progress("latency"))
        self.output.mkdir(parents=True, exist_ok=True)
        write_text(file, table.to_json())
        return table

    def teach(self, model: nn.Module, teaching: Teaching, importance: bool = False) -> None:
        """Have the teacher, which is the untrained `model` unless another was named, speak on every training row (teacher.teach).

        importance: the last layer's is wanted, too. Nothing happens where nothing is taught, and only saliency, which takes gradients, is
        asked for where the teacher runs beside the student anyway. Raises ValueError where rows have no label and no logits are taught either.
        """
        if self.joined and not teaching.answers:
            raise ValueError("joined texts have no labels but the teacher's: give its answers a share of the loss")
        wanted = {*teaching.wanted, *["teacher_importance"] * importance}
        if wanted:
            need_trained_head(self.teacher or self.base)
        if teaching.beside:
            wanted &= {"teacher_saliency"}
        if not wanted:
            return
        teacher = model if self.teacher is None else self._load(self.teacher)
        wanted.add("teacher_logits")
        of = self.answers_folder and answers.fingerprint(teacher, self.train_rows)
        if not (self.answers_folder and answers.recall(self.answers_folder, self.train_rows, of, wanted)):
            progress = self.progress and self.progress("teacher")
            teach(teacher, self.train_rows, self.collator, wanted, bf16=self.bf16, progress=progress)
            if self.answers_folder and processes.is_first():
                answers.keep(self.answers_folder, self.train_rows, of)
        label_by_teacher(self.train_rows, self.task.regression)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Score a model on the evaluation rows, removing tokens for real."""
        return evaluate(model, self.eval_rows, self.collator, self.max_length)


def open_workspace(
    model: str,
    data: str,
    output: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    train_split: str | None = None,
    eval_split: str | None = None,
    columns: dict[str, str | None] | None = None,
    limit: int | None = None,
    min_length: int = 0,
    joined: int = 0,
    seed: int = 0,
    **options,
) -> Workspace:
    """Read and tokenise a data set.

    data: see data.reading.read_dataset.   columns: names given for text, pair, label.   limit: train on the first rows only.
    min_length: train on rows of at least so many tokens.   joined: and on so many put together of others, drawn by `seed`.
    Raises DataError for data that cannot be used.
    """
    splits = read_dataset(data)
    _, training = pick_split(splits, train_split, ("train",))
    _, held_out = pick_split(splits, eval_split, ("validation", "test"))
    head = trained_head(model) or (options.get("teacher") and trained_head(options["teacher"]))
    task = find_task(training, find_columns(training.column_names, **(columns or {})), head)
    check_texts(held_out, task.columns.text, task.columns.pair)
    if limit is not None:
        training = training.select(range(min(limit, len(training))))
    all_rows = encode(training, task, tokenizer, max_length)
    train_rows = [row for row in all_rows if len(row["input_ids"]) >= min_length]
    if not train_rows:
        raise DataError(f"no training row of {data!r} has {min_length} tokens or more")
    if joined:
        train_rows += joined_texts(all_rows, train_rows, joined, max_length, seed)
    return Workspace(
        base=model,
        output=Path(output),
        tokenizer=tokenizer,
        task=task,
        train_rows=train_rows,
        eval_rows=encode(held_out, task, tokenizer, max_length),
        max_length=max_length,
        joined=joined,
        **options,
    )
