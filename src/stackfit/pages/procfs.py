"""What the kernel says of its free memory: /proc/buddyinfo, pagetypeinfo, zoneinfo, vmstat, meminfo,
kpageflags.

Pages and page frame numbers are of the machine's base page; orders count from 0. Text files may be at most
MAX_TEXT bytes. Formats: mm/vmstat.c (frag_show, pagetypeinfo_show, zoneinfo_show, vmstat_show),
fs/proc/meminfo.c, fs/proc/page.c (stable_page_flags) of Linux 4.6 to 6.x. Every refusal is one InputError.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackfit.image.compression import compression_of, decompress, most_output
from stackfit.image.model import InputError

__all__ = [
    "MAX_ORDERS",
    "MAX_PAGES",
    "MAX_TEXT",
    "Buddyinfo",
    "Pagesets",
    "Pagetypeinfo",
    "Zone",
    "ZoneKey",
    "block_orders",
    "buddy_pages",
    "parse_buddyinfo",
    "parse_counters",
    "parse_kpageflags",
    "parse_pagetypeinfo",
    "parse_zoneinfo",
    "read_bytes",
    "read_text",
    "unpacked",
]

MAX_TEXT = 16 << 20  # bytes of a text file
MAX_PAGES = 1 << 26  # page frames of a kpageflags file
MAX_ORDERS = 32
MAX_ZONES = 4096
_MOST_PAGES = 1 << 52  # of a zone: 64-bit addresses, 4 KiB pages
_FLAGS_RATIO = 256
_KPF_BUDDY = 1 << 10  # include/uapi/linux/kernel-page-flags.h

ZoneKey = tuple[int, str]  # node, zone name


@dataclass(frozen=True)
class Buddyinfo:
    """Free blocks: `counts[zone, order]`, int64, in the order of `zones`."""

    zones: tuple[ZoneKey, ...]
    counts: NDArray[np.int64]

    @property
    def orders(self) -> int:
        return int(self.counts.shape[1])

    def row(self, zone: ZoneKey) -> NDArray[np.int64]:
        """Counts of a zone; zeros when the file does not list it (a zone without memory)."""
        if zone in self.zones:
            found: NDArray[np.int64] = self.counts[self.zones.index(zone)]
            return found
        return np.zeros(self.orders, np.int64)


@dataclass(frozen=True)
class Pagetypeinfo:
    """Free blocks by migratetype: `free[zone, type, order]`; pageblocks by migratetype: `blocks[zone, type]`.

    `capped`: cells printed as `>100000`, where the kernel stops counting; those counts are lower limits.
    """

    pageblock_order: int
    zones: tuple[ZoneKey, ...]
    types: tuple[str, ...]
    free: NDArray[np.int64]
    blocks: NDArray[np.int64]
    capped: NDArray[np.bool_]


@dataclass(frozen=True)
class Pagesets:
    """A CPU's list of free pages kept out of the free lists; pages."""

    cpu: int
    count: int
    high: int
    batch: int


@dataclass(frozen=True)
class Zone:
    """One zone of zoneinfo, in pages. `boost` is None where the kernel does not print it.

    The printed min, low and high include the boost (include/linux/mmzone.h:min_wmark_pages adds it).
    `protection[i]`: pages held back from an allocation that could also use zone i of the node.
    """

    node: int
    name: str
    index: int  # among the zones of its node as listed
    free: int
    minimum: int
    low: int
    high: int
    boost: int | None
    spanned: int
    present: int
    managed: int
    protection: tuple[int, ...]
    free_cma: int | None
    start_pfn: int | None
    pagesets: tuple[Pagesets, ...]

    @property
    def key(self) -> ZoneKey:
        return self.node, self.name


