"""The README's table of times on a GPU, from the committed results of gpu.py."""

import json
from pathlib import Path

from cells import NOTHING, table, times
from presentation import RESULTS, gpu_machine, read

# Columns: what is shown -> contenders of which the fastest is.
DENSE_ENGINES = {
    "Hugging Face sdpa": ("hf_sdpa",),
    "torch.compile": ("torch_compile_reduce-overhead", "torch_compile_max-autotune"),
    "packed by hand, flash attention": ("flash_packed",),
}
OURS = {
    "ours dense, exact": ("ours_dense_exact",),
    "ours dense, graph": ("ours_dense_graph",),
    "ours ToP, exact": ("ours_top_exact",),
    "ours ToP, graph": ("ours_top_graph",),
}


def gpu_section(results: Path = RESULTS) -> str:
    """What was measured on which GPU; says so where nothing was."""
    source = results / "gpu_models.csv"
    if not source.is_file():
        return "Nothing is measured on a GPU yet."
    where = gpu_machine(json.loads(source.with_suffix(".machine.json").read_text()), ("torch", "triton", "transformers"))
    intro = (
        f"BERT-base shape with random weights in bfloat16, milliseconds a batch, medians, `benches/gpu.py` ({where}). "
        "Single texts are bound by the host's launches, which that machine's processor is slow at: "
        "all engines but CUDA graphs (ours, torch.compile's) take milliseconds there whatever the GPU does. torch.compile, which compiles "
        "anew for every shape, was measured where there is a number."
    )
    return "\n".join([intro, "", *model_table(read(source.stem, results))])


def model_table(rows: list[dict]) -> list[str]:
    """A line a workload: every engine's time, and ToP in graph mode against Hugging Face and the fastest dense engine."""
    lines = []
    for workload in dict.fromkeys(row["workload"] for row in rows):
        ms = {row["contender"]: float(row["ms"]) for row in rows if row["workload"] == workload}
        saved = next(row["flops_reduction"] for row in rows if row["workload"] == workload and row["contender"] == "ours_top_graph")
        best = min(fastest for fastest in (_fastest(ms, names) for names in DENSE_ENGINES.values()) if fastest is not None)
        pruned = ms["ours_top_graph"]
        shown = (_fastest(ms, names) for names in (DENSE_ENGINES | OURS).values())
        times_shown = [NOTHING if one is None else f"{one:.4g}" for one in shown]
        lines.append([workload, *times_shown, times(saved), times(ms["hf_sdpa"] / pruned), times(best / pruned)])
    ratios = ["ToP: fewer FLOPs", "ToP, graph: faster than Hugging Face", "than the best of those dense engines"]
    headers = ["texts x tokens", *DENSE_ENGINES, *OURS, *ratios]
    return table(headers, lines)


def _fastest(ms: dict[str, float], names: tuple[str, ...]) -> float | None:
    return min((ms[name] for name in names if name in ms), default=None)
