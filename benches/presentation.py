"""What the README's tables and the plots share: the committed results, read, and the engines' names and roles."""

import csv
import json
import re
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DTYPES = ("fp32", "bf16")
# What the names of the workloads say they are; all others are batches of real lengths.
FIXED_SHAPE = re.compile(r"\d+x\d+")  # texts x tokens
OPERATING_POINT = re.compile(r".* padded to \d+")  # ToP's published one, at a task's maximum length
LABELS = {
    "hf_eager": "Hugging Face eager",
    "hf_sdpa": "Hugging Face sdpa",
    "torch_compile": "torch.compile",
    "onnxruntime": "ONNX Runtime, BERT fusions",
    "onnxruntime_plain": "ONNX Runtime, plain",
    "openvino": "OpenVINO",
    "onnxruntime_int8": "ONNX Runtime, int8",
    "ours_dense": "ours, dense",
    "ours_exact_cls": "ours, dense, head reads only [CLS]",
    "ours_top": "ours, ToP",
    "ours_ltp": "ours, LTP",
    "ours_top_8x": "ours, ToP at its published FLOPs",
}
# Dense, at the precision that the row says, and not ours: those that "best peer" is the best of. As `engines` has them,
# held to it by a test; importing it here would need transformers to write a table.
PEERS = {
    "fp32": ("hf_eager", "hf_sdpa", "torch_compile", "onnxruntime", "onnxruntime_plain", "openvino"),
    "bf16": ("hf_eager", "hf_sdpa", "torch_compile", "openvino"),
}
PRUNED = ("ours_top", "ours_ltp", "ours_top_8x")

Row = dict[str, str]


def read(name: str, results: Path = RESULTS) -> list[Row]:
    with open(results / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def machine(name: str, results: Path = RESULTS) -> str:
    """One line that says where and when a result was measured."""
    stamp = json.loads((results / f"{name}.machine.json").read_text())
    packages = [f"{name} {stamp['packages'][name]}" for name in ("torch", "transformers")]
    threads = f"{stamp['threads']} threads"
    return ", ".join([stamp["cpu"]["model"], threads, stamp["active_isa"], *packages, stamp["date"][:10]])


def gpu_machine(stamp: dict, packages: tuple[str, ...] = ("torch", "triton")) -> str:
    """As `machine`, of a stamp of gpu.py."""
    return ", ".join([*stamp["gpu"], *(f"{name} {stamp['packages'][name]}" for name in packages), stamp["date"][:10]])


class ModelResults:
    """The rows of model.csv that have a time, by dtype, workload and engine; a row that is missing is None."""

    def __init__(self, results: Path = RESULTS):
        self.machine = machine("model", results)
        self._rows = {
            (row["dtype"], row["workload"], row["engine"]): row for row in read("model", results) if row["ms_per_batch"]
        }

    def row(self, dtype: str, workload: str, engine: str) -> Row | None:
        return self._rows.get((dtype, workload, engine))

    def workloads(self, dtype: str) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(workload for of_dtype, workload, _ in self._rows if of_dtype == dtype))

    def fixed_shapes(self, dtype: str) -> list[str]:
        return [name for name in self.workloads(dtype) if FIXED_SHAPE.fullmatch(name)]

    def operating_points(self, dtype: str) -> list[str]:
        return [name for name in self.workloads(dtype) if OPERATING_POINT.fullmatch(name)]

    def real_text(self, dtype: str) -> list[str]:
        others = (*self.fixed_shapes(dtype), *self.operating_points(dtype))
        return [name for name in self.workloads(dtype) if name not in others]

    def best_peer(self, dtype: str, workload: str) -> Row | None:
        rows = [row for engine in PEERS[dtype] if (row := self.row(dtype, workload, engine))]
        return min(rows, key=lambda row: float(row["ms_per_batch"]), default=None)

    def missing_peers(self, dtype: str) -> list[str]:
        """Names of the peers that were not measured in this precision at all."""
        measured = {engine for of_dtype, _, engine in self._rows if of_dtype == dtype}
        return [LABELS[engine] for engine in PEERS[dtype] if engine not in measured]
