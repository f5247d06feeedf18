"""Free memory for people and as JSON: `simulate --replay` and `measure pages`.

Documents: stackfit.replay/1 and stackfit.pages/1 in docs/schemas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from stackfit.pages.free import STACK_ORDERS, FreeMemory, zone_stacks
from stackfit.pages.indices import NOT_FRAGMENTED, extfrag_indices, free_pages, unusable_indices
from stackfit.pages.procfs import ZoneKey
from stackfit.pages.replay import Replay, Run
from stackfit.report.terminal import line, print_table
from stackfit.text import number_text

__all__ = ["pages_json", "print_pages", "print_replay", "replay_json"]

Json = dict[str, Any]
_RUNS_SHOWN = 4  # runs of page frames of one difference, in the terminal


def _indices(counts: NDArray[np.int64]) -> Json:
    return {
        "extfrag": [None if value == NOT_FRAGMENTED else value for value in extfrag_indices(counts)],
        "unusable": unusable_indices(counts),
    }


def _share(run: Run) -> float | None:
    """Pages by which the free lists' total is off, of the recorded free pages."""
    if not run.free_recorded:
        return None
    return round(abs(run.free_model - run.free_recorded) / run.free_recorded, 9)


def _run_json(replay: Replay, run: Run) -> Json:
    return {
        "start": run.start,
        "target": run.target,
        "events": run.events,
        "pages_taken": run.taken,
        "pages_returned": run.returned,
        "pages_isolated": run.isolated,
        "exact": run.exact,
        "free_model": run.free_model,
        "free_recorded": run.free_recorded,
        "off_share": _share(run),
        "wrong_pages": run.wrong_pages,
        "zones": [
            {
                "node": zone.node,
                "zone": zone.name,
                "model": run.model[index].tolist(),
                "recorded": run.recorded[index].tolist(),
                "model_indices": _indices(run.model[index]),
                "recorded_indices": _indices(run.recorded[index]),
            }
            for index, zone in enumerate(replay.recording.zones)
        ],
        "differences": None
        if run.differences is None
        else [
            {
                "node": one.zone[0],
                "zone": one.zone[1],
                "free_in": "recording" if one.missing else "replay",
                "pages": one.pages,
                "cause": one.cause.name.lower().replace("_", "-"),
                "reason": one.cause.text,
                "evidence": one.cause.evidence,
                "frames": [list(run_) for run_ in one.frames],
            }
            for one in run.differences
        ],
        "impossible": [
            {
                "cause": cause.name.lower().replace("_", "-"),
                "reason": cause.text,
                "evidence": cause.evidence,
                "events": events,
                "pages": pages,
            }
            for cause, events, pages in run.causes
        ],
        "impossible_events": [
            {
                "time": one.time,
                "event": one.kind.name.lower(),
                "pfn": one.pfn,
                "order": one.order if one.order >= 0 else None,
                "pages": one.pages,
                "cause": one.cause.name.lower().replace("_", "-"),
            }
            for one in run.problems
        ],
    }


def replay_json(replay: Replay) -> Json:
    """stackfit.replay/1."""
    recording = replay.recording
    return {
        "schema": "stackfit.replay/1",
        "recording": recording.path,
        "events": len(recording.trace.events),
        "lost": recording.trace.lost,
        "other_lines": recording.trace.other,
        "cached_order": recording.cached_order,
        "notes": list(recording.notes),
        "zones": [
            {"node": zone.node, "zone": zone.name, "start_pfn": zone.start_pfn, "spanned": zone.spanned}
            for zone in recording.zones
        ],
        "intervals": [_run_json(replay, run) for run in replay.intervals],
        "through": [_run_json(replay, run) for run in replay.through],
    }


def _index_text(value: int) -> str:
    return "—" if value == NOT_FRAGMENTED else f"{value / 1000:.3f}"


