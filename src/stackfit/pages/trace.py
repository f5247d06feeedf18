"""Recorded page-allocator events as one array: our CSV, text of trace-cmd, of tracefs' `trace` and of perf
script.

docs/replay.md describes the CSV and what has to be recorded. Only events that the replay uses are kept; what
other lines there are is counted. Page frame numbers and orders are of base pages, times are nanoseconds.
"""

from __future__ import annotations

import enum
import re
import struct
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import InputError
from stackfit.pages.procfs import MAX_PAGES, read_bytes, unpacked

__all__ = ["EVENT", "MAX_EVENTS", "Kind", "Mark", "Trace", "parse_trace", "read_trace", "write_csv"]

MAX_EVENTS = 1 << 24
MAX_FILE = 512 << 20  # bytes on disk; unpacked: compression.most_output
MAX_LINE = 4096
_MAX_ORDER = 31


class Kind(enum.IntEnum):
    """What an event says. The values are those of replay_constants.pxd."""

    ALLOC = 1  # mm_page_alloc: a caller got these pages, from wherever
    FREE = 2  # mm_page_free: a caller gave them up; they go to a per-CPU list or to the free lists
    TAKE = 3  # mm_page_alloc_zone_locked: a block leaves the free lists
    DRAIN = 4  # mm_page_pcpu_drain: one returns from a per-CPU list
    RETURN = 5  # free_one_page (kprobe): one returns otherwise
    ISOLATE = 6  # isolate_free_page (kprobe on __isolate_free_page): a free block leaves for compaction
    SCAN = 7  # mm_compaction_isolate_freepages: compaction has taken the free blocks of a range
    COMPACT = 8  # mm_compaction_begin
    MARK = 9  # print: SNAP n begin|end


_NAMES = {
    "mm_page_alloc": Kind.ALLOC,
    "mm_page_free": Kind.FREE,
    "mm_page_free_direct": Kind.FREE,  # its name before Linux 3.3
    "mm_page_alloc_zone_locked": Kind.TAKE,
    "mm_page_pcpu_drain": Kind.DRAIN,
    "free_one_page": Kind.RETURN,
    "isolate_free_page": Kind.ISOLATE,
    "mm_compaction_isolate_freepages": Kind.SCAN,
    "mm_compaction_begin": Kind.COMPACT,
    "print": Kind.MARK,
    "tracing_mark_write": Kind.MARK,
}
_WRITTEN = {kind: name for name, kind in reversed(_NAMES.items())}  # the first name of each kind
_BY_NAME = {name.encode(): kind for name, kind in _NAMES.items()}

EVENT = np.dtype(
    [
        ("time", "<i8"),  # ns
        ("pfn", "<i8"),  # first page frame; of a SCAN where it started; of a MARK the snapshot's number
        ("end", "<i8"),  # SCAN, COMPACT: one past the last page frame
        ("scanned", "<i4"),  # SCAN: pages looked at
        ("taken", "<i4"),  # SCAN: pages taken; ISOLATE: pages taken, 0 when the watermark forbade it
        ("task", "<i4"),
        ("kind", "u1"),
        ("order", "i1"),  # -1 where the event has none; of a MARK 0 begin, 1 end
        ("migratetype", "i1"),  # -1 where the event has none
    ]
)
_ROW = struct.Struct("<qqqiiiBbb")  # EVENT's fields


@dataclass(frozen=True)
class Mark:
    """Where in the events snapshot `number` was taken: between `begin` and `end`, indexes of the two
    marks."""

    number: int
    begin: int
    end: int


@dataclass(frozen=True)
class Trace:
    """`events`: array of EVENT in the order of the file. `lost`: events that the tracer says it dropped.

    `other`: lines that are no event that the replay uses. `backwards`: events older than the one before them,
    which happens where several CPUs' buffers were merged.
    """

    path: str
    events: NDArray[np.void]
    marks: tuple[Mark, ...]
    lost: int
    other: int
    backwards: int


def read_trace(path: Path) -> Trace:
    """A trace file of any of the formats, compressed or not (told by content). InputError names the line."""
    data = unpacked(str(path), read_bytes(path, MAX_FILE))
    return parse_trace(str(path), data)


