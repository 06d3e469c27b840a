"""Cells and tables of Markdown, for what the README shows of results."""

NOTHING = ""  # the cell of a number that was not measured


def times(value: str | float) -> str:
    return f"{float(value):.2f}x" if value != "" else NOTHING


def share(value: str | float) -> str:
    return f"{100 * float(value):.0f}%" if value != "" else NOTHING


def table(headers: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return ["Not measured."]
    return ["| " + " | ".join(cells) + " |" for cells in (headers, ["---"] * len(headers), *rows)]


def folded(title: str, lines: list[str]) -> list[str]:
    """Lines that a reader of the page opens by their title."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]
