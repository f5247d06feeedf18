"""The running kernel as people and programs read it: `measure live`."""

from __future__ import annotations

from rich.console import Console

from stackfit.layouts import default_layout, load_layout
from stackfit.measure.live import Live
from stackfit.report.marks import Json, marks_json, print_marks
from stackfit.report.terminal import line
from stackfit.text import clean, number_text, size_text

__all__ = ["live_json", "print_live"]

_PROCESS = "process"


def live_json(live: Live) -> Json:
    """What could be read, and what could not and why."""
    machine = live.machine.value if live.machine is not None else None
    size = _stack_size(live)
    return {
        "schema": "stackfit.live/1",
        "release": live.release,
        "build_id": live.build_id,
        "machine": machine,
        "stack_bytes": live.stack_bytes,
        "stack_size": size,
        "stacks": None if live.stack_bytes is None or not size else live.stack_bytes // size,
        "threads": live.threads,
        "counters": dict(sorted(live.counters.items())),
        "marks": marks_json("/proc/kcore", machine, live.marks, live.release, live.build_id)
        if machine is not None and live.marks
        else None,
        "unread": [{"what": what, "why": why} for what, why in live.unread],
    }


def _stack_size(live: Live) -> int | None:
    """Of a process stack, as the kernel's own layout has it."""
    if live.machine is None:
        return None
    stacks = load_layout(default_layout(live.machine)).stacks
    return next((stack.size for stack in stacks if stack.name == _PROCESS), None)


def print_live(console: Console, document: Json) -> None:
    """Memory in stacks, threads, marks; a line on each thing that was not to be had."""
    line(console, f"running kernel {clean(document['release'] or '?')}")
    if document["stack_bytes"] is not None:
        text = f"{number_text(document['stack_bytes'] >> 10)} KiB in process stacks"
        if document["stacks"] is not None:
            text += f": {number_text(document['stacks'])} of {size_text(document['stack_size'])}"
        line(console, text)
    if document["threads"] is not None:
        line(console, f"{number_text(document['threads'])} threads")
    for name, value in document["counters"].items():
        line(console, f"{clean(name)} {number_text(value)}")
    if document["marks"] is not None:
        print_marks(console, document["marks"])
    for one in document["unread"]:
        line(console, f"not read: {one['what']}: {clean(one['why'])}")
