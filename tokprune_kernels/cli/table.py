"""Fixed-width tables for a plain terminal, without a dependency."""

from .terminal import plain


def format_table(headers, rows, align=None, gap="  "):
    """Return `rows` under `headers` as fixed-width lines, the last one without a line break.

    headers: sequence of str, one a column.
    rows: sequence of sequences; anything in them goes through `str`, None becomes "-".
    align: str of "l" and "r", one letter a column; default: the first column left, all others right.
    Raises ValueError where a row or `align` has another number of columns than `headers`.
    """
    cells = [["-" if cell is None else plain(str(cell)) for cell in row] for row in rows]
    align = align if align is not None else "l" + "r" * (len(headers) - 1)
    for what, columns in [("align", align), *(("a row", row) for row in cells)]:
        if len(columns) != len(headers):
            raise ValueError(f"{what} has {len(columns)} columns, headers has {len(headers)}: {columns!r}")
    widths = [max(map(len, column)) for column in zip(headers, *cells)]

    def line(row):
        padded = (
            cell.ljust(width) if side == "l" else cell.rjust(width) for cell, width, side in zip(row, widths, align)
        )
        return gap.join(padded).rstrip()

    rule = gap.join("-" * width for width in widths)
    return "\n".join([line(list(headers)), rule, *map(line, cells)])


def format_pairs(pairs, indent=""):
    """Return (name, value) pairs as lines with the values in one column; values may have several lines."""
    width = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, value in pairs:
        first, *others = map(plain, str(value).split("\n"))
        lines.append(f"{indent}{name.ljust(width)}  {first}".rstrip())
        lines.extend(f"{indent}{' ' * width}  {other}" for other in others)
    return "\n".join(lines)
