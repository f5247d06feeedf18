# cython: boundscheck=True, wraparound=False, cdivision=True
"""Reclaim of one zone's LRU lists: scan, spare, steal, write to swap (compiled; runs uncompiled too).

Counters are an int64 array that the caller keeps: SCANNED, STOLEN, SWAPPED, ACTIVATED, WAITING pages are
added to it. What the work takes is counted by `times`, microseconds of each kind (LOOK, FREEING, …). Sources:
mm/vmscan.c of Linux 6.1 (shrink_inactive_list, shrink_folio_list, shrink_active_list) and of 2.6.24
(isolate_lru_pages, lumpy reclaim); mm/rmap.c (rmap_walk_anon)."""

from __future__ import annotations

import cython

if not cython.compiled:
    from stackfit.pages.allocator_constants import (
        ACTIVATED,
        ACTIVE_ANONYMOUS,
        ACTIVE_FILE,
        ANONYMOUS,
        COPIED,
        DEMOTE,
        EVICTED,
        FILE,
        FOLLOW,
        FREEING,
        INACTIVE_ANONYMOUS,
        INACTIVE_FILE,
        LONG,
        LOOK,
        LRU,
        MARKED,
        PINNED,
        SCANNED,
        SETTLED,
        SLAB,
        SLABS,
        STOLEN,
        SWAPPED,
        SWAPPED_OUT,
        WAITING,
        WRITEBACK,
        WRITING,
        YOUNG,
    )
    from stackfit.pages.zone import Zone

__all__ = ["deactivate", "shrink"]


@cython.cfunc
def _steal(zone: Zone, page: cython.int, counters: cython.longlong[::1]) -> None:
    """Free one page that nobody used lately."""
    handle: cython.int = zone.handle_of[page]
    if zone.state[page] != SLAB:
        zone.age += 1
        zone.evicted_at[handle] = zone.age
        zone.evicted_settled[handle] = zone.referenced[page] & SETTLED
    zone.forget(handle, SWAPPED_OUT if zone.state[page] == ANONYMOUS else EVICTED)
    counters[STOLEN] += 1


@cython.cfunc
def _write(
    zone: Zone, page: cython.int, counters: cython.longlong[::1], swap: cython.longlong
) -> cython.bint:
    """Begin to write an anonymous page to swap; False: there is no room. It is free when it has been written
    and reclaim has come by again."""
    if counters[SWAPPED] >= swap:
        return False
    counters[SWAPPED] += 1
    zone.begin_write(page)
    return True


@cython.cfunc
def _steal_around(
    zone: Zone,
    page: cython.int,
    order: cython.int,
    counters: cython.longlong[::1],
    swap: cython.longlong,
) -> cython.int:
    """Lumpy reclaim: also what else of the aligned block around the page can be taken, used lately or not."""
    start: cython.int = page & ~((1 << order) - 1)
    neighbour: cython.int
    taken: cython.int = 0
    for neighbour in range(start, start + (1 << order)):
        if neighbour == page or zone.state[neighbour] < LRU or zone.state[neighbour] == PINNED:
            continue
        counters[SCANNED] += 1
        if zone.referenced[neighbour] & (YOUNG | MARKED | WRITEBACK):
            continue
        if zone.state[neighbour] == ANONYMOUS and not zone.referenced[neighbour] & COPIED:
            _write(zone, neighbour, counters, swap)
            continue
        _steal(zone, neighbour, counters)
        taken += 1
    return taken


def shrink(
    zone: Zone,
    which: cython.int,
    scan: cython.longlong,
    wanted: cython.longlong,
    swap: cython.longlong,
    order: cython.int,
    lumpy: cython.bint,
    counters: cython.longlong[::1],
    times: cython.double[::1],
) -> tuple[int, int, float]:
    """Look at up to `scan` pages at the cold end of an inactive list (or of the slabs); free up to `wanted`.
    When it has taken LONG, it ends.

    Pages used since the last look go to the active list; of a working set, anonymous ones at the second time.
    `swap`: anonymous pages that swap space takes in all (counters[SWAPPED] counts up to it). An anonymous
    page without a copy in swap is written there, and freed when it comes by the next time. Answer: pages
    freed, looked at, microseconds.
    """
    end: cython.int = zone.pages + which
    page: cython.int
    freed: cython.longlong = 0
    seen: cython.longlong = 0
    spent: cython.double = 0.0
    used: cython.int
    active: cython.int = SLABS
    if which == INACTIVE_ANONYMOUS:
        active = ACTIVE_ANONYMOUS
    elif which == INACTIVE_FILE:
        active = ACTIVE_FILE
    while seen < scan and freed < wanted and spent < LONG:
        page = zone.before[end]
        if page >= zone.pages:
            break
        seen += 1
        counters[SCANNED] += 1
        spent += times[LOOK]
        if zone.state[page] == ANONYMOUS:
            if zone.referenced[page] & WRITEBACK:  # out of the way until it is written
                zone.requeue(page, active)
                zone.age += 1
                counters[ACTIVATED] += 1
                counters[WAITING] += 1
                continue
            spent += times[FOLLOW] * zone.family[page]
        used = zone.referenced[page] & (YOUNG | MARKED)
        if zone.working_set and zone.state[page] == FILE:
            pass  # read once only: folio_check_references takes it
        elif zone.working_set and zone.state[page] == ANONYMOUS and used & YOUNG:
            zone.referenced[page] = (zone.referenced[page] & ~YOUNG) | MARKED
            if not used & MARKED:  # spared for another trip
                zone.requeue(page, which)
                continue
            zone.requeue(page, active)
            zone.age += 1
            counters[ACTIVATED] += 1
            continue
        elif (used and not zone.working_set) or used & YOUNG:
            zone.referenced[page] &= ~(YOUNG | MARKED)
            zone.requeue(page, active)
            counters[ACTIVATED] += 1
            continue
        zone.referenced[page] &= ~MARKED
        if zone.state[page] == ANONYMOUS and not zone.referenced[page] & COPIED:
            if _write(zone, page, counters, swap):
                spent += times[WRITING] + times[FOLLOW] * zone.family[page]
                zone.requeue(page, which)
            else:
                zone.requeue(page, active)
            continue
        _steal(zone, page, counters)
        spent += times[FREEING]
        freed += 1
        if lumpy and order > 0:
            freed += _steal_around(zone, page, order, counters, swap)
    return freed, seen, spent


def deactivate(zone: Zone, which: cython.int, scan: cython.longlong, times: cython.double[::1]) -> float:
    """Move up to `scan` pages from the cold end of an active list to its inactive list; microseconds. (Not
    scanned in the sense of /proc/vmstat, which counts them as pgrefill.)"""
    inactive: cython.int = INACTIVE_ANONYMOUS if which == ACTIVE_ANONYMOUS else INACTIVE_FILE
    end: cython.int = zone.pages + which
    page: cython.int
    spent: cython.double = 0.0
    while scan > 0:
        page = zone.before[end]
        if page >= zone.pages:
            break
        scan -= 1
        spent += times[DEMOTE] if which == ACTIVE_FILE else times[LOOK] + times[FOLLOW] * zone.family[page]
        # As the kernel does for data pages: a use while on the active list does not keep it there.
        zone.referenced[page] = (zone.referenced[page] & ~YOUNG) | SETTLED
        zone.requeue(page, inactive)
    return spent
