"""Draw which words of a text are still alive: the living as they were written, the dropped dimmed or as dots."""


def draw_survivors(text: str, offsets, alive, terminal, width: int = 100, indent: str = "") -> str:
    """Return `text` as wrapped lines with every dropped word piece dimmed (in colour) or drawn as a dot.

    offsets: (first, last + 1) characters of each token, as fast tokenizers give them; empty ones ([CLS]) are left out.
    alive: one bool for each token. terminal: a `Terminal`. Neighbouring dropped pieces of one word are one dot.
    """
    words, end, last_dropped = [], None, False
    for (first, past), living in zip(offsets, alive):
        if first == past:
            continue
        if end is None or first > end:  # white space came before: a new word
            words.append([0, ""])
            last_dropped = False
        piece, drawn = text[first:past], text[first:past]
        if not living:
            drawn = terminal.dim(piece) if terminal.colour else terminal.dot
            piece = piece if terminal.colour else terminal.dot
        if living or terminal.colour or not last_dropped:
            words[-1][0] += len(piece)
            words[-1][1] += drawn
        end, last_dropped = past, not living
    return "\n".join(indent + line for line in _wrap(words, width - len(indent)))


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
