# cython: boundscheck=True, wraparound=False, cdivision=True
# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="valid-type, no-any-return, untyped-decorator"
"""Applies recorded events to free lists, one by one (compiled; runs uncompiled too).

The free lists are `head`: by page frame, the order of the free block that starts there, or -1. What an event
proves goes above what the lists held: after it they agree with it, and the disagreement is written down.
"""

from __future__ import annotations

import cython

__all__ = ["apply_events"]

if not cython.compiled:
    from stackfit.pages.replay_constants import (
        ALLOC,
        CAUSE_EVENTS,
        CAUSE_PAGES,
        COMPACT,
        COMPACTED,
        DRAIN,
        FREE,
        INSIDE,
        ISOLATE,
        MARK,
        OUTSIDE,
        PAST_LISTS,
        PROBLEMS,
        RETURN,
        RETURNED,
        SCAN,
        SCANNED,
        TAKE,
        TAKEN,
        UNKNOWN_RETURN,
        UNKNOWN_TAKE,
    )


@cython.cfunc
@cython.inline
@cython.boundscheck(False)
def _holder(head: cython.schar[::1], page: cython.longlong, orders: cython.int) -> cython.longlong:
    """First page frame of the free block that holds `page`, or -1."""
    order: cython.int
    start: cython.longlong
    for order in range(orders):
        start = page & ~((cython.cast(cython.longlong, 1) << order) - 1)
        if head[start] >= order:
            return start
    return -1


@cython.cfunc
@cython.boundscheck(False)
def _cut(
    head: cython.schar[::1], page: cython.longlong, order: cython.int, orders: cython.int
) -> cython.longlong:
    """Take the pages of a block out of the free lists, splitting what holds them; returns how many were
    there."""
    size: cython.longlong = cython.cast(cython.longlong, 1) << order
    start: cython.longlong = _holder(head, page, orders)
    have: cython.int
    half: cython.longlong
    found: cython.longlong = 0
    if start >= 0 and head[start] >= order:
        have = head[start]
        head[start] = -1
        while have > order:
            have -= 1
            half = start + (cython.cast(cython.longlong, 1) << have)
            if page < half:
                head[half] = have
            else:
                head[start] = have
                start = half
        return size
    start = page
    while start < page + size:
        have = head[start]
        if have >= 0:
            head[start] = -1
            found += cython.cast(cython.longlong, 1) << have
            start += cython.cast(cython.longlong, 1) << have
        else:
            start += 1
    return found


@cython.cfunc
@cython.boundscheck(False)
def _insert(
    head: cython.schar[::1],
    zone: cython.short[::1],
    page: cython.longlong,
    order: cython.int,
    orders: cython.int,
) -> cython.void:
    """Put a block into the free lists and merge it with its buddies (mm/page_alloc.c:__free_one_page)."""
    buddy: cython.longlong
    while order < orders - 1:
        buddy = page ^ (cython.cast(cython.longlong, 1) << order)
        if buddy >= head.shape[0] or head[buddy] != order or zone[buddy] != zone[page]:
            break
        head[buddy] = -1
        page &= ~(cython.cast(cython.longlong, 1) << order)
        order += 1
    head[page] = order


@cython.cfunc
@cython.boundscheck(False)
def _seen(
    last: cython.uchar[::1], page: cython.longlong, size: cython.longlong, kind: cython.uchar
) -> cython.bint:
    """Whether the last event of any of these pages is of that kind."""
    at: cython.longlong = page
    while at < page + size and last[at] != kind:
        at += 1
    return at < page + size


@cython.cfunc
def _disagree(
    problems: cython.longlong[:, ::1],
    counters: cython.longlong[::1],
    index: cython.longlong,
    cause: cython.int,
    pages: cython.longlong,
) -> cython.void:
    row: cython.longlong = counters[PROBLEMS]
    counters[PROBLEMS] = row + 1
    counters[CAUSE_EVENTS + cause] += 1
    counters[CAUSE_PAGES + cause] += pages
    if row < problems.shape[0]:
        problems[row, 0] = index
        problems[row, 1] = cause
        problems[row, 2] = pages


@cython.cfunc
@cython.boundscheck(False)
def _walk(
    head: cython.schar[::1],
    last: cython.uchar[::1],
    start: cython.longlong,
    end: cython.longlong,
    stride: cython.longlong,
    take: cython.bint,
) -> cython.longlong:
    """Pages of the free blocks that a scan with this stride meets; `take`: they leave the free lists."""
    at: cython.longlong = start
    page: cython.longlong
    size: cython.longlong
    found: cython.longlong = 0
    while at < end:
        if head[at] >= 0:
            size = cython.cast(cython.longlong, 1) << head[at]
            if take:
                head[at] = -1
                for page in range(at, at + size):
                    last[page] = SCAN
            found += size
            at += size - 1
        at += stride
    return found


