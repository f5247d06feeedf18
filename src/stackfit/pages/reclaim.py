# cython: boundscheck=True, wraparound=False, cdivision=True
"""Reclaim of one zone's LRU lists: scan, spare, steal, swap (compiled; runs uncompiled too).

Counters are an int64 array that the caller keeps: SCANNED, STOLEN, SWAPPED, ACTIVATED pages are added to it.
Sources: mm/vmscan.c of Linux 6.1 (shrink_inactive_list, shrink_active_list) and of 2.6.24 (isolate_lru_pages,
lumpy reclaim).
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from stackfit.pages.allocator_constants import (
        ACTIVATED,
        ACTIVE_ANONYMOUS,
        ACTIVE_FILE,
        ANONYMOUS,
        EVICTED,
        FILE,
        INACTIVE_ANONYMOUS,
        INACTIVE_FILE,
        LRU,
        MARKED,
        PINNED,
        SCANNED,
        SLAB,
        SLABS,
        STOLEN,
        SWAPPED,
        SWAPPED_OUT,
        YOUNG,
    )
    from stackfit.pages.zone import Zone

__all__ = ["deactivate", "shrink"]


@cython.cfunc
def _steal(
    zone: Zone, page: cython.int, counters: cython.longlong[::1], swap: cython.longlong
) -> cython.bint:
    """Free one page that nobody used lately, if it can be: anonymous memory needs swap space."""
    handle: cython.int = zone.handle_of[page]
    if zone.state[page] == ANONYMOUS and counters[SWAPPED] >= swap:
        return False
    if zone.state[page] != SLAB:
        zone.age += 1
        zone.evicted_at[handle] = zone.age
    if zone.state[page] == ANONYMOUS:
        counters[SWAPPED] += 1
        zone.forget(handle, SWAPPED_OUT)
    else:
        zone.forget(handle, EVICTED)
    counters[STOLEN] += 1
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
        if zone.referenced[neighbour]:
            continue
        if _steal(zone, neighbour, counters, swap):
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
) -> cython.longlong:
    """Look at up to `scan` pages at the cold end of an inactive list (or of the slabs); free up to `wanted`.

    Pages used since the last look go to the active list; of a working set, anonymous ones at the second
    time. `swap`: anonymous pages that swap space takes in
    all (counters[SWAPPED] counts up to it). Answer: pages freed.
    """
    end: cython.int = zone.pages + which
    page: cython.int
    freed: cython.longlong = 0
    active: cython.int = SLABS
    if which == INACTIVE_ANONYMOUS:
        active = ACTIVE_ANONYMOUS
    elif which == INACTIVE_FILE:
        active = ACTIVE_FILE
    while scan > 0 and freed < wanted:
        page = zone.before[end]
        if page >= zone.pages:
            break
        scan -= 1
        counters[SCANNED] += 1
        if zone.working_set and zone.state[page] == FILE:
            zone.referenced[page] = 0  # read once only: folio_check_references takes it
        elif zone.working_set and zone.state[page] == ANONYMOUS and zone.referenced[page] & YOUNG:
            if not zone.referenced[page] & MARKED:  # spared for another trip
                zone.referenced[page] = MARKED
                zone.requeue(page, which)
                continue
            zone.referenced[page] = MARKED
            zone.requeue(page, active)
            counters[ACTIVATED] += 1
            continue
        elif (zone.referenced[page] and not zone.working_set) or zone.referenced[page] & YOUNG:
            zone.referenced[page] = 0
            zone.requeue(page, active)
            counters[ACTIVATED] += 1
            continue
        if not _steal(zone, page, counters, swap):
            zone.requeue(page, active)
            continue
        freed += 1
        if lumpy and order > 0:
            freed += _steal_around(zone, page, order, counters, swap)
    return freed


def deactivate(zone: Zone, which: cython.int, scan: cython.longlong) -> None:
    """Move up to `scan` pages from the cold end of an active list to its inactive list. (Not scanned in the
    sense
    of /proc/vmstat, which counts them as pgrefill.)"""
    inactive: cython.int = INACTIVE_ANONYMOUS if which == ACTIVE_ANONYMOUS else INACTIVE_FILE
    end: cython.int = zone.pages + which
    page: cython.int
    while scan > 0:
        page = zone.before[end]
        if page >= zone.pages:
            return
        scan -= 1
        # As the kernel does for data pages: a use while on the active list does not keep it there.
        zone.referenced[page] &= MARKED
        zone.requeue(page, inactive)
