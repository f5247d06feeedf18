# cython: boundscheck=True, wraparound=False, cdivision=True
"""Compaction of one zone: two scanners that meet (compiled; runs uncompiled too).

The migrate scanner goes up from the zone's start and collects pages on LRU lists; the free scanner comes
down from its end, pageblock by pageblock, and isolates free blocks to put them in. `cursor` holds where both
stopped: [first page that the migrate scanner has not seen, end of what the free scanner has not seen].
Source: mm/compaction.c of Linux 6.1.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from stackfit.pages.allocator_constants import (
        COMPACT_COMPLETE,
        COMPACT_SUCCESS,
        FREE_SCANNED,
        KERNEL,
        LRU,
        MIGRATE_SCANNED,
        MIGRATED,
        MOVABLE,
        ORDERS,
        PINNED,
    )
    from stackfit.pages.zone import Zone

__all__ = ["compact"]


@cython.cfunc
def _isolate(
    zone: Zone,
    cursor: cython.longlong[::1],
    counters: cython.longlong[::1],
    any_block: cython.bint,
    targets: cython.int[::1],
) -> cython.int:
    """Take the free blocks of the next pageblock downwards that has any, as single pages, first page first.

    How many pages `targets` now holds; 0: the scanners met. Pageblocks that are not movable stay as they
    are, unless `any_block`; so do wholly free ones (mm/compaction.c:suitable_migration_target).
    """
    size: cython.int = 1 << zone.block_order
    found: cython.int = 0
    page: cython.int
    end: cython.int
    order: cython.int
    i: cython.int
    while found == 0 and cursor[1] - size >= cursor[0]:
        end = cursor[1]
        cursor[1] -= size
        page = end - size
        if not any_block and zone.block_type[page >> zone.block_order] != MOVABLE:
            continue
        while page < end:
            order = zone.head[page]
            if order >= zone.block_order:
                break
            counters[FREE_SCANNED] += 1
            if order < 0:
                page += 1
                continue
            zone.take_at(page)
            for i in range(page, page + (1 << order)):
                targets[found] = i
                found += 1
            page += 1 << order
    return found


@cython.cfunc
def _satisfied(zone: Zone, order: cython.int, migratetype: cython.int) -> cython.bint:
    """Is there a block that the request may have (mm/compaction.c:__compact_finished)?"""
    high: cython.int
    for high in range(order, ORDERS):
        if zone.count[migratetype * ORDERS + high]:
            return True
        if zone._can_claim(high, migratetype) and zone._fallback(high, migratetype) >= 0:
            return True
    return False


def compact(
    zone: Zone,
    order: cython.int,
    migratetype: cython.int,
    whole: cython.bint,
    pinned: cython.bint,
    cursor: cython.longlong[::1],
    counters: cython.longlong[::1],
    targets: cython.int[::1],
) -> cython.int:
    """Migrate until a block of `order` is free for `migratetype` or the scanners meet: COMPACT_*.

    `whole`: every pageblock is a source (synchronous), else those of the request's own migratetype alone.
    `pinned`: mlocked pages may move (vm.compact_unevictable_allowed). `targets`: room for one pageblock.
    `counters` gets MIGRATE_SCANNED, FREE_SCANNED, MIGRATED pages.
    """
    page: cython.int
    end: cython.int
    state: cython.int
    at: cython.int = 0
    held: cython.int = 0
    size: cython.int = 1 << zone.block_order
    met: cython.bint = False
    while not met and cursor[0] < cursor[1]:
        page = cursor[0]
        end = (page >> zone.block_order << zone.block_order) + size
        cursor[0] = end
        if not whole and zone.block_type[page >> zone.block_order] != migratetype:
            continue
        while page < end:
            counters[MIGRATE_SCANNED] += 1
            if zone.head[page] > 0:
                page += 1 << zone.head[page]
                continue
            state = zone.state[page]
            if state >= LRU and (pinned or state != PINNED):
                if at == held:
                    held = _isolate(zone, cursor, counters, whole and migratetype != MOVABLE, targets)
                    at = 0
                    if held == 0:
                        met = True
                        break
                zone.move(page, targets[at])
                at += 1
                counters[MIGRATED] += 1
            page += 1
        if _satisfied(zone, order, migratetype):
            break
    while at < held:
        if zone.state[targets[at]] == KERNEL:
            zone.put(targets[at], 0, zone.block_type[targets[at] >> zone.block_order])
        at += 1
    if _satisfied(zone, order, migratetype):
        return COMPACT_SUCCESS
    return COMPACT_COMPLETE
