"""Write lengths/*.json: how many BERT tokens the texts of SST-2, MRPC and 20 Newsgroups have.

    python benches/make_lengths.py DATA_FOLDER TOKENIZER

DATA_FOLDER holds sst2/validation.jsonl.gz, mrpc/test.jsonl.gz, 20news/test.jsonl.gz (JSON lines with "text" and, for
pairs, "text_pair"); TOKENIZER is any bert-uncased tokenizer, folder or hub id. Only the counts are kept.
"""

import gzip
import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

SPLITS = {"sst2": "validation", "mrpc": "test", "20news": "test"}


def main(data: str, tokenizer_name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name, model_max_length=512)
    for task, split in SPLITS.items():
        with gzip.open(Path(data, task, f"{split}.jsonl.gz"), "rt") as file:
            rows = [json.loads(line) for line in file]
        pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
        ids = tokenizer([row["text"] for row in rows], pairs, truncation=True, max_length=512)["input_ids"]
        path = Path(__file__).parent / "lengths" / f"{task}.json"
        path.write_text(json.dumps([len(row) for row in ids]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
