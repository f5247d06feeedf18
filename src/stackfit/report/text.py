"""Text from binaries and numbers, made fit to be read."""

from __future__ import annotations

__all__ = ["bytes_text", "clean", "size_text"]


def clean(text: str) -> str:
    """A name from a binary without anything that a terminal would obey: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def number_text(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def bytes_text(number: int | None, lower: bool = False) -> str:
    """`1 234 B`; `≥ 1 234 B` when open items hide below; `—` when there is no number."""
    if number is None:
        return "—"
    return f"≥ {number_text(number)} B" if lower else f"{number_text(number)} B"


def size_text(number: int) -> str:
    """`16 KiB` for whole KiB, else bytes."""
    return f"{number // 1024} KiB" if number % 1024 == 0 and number else bytes_text(number)
