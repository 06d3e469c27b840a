"""What a teacher said is kept, and taken for nobody else's."""

import pytest
import torch
from tokprune_train.answers import fingerprint, keep, recall
from tokprune_train.data.encoding import PER_TEXT, PER_TOKEN
from tokprune_train.teacher import teach

from .needles import COLLATOR, needle_rows, tiny_model

WANTED = (*PER_TEXT, *PER_TOKEN)


@pytest.fixture
def asked():
    """A teacher, and rows that it has spoken on."""
    teacher, rows = tiny_model(), needle_rows(11, seed=1)
    teach(teacher, rows, COLLATOR, WANTED)
    return teacher, rows


def test_comes_back_as_it_was(asked, tmp_path):
    teacher, rows = asked
    folder = tmp_path / "new" / "answers"
    keep(folder, rows, fingerprint(teacher, rows))
    fresh = needle_rows(11, seed=1)
    assert recall(folder, fresh, fingerprint(teacher, fresh), WANTED)
    for row, expected in zip(fresh, rows):
        assert all(torch.equal(row[name], expected[name]) for name in WANTED)


def test_only_what_is_wanted(asked, tmp_path):
    teacher, rows = asked
    keep(tmp_path, rows, fingerprint(teacher, rows))
    fresh = needle_rows(11, seed=1)
    assert recall(tmp_path, fresh, fingerprint(teacher, fresh), ["teacher_logits"])
    assert "teacher_logits" in fresh[0] and "teacher_state" not in fresh[0]


def test_not_there_or_not_all_of_it(asked, tmp_path):
    teacher, _ = asked
    rows = needle_rows(11, seed=1)
    of = fingerprint(teacher, rows)
    assert not recall(tmp_path / "none", rows, of, WANTED)
    teach(teacher, rows, COLLATOR)
    keep(tmp_path, rows, of)
    fresh = needle_rows(11, seed=1)
    assert not recall(tmp_path, fresh, of, WANTED)
    assert "teacher_logits" not in fresh[0]


@pytest.mark.parametrize("change", ["weights", "rows"])
def test_of_another(asked, tmp_path, change):
    """They are kept beside, not taken for one another."""
    teacher, rows = asked
    keep(tmp_path, rows, fingerprint(teacher, rows))
    fresh = needle_rows(11, seed=2 if change == "rows" else 1)
    if change == "weights":
        with torch.no_grad():
            teacher.classifier.bias.add_(1e-3)
    of = fingerprint(teacher, fresh)
    assert not recall(tmp_path, fresh, of, WANTED)
    teach(teacher, fresh, COLLATOR, WANTED)
    keep(tmp_path, fresh, of)
    assert len(list(tmp_path.iterdir())) == 2
