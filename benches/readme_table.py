"""Write the README's results, GPU and training sections from the committed results: python benches/readme_table.py

With --check nothing is written; the exit code says whether the README is up to date.
"""

import sys
from pathlib import Path

from cells import NOTHING, folded, share, table, times
from gpu_table import gpu_section
from presentation import DTYPES, HERE, LABELS, RESULTS, ModelResults, Row, machine, read
from training.section import training_section

README = HERE.parent / "README.md"
PLOTS = {
    "throughput": "Throughput of dense models in live GFLOP/s, per workload and engine, with the roofline",
    "latency": "Latency at batch 1 against length, with the roofline",
    "pruning": "Speed-up of pruned models against their reduction of FLOPs",
}


def milliseconds_of(value: str) -> str:
    return f"{float(value):.4g}"


def milliseconds(row: Row | None) -> str:
    return milliseconds_of(row["ms_per_batch"]) if row else NOTHING


def named(row: Row | None) -> str:
    """A time with the engine that it is of."""
    return f"{milliseconds(row)} ({LABELS[row['engine']]})" if row else "none measured"


def cell(row: Row | None, column: str, form) -> str:
    return form(row[column]) if row else NOTHING


def dense_table(model: ModelResults) -> list[str]:
    """Fixed shapes, every token live: our dense model against the fastest peer."""
    rows = []
    for dtype in DTYPES:
        for workload in model.fixed_shapes(dtype):
            peer, ours = model.best_peer(dtype, workload), model.row(dtype, workload, "ours_dense")
            rows.append(
                [dtype, workload, named(peer), milliseconds(ours), cell(ours, "vs_best_peer", times),
                 cell(peer, "share_of_roofline", share), cell(ours, "share_of_roofline", share)]
            )  # fmt: skip
    headers = ["dtype", "texts x tokens", "best dense peer, ms", "ours dense, ms", "ours is faster by",
               "roofline share: peer", "roofline share: ours"]  # fmt: skip
    return table(headers, rows)


def real_text_table(model: ModelResults) -> list[str]:
    """Texts of real lengths: dense and pruned; a pruned cell says what FLOPs it saves and how much of that is time."""

    def pruned(row: Row | None) -> str:
        if row is None:
            return NOTHING
        saved, faster = float(row["flops_vs_dense"]), row["vs_ours_dense"]
        as_time = share(float(faster) / saved) if faster else "not measured"
        return f"{milliseconds(row)}, {times(saved)}, {as_time}"

    rows = []
    for dtype in DTYPES:
        for workload in model.real_text(dtype):
            engines = ("hf_sdpa", "ours_dense", "ours_top", "ours_ltp")
            plain, dense, top, ltp = (model.row(dtype, workload, engine) for engine in engines)
            rows.append(
                [dtype, workload, milliseconds(plain), named(model.best_peer(dtype, workload)), milliseconds(dense),
                 cell(dense, "vs_best_peer", times), pruned(top), pruned(ltp), cell(top, "vs_best_peer", times)]
            )  # fmt: skip
    after = "ms, fewer FLOPs than ours dense, of that as time"
    headers = ["dtype", "texts", "Hugging Face sdpa, ms", "best dense peer, ms", "ours dense, ms",
               "dense: faster than best peer", f"ours pruned, ToP: {after}", f"ours pruned, LTP: {after}",
               "ToP: faster than best peer"]  # fmt: skip
    return table(headers, rows)


def operating_point_table(model: ModelResults) -> list[str]:
    """ToP's published reduction of FLOPs, against models padded to the task's maximum as the paper's baseline is."""
    rows = []
    for dtype in DTYPES:
        for workload in model.operating_points(dtype):
            ours, plain = (model.row(dtype, workload, engine) for engine in ("ours_top_8x", "hf_sdpa"))
            rows.append(
                [dtype, workload, milliseconds(plain), named(model.best_peer(dtype, workload)), milliseconds(ours),
                 *(cell(ours, ratio, times) for ratio in ("flops_vs_padded", "vs_huggingface", "vs_best_peer"))]
            )  # fmt: skip
    headers = ["dtype", "texts", "Hugging Face sdpa, ms", "best dense peer, ms", "ours pruned, ms",
               "fewer FLOPs than padded", "faster than Hugging Face", "faster than best peer"]  # fmt: skip
    return table(headers, rows)