def print_replay(console: Console, replay: Replay) -> None:
    """Each interval's free blocks next to the recorded ones, what differs and why; then all in one go."""
    recording = replay.recording
    line(console, f"{recording.path}: {number_text(len(recording.trace.events))} events")
    for note in recording.notes:
        line(console, f"note: {note}")
    line(console, "")
    for title, runs in (
        ("From each snapshot to the next", replay.intervals),
        ("From the first snapshot on, never corrected", replay.through),
    ):
        _print_summary(console, title, runs)
    for run in replay.intervals:
        _print_run(console, replay, run)


def _print_summary(console: Console, title: str, runs: tuple[Run, ...]) -> None:
    columns = [
        ("interval", "left"), ("events", "right"), ("free, replayed", "right"), ("free, recorded", "right"),
        ("off", "right"), ("wrong pages", "right"), ("impossible events", "right"), ("result", "left"),
    ]  # fmt: skip
    rows = []
    for run in runs:
        share = _share(run)
        rows.append(
            [
                f"{run.start} → {run.target}",
                number_text(run.events),
                number_text(run.free_model),
                number_text(run.free_recorded),
                "—" if share is None else f"{share:.3%}",
                "open" if run.wrong_pages is None else number_text(run.wrong_pages),
                number_text(sum(events for _, events, _ in run.causes)),
                "exact" if run.exact else "differs",
            ]
        )
    print_table(console, title, columns, rows)


def _print_run(console: Console, replay: Replay, run: Run) -> None:
    orders = replay.recording.orders
    columns = [("zone", "left"), ("", "left"), *((str(order), "right") for order in range(orders))]
    rows: list[list[str]] = []
    for index, zone in enumerate(replay.recording.zones):
        model, recorded = run.model[index], run.recorded[index]
        rows.append([_zone_name(zone.key), "recorded", *map(str, recorded.tolist())])
        if not np.array_equal(model, recorded):
            rows.append(["", "replayed", *map(str, model.tolist())])
        rows.append(["", "extfrag index", *map(_index_text, extfrag_indices(recorded))])
        rows.append(["", "unusable index", *(f"{value / 1000:.3f}" for value in unusable_indices(recorded))])
    print_table(console, f"Free blocks by order at snapshot {run.target}", columns, rows)
    if run.differences is None and not run.exact:
        line(console, "  which pages differ is open: the snapshot has no kpageflags")
    for one in run.differences or ():
        where = "free in the recording only" if one.missing else "free in the replay only"
        shown = ", ".join(
            f"{first}" if count == 1 else f"{first} to {first + count - 1}"
            for first, count in one.frames[:_RUNS_SHOWN]
        )
        more = f" and {len(one.frames) - _RUNS_SHOWN} more runs" if len(one.frames) > _RUNS_SHOWN else ""
        line(
            console,
            f"  {number_text(one.pages)} pages {where} ({one.cause.evidence}): {one.cause.text}. "
            f"Page frames {shown}{more}",
        )
    for cause, events, pages in run.causes:
        line(
            console,
            f"  {number_text(events)} impossible {'event' if events == 1 else 'events'}, "
            f"{number_text(pages)} pages ({cause.evidence}): {cause.text}",
        )
    if run.causes or run.differences:
        line(console, "")


def _zone_name(zone: ZoneKey) -> str:
    return f"node {zone[0]} {zone[1]}"


