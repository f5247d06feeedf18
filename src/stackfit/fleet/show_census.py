"""A census of many hosts for people, and as JSON (stackfit.fleet-census/1 in docs/schemas)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from stackfit.fleet.census import Census, Kernel, Range, Saving, TaskRow
from stackfit.fleet.estimate import DRAWS, LEVEL, Chance
from stackfit.measure.census import LIMITS
from stackfit.report.terminal import line, print_table
from stackfit.text import bytes_text, clean, number_text, size_text

__all__ = ["census_json", "print_census"]

Json = dict[str, Any]
_MIB = 1 << 20


def census_json(census: Census, places: Sequence[str], closest: int) -> Json:
    """The document of `fleet census --json`; `tasks` is an iterator, there may be a million."""
    return {
        "schema": "stackfit.fleet-census/1",
        "places": list(places),
        "hosts": census.hosts,
        "skipped": [{"file": name, "cause": cause} for name, cause in census.skipped],
        "copies": list(census.copies),
        "unknown_layouts": list(census.unknown_layouts),
        "limits": list(LIMITS),
        "bootstrap": {"level": LEVEL, "draws": DRAWS, "seed": census.seed, "method": "expanded percentile"},
        "kernels": [_kernel(one) for one in census.kernels],
        "savings": [
            {
                "layout": one.layout,
                "machine": one.machine,
                "hosts": one.hosts,
                "size": one.size,
                "now": list(one.now),
                "then": list(one.then),
                "saved": list(one.saved),
                "saved_interval": None if one.interval is None else list(one.interval),
                "per_cpu": one.per_cpu,
                "per_cpu_unknown": one.per_cpu_unknown,
                "deeper": list(one.deeper),
                "deeper_hosts": _chance(one.chance),
            }
            for one in census.savings
        ],
        "chances": [
            {
                "machine": one.machine,
                "layout": one.layout,
                "stack": one.stack,
                "limit": one.limit,
                "greatest": one.greatest,
                "hosts": _chance(one.chance),
            }
            for one in census.chances
        ],
        "closest": [_task(row) for row in census.tasks.closest(closest)],
        "tasks": map(_task, census.tasks),
    }


def _chance(chance: Chance) -> Json:
    return {
        "seen": chance.seen,
        "of": chance.of,
        "low": chance.low,
        "high": chance.high,
        "method": chance.method,
    }


def _kernel(kernel: Kernel) -> Json:
    depths = kernel.depths
    return {
        "machine": kernel.machine,
        "release": kernel.release,
        "build_id": kernel.build_id,
        "hosts": kernel.hosts,
        "tasks": depths.stacks,
        "ended": kernel.ended,
        "at_most": [
            {
                "bytes": limit,
                "tasks": list(found),
                "share": None if not depths.stacks else [one / depths.stacks for one in found],
                "share_interval": None if share is None else list(share),
            }
            for limit, found, share in zip(LIMITS, depths.at_most, depths.share, strict=True)
        ],
    }


def _task(row: TaskRow) -> Json:
    release, build_id, machine = row.kernel
    return {
        "machine": machine,
        "release": release,
        "build_id": build_id,
        "layout": row.layout,
        "stack": row.stack,
        "size": row.size,
        "kind": row.kind,
        "name": row.name,
        "hosts": row.hosts,
        "stacks": row.stacks,
        "at_most": [list(found) for found in row.at_most],
        "greatest": row.greatest,
        "host": row.host,
        "median": list(row.median),
        "limit": row.limit,
        "headroom": row.headroom,
    }


# terminal


def print_census(console: Console, census: Census, top: int) -> None:
    """Depths by kernel, the deepest tasks, what layouts would save, what came close, and what that rests
    on."""
    files = f", {number_text(len(census.skipped))} files left out" if census.skipped else ""
    line(console, f"{number_text(census.hosts)} hosts{files}", "bold")
    for name in census.copies:
        line(console, f"the same bytes as another file, and counted as a host of its own: {name}", "yellow")
    if census.unknown_layouts:
        names = ", ".join(census.unknown_layouts)
        line(
            console,
            f"layouts not known (--layout FILE), what they reserve is not taken off: {names}",
            "yellow",
        )
    line(console, "")
    _print_kernels(console, census)
    _print_tasks(console, "Deepest, by task and kernel", list(_first(census, top)), len(census.tasks))
    _print_tasks(console, "Closest to their limit", census.tasks.closest(top), len(census.tasks))
    _print_savings(console, census.savings)
    _print_chances(console, census)
    for text in (
        "Marks are lower limits, of the time since each host's boot: what did not happen may yet.",
        f"Intervals: {LEVEL:.0%}, were these hosts drawn at random from a fleet of as many; bootstrap over"
        f" hosts, {number_text(DRAWS)} draws, seed {census.seed}, expanded percentiles.",
        "Where two numbers stand for a count, files tell only that it lies between them.",
    ):
        line(console, text, "dim")


def _first(census: Census, top: int) -> list[TaskRow]:
    return [row for _, row in zip(range(top), census.tasks, strict=False)]


def _print_kernels(console: Console, census: Census) -> None:
    columns = [("machine", "left"), ("kernel", "left"), ("hosts", "right"), ("tasks", "right")]
    columns += [(f"at most {size_text(limit)}", "right") for limit in LIMITS]
    rows = [
        [
            kernel.machine,
            "all" if kernel.release is None else kernel.release or "not known",
            number_text(kernel.hosts),
            number_text(kernel.depths.stacks),
            *(
                f"{_count(found)} {_share(found, kernel.depths.stacks, share)}"
                for found, share in zip(kernel.depths.at_most, kernel.depths.share, strict=True)
            ),
        ]
        for kernel in census.kernels
    ]
    print_table(console, "Tasks by how deep their process stack has been", columns, rows)


def _share(found: Range, of: int, interval: tuple[float, float] | None) -> str:
    if not of:
        return ""
    if found[0] == of:
        return "(all seen)"
    least, most = (f"{_percent(one / of)}" for one in found)
    text = least if least == most else f"{least} … {most}"
    return f"({text})" if interval is None else f"({text}; {_percent(interval[0])} … {_percent(interval[1])})"


def _percent(share: float) -> str:
    """Never 100 % or 0 % for what is not all or none."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return f"{min(max(share, 0.001), 0.999):.1%}"


