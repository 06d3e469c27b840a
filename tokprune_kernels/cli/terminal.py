"""What the terminal can show: colour only on a tty, plain ASCII where the encoding has nothing more, no commands from texts."""

import os
import sys
import unicodedata

# Of format characters, those that turn the direction of what follows; the others join letters and emoji.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """Return a text that others wrote as it may be printed: what would move the cursor, colour or break the line is spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(letter) if _commands(letter) else letter for letter in text)


def _commands(letter: str) -> bool:
    return letter in _TURNING or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


def _spelled(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def never_fail_to_print() -> None:
    """Have stdout and stderr spell out what their encoding does not have, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Terminal:
    """Styles text for `stream`; without a tty, or with NO_COLOR set, every style returns its text unchanged."""

    def __init__(self, stream=None):
        self._stream = stream if stream is not None else sys.stdout
        self.colour = self._stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.dot = self._or_ascii("·", ".")
        self._block = self._or_ascii("█", "#")
        self.times = self._or_ascii("×", "x")

    def _or_ascii(self, wanted, plain):
        try:
            wanted.encode(getattr(self._stream, "encoding", None) or "ascii")
        except (UnicodeEncodeError, LookupError):
            return plain
        return wanted

    def _style(self, code, text):
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def bold(self, text):
        """Return `text` in bold."""
        return self._style("1", text)

    def dim(self, text):
        """Return `text` dimmed."""
        return self._style("2", text)

    def bar(self, share, width):
        """Return a bar of `share` (0 to 1) of `width` characters, padded to `width`."""
        return (self._block * round(share * width)).ljust(width)


class Progress:
    """A progress line on stderr, rewritten in place and removed at the end; silent where stderr is no tty."""

    def __init__(self, what, stream=None):
        self._what = what
        self._stream = stream if stream is not None else sys.stderr
        self._shown = self._stream.isatty()

    def __call__(self, done, wanted):
        """Show that `done` of `wanted` rounds are done."""
        if self._shown:
            filled = 30 * done // wanted
            self._stream.write(f"\r{self._what} [{'=' * filled}{' ' * (30 - filled)}] {done}/{wanted}")
            self._stream.flush()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
