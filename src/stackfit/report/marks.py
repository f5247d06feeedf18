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
_ENDED = "ended"
Json = dict[str, Any]


def marks_json(
    path: str,
    machine: str,
    marks: Sequence[Mark],
    release: str | None = None,
    build_id: str | None = None,
    compared: tuple[int, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
) -> Json:
    """Every mark, the deepest first, and what those of process stacks add up to. `compared`: stacks of which
    debug information and the scan have the same mark, and what differs."""
    sizes = sorted(mark.bytes for mark in marks if mark.stack == "process")
    return {
        "schema": "stackfit.marks/1",
        "path": path,
        "machine": machine,
        "release": release,
        "build_id": build_id,
        "stacks": len(sizes),
        "ended": sum(mark.kind == _ENDED for mark in marks),
        "median": _at(sizes, 0.5),
        "p90": _at(sizes, 0.9),
        "greatest": sizes[-1] if sizes else None,
        "compared": None if compared is None else {"equal": compared[0], "differ": list(compared[1])},
        "notes": list(notes),
        "marks": [
            {
                "stack": mark.stack,
                "kind": mark.kind,
                "owner": mark.owner,
                "address": f"{mark.address:#x}",
                "bytes": mark.bytes,
                "size": mark.size,
            }
            for mark in marks
        ],
    }


def _at(ordered: Sequence[int], share: float) -> int | None:
    """The smallest value that at least this share of all do not exceed."""
    return ordered[max(-(-int(share * 1000) * len(ordered) // 1000) - 1, 0)] if ordered else None


def print_marks(console: Console, document: Json) -> None:
    """The deepest stacks, those of CPUs, and the distribution."""
    kernel = f" of {clean(document['release'])}" if document["release"] else ""
    line(
        console,
        f"{number_text(document['stacks'])} process stacks in {clean(document['path'])}{kernel}:"
        f" median {bytes_text(document['median'])}, p90 {bytes_text(document['p90'])},"
        f" greatest {bytes_text(document['greatest'])}",
    )
    process = [mark for mark in document["marks"] if mark["stack"] == "process"]
    rows = [
        [bytes_text(mark["bytes"]), size_text(mark["size"]), mark["kind"] or "—", clean(mark["owner"])]
        for mark in process[:_SHOWN]
    ]
    columns = [("reached", "right"), ("size", "right"), ("kind", "left"), ("stack of", "left")]
    print_table(console, "", columns, rows)
    used = [mark for mark in document["marks"] if mark["stack"] != "process" and mark["bytes"]]
    rows = [
        [bytes_text(mark["bytes"]), size_text(mark["size"]), mark["stack"], clean(mark["owner"])]
        for mark in used[:_SHOWN]
    ]
    if rows:
        columns = [("reached", "right"), ("size", "right"), ("stack", "left"), ("of", "left")]
        print_table(console, "Stacks of CPUs", columns, rows)
    unused = sum(mark["stack"] != "process" and not mark["bytes"] for mark in document["marks"])
    if unused:
        line(console, f"{number_text(unused)} stacks of CPUs were never used")
    if document["ended"]:
        line(console, f"{number_text(document['ended'])} of them of tasks that have ended")
    line(console, "lower limits: locals that are zero, and frames not written to, leave no mark")
    for note in document["notes"]:
        line(console, clean(note))
    compared = document["compared"]
    if compared is not None:
        line(console, f"debug information and the scan: {number_text(compared['equal'])} marks equal")
        for text in compared["differ"][:_SHOWN]:
            line(console, f"  differs: {clean(text)}", "bold red")
