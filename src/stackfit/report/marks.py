"""Marks of stacks as people and programs read them: `measure dump`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from stackfit.measure.model import Mark
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text, size_text

__all__ = ["marks_json", "print_marks"]

_SHOWN = 20
Json = dict[str, Any]


def marks_json(path: str, machine: str, marks: Sequence[Mark]) -> Json:
    """Every mark, the deepest first, and what they add up to."""
    sizes = sorted(mark.bytes for mark in marks)
    return {
        "schema": "stackfit.marks/1",
        "path": path,
        "machine": machine,
        "stacks": len(sizes),
        "median": _at(sizes, 0.5),
        "p90": _at(sizes, 0.9),
        "greatest": sizes[-1] if sizes else None,
        "marks": [
            {"stack": mark.stack, "address": mark.owner, "bytes": mark.bytes, "size": mark.size}
            for mark in marks
        ],
    }


def _at(ordered: Sequence[int], share: float) -> int | None:
    """The smallest value that at least this share of all do not exceed."""
    return ordered[max(-(-int(share * 1000) * len(ordered) // 1000) - 1, 0)] if ordered else None


def print_marks(console: Console, document: Json) -> None:
    """The deepest stacks, and the distribution."""
    line(
        console,
        f"{number_text(document['stacks'])} process stacks in {document['path']}:"
        f" median {bytes_text(document['median'])}, p90 {bytes_text(document['p90'])},"
        f" greatest {bytes_text(document['greatest'])}",
    )
    rows = [
        [bytes_text(mark["bytes"]), size_text(mark["size"]), clean(mark["address"])]
        for mark in document["marks"][:_SHOWN]
    ]
    print_table(console, "", [("reached", "right"), ("size", "right"), ("stack at", "left")], rows)
    line(console, "lower limits: locals that are zero, and frames not written to, leave no mark")
    if document["machine"] == "i386":
        line(console, "stacks of tasks that have ended may be among them")
