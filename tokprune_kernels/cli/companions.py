"""What sentence-transformers keeps beside a model's weights, for a command that writes the model again."""

import shutil
from pathlib import Path

# Without one of these a folder is not sentence-transformers'.
_MARKS = ("modules.json", "config_sentence_transformers.json")
# At the top of a folder: the weights, of which others are written, and copies in formats that cannot be pruned.
_WEIGHTS = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx", ".pt", ".ckpt", ".index.json")
_EXPORTED = ("onnx", "openvino")


def copy_companions(source: str, output: str) -> None:
    """Copy the files of a checkpoint (folder or hub id) that sentence-transformers reads, but for those that stand in `output`."""
    folder = Path(source) if Path(source).is_dir() else _downloaded(source)
    if not any((folder / mark).is_file() for mark in _MARKS):
        return
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or inside.parts[0] in _EXPORTED or any(part.startswith(".") for part in inside.parts):
            continue
        target = Path(output) / inside
        if target.exists() or (len(inside.parts) == 1 and path.name.endswith(_WEIGHTS)):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    ignored = [*(f"*{suffix}" for suffix in _WEIGHTS if suffix not in (".safetensors", ".bin")), *(f"{one}/*" for one in _EXPORTED)]
    return Path(snapshot_download(name, ignore_patterns=[*ignored, "model*.safetensors", "pytorch_model*.bin"]))