def read_bytes(path: Path, cap: int) -> bytes:
    """A file's bytes, at most `cap`. InputError: a pipe or directory, unreadable, empty, or bigger."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before opening: a pipe would block
            raise InputError(str(path), "not a regular file")
        with path.open("rb") as file:
            data = file.read(cap + 1)
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", None) or str(error)) from None
    if len(data) > cap:
        raise InputError(str(path), f"bigger than {cap >> 20} MiB")
    if not data:
        raise InputError(str(path), "empty")
    return data


def unpacked(path: str, data: bytes, cap: int | None = None) -> bytes:
    """`data`, unpacked to at most `cap` bytes if it is gzip, xz or zstd. None: as many as its size allows."""
    return decompress(path, data, cap) if compression_of(data) in ("gzip", "xz", "zstd") else data


def read_text(path: Path) -> str:
    """A text file of /proc, or a saved one; compressed ones are unpacked."""
    return unpacked(str(path), read_bytes(path, MAX_TEXT), MAX_TEXT).decode("utf-8", "replace")


def _number(path: str, word: str, line: int) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 18):
        raise InputError(path, f"line {line}: {word[:40]!r} is no number")
    return int(word)


def _zone_words(path: str, text: str, line: int) -> tuple[ZoneKey, list[str]]:
    """`Node 0, zone   Normal  …` → the zone, and the words behind its name."""
    words = text.replace(",", " ").split()
    if len(words) < 4 or words[0] != "Node" or words[2] != "zone":
        raise InputError(path, f"line {line}: not 'Node N, zone NAME …'")
    return (_number(path, words[1], line), words[3][:40]), words[4:]


def parse_buddyinfo(path: str, text: str) -> Buddyinfo:
    """/proc/buddyinfo: one line a zone, free blocks by order."""
    zones: dict[ZoneKey, list[int]] = {}
    orders = 0
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip():
            continue
        zone, words = _zone_words(path, content, line)
        counts = [_number(path, word, line) for word in words]
        orders = orders or len(counts)
        if not counts or len(counts) > MAX_ORDERS or len(counts) != orders:
            raise InputError(path, f"line {line}: {len(counts)} orders")
        if sum(count << order for order, count in enumerate(counts)) > _MOST_PAGES:
            raise InputError(path, f"line {line}: more free pages than a machine can have")
        if zone in zones or len(zones) >= MAX_ZONES:
            raise InputError(path, f"line {line}: node {zone[0]} zone {zone[1]} twice, or too many zones")
        zones[zone] = counts
    if not zones:
        raise InputError(path, "no zones: not a buddyinfo file")
    return Buddyinfo(tuple(zones), np.array(list(zones.values()), np.int64))


def parse_pagetypeinfo(path: str, text: str) -> Pagetypeinfo:
    """/proc/pagetypeinfo: free blocks and pageblocks by migratetype."""
    order: int | None = None
    types: list[str] = []
    free: dict[ZoneKey, dict[str, list[tuple[int, bool]]]] = {}
    blocks: dict[ZoneKey, list[int]] = {}
    columns = 0
    for line, content in enumerate(text.splitlines(), 1):
        if content.startswith("Page block order:"):
            order = _number(path, content.partition(":")[2].strip(), line)
        elif content.startswith("Number of blocks type"):
            types = content.split()[4:]
            if len(set(types)) != len(types):
                raise InputError(path, f"line {line}: a migratetype twice")
        elif content.startswith("Node") and ", type " in content:
            zone, words = _zone_words(path, content, line)
            if len(words) < 3 or words[0] != "type":
                raise InputError(path, f"line {line}: not 'Node N, zone NAME, type TYPE …'")
            row = [(_number(path, word.removeprefix(">"), line), word.startswith(">")) for word in words[2:]]
            columns = columns or len(row)
            if len(row) != columns or columns > MAX_ORDERS or len(free) >= MAX_ZONES:
                raise InputError(path, f"line {line}: {len(row)} orders")
            free.setdefault(zone, {})[words[1]] = row
        elif content.startswith("Node") and types:
            zone, words = _zone_words(path, content, line)
            if len(words) != len(types):
                raise InputError(path, f"line {line}: {len(words)} migratetypes instead of {len(types)}")
            blocks.setdefault(zone, [_number(path, word, line) for word in words])
        # what page_owner adds (mixed blocks) and blank lines carry nothing that is used here
    if order is None or order >= MAX_ORDERS or not types or not free:
        raise InputError(path, "not a pagetypeinfo file")
    for zone, by_type in free.items():
        if set(by_type) != set(types) or zone not in blocks:
            raise InputError(path, f"node {zone[0]} zone {zone[1]}: migratetypes missing")
    cells = [[by_type[name] for name in types] for by_type in free.values()]
    return Pagetypeinfo(
        order,
        tuple(free),
        tuple(types),
        np.array([[[count for count, _ in row] for row in zone] for zone in cells], np.int64),
        np.array([blocks[zone] for zone in free], np.int64),
        np.array([[[more for _, more in row] for row in zone] for zone in cells], np.bool_),
    )


_KEPT = frozenset(
    ("boost", "min", "low", "high", "spanned", "present", "managed", "nr_free_cma", "start_pfn:")
)
_PAGESET = ("count:", "high:", "batch:")


def parse_zoneinfo(path: str, text: str) -> tuple[Zone, ...]:
    """/proc/zoneinfo: watermarks, sizes, lowmem protection and per-CPU lists of every zone."""
    parts: list[tuple[ZoneKey, list[tuple[int, list[str]]]]] = []
    for line, content in enumerate(text.splitlines(), 1):
        if content.startswith("Node"):
            head, rest = _zone_words(path, content, line)
            if rest:
                raise InputError(path, f"line {line}: not the head of a zone")
            if len(parts) >= MAX_ZONES or any(head == one for one, _ in parts):
                raise InputError(path, f"line {line}: node {head[0]} zone {head[1]} twice, or too many zones")
            parts.append((head, []))
        elif parts and content.strip():
            parts[-1][1].append((line, content.replace("(", " ").replace(")", " ").replace(",", " ").split()))
    if not parts:
        raise InputError(path, "no zones: not a zoneinfo file")
    listed: dict[int, int] = {}
    zones: list[Zone] = []
    for head, lines in parts:
        zones.append(_zone(path, head, listed.get(head[0], 0), lines))
        listed[head[0]] = listed.get(head[0], 0) + 1
    return tuple(zones)


def _zone(path: str, head: ZoneKey, index: int, lines: list[tuple[int, list[str]]]) -> Zone:
    values: dict[str, int] = {}
    protection: tuple[int, ...] = ()
    sets: list[list[int]] = []
    for line, words in lines:
        if words[:2] == ["pages", "free"] and len(words) == 3:
            values["free"] = _number(path, words[2], line)
        elif words[:1] == ["protection:"]:
            if not 2 <= len(words) <= 64:
                raise InputError(path, f"line {line}: not 'protection: (PAGES, …)'")
            protection = tuple(_number(path, word, line) for word in words[1:])
        elif len(words) != 2:
            continue
        elif words[0] == "cpu:":
            sets.append([_number(path, words[1], line), 0, 0, 0])
        elif words[0] in _PAGESET and sets:
            sets[-1][_PAGESET.index(words[0]) + 1] = _number(path, words[1], line)
        elif words[0] in _KEPT:
            values[words[0]] = _number(path, words[1], line)
    for name in ("free", "min", "low", "high", "spanned"):
        if name not in values:
            raise InputError(path, f"node {head[0]} zone {head[1]}: no {name!r}")
    present = values.get("present", values["spanned"])
    return Zone(
        node=head[0],
        name=head[1],
        index=index,
        free=values["free"],
        minimum=values["min"],
        low=values["low"],
        high=values["high"],
        boost=values.get("boost"),
        spanned=values["spanned"],
        present=present,
        managed=values.get("managed", present),
        protection=protection,
        free_cma=values.get("nr_free_cma"),
        start_pfn=values.get("start_pfn:"),
        pagesets=tuple(Pagesets(*one) for one in sets),
    )


def parse_counters(path: str, text: str) -> dict[str, int]:
    """/proc/vmstat (`name value`) or /proc/meminfo (`Name:  value kB`); values as they are printed."""
    counters: dict[str, int] = {}
    for line, content in enumerate(text.splitlines(), 1):
        words = content.split()
        if not words:
            continue
        if len(words) not in (2, 3) or (len(words) == 3 and words[2] != "kB") or len(counters) >= 1 << 16:
            raise InputError(path, f"line {line}: not 'NAME NUMBER'")
        sign = -1 if words[1].startswith("-") else 1  # some vmstat counters can be seen below zero
        counters[words[0].rstrip(":")[:80]] = sign * _number(path, words[1].removeprefix("-"), line)
    if not counters:
        raise InputError(path, "no counters")
    return counters


def parse_kpageflags(path: str, data: bytes) -> NDArray[np.uint64]:
    """/proc/kpageflags as it is or compressed: a little-endian u64 of flags by page frame."""
    # Nearly all pages have the flags of the one before: one byte holds hundreds.
    raw = unpacked(path, data, min(MAX_PAGES * 8, most_output(len(data), ratio=_FLAGS_RATIO)))
    if not raw or len(raw) % 8:
        raise InputError(path, f"{len(raw)} bytes are no whole number of page flags")
    return np.frombuffer(raw, "<u8")


def buddy_pages(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Page frames in free blocks. The flag stands on *every* page of a free block.

    fs/proc/page.c:stable_page_flags, since Linux 4.6; older kernels flag a block's first page only, which
    shows as far fewer pages here than buddyinfo has. Pages on per-CPU lists are not flagged.
    """
    flagged: NDArray[np.bool_] = (flags & np.uint64(_KPF_BUDDY)) != 0
    return flagged


