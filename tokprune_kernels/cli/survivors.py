"""Draw which words of a text are still alive: the living as they were written, the dropped dimmed or as dots."""

from .terminal import plain


def draw_survivors(text: str, offsets, alive, terminal, width: int = 100, indent: str = "") -> str:
    """Return `text` as wrapped lines with every dropped word piece dimmed (in colour) or drawn as a dot.

    offsets: (first, last + 1) characters of each token, as fast tokenizers give them; empty ones ([CLS]) are left out.
    alive: one bool for each token. terminal: a `Terminal`. Neighbouring dropped pieces of one word are one dot.
    Tokens that share characters (the bytes of one) are one piece, which lives as long as one of them does.
    """
    words, end, last_dropped = [], None, False
    for first, past, living in _pieces(text, offsets, alive):
        if end is None or first > end:  # white space came before: a new word
            words.append([0, ""])
            last_dropped = False
        piece = drawn = plain(text[first:past])
        if not living:
            drawn = terminal.dim(piece) if terminal.colour else terminal.dot
            piece = piece if terminal.colour else terminal.dot
        if living or terminal.colour or not last_dropped:
            words[-1][0] += len(piece)
            words[-1][1] += drawn
        end, last_dropped = past, not living
    return "\n".join(indent + line for line in _wrap(words, width - len(indent)))


def _pieces(text, offsets, alive):
    """(first, past, living) of the pieces to draw, none of which has a character of another one's, or space around it."""
    pieces = []
    for (first, past), living in zip(offsets, alive):
        while first < past and text[first].isspace():  # byte-level tokenizers count the space before a word to it
            first += 1
        while first < past and text[past - 1].isspace():
            past -= 1
        if first >= past:
            continue
        if pieces and first < pieces[-1][1]:
            before = pieces.pop()
            first, past, living = before[0], max(before[1], past), before[2] or living
        pieces.append((first, past, living))
    return pieces


def _wrap(words, width):
    """Yield lines of (visible length, drawn text) words; textwrap would count the characters of colour codes."""
    line, used = [], 0
    for length, drawn in words:
        if line and used + 1 + length > width:
            yield " ".join(line)
            line, used = [], 0
        used += length + (1 if line else 0)
        line.append(drawn)
    if line:
        yield " ".join(line)