def pages_json(memory: FreeMemory) -> Json:
    """stackfit.pages/1."""
    rows = []
    for index, key in enumerate(memory.buddyinfo.zones):
        counts = memory.buddyinfo.counts[index]
        stacks = zone_stacks(memory, index)
        zone = stacks.zone
        rows.append(
            {
                "node": key[0],
                "zone": key[1],
                "free_pages": free_pages(counts),
                "min": zone.minimum if zone else None,
                "low": zone.low if zone else None,
                "high": zone.high if zone else None,
                "boost": zone.boost if zone else None,
                "managed": zone.managed if zone else None,
                "pcp_pages": sum(one.count for one in zone.pagesets) if zone else None,
                "blocks": counts.tolist(),
                **_indices(counts),
                "stacks": [
                    {
                        "order": fit.order,
                        "exact": fit.exact,
                        "split": fit.split,
                        "above_min": fit.above_min,
                        "reserve": fit.reserve,
                        "evidence": stacks.evidence,
                    }
                    for fit in stacks.fits
                ],
            }
        )
    return {
        "schema": "stackfit.pages/1",
        "source": memory.source,
        "zones": rows,
        "stacks": _totals(rows),
        "compaction": _counters(
            memory, ("compact_stall", "compact_fail", "compact_success", "compact_migrate_scanned")
        ),
        "kernel_stack_kb": (memory.meminfo or {}).get("KernelStack"),
        "unread": [{"file": name, "reason": reason} for name, reason in memory.unread],
    }


def _totals(rows: list[Json]) -> list[Json]:
    totals = []
    for number, order in enumerate(STACK_ORDERS):
        parts = [row["stacks"][number] for row in rows if row["stacks"]]
        above = [part["above_min"] for part in parts]
        totals.append(
            {
                "order": order,
                "exact": sum(part["exact"] for part in parts),
                "split": sum(part["split"] for part in parts),
                "above_min": None if None in above or not above else sum(above),
                "evidence": "assumed" if any(part["evidence"] == "assumed" for part in parts) else "measured",
            }
        )
    return totals


def _counters(memory: FreeMemory, names: tuple[str, ...]) -> Json:
    return {name: (memory.vmstat or {}).get(name) for name in names}


def print_pages(console: Console, document: Json) -> None:
    """The tables of `measure pages`, from its document."""
    zones = document["zones"]
    orders = max(len(zone["blocks"]) for zone in zones)
    columns = [("zone", "left"), ("", "left"), *((str(order), "right") for order in range(orders))]
    rows: list[list[str]] = []
    for zone in zones:
        rows.append([_zone_name((zone["node"], zone["zone"])), "free blocks", *map(str, zone["blocks"])])
        rows.append(
            ["", "extfrag index", *("—" if one is None else f"{one / 1000:.3f}" for one in zone["extfrag"])]
        )
        rows.append(["", "unusable index", *(f"{one / 1000:.3f}" for one in zone["unusable"])])
    print_table(console, f"{document['source']}: free memory by order", columns, rows)
    _print_stacks(console, document)
    for one in document["unread"]:
        line(console, f"not read: {one['file']}: {one['reason']}")


def _print_stacks(console: Console, document: Json) -> None:
    columns = [
        ("zone", "left"), ("free pages", "right"), ("kept back", "right"), ("stack", "left"),
        ("blocks of that order", "right"), ("with splitting", "right"), ("above the min watermark", "right"),
        ("evidence", "left"),
    ]  # fmt: skip
    rows: list[list[str]] = []
    for zone in document["zones"]:
        for number, fit in enumerate(zone["stacks"]):
            rows.append(
                [
                    _zone_name((zone["node"], zone["zone"])) if not number else "",
                    number_text(zone["free_pages"]) if not number else "",
                    _or_open(fit["reserve"]) if not number else "",
                    f"order {fit['order']}",
                    number_text(fit["exact"]),
                    number_text(fit["split"]),
                    _or_open(fit["above_min"]),
                    fit["evidence"],
                ]
            )
    for number, fit in enumerate(document["stacks"]):
        rows.append(
            [
                "all" if not number else "",
                "",
                "",
                f"order {fit['order']}",
                number_text(fit["exact"]),
                number_text(fit["split"]),
                _or_open(fit["above_min"]),
                fit["evidence"],
            ]
        )
    print_table(console, "How many more contiguous stacks fit now, and nothing else", columns, rows)
    if any(fit["evidence"] == "assumed" for fit in document["stacks"]):
        line(
            console,
            "assumed: no pageblocks are reserved as highatomic (pagetypeinfo would tell)",
        )


def _or_open(value: int | None) -> str:
    return "open" if value is None else number_text(value)