@cython.cfunc
def _scan(
    head: cython.schar[::1],
    last: cython.uchar[::1],
    start: cython.longlong,
    end: cython.longlong,
    scanned: cython.longlong,
    taken: cython.longlong,
) -> cython.longlong:
    """Take the free blocks that a scan of compaction has taken; returns their pages.

    mm/compaction.c:isolate_freepages_block looks at every `stride`-th page frame, a power of two up to 32,
    and takes each free block that starts there. The event does not say the stride: it is the one with which
    the pages taken come out right, else the one nearest to the page frames looked at. (Compound pages shift
    later positions when the stride is not 1; a scan that took nothing is therefore left alone.)
    """
    stride: cython.longlong = 1
    chosen: cython.longlong = 1
    found: cython.longlong
    off: cython.longlong
    best: cython.longlong = -1
    if taken == 0:
        return 0
    while stride <= 32:
        found = _walk(head, last, start, end, stride, False)
        off = (end - start - found) // stride - (scanned - taken)
        if off < 0:
            off = -off
        if found != taken:
            off += cython.cast(cython.longlong, 1) << 40
        if best < 0 or off < best:
            best = off
            chosen = stride
        stride *= 2
    return _walk(head, last, start, end, chosen, True)


def apply_events(
    kind: cython.const[cython.uchar][::1],
    order: cython.const[cython.schar][::1],
    pfn: cython.const[cython.longlong][::1],
    end: cython.const[cython.longlong][::1],
    scanned: cython.const[cython.int][::1],
    taken: cython.const[cython.int][::1],
    begin: cython.longlong,
    stop: cython.longlong,
    orders: cython.int,
    direct: cython.int,
    cached: cython.int,
    scans: cython.bint,
    head: cython.schar[::1],
    zone: cython.short[::1],
    last: cython.uchar[::1],
    compacted: cython.uchar[::1],
    problems: cython.longlong[:, ::1],
    counters: cython.longlong[::1],
) -> None:
    """Apply the events `begin` to `stop` (trace.Kind; columns as in trace.EVENT).

    `direct`: mm_page_free of this order or more is itself the return, but for order `cached`. `scans`:
    compaction is followed by its scans' events. `head`, `zone` (-1: none), `last` (kind of the last event
    that named it): by page frame. `compacted`: by zone, set once compaction runs there. `problems`: rows
    (event, cause, pages), as many as fit. `counters`: COUNTERS numbers, added to.
    """
    limit: cython.longlong = head.shape[0]
    index: cython.longlong
    page: cython.longlong
    size: cython.longlong
    found: cython.longlong
    at: cython.longlong
    what: cython.uchar
    high: cython.int
    for index in range(begin, stop):
        what = kind[index]
        if what == MARK:
            continue
        page = pfn[index]
        if what in (SCAN, COMPACT):
            if page >= limit or end[index] > limit or zone[page] < 0:
                _disagree(problems, counters, index, OUTSIDE, 0)
                continue
            compacted[zone[page]] = 1
            if what == SCAN and scans:
                found = _scan(head, last, page, end[index], scanned[index], taken[index])
                counters[SCANNED] += found
                if found > taken[index]:
                    _disagree(problems, counters, index, COMPACTED, found - taken[index])
                elif found < taken[index]:
                    _disagree(problems, counters, index, UNKNOWN_RETURN, taken[index] - found)
            continue
        high = order[index]
        size = cython.cast(cython.longlong, 1) << high
        if high < 0 or high >= orders or page + size > limit or zone[page] < 0:
            _disagree(problems, counters, index, OUTSIDE, size if high >= 0 else 0)
            continue
        if what == TAKE or (what == ISOLATE and taken[index] > 0):
            at = _holder(head, page, orders)
            found = _cut(head, page, high, orders)
            counters[TAKEN] += size
            if found < size:
                _disagree(
                    problems,
                    counters,
                    index,
                    PAST_LISTS if _seen(last, page, size, FREE) else UNKNOWN_RETURN,
                    size - found,
                )
            elif at != page:
                _disagree(problems, counters, index, INSIDE, 0)
        elif what == ISOLATE:
            continue
        else:
            # Allocated, freed or returned: until now none of these pages was on the free lists.
            found = _cut(head, page, high, orders)
            if found:
                _disagree(
                    problems, counters, index, COMPACTED if compacted[zone[page]] else UNKNOWN_TAKE, found
                )
            if what in (DRAIN, RETURN) or (what == FREE and high >= direct and high != cached):
                _insert(head, zone, page, high, orders)
                counters[RETURNED] += size
                if what == FREE:
                    what = RETURN
            elif what != ALLOC and what != FREE:
                continue
        for at in range(page, page + size):
            last[at] = what