def parse_trace(path: str, data: bytes) -> Trace:
    """As `read_trace`, from unpacked bytes."""
    rows = _Rows(path)
    is_csv = _is_csv(data)
    parse = rows.csv_line if is_csv else rows.text_line
    start, number = 0, 0
    while start < len(data):
        stop = data.find(b"\n", start)
        stop = len(data) if stop < 0 else stop
        number += 1
        if stop - start > MAX_LINE:
            raise InputError(path, f"line {number} is longer than {MAX_LINE} bytes", start)
        if stop > start:
            parse(data[start:stop], number)
        start = stop + 1
    return rows.trace()


def _is_csv(data: bytes) -> bool:
    for line in data[:65536].splitlines():
        if line.strip() and not line.startswith(b"#"):
            return re.match(rb"\d+,-?\d+,\w+(,|$)", line) is not None
    return False


# `task-pid [cpu] flags seconds: [system:]event: fields`; trace-cmd and perf script leave the flags out.
_TEXT = re.compile(
    rb"\[\d{1,5}\][ \t]{1,8}(?:[^ \t]{1,16}[ \t]{1,8})?(\d{1,10})\.(\d{1,9}):[ \t]{1,64}"
    rb"(?:\w{1,32}:)?(\w{1,64}):(.*)"
)
_FIELD = re.compile(rb"(\w{1,32})=(-?\w{1,20})")
_RANGE = re.compile(rb"range=\((0x[0-9a-f]{1,16}) ?~ ?(0x[0-9a-f]{1,16})\)")
_SNAP = re.compile(rb"SNAP (\d{1,9}) (begin|end)\b")
_LOST = re.compile(rb"LOST (\d{1,12}) EVENTS")
_TASK = re.compile(rb"[- ](\d{1,9})[ \t]{1,16}$")
# A failed allocation: no page, and as page frame number 0 or, from the ring buffer, all ones.
_FAILED = re.compile(
    rb"page=(?:\(nil\)|\(null\)|(?:0x)?0{1,16}\b)|pfn=(?:-1|4294967295|18446744073709551615|0x(?:f{8}){1,2})\b"
)


