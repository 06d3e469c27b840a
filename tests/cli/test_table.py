"""Fixed-width tables."""

import pytest

from tokprune_kernels.cli.table import format_pairs, format_table


def test_columns_line_up():
    assert format_table(["name", "ms"], [["a", 1.5], ["longer", None]]).split("\n") == [
        "name     ms",
        "------  ---",
        "a       1.5",
        "longer    -",
    ]


def test_alignment_can_be_chosen():
    assert format_table(["a", "b"], [["xx", "y"]], align="rl").split("\n")[-1] == "xx  y"


def test_no_rows():
    assert format_table(["a", "b"], []) == "a  b\n-  -"


@pytest.mark.parametrize("rows, align", [([["one"]], None), ([["one", "two"]], "l")])
def test_wrong_number_of_columns(rows, align):
    with pytest.raises(ValueError, match="columns, headers has 2"):
        format_table(["a", "b"], rows, align)


def test_pairs():
    assert format_pairs([("a", 1), ("long", "x\ny")], indent=" ") == " a     1\n long  x\n       y"
