"""Free memory of one machine as /proc tells it, and how many more stacks it holds, zone by zone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import InputError
from stackfit.pages.indices import Fit, free_pages, stack_fit
from stackfit.pages.procfs import (
    Buddyinfo,
    Pagetypeinfo,
    Zone,
    ZoneKey,
    parse_buddyinfo,
    parse_counters,
    parse_pagetypeinfo,
    parse_zoneinfo,
    read_text,
)

__all__ = ["FILES", "STACK_ORDERS", "FreeMemory", "ZoneStacks", "read_free_memory", "zone_stacks"]

FILES = ("buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat", "meminfo")
STACK_ORDERS = (0, 1, 2)  # 4, 8 and 16 KiB
_PROC = Path("/proc")
_NOT_FOR_KERNEL = ("HighAtomic", "CMA", "Isolate")  # migratetypes whose free blocks GFP_KERNEL does not get
_NO_STACKS = ("HighMem", "Movable", "Device")  # zones that GFP_KERNEL does not use
T = TypeVar("T")


@dataclass(frozen=True)
class FreeMemory:
    """What could be read of one machine's free memory. `unread`: (file, why) of what could not."""

    source: str
    buddyinfo: Buddyinfo
    pagetypeinfo: Pagetypeinfo | None
    zones: tuple[Zone, ...] | None
    vmstat: dict[str, int] | None
    meminfo: dict[str, int] | None
    unread: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ZoneStacks:
    """One zone of buddyinfo. `fits`: by STACK_ORDERS, empty where GFP_KERNEL does not use the zone;
    `evidence`: measured, or assumed where blocks that it may not take could not be seen."""

    zone: Zone | None
    fits: tuple[Fit, ...]
    evidence: str


def zone_stacks(memory: FreeMemory, index: int) -> ZoneStacks:
    """How many more contiguous stacks the zone with that index in buddyinfo holds now."""
    key, counts = memory.buddyinfo.zones[index], memory.buddyinfo.counts[index]
    zone = next((one for one in memory.zones or () if one.key == key), None)
    if key[1] in _NO_STACKS:
        return ZoneStacks(zone, (), "measured")
    barred, withheld, evidence = _barred(memory, key, zone)
    if barred is not None and len(barred) != len(counts):
        barred, evidence = None, "assumed"
    highest = _highest(memory, key[0])
    fits = tuple(stack_fit(counts, order, zone, barred, withheld, highest) for order in STACK_ORDERS)
    return ZoneStacks(zone, fits, evidence)


def _barred(memory: FreeMemory, key: ZoneKey, zone: Zone | None) -> tuple[NDArray[np.int64] | None, int, str]:
    """(free blocks barred to GFP_KERNEL, pages withheld by the watermark check, evidence of both)"""
    types = memory.pagetypeinfo
    if types is None or key not in types.zones:
        # Without pagetypeinfo highatomic pageblocks cannot be seen; most machines have none.
        return None, (zone.free_cma or 0) if zone else 0, "assumed"
    at = types.zones.index(key)
    barred = np.zeros(types.free.shape[2], np.int64)
    withheld = 0
    for number, name in enumerate(types.types):
        if name in _NOT_FOR_KERNEL:
            barred += types.free[at, number]
            if name == "HighAtomic":
                withheld += int(types.blocks[at, number]) << types.pageblock_order
            else:
                withheld += free_pages(types.free[at, number])
    evidence = "assumed" if bool(types.capped[at].any()) else "measured"
    return barred, withheld, evidence


def _highest(memory: FreeMemory, node: int) -> int | None:
    """Index of the highest zone of a node that GFP_KERNEL may use: Normal, also when it is empty."""
    found = [zone.index for zone in memory.zones or () if zone.node == node and zone.name not in _NO_STACKS]
    return max(found, default=None)


def read_free_memory(places: Sequence[Path] = ()) -> FreeMemory:
    """Files of /proc, saved or live: those that `places` are or hold, told by the beginning of their names.

    Default: /proc. InputError: no buddyinfo, a file twice or damaged, a name that says nothing. What else
    cannot be read is in `unread`.
    """
    places = places or (_PROC,)
    unread: list[tuple[str, str]] = []
    found = _locate(places, unread)
    if "buddyinfo" not in found:
        raise InputError(str(places[0]), "no buddyinfo there: nothing can be said")

    def optional(name: str, parse: Callable[[str, str], T]) -> T | None:
        """A file that may be missing, or readable by root only; a damaged one is an error."""
        path = found.get(name)
        if path is None:
            return None
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            unread.append((str(path), error.strerror or str(error)))
            return None
        return parse(str(path), read_text(path))

    buddyinfo = found["buddyinfo"]
    return FreeMemory(
        source=", ".join(map(str, places)),
        buddyinfo=parse_buddyinfo(str(buddyinfo), read_text(buddyinfo)),
        pagetypeinfo=optional("pagetypeinfo", parse_pagetypeinfo),
        zones=optional("zoneinfo", parse_zoneinfo),
        vmstat=optional("vmstat", parse_counters),
        meminfo=optional("meminfo", parse_counters),
        unread=tuple(sorted(unread)),
    )


def _locate(places: Sequence[Path], unread: list[tuple[str, str]]) -> dict[str, Path]:
    """Which file is which, by the beginning of its name; a directory must have each once at most."""
    found: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            for name in FILES:
                path = place / name
                if path.exists():
                    _add(found, name, path)
            continue
        kind = next((name for name in FILES if place.name.startswith(name)), None)
        if kind is None:
            raise InputError(str(place), f"its name does not say what it is ({', '.join(FILES)})")
        if not place.exists():
            raise InputError(str(place), "No such file or directory")
        _add(found, kind, place)
    unread.extend((name, "not given or not there") for name in FILES if name not in found)
    return found


def _add(found: dict[str, Path], name: str, path: Path) -> None:
    if name in found:
        raise InputError(str(path), f"a second {name}, after {found[name]}")
    found[name] = path