class _Rows:
    """Collects events column by column; every complaint names file and line."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rows = bytearray()
        self._count = 0
        self._marks: list[tuple[int, int, int]] = []  # number, 0 begin / 1 end, index
        self._lost = 0
        self._other = 0

    def csv_line(self, line: bytes, number: int) -> None:
        if line.startswith(b"#"):
            return
        parts = line.split(b",", 3)
        if len(parts) < 3:
            raise InputError(self._path, f"line {number}: not TIME,TASK,EVENT,FIELDS")
        rest = parts[3] if len(parts) > 3 else b""
        kind = _BY_NAME.get(parts[2])
        if kind is None:
            if parts[2] == b"lost":
                self._lost += self._integer(dict(_FIELD.findall(rest)).get(b"events"), number, 1 << 62)
            else:
                self._other += 1
            return
        time = self._integer(parts[0], number, 1 << 62)
        task = self._integer(parts[1], number, (1 << 31) - 1)
        self._event(kind, time, task, rest, number)

    def text_line(self, line: bytes, number: int) -> None:
        match = _TEXT.search(line)
        if match is None:
            lost = _LOST.search(line)
            if lost:
                self._lost += int(lost[1])
            elif not line.startswith(b"#") and not line.isspace():
                self._other += 1
            return
        kind = _BY_NAME.get(match[3])
        if kind is None:
            self._other += 1
            return
        task = _TASK.search(line[max(0, match.start() - 40) : match.start()])
        nanoseconds = int(match[1]) * 1_000_000_000 + int(match[2].ljust(9, b"0"))
        self._event(kind, nanoseconds, int(task[1]) if task else 0, match[4], number)

    def _event(self, kind: Kind, time: int, task: int, rest: bytes, number: int) -> None:
        if self._count >= MAX_EVENTS:
            raise InputError(self._path, f"line {number}: more than {MAX_EVENTS} events")
        row: tuple[int, ...]
        if kind is Kind.MARK:
            snap = _SNAP.search(rest)
            if snap is None:
                self._other += 1
                return
            pfn, ends = int(snap[1]), int(snap[2] == b"end")
            self._marks.append((pfn, ends, self._count))
            row = (time, pfn, 0, 0, 0, task, kind, ends, -1)
        elif kind is Kind.SCAN or kind is Kind.COMPACT:
            row = self._range(kind, time, task, rest, number)
        else:
            if kind is Kind.ALLOC and _FAILED.search(rest):
                self._other += 1
                return
            row = self._block(kind, time, task, rest, number)
        self._rows += _ROW.pack(*row)
        self._count += 1

    def _block(self, kind: Kind, time: int, task: int, rest: bytes, number: int) -> tuple[int, ...]:
        found = dict(_FIELD.findall(rest))
        pfn = self._integer(found.get(b"pfn"), number, MAX_PAGES)
        order = self._integer(found.get(b"order"), number, _MAX_ORDER)
        if pfn & ((1 << order) - 1):
            raise InputError(self._path, f"line {number}: page frame {pfn} starts no block of order {order}")
        migratetype, taken = -1, 0
        if b"migratetype" in found:
            migratetype = self._integer(found[b"migratetype"], number, 127, -1)
        if kind is Kind.ISOLATE:
            taken = self._integer(found.get(b"isolated", b"1"), number, MAX_PAGES)
        return time, pfn, 0, 0, taken, task, kind, order, migratetype

    def _range(self, kind: Kind, time: int, task: int, rest: bytes, number: int) -> tuple[int, ...]:
        found = dict(_FIELD.findall(rest))
        scanned = taken = 0
        if kind is Kind.COMPACT:
            first, last = found.get(b"zone_start"), found.get(b"zone_end")
        else:
            span = _RANGE.search(rest)
            first, last = (span[1], span[2]) if span else (found.get(b"start_pfn"), found.get(b"end_pfn"))
            scanned = self._integer(found.get(b"nr_scanned"), number, MAX_PAGES)
            taken = self._integer(found.get(b"nr_taken"), number, MAX_PAGES)
        pfn = self._integer(first, number, MAX_PAGES)
        end = self._integer(last, number, MAX_PAGES)
        if end < pfn:
            raise InputError(self._path, f"line {number}: the range ends before it starts")
        return time, pfn, end, scanned, taken, task, kind, -1, -1

    def _integer(self, word: bytes | None, number: int, greatest: int, least: int = 0) -> int:
        """Decimal, or hexadecimal behind 0x."""
        if word is None:
            raise InputError(self._path, f"line {number}: a field is missing")
        try:
            value = int(word, 16) if word.startswith(b"0x") else int(word)
        except ValueError:
            value = least - 1
        if not least <= value <= greatest:
            shown = word[:40].decode("ascii", "replace")
            raise InputError(self._path, f"line {number}: {shown!r} is no number from {least} to {greatest}")
        return value

    def trace(self) -> Trace:
        events = np.frombuffer(self._rows, EVENT)
        if not len(events):
            raise InputError(self._path, "no page-allocator events: neither our CSV nor a trace's text")
        return Trace(
            self._path,
            events,
            self._paired(),
            self._lost,
            self._other,
            int(np.count_nonzero(np.diff(events["time"]) < 0)),
        )

    def _paired(self) -> tuple[Mark, ...]:
        marks: list[Mark] = []
        opened: tuple[int, int] | None = None
        for number, ends, index in self._marks:
            if not ends:
                if opened is not None:
                    raise InputError(self._path, f"snapshot {opened[0]} begins and does not end")
                opened = (number, index)
            else:
                if opened is None or opened[0] != number:
                    raise InputError(self._path, f"snapshot {number} ends and did not begin")
                if marks and number <= marks[-1].number:
                    raise InputError(self._path, f"snapshot {number} comes after {marks[-1].number}")
                marks.append(Mark(number, opened[1], index))
                opened = None
        if opened is not None:
            raise InputError(self._path, f"snapshot {opened[0]} begins and does not end")
        return tuple(marks)


def write_csv(trace: Trace) -> str:
    """The trace as our CSV: what the replay uses, nothing else. Read again it is the same."""
    out = StringIO()
    if trace.lost:
        out.write(f"0,0,lost,events={trace.lost}\n")
    for time, pfn, end, scanned, taken, task, kind, order, migratetype in trace.events.tolist():
        out.write(f"{time},{task},{_WRITTEN[Kind(kind)]},")
        if kind == Kind.MARK:
            out.write(f"SNAP {pfn} {'end' if order else 'begin'}\n")
        elif kind == Kind.SCAN:
            out.write(f"start_pfn={pfn},end_pfn={end},nr_scanned={scanned},nr_taken={taken}\n")
        elif kind == Kind.COMPACT:
            out.write(f"zone_start={pfn},zone_end={end}\n")
        else:
            out.write(f"pfn={pfn},order={order}")
            if migratetype >= 0:
                out.write(f",migratetype={migratetype}")
            out.write(f",isolated={taken}\n" if kind == Kind.ISOLATE else "\n")
    return out.getvalue()
