"""Text from binaries and numbers, made fit to be read."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence

__all__ = ["bytes_text", "clean", "escape", "near_text", "number_text", "range_text", "size_text"]

_MOST_COMPARED = 100  # characters of a name that others are compared with
_MANGLED = ("_Z", "_R", "__Z", "___Z")  # Itanium C++ ABI and Rust's legacy form, Rust's v0
_LONGEST_MANGLED = 1000  # characters: the demangler's own stack grows with what is nested in a name
_LONGEST = 400  # characters of a name: those of C++ and Rust go beyond 200


def escape(text: str) -> str:
    """A text from outside without anything that a terminal would obey: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def clean(name: str) -> str:
    """A name from a binary, escaped and not longer than a line can show; those of C++ and Rust as their
    sources have them."""
    if name.startswith(_MANGLED) and len(name) <= _LONGEST_MANGLED and name.isascii():
        name = _demangled(name)
    return escape(name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…")


@functools.lru_cache(1 << 14)
def _demangled(name: str) -> str:
    from pydemumble import demangle  # only where there are such names

    return demangle(name) or name


def near_text(name: str, known: Sequence[str]) -> str:
    """` (near: a, b)`: up to three known names that one that is not may have meant; empty where none is."""
    near = difflib.get_close_matches(name[:_MOST_COMPARED], known, 3)
    return f" (near: {', '.join(near)})" if near else ""


def number_text(number: int) -> str:
    """`1 234`."""
    return f"{number:,}".replace(",", " ")


def bytes_text(number: int | None, lower: bool = False) -> str:
    """`1 234 B`; `≥ 1 234 B` when open items hide below; `—` when there is no number."""
    if number is None:
        return "—"
    return f"≥ {number_text(number)} B" if lower else f"{number_text(number)} B"


def range_text(found: int | None, upper: int | None, lower: bool) -> str:
    """A need between a concrete chain's and its bound: `1 234 … 5 678 B`, one number where they agree.

    Only what was found is a lower limit, so `≥` stands before that.
    """
    if upper is None or found is None or found == upper:
        return bytes_text(upper, lower)
    return f"{'≥ ' if lower else ''}{number_text(found)} … {number_text(upper)} B"


def size_text(number: int) -> str:
    """`16 KiB` for whole KiB, else bytes."""
    return f"{number // 1024} KiB" if number % 1024 == 0 and number else bytes_text(number)
