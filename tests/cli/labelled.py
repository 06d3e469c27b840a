"""Small labelled data for the commands that train and evaluate, in the words of the tiny models' vocabulary."""

import json
import random

WORDS = "the sat on a mat and then it slept while fell".split()
OPTIONS = ("--epochs", 1, "--batch", 8, "--lr", 1e-3, "--threads", 1)


def write_rows(path, rows):
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sentences(count, seed, word):
    """(text, whether `word` is in it)."""
    chosen = random.Random(seed)
    for number in range(count):
        words = chosen.choices(WORDS, k=chosen.randint(4, 12))
        if number % 2:
            words[chosen.randrange(len(words))] = word
        yield " ".join(words), number % 2


def write_folder(folder, train=40, validation=12, labels=("no", "cat")):
    """A folder of classes by name, or by number: is there a cat or not."""
    folder.mkdir()
    for split, count, seed in (("train", train, 1), ("validation", validation, 2)):
        rows = [{"text": text, "label": labels[there]} for text, there in sentences(count, seed, "cat")]
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def write_pairs(folder):
    """A folder of pairs with a number as label."""
    folder.mkdir()
    for split, count, seed in (("train", 24, 3), ("validation", 8, 4)):
        rows = [
            {"sentence1": text, "sentence2": "rain fell", "score": 0.5 + number % 3 + there}
            for number, (text, there) in enumerate(sentences(count, seed, "rain"))
        ]
        write_rows(folder / f"{split}.jsonl", rows)
    return folder