def _count(found: Range) -> str:
    low, high = found
    return number_text(low) if low == high else f"{number_text(low)} … {number_text(high)}"


def _print_tasks(console: Console, title: str, rows: Sequence[TaskRow], of: int) -> None:
    columns = [
        ("task", "left"), ("kind", "left"), ("kernel", "left"), ("stack", "left"), ("hosts", "right"),
        ("stacks", "right"), ("greatest", "right"), ("left", "right"), ("host", "left"),
    ]  # fmt: skip
    cells = [
        [
            row.name or "—",
            row.kind or "not known",
            row.kernel[0] or "not known",
            f"{row.stack} {size_text(row.size)}",
            number_text(row.hosts),
            number_text(row.stacks),
            bytes_text(row.greatest),
            bytes_text(row.headroom),
            row.host,
        ]
        for row in rows
    ]
    more = f" ({number_text(len(rows))} of {number_text(of)}; --json has all)" if len(rows) < of else ""
    print_table(console, f"{title}{more}", columns, [[clean(cell) for cell in row] for row in cells])


def _print_savings(console: Console, savings: Sequence[Saving]) -> None:
    columns = [
        ("layout", "left"), ("machine", "left"), ("process stack", "right"), ("hosts", "right"),
        ("now", "right"), ("saved", "right"), ("95 %", "right"), ("of CPUs' stacks", "right"),
        ("stacks deeper than it", "right"), ("hosts with one (95 %)", "right"),
    ]  # fmt: skip
    rows = [
        [
            clean(one.layout),
            one.machine,
            size_text(one.size),
            number_text(one.hosts),
            _mib(one.now),
            _mib(one.saved),
            "one host" if one.interval is None else _mib(one.interval),
            f"not known on {number_text(one.per_cpu_unknown)}"
            if one.per_cpu is None
            else _mib((one.per_cpu,) * 2),
            _count(one.deeper),
            _chance_text(one.chance),
        ]
        for one in savings
    ]
    print_table(console, "Memory that each layout would save in process stacks", columns, rows)


def _mib(found: tuple[float, float]) -> str:
    low, high = (f"{one / _MIB:,.1f}".replace(",", " ") for one in found)
    return f"{low} MiB" if low == high else f"{low} … {high} MiB"


def _chance_text(chance: Chance) -> str:
    seen = f"{number_text(chance.seen)} of {number_text(chance.of)}"
    if chance.seen == 0:
        return f"{seen}: at most {_percent(chance.high)}"
    if chance.seen == chance.of:
        return f"{seen}: at least {_percent(chance.low)}"
    return f"{seen}: {_percent(chance.low)} … {_percent(chance.high)}"


def _print_chances(console: Console, census: Census) -> None:
    columns = [
        ("layout", "left"), ("machine", "left"), ("stack", "left"), ("limit", "right"), ("deepest", "right"),
        ("hosts where it was reached (95 %)", "right"),
    ]  # fmt: skip
    rows = [
        [
            clean(one.layout),
            one.machine,
            clean(one.stack),
            bytes_text(one.limit),
            bytes_text(one.greatest),
            _chance_text(one.chance),
        ]
        for one in census.chances
    ]
    print_table(console, "Stacks used to their limit, under the layout that hosts run with", columns, rows)
