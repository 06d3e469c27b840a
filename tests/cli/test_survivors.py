"""Drawing which words survive."""

import io

import pytest

from tokprune_kernels.cli.survivors import draw_survivors
from tokprune_kernels.cli.terminal import Progress, Terminal

TEXT = "Cats outlive mice, mostly"
PIECES = [
    (0, 0),
    (0, 4),
    (5, 8),
    (8, 12),
    (13, 17),
    (17, 18),
    (19, 25),
    (0, 0),
]  # [CLS] Cats out ##live mice , mostly [SEP]


class _Stream(io.StringIO):
    def __init__(self, tty=False, encoding="utf-8"):
        super().__init__()
        self._tty, self._encoding = tty, encoding

    encoding = property(lambda self: self._encoding)

    def isatty(self):
        return self._tty


def _draw(alive, **options):
    return draw_survivors(TEXT, PIECES, [letter == "x" for letter in alive], Terminal(_Stream(**options)))


@pytest.mark.parametrize(
    "alive, drawn",
    [
        ("xxxxxxxx", "Cats outlive mice, mostly"),
        ("xx..x.xx", "Cats · mice· mostly"),
        ("x.x.....", "· out· · ·"),
        ("...x.x..", "· ·live ·, ·"),
        ("........", "· · · ·"),
    ],
)
def test_dropped_pieces_are_dots(alive, drawn):
    assert _draw(alive) == drawn


def test_ascii_terminals_get_ascii():
    assert _draw("xx..xxxx", encoding="ascii") == "Cats . mice, mostly"


def test_colour_dims_instead(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert _draw("x.xxxxxx", tty=True) == "\x1b[2mCats\x1b[0m outlive mice, mostly"
    monkeypatch.setenv("NO_COLOR", "1")
    assert _draw("x.xxxxxx", tty=True) == "· outlive mice, mostly"


def test_lines_wrap_by_what_is_seen():
    drawn = draw_survivors(TEXT, PIECES, [True] * 8, Terminal(_Stream()), width=14, indent="  ")
    assert drawn == "  Cats outlive\n  mice, mostly"


def test_bars():
    terminal = Terminal(_Stream())
    assert terminal.bar(0.5, 4) == "██  " and Terminal(_Stream(encoding="ascii")).bar(1.0, 2) == "##"


@pytest.mark.parametrize("tty", [True, False])
def test_progress_is_for_terminals(tty):
    stream = _Stream(tty=tty)
    with Progress("timing", stream) as progress:
        progress(1, 2)
    assert ("1/2" in stream.getvalue()) == tty