def block_orders(
    free: NDArray[np.bool_], zone: NDArray[np.int16], orders: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The free blocks that make up the free pages: (first page frames ascending, their orders).

    `free`, `zone` (-1: none): by page frame. Two free buddies of one order never stay apart
    (mm/page_alloc.c:__free_one_page), so the blocks are the largest aligned ones, and those only. The one
    exception, pageblocks of types that do not mix (highatomic, CMA, isolated) where a pageblock is smaller
    than the largest block, shows as a difference from buddyinfo. Zones do not share blocks.
    """
    size = -(-len(free) >> (orders - 1)) << (orders - 1)
    whole = np.zeros(size, np.bool_)
    whole[: len(free)] = free
    zones = np.full(size, -1, np.int16)
    zones[: len(zone)] = zone
    whole &= zones >= 0
    starts: list[NDArray[np.int64]] = []
    kinds: list[NDArray[np.int64]] = []
    for order in range(orders):
        if order + 1 < orders:
            first, last = zones[:: 2 << order], zones[(2 << order) - 1 :: 2 << order]
            joined = whole[::2] & whole[1::2] & (first == last)
            alone = whole & ~np.repeat(joined, 2)
        else:
            alone = joined = whole
        heads = np.flatnonzero(alone).astype(np.int64) << order
        starts.append(heads)
        kinds.append(np.full(len(heads), order, np.int64))
        whole = joined
    start, kind = np.concatenate(starts), np.concatenate(kinds)
    by_frame = np.argsort(start, kind="stable")
    return start[by_frame], kind[by_frame]
