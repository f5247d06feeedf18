"""GitHub's Markdown: tables and text whose names, which come from binaries, stay text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stackfit.text import clean

__all__ = ["markdown_text", "table_text"]

_SPECIAL = frozenset("\\`*_[]<>|~&$")
# What GitHub makes mentions, references and links of, however it is escaped, but not in code.
_ACTIVE = ("@", "#", "://", "www.", "GH-")


def markdown_text(text: str) -> str:
    """Text in which nothing is markup, a mention or a link; fit for a cell of a table."""
    text = clean(text)
    if any(one in text for one in _ACTIVE):
        return _code(text)
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def _code(text: str) -> str:
    ticks = "`"
    while ticks in text:
        ticks += "`"
    shown = text.replace("|", "\\|")  # also in code, or it ends the cell
    return f"{ticks} {shown} {ticks}"


def table_text(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """A table; `columns` are (name, "left" or "right")."""
    lines = [
        _row(markdown_text(name) for name, _ in columns),
        _row("---:" if side == "right" else "---" for _, side in columns),
    ]
    lines += [_row(markdown_text(cell) for cell in row) for row in rows]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
