"""Names of files that are written, from names of others: nothing in them leads out of a directory."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["file_names"]

_OTHER = re.compile(r"[^A-Za-z0-9._+@-]", re.ASCII)
_LONGEST = 120  # characters; file systems take 255 bytes


def file_names(names: Sequence[str]) -> list[str]:
    """A file name for each, without suffix, no two the same whatever the case: `_` for what is no letter,
    digit or one of `._+@-`, a number behind what would come twice."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem = _OTHER.sub("_", name)[:_LONGEST]
        if not stem or stem.startswith((".", "-")):
            stem = f"_{stem[1:]}"
        plain, number = stem, 2
        while stem.lower() in taken:
            stem, number = f"{plain}-{number}", number + 1
        taken.add(stem.lower())
        found.append(stem)
    return found