def exact_table(model: ModelResults) -> list[str]:
    """A head that reads only [CLS]: what the exact last layer saves, nothing pruned."""
    rows = []
    for dtype in DTYPES:
        for workload in (*model.fixed_shapes(dtype), *model.real_text(dtype)):
            row = model.row(dtype, workload, "ours_exact_cls")
            if row is not None and "similar" not in workload:
                rows.append([dtype, workload, milliseconds(row), *(times(row[c]) for c in ("vs_ours_dense", "flops_vs_dense"))])
    return table(["dtype", "texts", "ms", "faster than ours dense", "fewer FLOPs"], rows)


def first_call_table(results: Path) -> list[str]:
    if not (results / "first_call.csv").exists():
        return table([], [])
    rows = [
        [row["dtype"], LABELS[row["engine"]], milliseconds_of(row["warm_ms"]), times(row["first_vs_warm"]), times(row["worst_first_vs_warm"])]
        for row in read("first_call", results)
    ]
    return table(["dtype", "engine", "warm call, ms", "first call, median", "first call, worst"], rows)


def attention_table(results: Path) -> list[str]:
    rows = [
        [row["dtype"], row["workload"], times(row["vs_sdpa"]), times(row["vs_eager"]),
         f"{100 * float(row['importance_cost']):.1f}%", share(row["share_of_peak"])]
        for row in read("attention", results)
    ]  # fmt: skip
    headers = ["dtype", "texts x tokens", "vs `scaled_dot_product_attention` (no importance)",
               "vs eager with column means", "cost of importance", "of the multiply-add peak"]  # fmt: skip
    return table(headers, rows)


def training_table(results: Path) -> list[str]:
    """One training step of LTP's soft stage; memory where it was measured, without padding."""
    if not all((results / f"{name}.csv").exists() for name in ("training", "training_memory")):
        return table([], [])
    steps = {(row["dtype"], row["workload"], row["engine"]): row for row in read("training", results)}
    peaks = {(row["dtype"], row["workload"], row["engine"]): row for row in read("training_memory", results)}

    def time_of(key: tuple[str, ...]) -> str:
        return f"{milliseconds_of(steps[key]['ms_per_step'])}, {times(steps[key]['vs_eager'])}" if key in steps else NOTHING

    def peak_of(key: tuple[str, ...]) -> str:
        return f"{float(peaks[key]['peak_mb']):.0f}, {share(peaks[key]['of_eager'])}" if key in peaks else NOTHING

    rows = []
    for dtype, workload in dict.fromkeys((dtype, workload) for dtype, workload, _ in (*steps, *peaks)):
        eager, *ours = ((dtype, workload, engine) for engine in ("hf_eager", "ours_hidden", "ours_attention"))
        eager_ms = cell(steps.get(eager), "ms_per_step", milliseconds_of)
        eager_mb = cell(peaks.get(eager), "peak_mb", lambda value: f"{float(value):.0f}")
        rows.append([dtype, workload, eager_ms, *map(time_of, ours), eager_mb, *map(peak_of, ours)])
    headers = ["dtype", "texts", "Hugging Face eager, ms", "ours, the papers' masks: ms, faster by",
               "ours, masks in attention: ms, faster by", "peak memory of a step: eager, MB",
               "ours, the papers' masks: MB, share of eager", "ours, masks in attention: MB, share of eager"]  # fmt: skip
    return table(headers, rows)


def encode_table(results: Path) -> list[str]:
    """SentenceTransformer.encode with and without the package."""
    if not (results / "sentence_transformers.csv").exists():
        return table([], [])
    rows = [
        [f"{row['task']}, {row['texts']} texts", milliseconds_of(row["plain_ms"]),
         *(f"{milliseconds_of(row[f'{name}_ms'])}, {times(row[f'{name}_vs_plain'])}" for name in ("dense", "frozen", "pruned")),
         f"{float(row['cosine_pruned_mean']):.3f}, {float(row['cosine_pruned_least']):.3f}"]
        for row in read("sentence_transformers", results)
    ]  # fmt: skip
    headers = ["texts", "sentence-transformers alone, ms", "packed, nothing pruned: ms, faster by", "the same, frozen",
               "pruned (keep ratios of the example above), frozen", "cosine of pruned to dense: mean, least"]  # fmt: skip
    return table(headers, rows)


