"""One training step of LTP's soft stage: ours on packed tokens against the papers' way, on real texts and weights.

    python benches/bench_training.py
    python benches/bench_training.py --parts time --dtypes bf16 --only "20news 8x512"

A run of a part replaces only its own rows of results/training.csv and results/training_memory.csv.

A step is forward, backward and AdamW for MiniLM-L6 with a classification head. The baseline runs Hugging Face's own eager
layers on the padded batch and reads importance off their attention maps (training_step/eager_ltp.py). Ours runs masks="hidden",
which is the papers' masking and must give the baseline's loss and gradients, and masks="attention", our own, checked
against the same eager layers with the masks put there. Time: all batches in turn. Memory: each step in a process of its own.
"""

from __future__ import annotations

import os

import torch
from harness import arguments, publish, require_close
from model_checks import TOLERANCE
from model_rows import merged
from presentation import read
from training_step.batches import LONG, WORKLOADS, Texts
from training_step.memory import peak_of_step
from training_step.steps import EAGER, MASKS, TrainingStep, start_line, student_of

from tokprune_kernels.cli.timing import interleave

DTYPES = ("fp32", "bf16")
SETTLE_S = 0.01  # OpenMP's idle threads spin for about 5 ms


def more_options(parser):
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--parts", nargs="+", choices=("time", "memory"), default=("time", "memory"))
    names = tuple(WORKLOADS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="TEXTS", help="to time: " + ", ".join(names))
    parser.add_argument("--budget", type=float, default=20.0, help="seconds per workload and dtype, if 3 rounds fit")


def gradients(contender: str, texts: Texts, start, dtype: str, batch, masks: str) -> dict[str, torch.Tensor]:
    """The loss of one batch, and the gradient of every weight and threshold.

    Left out are the keys' biases: a softmax does not see what all its keys share, so what is there is rounding.
    """
    step = TrainingStep(student_of(contender, texts.labels, start, masks), dtype)
    found = {"loss": step.gradients(batch)}
    for name, parameter in step.student.named_parameters():
        if not name.endswith("key.bias"):
            found[name] = parameter.grad
    return found


def check(texts: Texts, start, dtype: str, batch) -> None:
    """Raise SystemExit unless every contender gives the loss and gradients of the eager layers in float32."""
    for masks in sorted(set(MASKS.values())):
        exact = gradients(EAGER, texts, start, "fp32", batch, masks)
        for contender in MASKS:
            if MASKS[contender] == masks and (contender, dtype) != (EAGER, "fp32"):
                for name, gradient in gradients(contender, texts, start, dtype, batch, masks).items():
                    require_close(f"{contender} in {dtype}: {name}", gradient, exact[name], TOLERANCE[dtype])


def time_rows(texts: Texts, dtype: str, options) -> list[dict]:
    """Check and time all contenders on one workload."""
    print(f"{dtype} {texts.name}", flush=True)
    rows = texts.rows()
    batches, start = texts.collated(rows), start_line(rows, texts.labels)
    check(texts, start, dtype, batches[0])
    steps = {contender: TrainingStep(student_of(contender, texts.labels, start), dtype) for contender in MASKS}
    contenders = {name: (lambda step=step: [step(batch) for batch in batches]) for name, step in steps.items()}
    limits = {"budget_s": options.budget, "at_least": min(3, options.repeats), "settle_s": SETTLE_S}
    timings = interleave(contenders, options.repeats, warmup=1, **limits)
    return [
        {
            "dtype": dtype,
            "workload": texts.name,
            "engine": name,
            "tokens": sum(int(batch["attention_mask"].sum()) for batch in batches),
            "padded_tokens": sum(batch["attention_mask"].numel() for batch in batches),
            "batches": len(batches),
            "ms_per_step": 1e3 * timing.median_s / len(batches),
            "p95_ms_per_step": 1e3 * timing.p95_s / len(batches),
            "rounds": len(timing.samples_s),
            "vs_eager": timings[EAGER].median_s / timing.median_s,
        }
        for name, timing in timings.items()
    ]


def memory_rows(dtype: str, options) -> list[dict]:
    """Peak memory of one step without padding, where packing is no help."""
    print(f"{dtype} {LONG.name}: memory", flush=True)
    peaks = {name: peak_of_step(LONG.name, name, dtype, options.threads) for name in MASKS}
    return [
        {"dtype": dtype, "workload": LONG.name, "engine": name, "peak_mb": peak / 1e6, "of_eager": peak / peaks[EAGER]}
        for name, peak in peaks.items()
    ]


def publish_merged(name: str, rows: list[dict], options) -> None:
    """`publish`, with the rows of an earlier run that this one did not measure."""
    old = read(name, options.out) if (options.out / f"{name}.csv").exists() else []
    order = (DTYPES, tuple(WORKLOADS), tuple(MASKS))
    publish(name, merged([row for row in old if list(row) == list(rows[0])], rows, order), options, {"budget_s": options.budget})


def main():
    options = arguments(__doc__, more_options)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it would warn where memory's processes are started
    if "memory" in options.parts:
        publish_merged("training_memory", [row for dtype in options.dtypes for row in memory_rows(dtype, options)], options)
    if "time" in options.parts:
        for name in options.only:
            for dtype in options.dtypes:  # published one by one, so that a run that is stopped loses one
                publish_merged("training", time_rows(WORKLOADS[name], dtype, options), options)


if __name__ == "__main__":
    main()
