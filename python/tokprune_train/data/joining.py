"""More texts than the data set has: its texts put together anew, which nobody has labelled, and the teacher can."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Marks a row whose label is still to come from the teacher.
UNLABELLED = "unlabelled"
# Share of the tokens of a text that are replaced, in pairs the mean of shares between 0 and twice that.
REPLACED = 0.2


def joined_texts(rows: Sequence[dict], long_rows: Sequence[dict], count: int, max_length: int, seed: int) -> list[dict]:
    """`count` rows made of random ones, no longer than `max_length` tokens.

    Of single texts, by turns: two of `rows`, one after the other; the first part of one of `long_rows` with the last part of
    another, cut such that the result is about as long as they are; and one of `long_rows` with a fifth of its tokens replaced by
    another's. Of pairs: a pair of `rows` the other way round; a pair with some of the tokens of both texts replaced by another
    pair's; and a text beside itself with more of them replaced and some lost, so that the two do not lie word beside word. Texts of
    two pairs beside one another would teach little: that they do not belong together is plain. Too long pairs are cut at the
    longer text.

    rows: see data.encoding.encode, with the tokenizer's tokens around and between the texts; token_type_ids tell pairs.
    long_rows: those of them that are as long as what the model is for.
    Their label is a placeholder until the teacher has spoken (`label_by_teacher`, or the student). The same seed gives the same rows.
    """
    pairs = any(any(row.get("token_type_ids", ())) for row in rows)
    turns = [(make, rows) for make in _OF_PAIRS] if pairs else [(_in_a_row, rows), (_spliced, long_rows), (_replaced, long_rows)]
    generator = torch.Generator().manual_seed(seed)
    made: list[dict] = []
    while len(made) < count:
        make, source = turns[len(made) % len(turns)]
        first, second = (source[index] for index in torch.randint(len(source), (2,), generator=generator).tolist())
        row = make(first, second, max_length, generator)
        made.append(row | {"attention_mask": [1] * len(row["input_ids"]), "labels": first["labels"], UNLABELLED: True})
    return made


def _in_a_row(first: dict, second: dict, max_length: int, generator: torch.Generator) -> dict:
    ids = first["input_ids"][:-1] + second["input_ids"][1:]
    if len(ids) > max_length:
        ids = ids[: max_length - 1] + second["input_ids"][-1:]
    return {"input_ids": ids} | ({"token_type_ids": [0] * len(ids)} if "token_type_ids" in first else {})


def _spliced(first: dict, second: dict, max_length: int, generator: torch.Generator) -> dict:
    share = float(torch.rand((), generator=generator))
    start, end = first["input_ids"][:-1], second["input_ids"][1:]
    cut = 1 + round(share * (len(start) - 1))  # the tokenizer's first token stays, and its last one
    parts = (start[:cut], end[min(len(end) - 1, round(share * (len(end) - 1))) :])
    return _in_a_row({**first, "input_ids": [*parts[0], 0]}, {**second, "input_ids": [0, *parts[1]]}, max_length, generator)


def _replaced(first: dict, second: dict, max_length: int, generator: torch.Generator) -> dict:
    start, *inner, end = first["input_ids"]
    return {**first, "input_ids": [start, *_replacing(inner, second["input_ids"][1:-1], REPLACED, generator), end]}


def _replacing(tokens: list[int], others: list[int], share: float, generator: torch.Generator) -> list[int]:
    """The tokens, about `share` of them replaced by random ones of the others."""
    if not others:
        return tokens
    changes = torch.rand(len(tokens), generator=generator) < share
    drawn = torch.randint(len(others), (len(tokens),), generator=generator).tolist()
    return [others[at] if change else token for token, change, at in zip(tokens, changes.tolist(), drawn, strict=True)]


def _losing(tokens: list[int], share: float, generator: torch.Generator) -> list[int]:
    """The tokens without about `share` of them, but never without all."""
    stay = torch.rand(len(tokens), generator=generator) >= share
    return [token for token, stays in zip(tokens, stay.tolist(), strict=True) if stays] or tokens[:1]


def _up_to(most: float, generator: torch.Generator) -> float:
    return most * float(torch.rand((), generator=generator))


def _turned(first: dict, second: dict, max_length: int, generator: torch.Generator) -> dict:
    one, other = _texts(first)
    return _pair(other, one, first, max_length)


def _both_replaced(first: dict, second: dict, max_length: int, generator: torch.Generator) -> dict:
    others = sum(_texts(second), [])
    one, other = (_replacing(text, others, _up_to(2 * REPLACED, generator), generator) for text in _texts(first))
    return _pair(one, other, first, max_length)


def _beside_itself(first: dict, second: dict, max_length: int, generator: torch.Generator) -> dict:
    text = _texts(first)[int(torch.randint(2, (), generator=generator))]
    other = _losing(text, _up_to(2 * REPLACED, generator), generator)
    return _pair(text, _replacing(other, sum(_texts(second), []), _up_to(4 * REPLACED, generator), generator), first, max_length)


_OF_PAIRS = (_turned, _both_replaced, _beside_itself)


def _pair(one: list[int], other: list[int], like: dict, max_length: int) -> dict:
    """Two texts between the tokenizer's tokens of the row `like`."""
    start, end = like["input_ids"][0], like["input_ids"][-1]
    room = max_length - 3
    while len(one) + len(other) > room:
        one, other = (one[:-1], other) if len(one) > len(other) else (one, other[:-1])
    return {
        "input_ids": [start, *one, end, *other, end],
        "token_type_ids": [0] * (len(one) + 2) + [1] * (len(other) + 1),
    }


def _texts(row: dict) -> tuple[list[int], list[int]]:
    """The tokens of both texts of a pair, without those of the tokenizer."""
    second = row["token_type_ids"].index(1)
    return row["input_ids"][1 : second - 1], row["input_ids"][second:-1]


def label_by_teacher(rows: Sequence[dict], regression: bool) -> None:
    """Give the rows without a label the teacher's: its likeliest class, or its number; they need "teacher_logits"."""
    for row in rows:
        if row.get(UNLABELLED):
            row["labels"] = likeliest(row["teacher_logits"], regression).item()


def likeliest(logits: Tensor, regression: bool) -> Tensor:
    """(...,) labels of logits (..., C): int64 classes, or the number of a regression."""
    return logits[..., 0] if regression else logits.argmax(dim=-1)
