"""Replays recorded page-allocator events and holds the free lists against /proc/buddyinfo at each snapshot.

A recording is a directory: events (docs/replay.md) and, for each snapshot n that a mark in the events names,
`buddyinfo-n`, `kpageflags-n` and `zoneinfo-n`, compressed or not; further files of /proc are used where they
are. Every figure is pages, page frames or blocks. The rules are those of mm/page_alloc.c and mm/compaction.c,
5.14 to 6.1.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import InputError
from stackfit.pages import replay_constants as constants
from stackfit.pages.indices import free_pages
from stackfit.pages.procfs import (
    MAX_PAGES,
    Buddyinfo,
    Zone,
    ZoneKey,
    block_orders,
    buddy_pages,
    parse_buddyinfo,
    parse_counters,
    parse_kpageflags,
    parse_pagetypeinfo,
    parse_zoneinfo,
    read_bytes,
    read_text,
)
from stackfit.pages.replay_loop import apply_events
from stackfit.pages.trace import Kind, Mark, Trace, read_trace

__all__ = [
    "Cause",
    "Difference",
    "Problem",
    "Recording",
    "Replay",
    "Run",
    "Snapshot",
    "read_recording",
    "replay",
]

COSTLY_ORDER = 3  # PAGE_ALLOC_COSTLY_ORDER: the per-CPU lists hold up to this order (5.14 and later)
MAX_PROBLEMS = 10_000  # listed of one run; all are counted
_SUFFIXES = ("", ".gz", ".xz", ".zst")
_EVENT_FILES = ("events.csv", "events.txt", "trace.txt", "trace")


class Cause(enum.Enum):
    """Why free lists and recording disagree, with the evidence that this is the reason."""

    PAST_LISTS = (
        "freed past the per-CPU list: mm_page_free without the mm_page_pcpu_drain that tells of the return",
        "measured",
    )
    COMPACTED = (
        "taken by compaction without an event: its search of the free lists, or a block captured when freed",
        "assumed",
    )
    UNKNOWN_RETURN = ("on the free lists, and no event says since when", "open")
    UNKNOWN_TAKE = ("off the free lists, and no event says since when", "open")
    INSIDE = ("taken from inside a free block, which the kernel never does", "open")
    OUTSIDE = ("pages that belong to no zone", "open")
    MERGED = ("the same pages, in blocks that the kernel keeps apart (pageblocks that do not mix)", "open")

    def __init__(self, text: str, evidence: str) -> None:
        self.text = text
        self.evidence = evidence


_CAUSES = (
    Cause.PAST_LISTS,
    Cause.COMPACTED,
    Cause.UNKNOWN_RETURN,
    Cause.UNKNOWN_TAKE,
    Cause.INSIDE,
    Cause.OUTSIDE,
)  # by the numbers of replay_constants


@dataclass(frozen=True)
class Snapshot:
    """What was saved at a mark. `before`, `after`: buddyinfo at its begin and end. `free`: page frames in
    free blocks by kpageflags, or None. `flags_agree`: their blocks are those of buddyinfo."""

    mark: Mark
    before: Buddyinfo
    after: Buddyinfo | None
    free: NDArray[np.bool_] | None
    flags_agree: bool

    @property
    def number(self) -> int:
        return self.mark.number


@dataclass(frozen=True)
class Recording:
    """`zone_of`: index into `zones` by page frame, -1 outside. `zones`: those with memory, by first page
    frame."""

    path: str
    trace: Trace
    zones: tuple[Zone, ...]
    zone_of: NDArray[np.int16]
    orders: int
    snapshots: tuple[Snapshot, ...]
    cached_order: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """An event that the free lists contradict: taking pages that are not free, returning pages that are."""

    index: int
    time: int
    kind: Kind
    pfn: int
    order: int
    pages: int
    cause: Cause


@dataclass(frozen=True)
class Difference:
    """Pages free in the replay and not in the recording (`missing` False), or the other way round.

    `frames`: runs of page frames (first, count), ascending.
    """

    zone: ZoneKey
    missing: bool
    pages: int
    cause: Cause
    frames: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Run:
    """The replay from one snapshot to a later one, held against what was recorded there.

    `model`, `recorded`: free blocks [zone, order], int64, zones as in the recording. `differences` is None
    where no kpageflags tells which pages differ. `causes`: (cause, events, pages) of all problems;
    `problems`: the first MAX_PROBLEMS of them. `taken`, `returned`, `isolated`: pages moved by the events.
    """

    start: int
    target: int
    events: int
    taken: int
    returned: int
    isolated: int
    model: NDArray[np.int64]
    recorded: NDArray[np.int64]
    differences: tuple[Difference, ...] | None
    causes: tuple[tuple[Cause, int, int], ...]
    problems: tuple[Problem, ...]

    @property
    def exact(self) -> bool:
        return bool(np.array_equal(self.model, self.recorded))

    @property
    def free_model(self) -> int:
        return _pages(self.model)

    @property
    def free_recorded(self) -> int:
        return _pages(self.recorded)

    @property
    def wrong_pages(self) -> int | None:
        """Pages on the wrong side, both ways added up; None where no kpageflags tells."""
        if self.differences is None:
            return None
        return sum(one.pages for one in self.differences)


@dataclass(frozen=True)
class Replay:
    """`intervals`: each from the snapshot before; `through`: each from the first snapshot on, without a
    correction."""

    recording: Recording
    intervals: tuple[Run, ...]
    through: tuple[Run, ...]


def _pages(counts: NDArray[np.int64]) -> int:
    return sum(free_pages(zone) for zone in counts)


def _named(directory: Path, name: str) -> Path | None:
    for suffix in _SUFFIXES:
        path = directory / (name + suffix)
        if path.exists():
            return path
    return None


def _needed(directory: Path, name: str) -> Path:
    path = _named(directory, name)
    if path is None:
        raise InputError(str(directory / name), "not there, and the replay needs it")
    return path


def read_recording(path: Path) -> Recording:
    """Read a recording: its directory, or the events file in it. InputError names what is missing or
    damaged."""
    if path.is_dir():
        directory = path
        places = [place for name in _EVENT_FILES if (place := _named(path, name)) is not None]
        if not places:
            raise InputError(str(path), f"no events in it ({', '.join(_EVENT_FILES)})")
        events = places[0]
    else:
        events, directory = path, path.parent
    trace = read_trace(events)
    if not trace.marks:
        raise InputError(
            str(events), "no snapshot marks ('SNAP 0 begin', 'SNAP 0 end'): nothing to compare with"
        )
    notes: list[str] = []
    zones = _zones(_needed(directory, f"zoneinfo-{trace.marks[0].number}"))
    zone_of = np.full(max(_end(zone) for zone in zones), -1, np.int16)
    for index, zone in enumerate(zones):
        zone_of[zone.start_pfn : _end(zone)] = index
    snapshots = tuple(_snapshot(directory, mark, zones, zone_of, notes) for mark in trace.marks)
    orders = snapshots[0].before.orders
    if any(one.before.orders != orders for one in snapshots):
        raise InputError(str(directory), "buddyinfo of the snapshots differ in the number of orders")
    notes += _trace_notes(trace)
    cached = _cached_order(directory, trace.marks[0].number, notes)
    return Recording(str(path), trace, zones, zone_of, orders, snapshots, cached, tuple(notes))


def _end(zone: Zone) -> int:
    return (zone.start_pfn or 0) + zone.spanned


def _zones(path: Path) -> tuple[Zone, ...]:
    zones = [zone for zone in parse_zoneinfo(str(path), read_text(path)) if zone.spanned]
    if not zones:
        raise InputError(str(path), "no zone has memory")
    for zone in zones:
        if zone.start_pfn is None:
            raise InputError(str(path), f"zone {zone.name} has no start_pfn")
        if _end(zone) > MAX_PAGES:
            raise InputError(str(path), f"zone {zone.name} ends beyond page frame {MAX_PAGES}")
    zones.sort(key=lambda zone: zone.start_pfn or 0)
    for one, other in pairwise(zones):
        if _end(one) > (other.start_pfn or 0):
            raise InputError(str(path), f"zones {one.name} and {other.name} overlap")
    return tuple(zones)


def _snapshot(
    directory: Path, mark: Mark, zones: tuple[Zone, ...], zone_of: NDArray[np.int16], notes: list[str]
) -> Snapshot:
    place = _needed(directory, f"buddyinfo-{mark.number}")
    before = parse_buddyinfo(str(place), read_text(place))
    keys = {zone.key for zone in zones}
    for zone in before.zones:
        if zone not in keys and before.row(zone).any():
            raise InputError(str(place), f"node {zone[0]} zone {zone[1]} is not in zoneinfo")
    place_after = _named(directory, f"buddyinfo-{mark.number}b")
    after = parse_buddyinfo(str(place_after), read_text(place_after)) if place_after else None
    place_flags = _named(directory, f"kpageflags-{mark.number}")
    if place_flags is None:
        notes.append(
            f"snapshot {mark.number}: no kpageflags; nothing can start here, differences have no cause"
        )
        return Snapshot(mark, before, after, None, False)
    flags = parse_kpageflags(str(place_flags), read_bytes(place_flags, MAX_PAGES * 8))
    free = np.zeros(len(zone_of), np.bool_)
    count = min(len(free), len(flags))
    free[:count] = buddy_pages(flags[:count])
    want = _recorded(before, zones)
    pages, wanted = int(free.sum()), _pages(want)
    if pages * 2 < wanted:
        raise InputError(
            str(place_flags),
            f"flags {pages} of {wanted} free pages: kernels before 4.6 flag first pages only",
        )
    agree = np.array_equal(
        _counts(_heads(free, zone_of, before.orders), zone_of, len(zones), before.orders), want
    )
    if not agree:
        notes.append(
            f"snapshot {mark.number}: kpageflags has {pages} free pages, buddyinfo {wanted}; not one moment"
        )
    return Snapshot(mark, before, after, free, agree)


def _trace_notes(trace: Trace) -> list[str]:
    notes = []
    if trace.lost:
        notes.append(
            f"the tracer lost {trace.lost} events: no difference below can be held against the replay"
        )
    if trace.backwards:
        notes.append(
            f"{trace.backwards} events are older than the one before them; they are taken in file order"
        )
    return notes


def _cached_order(directory: Path, number: int, notes: list[str]) -> int | None:
    """The one order above COSTLY_ORDER that per-CPU lists hold: a huge page's, with
    CONFIG_TRANSPARENT_HUGEPAGE.

    mm/page_alloc.c:pcp_allowed_order. vmstat has thp_fault_alloc only with that option.
    """
    vmstat = _named(directory, f"vmstat-{number}")
    if vmstat and "thp_fault_alloc" not in parse_counters(str(vmstat), read_text(vmstat)):
        return None
    types = _named(directory, f"pagetypeinfo-{number}")
    if types:
        return parse_pagetypeinfo(str(types), read_text(types)).pageblock_order
    notes.append("no pagetypeinfo: blocks of order 9 are taken for huge pages, which per-CPU lists hold")
    return 9


def _recorded(buddyinfo: Buddyinfo, zones: tuple[Zone, ...]) -> NDArray[np.int64]:
    return np.array([buddyinfo.row(zone.key) for zone in zones], np.int64)


def _heads(free: NDArray[np.bool_], zone_of: NDArray[np.int16], orders: int) -> NDArray[np.int8]:
    starts, kinds = block_orders(free, zone_of, orders)
    size = -(-len(zone_of) >> (orders - 1)) << (orders - 1)  # whole blocks of the largest order
    head = np.full(size, -1, np.int8)
    head[starts] = kinds
    return head


def _counts(head: NDArray[np.int8], zone_of: NDArray[np.int16], zones: int, orders: int) -> NDArray[np.int64]:
    starts = np.flatnonzero(head >= 0)
    flat = zone_of[starts].astype(np.int64) * orders + head[starts]
    return np.bincount(flat, minlength=zones * orders).astype(np.int64).reshape(zones, orders)


def _free_of(head: NDArray[np.int8], size: int) -> NDArray[np.bool_]:
    """Page frames in the blocks of `head`."""
    starts = np.flatnonzero(head >= 0)
    edge = np.zeros(len(head) + 1, np.int32)
    np.add.at(edge, starts, 1)
    np.add.at(edge, starts + (1 << head[starts].astype(np.int64)), -1)
    return np.cumsum(edge[:-1])[:size] > 0


class _State:
    """Free lists, and what the events so far have said of each page."""

    def __init__(self, recording: Recording, start: Snapshot) -> None:
        if start.free is None:
            raise InputError(recording.path, f"snapshot {start.number} has no kpageflags to start from")
        self._recording = recording
        self._start = start
        self.head = _heads(start.free, recording.zone_of, recording.orders)
        self._zone = np.full(len(self.head), -1, np.int16)
        self._zone[: len(recording.zone_of)] = recording.zone_of
        self.last = np.zeros(len(self.head), np.uint8)
        self.compacted = np.zeros(len(recording.zones), np.uint8)
        self._problems = np.zeros((MAX_PROBLEMS, 3), np.int64)
        self._counters = np.zeros(constants.COUNTERS, np.int64)
        self._at = start.mark.end
        self._done = 0
        events = recording.trace.events
        self._columns = {
            name: np.ascontiguousarray(events[name])
            for name in ("kind", "order", "pfn", "end", "scanned", "taken")
        }
        kinds = np.bincount(events["kind"], minlength=len(Kind) + 1)
        # Probes tell of every single block; scans and high orders would tell of it a second time.
        self._direct = recording.orders if kinds[Kind.RETURN] else COSTLY_ORDER + 1
        self._scans = not kinds[Kind.ISOLATE]

    def advance(self, stop: int) -> None:
        """Apply the events up to index `stop`."""
        cached, columns = self._recording.cached_order, self._columns
        # As memoryviews, whose items are plain integers when the loop runs uncompiled.
        apply_events(
            columns["kind"].data,
            columns["order"].data,
            columns["pfn"].data,
            columns["end"].data,
            columns["scanned"].data,
            columns["taken"].data,
            self._at,
            stop,
            self._recording.orders,
            self._direct,
            -1 if cached is None else cached,
            self._scans,
            self.head.data,
            self._zone.data,
            self.last.data,
            self.compacted.data,
            self._problems.data,
            self._counters.data,
        )
        self._done += stop - self._at
        self._at = stop

    def run(self, target: Snapshot) -> Run:
        """The free lists now against what was recorded at `target`."""
        recording, counters = self._recording, self._counters
        zones, orders = len(recording.zones), recording.orders
        listed = self._problems[: min(int(counters[constants.PROBLEMS]), MAX_PROBLEMS)]
        return Run(
            start=self._start.number,
            target=target.number,
            events=self._done,
            taken=int(counters[constants.TAKEN]),
            returned=int(counters[constants.RETURNED]),
            isolated=int(counters[constants.SCANNED]),
            model=_counts(self.head, recording.zone_of, zones, orders),
            recorded=_recorded(target.before, recording.zones),
            differences=self._differences(target),
            causes=tuple(
                (
                    cause,
                    int(counters[constants.CAUSE_EVENTS + number]),
                    int(counters[constants.CAUSE_PAGES + number]),
                )
                for number, cause in enumerate(_CAUSES)
                if counters[constants.CAUSE_EVENTS + number]
            ),
            problems=tuple(
                _problem(recording.trace.events, int(index), int(cause), int(pages))
                for index, cause, pages in listed
            ),
        )

    def _differences(self, target: Snapshot) -> tuple[Difference, ...] | None:
        if target.free is None:
            return None
        recording = self._recording
        size = len(recording.zone_of)
        model = _free_of(self.head, size)
        found: list[Difference] = []
        for number, zone in enumerate(recording.zones):
            inside = recording.zone_of == number
            absent = target.free & ~model & inside
            extra = model & ~target.free & inside
            freed = self.last[:size] == constants.FREE
            left = Cause.COMPACTED if self.compacted[number] else Cause.UNKNOWN_TAKE
            for missing, pages, cause in (
                (True, absent & freed, Cause.PAST_LISTS),
                (True, absent & ~freed, Cause.UNKNOWN_RETURN),
                (False, extra, left),
            ):
                frames = np.flatnonzero(pages)
                if len(frames):
                    found.append(Difference(zone.key, missing, len(frames), cause, _runs(frames)))
            here = self.head[:size][inside]
            same = np.bincount(here[here >= 0], minlength=recording.orders)
            if not absent.any() and not extra.any() and not np.array_equal(same, target.before.row(zone.key)):
                found.append(Difference(zone.key, False, 0, Cause.MERGED, ()))
        return tuple(found)


def _runs(frames: NDArray[np.intp]) -> tuple[tuple[int, int], ...]:
    edges = np.flatnonzero(np.diff(frames) != 1) + 1
    return tuple((int(part[0]), len(part)) for part in np.split(frames, edges))


def _problem(events: NDArray[np.void], index: int, cause: int, pages: int) -> Problem:
    event = events[index]
    return Problem(
        index,
        int(event["time"]),
        Kind(int(event["kind"])),
        int(event["pfn"]),
        int(event["order"]),
        pages,
        _CAUSES[cause],
    )


def replay(recording: Recording) -> Replay:
    """Replay every interval from its own snapshot, and all of them from the first one."""
    snapshots = recording.snapshots
    if len(snapshots) < 2:
        raise InputError(recording.path, "a single snapshot: nothing to compare with")
    intervals: list[Run] = []
    for start, target in pairwise(snapshots):
        if start.free is not None:
            state = _State(recording, start)
            state.advance(target.mark.begin)
            intervals.append(state.run(target))
    through: list[Run] = []
    state = _State(recording, snapshots[0])
    for target in snapshots[1:]:
        state.advance(target.mark.begin)
        through.append(state.run(target))
    return Replay(recording, tuple(intervals), tuple(through))
