"""Texts put together anew, and whose label that is."""

import pytest
import torch
from tokprune_train.data.joining import joined_texts, label_by_teacher

CLS, SEP = 101, 102


def rows_of(*texts):
    return [{"input_ids": [CLS, *text, SEP], "attention_mask": [1] * (len(text) + 2), "labels": 0} for text in texts]


def test_texts_of_two():
    """By turns two whole texts, between one [CLS] and one [SEP], a first part with a last part of long ones, and a long one with
    tokens of another in some places; all occur.
    """
    texts, long = [(1,), (2, 3), (4, 5, 6)], [(7, 8, 9, 10), (11, 12, 13, 14)]
    made = joined_texts(rows_of(*texts, *long), rows_of(*long), 1500, max_length=32, seed=0)
    inner = [tuple(row["input_ids"][1:-1]) for row in made]
    assert len(made) == 1500 and set(inner[::3]) == {(*one, *other) for one in (*texts, *long) for other in (*texts, *long)}
    parts = {(one[:cut], other[cut:]) for one in long for other in long for cut in range(5)}
    assert set(inner[1::3]) == {(*first, *last) for first, last in parts}
    assert {len(text) for text in inner[2::3]} == {4}
    kept = [max(sum(token == other for token, other in zip(text, one, strict=True)) for one in long) for text in inner[2::3]]
    assert 0.8 < sum(kept) / (4 * len(kept)) < 0.95 and set(kept) >= {2, 3, 4}
    for row in made:
        assert row["input_ids"][0] == CLS and row["input_ids"][-1] == SEP
        assert row["attention_mask"] == [1] * len(row["input_ids"])


@pytest.mark.parametrize(("one", "other"), [(2, 9), (9, 2), (0, 3), (1, 1)])
def test_parts_of_texts_unlike_in_length(one, other):
    """No longer than the longer one but for rounding, and never a word of the first after one of the second."""
    rows = rows_of(tuple(range(1, 1 + one)), tuple(range(51, 51 + other)))
    for row in joined_texts(rows, rows, 150, 32, seed=0)[1::3]:
        inner = row["input_ids"][1:-1]
        assert len(inner) <= max(one, other) + 1 and row["input_ids"][0] == CLS and row["input_ids"][-1] == SEP


def test_cut_at_the_longest_allowed():
    made = joined_texts(rows_of((1, 2, 3, 4)), rows_of((1, 2, 3, 4)), 1, max_length=8, seed=0)
    assert made[0]["input_ids"] == [CLS, 1, 2, 3, 4, 1, 2, SEP]


def test_the_seed_decides():
    rows = rows_of(*((index,) for index in range(50)))
    first, again, other = (joined_texts(rows, rows, 20, 32, seed) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(("regression", "label"), [(False, 2), (True, -1.5)])
def test_the_teacher_labels_what_has_no_label(regression, label):
    rows = rows_of((1,)) + joined_texts(rows_of((1,)), rows_of((1,)), 1, 8, seed=0)
    for row in rows:
        row["teacher_logits"] = torch.tensor([-1.5, 0.0, 3.0])
    label_by_teacher(rows, regression)
    assert [row["labels"] for row in rows] == [0, label]


def pair(first, second):
    ids = [CLS, *first, SEP, *second, SEP]
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * len(ids), "labels": 0}


def test_pairs_put_together_anew():
    """By turns a pair the other way round, a pair with some tokens of another, and a text beside itself with more of them and others
    lost; types tell the texts apart as the tokenizer does.
    """
    pairs = [((1, 2, 3, 4, 5), (6, 7)), ((8,), (9, 10, 11, 12))]
    rows = [pair(*texts) for texts in pairs]
    made = joined_texts(rows, rows, 1500, max_length=32, seed=0)
    for row in made:
        expected = pair(*texts_of(row))
        assert all(row[name] == expected[name] for name in ("input_ids", "token_type_ids", "attention_mask"))
    found = [texts_of(row) for row in made]
    assert set(found[::3]) == {(second, first) for first, second in pairs}

    def changed(texts, originals):
        """Tokens that are others than in the original of that length."""
        of_length = {len(text): text for text in originals}
        return [token != original for text in texts for token, original in zip(text, of_length[len(text)], strict=True)]

    changes = [change for texts in found[1::3] for change in changed(texts, [text for one in pairs for text in one])]
    assert {tuple(map(len, texts)) for texts in found[1::3]} == {(5, 2), (1, 4)}
    assert 0.1 < sum(changes) / len(changes) < 0.2, "a fifth in the mean, some of them by themselves"
    beside = found[2::3]
    assert {first for first, _ in beside} == {text for texts in pairs for text in texts}
    assert all(1 <= len(second) <= len(first) for first, second in beside)
    tokens = sum(len(first) for first, _ in beside)
    assert 0.1 < 1 - sum(len(second) for _, second in beside) / tokens < 0.2, "up to two fifths are lost, never all"
    assert {len(second) for first, second in beside if len(first) == 5} == {1, 2, 3, 4, 5}
    foreign = sum(token not in first for first, second in beside for token in second)
    assert 0.15 < foreign / tokens < 0.4


def texts_of(row):
    second = row["token_type_ids"].index(1)
    return tuple(row["input_ids"][1 : second - 1]), tuple(row["input_ids"][second:-1])


def test_cut_pairs():
    """Word by word from the longer one, until both fit."""
    rows = [pair((1, 2, 3, 4, 5), (6, 7))]
    assert joined_texts(rows, rows, 1, max_length=8, seed=0)[0]["input_ids"] == [CLS, 6, 7, SEP, 1, 2, 3, SEP]
