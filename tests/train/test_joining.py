"""Two texts joined, and whose label that is."""

import pytest
import torch
from tokprune_train.data.joining import joined_texts, label_by_teacher
from tokprune_train.data.reading import DataError

CLS, SEP = 101, 102


def rows_of(*texts):
    return [{"input_ids": [CLS, *text, SEP], "attention_mask": [1] * (len(text) + 2), "labels": 0} for text in texts]


def test_one_text_of_two():
    """Each half is whole, between one [CLS] and one [SEP]; all pairs occur."""
    texts = {(1,), (2, 3), (4, 5, 6)}
    made = joined_texts(rows_of(*texts), 200, max_length=32, seed=0)
    assert len(made) == 200
    halves = {(*first, *second) for first in texts for second in texts}
    assert {tuple(row["input_ids"][1:-1]) for row in made} == halves
    for row in made:
        assert row["input_ids"][0] == CLS and row["input_ids"][-1] == SEP
        assert row["attention_mask"] == [1] * len(row["input_ids"])


def test_cut_at_the_longest_allowed():
    (made,) = joined_texts(rows_of((1, 2, 3, 4)), 1, max_length=8, seed=0)
    assert made["input_ids"] == [CLS, 1, 2, 3, 4, 1, 2, SEP]


def test_the_seed_decides():
    rows = rows_of(*((index,) for index in range(50)))
    first, again, other = (joined_texts(rows, 20, 32, seed) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(("regression", "label"), [(False, 2), (True, -1.5)])
def test_the_teacher_labels_what_has_no_label(regression, label):
    rows = rows_of((1,)) + joined_texts(rows_of((1,)), 1, 8, seed=0)
    for row in rows:
        row["teacher_logits"] = torch.tensor([-1.5, 0.0, 3.0])
    label_by_teacher(rows, regression)
    assert [row["labels"] for row in rows] == [0, label]


def test_pairs_are_refused():
    rows = [{"input_ids": [CLS, 1, SEP, 2, SEP], "token_type_ids": [0, 0, 0, 1, 1], "labels": 0}]
    with pytest.raises(DataError, match="only single texts can be joined"):
        joined_texts(rows, 1, 8, seed=0)
