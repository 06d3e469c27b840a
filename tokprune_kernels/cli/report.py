"""The parts that the reports of several commands have in common."""

from .comparison import PACKED, PADDED
from .table import format_table

BASELINE_LABELS = {PADDED: "Hugging Face, padded, sdpa", PACKED: "packed, nothing pruned"}


def speed_table(labels: dict, measured, texts: int, times: str) -> str:
    """Return the table of times and FLOPs, each with its factor against Hugging Face on the padded batch.

    labels: contender -> label, in the order of the rows. measured: a `Measurement`.
    texts: how many texts one timed run answers. times: the multiplication sign to print.
    """
    rows = []
    for name, label in labels.items():
        timing, gain = measured.timings[name], measured.factors[name]
        rows.append(
            [
                label,
                f"{1e3 * timing.median_s:.1f}",
                f"{1e3 * timing.p95_s:.1f}",
                f"{texts / timing.median_s:.1f}",
                f"{gain['time_vs_padded']:.2f}{times}",
                f"{measured.flops[name] / 1e9:.2f}",
                f"{gain['flops_vs_padded']:.2f}{times}",
            ]
        )
    return format_table(["", "median ms", "p95 ms", "texts/s", "faster by", "GFLOPs", "fewer by"], rows)


def timing_note(measured, machine: dict) -> str:
    """Return how the times were taken, and a warning where other work was running on the machine (`machine_stamp`)."""
    note = f"{len(measured.timings[PADDED].samples_s)} interleaved rounds, {machine['threads']} threads"
    load, cores = machine["load"] or 0.0, machine["cpu"]["cores"]
    return f"{note}; the machine was busy (load {load} on {cores} cores): unreliable" if load > 0.75 * cores else note