def encode(results: Path) -> list[str]:
    """What the table of encode is, once there is one."""
    measured = f" ({machine('sentence_transformers', results)})" if (results / "sentence_transformers.machine.json").exists() else ""
    return [
        "`SentenceTransformer.encode` of all-MiniLM-L6-v2 with its real weights in fp32, tokenising and pooling included, "
        f"`benches/bench_sentence_transformers.py`{measured}. Embeddings of the packed model differ by at most 1e-5; the keep ratios are "
        "not fitted to the model."
    ]


def training(results: Path) -> list[str]:
    """What the table of training steps is, once there is one."""
    measured = f" ({machine('training', results)})" if (results / "training.machine.json").exists() else ""
    return [
        "A training step of LTP's soft stage (forward, backward, AdamW) of MiniLM-L6 with its real weights, on real texts, "
        f"`benches/bench_training.py`{measured}. The baseline runs Hugging Face's eager layers and reads importance off "
        "their attention maps, as the papers' code does; with the papers' masks ours gives its loss and gradients."
    ]


def missing(model: ModelResults) -> list[str]:
    """A line for each precision in which a peer was not measured: a best peer is the best of fewer then."""
    peers = {dtype: model.missing_peers(dtype) for dtype in DTYPES}
    return [f"Not measured in {dtype}: {'; '.join(names)}." for dtype, names in peers.items() if names]


def plots(results: Path) -> list[str]:
    drawn = {name: text for name, text in PLOTS.items() if (results / "plots" / f"{name}.png").exists()}
    return [f"![{text}](benches/results/plots/{name}.png)" for name, text in drawn.items()]


def results_section(results: Path = RESULTS) -> str:
    model = ModelResults(results)
    paragraphs = [
        [
            "BERT-base shape with random weights, medians per batch, `benches/bench_model.py` "
            f"({model.machine}). Best dense peer: the fastest of Hugging Face (eager, sdpa), torch.compile, "
            "ONNX Runtime and OpenVINO in the same precision. Roofline share: the least time that the live tokens need "
            "on this machine, by its measured multiply-add peak and memory bandwidth, over the time taken."
        ],
        missing(model),
        ['Lengths of real text, as it comes and sorted ("similar lengths", where padding costs the peers least):'],
        real_text_table(model),
        plots(results),
        folded("Dense, no padding anywhere", dense_table(model)),
        folded(
            "ToP's published operating point, inputs of the dense models padded to the task's maximum as in the paper",
            operating_point_table(model),
        ),
        folded(
            "The exact last layer, under a head that reads only [CLS]; nothing is pruned and the logits stay the same", exact_table(model)
        ),
        folded(
            "First call of a length that is new to the engine, against warm calls of it (batch 1, around 128 tokens)",
            first_call_table(results),
        ),
        folded(
            "Attention with importance at BERT-base's head shape, <code>benches/bench_attention.py</code> "
            f"({machine('attention', results)})",
            attention_table(results),
        ),
        encode(results),
        encode_table(results),
        training(results),
        training_table(results),
        [
            "All numbers, with single linear layers, compaction, pack and unpack: `benches/results/`. "
            "How they are measured: [docs/benchmarks.md](docs/benchmarks.md)."
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


SECTIONS = {"results": results_section, "gpu": gpu_section, "training": training_section}


def updated(text: str) -> str:
    """The README with every section, between its two markers, made anew."""
    for name, make in SECTIONS.items():
        begin, end = (f"<!-- {name}:{where} -->" for where in ("begin", "end"))
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    text = README.read_text()
    if "--check" in sys.argv[1:]:
        return int(updated(text) != text)
    README.write_text(updated(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
