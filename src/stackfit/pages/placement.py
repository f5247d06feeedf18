"""Free memory put into a zone from what /proc tells: the number of free blocks by order and migratetype.

Neither buddyinfo nor pagetypeinfo says where a block is. Blocks are packed, the largest first, into maximal
regions of their own migratetype, from the end down, and never so that two would merge; what lies below is in
use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stackfit.pages.allocator_constants import MOVABLE, ORDERS, RECLAIMABLE, UNMOVABLE
from stackfit.pages.zone import Zone

__all__ = ["fill_per_cpu_lists", "place_blocks", "types_after_boot"]

_REGION = 1 << (ORDERS - 1)  # pages


def types_after_boot(counts: Sequence[int]) -> dict[int, list[int]]:
    """Free blocks by migratetype, told from their number by order on a machine that has only booted.

    What the kernel takes at boot makes one maximal region unmovable and one reclaimable (pagetypeinfo of the
    recorded boots), each in use from its low end and so with one free block of an order at most; all other
    regions are movable. Reclaimable slabs are the fewest by far and unmovable memory the most: the blocks of
    each order are dealt out to reclaimable, movable, unmovable, and what remains to movable.
    """
    found = {kind: [0] * ORDERS for kind in (UNMOVABLE, MOVABLE, RECLAIMABLE)}
    turn = (RECLAIMABLE, MOVABLE, UNMOVABLE)
    for order, number in enumerate(counts):
        for at in range(number):
            dealt = at < len(turn) and order < ORDERS - 1
            found[turn[at] if dealt else MOVABLE][order] += 1
    return found


def place_blocks(zone: Zone, free: Mapping[int, Sequence[int]]) -> None:
    """Free blocks (by migratetype, then by order) become the zone's; its free lists must be empty.

    Unmovable regions come first, then reclaimable ones, then movable ones, as boot takes memory; a region
    that the zone does not span to its end is movable. ValueError: the zone is too small for these blocks.
    """
    whole = zone.end - zone.end % _REGION
    starts = iter(range(0, whole, _REGION))
    for kind in (UNMOVABLE, RECLAIMABLE, MOVABLE):
        regions = _Regions()
        if kind == MOVABLE:
            _declare(zone, whole, zone.pages, kind)
            page = whole
            for order in range(ORDERS - 1, -1, -1):
                if zone.end - page >= 1 << order:
                    regions.add(order, page, True)
                    page += 1 << order
        for order in range(ORDERS - 1, -1, -1):
            for _ in range(free.get(kind, [0] * ORDERS)[order]):
                found = regions.take(order)
                if found is None:
                    start = next(starts, None)
                    if start is None:
                        raise ValueError(f"{zone.end} pages are too few for these free blocks")
                    _declare(zone, start, start + _REGION, kind)
                    regions.add(ORDERS - 1, start, True)
                    found = regions.take(order)
                    assert found is not None
                zone.put(found, order, kind)
    for start in starts:  # nothing is free there: in use since boot, movable as all regions begin
        _declare(zone, start, start + _REGION, MOVABLE)


def _declare(zone: Zone, start: int, end: int, kind: int) -> None:
    for block in range(start >> zone.block_order, end >> zone.block_order):
        zone.set_block_type(block, kind)


class _Regions:
    """Aligned regions that may still get free blocks, by order; some must not become one free block."""

    def __init__(self) -> None:
        self._whole: list[list[int]] = [[] for _ in range(ORDERS)]
        self._partly: list[list[int]] = [[] for _ in range(ORDERS)]

    def add(self, order: int, page: int, whole: bool) -> None:
        (self._whole if whole else self._partly)[order].append(page)

    def take(self, order: int) -> int | None:
        """First page for a block of `order`, at the end of the smallest region with room, or None."""
        if self._whole[order]:
            return self._whole[order].pop()
        for size in range(order + 1, ORDERS):
            for pages in (self._partly[size], self._whole[size]):
                if pages:
                    end = pages.pop() + (1 << size)
                    for rest in range(order, size):
                        # The block's own buddy must not be wholly free, or the two would be one block.
                        self.add(rest, end - (2 << rest), rest != order)
                    return end - (1 << order)
        return None


def fill_per_cpu_lists(zone: Zone, number: int) -> None:
    """Put so many pages, until now in use, on the per-CPU lists, as movable ones (user space ran last) where
    there are any.

    They are what a refill (mm/page_alloc.c:rmqueue_bulk) has left, so they lie side by side, and merge when
    they
    are drained; with free blocks they do not. Neither buddyinfo nor MemFree counts them. ValueError: the
    zone has
    no room for them.
    """
    states, kinds = zone.states(), zone.block_types()
    wanted = MOVABLE if zone.mobility else UNMOVABLE  # the one list that there is then
    run, least = 0, min(number, zone.per_cpu_batch)
    for page in range(zone.begin, zone.end):
        usable = kinds[page >> zone.block_order] == wanted and not states[page]
        run = run + 1 if usable else 0
        last = page + 1 == zone.end or kinds[(page + 1) >> zone.block_order] != wanted or states[page + 1]
        if run and (run > number or last):
            # One page stays in use between them and what is free behind.
            taken = min(run - 1, number)
            if taken >= least:
                for one in range(page - taken, page):
                    zone.occupy(one, 1)
                    zone.release(one, 0)
                number -= taken
                least = min(number, least)
            run = 0
        if not number:
            return
    if number:
        raise ValueError(f"{number} pages of the per-CPU lists found no place")
