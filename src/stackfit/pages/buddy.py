# cython: boundscheck=True, wraparound=False, cdivision=True
"""Free lists of a zone by order and migratetype: splitting, merging, stealing (compiled; or plain).

A page is an index into the zone's arrays; block starts are aligned to their size, so the buddy of a block
differs from it in one bit. All lists, those of free blocks and those that other parts of a zone keep, are
threaded through the same two arrays: a page is on one list at most, and a list's own node follows the pages.

Sources: mm/page_alloc.c of Linux 6.1 (__free_one_page, __rmqueue_smallest, __rmqueue_fallback,
steal_suitable_fallback) and 2.6.24 to 2.6.35 (__rmqueue_fallback), as `steal` says.
"""

from __future__ import annotations

import cython
import numpy as np

if not cython.compiled:
    from stackfit.pages.allocator_constants import (
        FREE,
        HIGHATOMIC,
        KERNEL,
        LISTS,
        LRU,
        MOVABLE,
        NONE,
        ORDERS,
        RECLAIMABLE,
        STEAL_CLAIM,
        STEAL_FIRST,
        STEAL_NONE,
        TYPES,
        UNMOVABLE,
    )

__all__ = ["Buddy"]


class Buddy:
    """The zone spans pages `begin` to `pages`; arrays are rounded up to a multiple of the largest block.
    Every page starts as ABSENT. Of a pageblock that the zone does not span from its start, stealing moves
    what lies above the stolen block; one that it does not span to its end it never moves
    (move_freepages_block).

    `boost`: pages that watermarks are raised by after stealing, up to `boost_most` (boost_watermark).
    `block_order`: pageblock_order. `steal`: STEAL_*. `tail_hint`: blocks whose merged buddy is free too go
    to the list's end (2.6.34 and later).
    """

    def __init__(self, begin: int, pages: int, block_order: int, steal: int, tail_hint: bool) -> None:
        if not 0 <= begin < pages:
            raise ValueError(f"pages {begin} to {pages}")
        if not 0 < block_order < ORDERS:
            raise ValueError(f"pageblock order {block_order}")
        self.begin = begin
        self.end = pages
        pages = -(-pages >> (ORDERS - 1) << (ORDERS - 1))
        self.pages = pages
        self.block_order = block_order
        self.steal = steal
        self.tail_hint = tail_hint
        self.free = 0
        self.boost = self.boost_most = 0
        self.stolen_blocks = 0
        self.claimed_blocks = 0
        nodes = np.arange(pages + LISTS, dtype=np.int32)
        self.after = nodes.data
        self.before = nodes.copy().data
        self.head = np.full(pages, -1, np.int8).data
        self.listed = np.zeros(pages, np.int8).data
        self.state = np.zeros(pages, np.uint8).data
        self.block_type = np.zeros(pages >> block_order, np.int8).data
        self.count = np.zeros(TYPES * ORDERS, np.int64).data
        self.free_of = np.zeros(TYPES, np.int64).data

    # lists

    @cython.boundscheck(False)
    def link_first(self, node: cython.int, which: cython.int) -> None:
        end: cython.int = self.pages + which
        first: cython.int = self.after[end]
        self.after[node] = first
        self.before[node] = end
        self.before[first] = node
        self.after[end] = node

    @cython.boundscheck(False)
    def link_last(self, node: cython.int, which: cython.int) -> None:
        end: cython.int = self.pages + which
        last: cython.int = self.before[end]
        self.before[node] = last
        self.after[node] = end
        self.after[last] = node
        self.before[end] = node

    @cython.boundscheck(False)
    def unlink(self, node: cython.int) -> None:
        a: cython.int = self.before[node]
        b: cython.int = self.after[node]
        self.after[a] = b
        self.before[b] = a

    # free blocks

    @cython.boundscheck(False)
    def _enlist(
        self, page: cython.int, order: cython.int, migratetype: cython.int, last: cython.bint
    ) -> None:
        which: cython.int = migratetype * ORDERS + order
        self.head[page] = order
        self.listed[page] = migratetype
        self.count[which] += 1
        if last:
            self.link_last(page, which)
        else:
            self.link_first(page, which)

    @cython.boundscheck(False)
    def _delist(self, page: cython.int, order: cython.int) -> None:
        self.unlink(page)
        self.count[self.listed[page] * ORDERS + order] -= 1
        self.head[page] = -1

    def put(self, page: cython.int, order: cython.int, migratetype: cython.int) -> None:
        """Give back a block: merged with its buddy for as long as that is free, then put on a list.

        ValueError: a page of it is free already, or the block is out of the zone or not aligned.
        """
        i: cython.int
        size: cython.int = 1 << order
        buddy: cython.int
        above: cython.int
        other: cython.int
        last: cython.bint = False
        if order < 0 or order >= ORDERS or page < self.begin or page + size > self.end or page & (size - 1):
            raise ValueError(f"no block of order {order} at page {page}")
        for i in range(page, page + size):
            if self.state[i] == FREE:
                raise ValueError(f"page {i} is free already")
        for i in range(page, page + size):
            self.state[i] = FREE
        self.free += size
        self.free_of[migratetype] += size
        while order < ORDERS - 1:
            buddy = page ^ (1 << order)
            if self.head[buddy] != order:
                break
            self.free_of[self.listed[buddy]] -= 1 << order
            self.free_of[migratetype] += 1 << order
            self._delist(buddy, order)
            page &= buddy
            order += 1
        if self.tail_hint and order < ORDERS - 2:
            above = page & ~(1 << order)
            other = above ^ (2 << order)
            last = self.head[other] == order + 1
        self._enlist(page, order, migratetype, last)

    @cython.boundscheck(False)
    def expand(self, page: cython.int, low: cython.int, high: cython.int, migratetype: cython.int) -> None:
        """Of a block of order `high` keep the first 2^low pages: the rest goes back to the lists."""
        while high > low:
            high -= 1
            self._enlist(page + (1 << high), high, migratetype, False)

    @cython.boundscheck(False)
    def _take_smallest(self, order: cython.int, migratetype: cython.int) -> cython.int:
        high: cython.int
        i: cython.int
        page: cython.int
        for high in range(order, ORDERS):
            page = self.after[self.pages + migratetype * ORDERS + high]
            if page >= self.pages:
                continue
            self._delist(page, high)
            self.expand(page, order, high, migratetype)
            for i in range(page, page + (1 << order)):
                self.state[i] = KERNEL
            self.free -= 1 << order
            self.free_of[migratetype] -= 1 << order
            return page
        return NONE

    def take(self, order: cython.int, migratetype: cython.int) -> cython.int:
        """First page of a block of `order`, from the lists of `migratetype` or stolen; NONE: there is none.

        Its pages are KERNEL until the caller says what they are.
        """
        page: cython.int
        if order < 0 or order >= ORDERS or migratetype < 0 or migratetype >= TYPES:
            raise ValueError(f"order {order}, migratetype {migratetype}")
        page = self._take_smallest(order, migratetype)
        if page >= 0 or self.steal == STEAL_NONE or migratetype == HIGHATOMIC:
            return page
        if self.steal == STEAL_FIRST:
            return self._take_first(order, migratetype)
        if self._steal(order, migratetype):
            page = self._take_smallest(order, migratetype)
        return page

    def take_movable(self, order: cython.int) -> cython.int:
        """A block of movable lists only, nothing stolen."""
        return self._take_smallest(order, MOVABLE)

    # stealing

    def _fallback(self, order: cython.int, migratetype: cython.int) -> cython.int:
        """Migratetype whose list of that order is taken from, in the order of mm/page_alloc.c:fallbacks."""
        first: cython.int
        second: cython.int
        if migratetype == MOVABLE:
            first, second = RECLAIMABLE, UNMOVABLE
        elif migratetype == UNMOVABLE:
            first, second = RECLAIMABLE, MOVABLE
        else:
            first, second = UNMOVABLE, MOVABLE
        if self.count[first * ORDERS + order]:
            return first
        if self.count[second * ORDERS + order]:
            return second
        return NONE

    def _take_first(self, order: cython.int, migratetype: cython.int) -> cython.int:
        """As Linux up to 4.1: the largest block of another migratetype is split. The rest of it stays with
        that type, unless the block's whole pageblock is moved first."""
        high: cython.int
        other: cython.int
        page: cython.int
        i: cython.int
        block: cython.int
        start: cython.int
        size: cython.int = 1 << self.block_order
        for high in range(ORDERS - 1, order - 1, -1):
            other = self._fallback(high, migratetype)
            if other < 0:
                continue
            page = self.after[self.pages + other * ORDERS + high]
            block = page >> self.block_order
            start = block << self.block_order
            self.stolen_blocks += 1
            if high >= self.block_order // 2 or migratetype == RECLAIMABLE:
                other = migratetype
                if start + size <= self.end:
                    i = self.move_blocks(page if start < self.begin else start, start + size, migratetype)
                    if i >= size >> 1:
                        self.block_type[block] = migratetype
                        self.claimed_blocks += 1
            self.free_of[self.listed[page]] -= 1 << high
            self.free_of[other] += (1 << high) - (1 << order)
            self.free -= 1 << order
            self._delist(page, high)
            if high > self.block_order:
                for i in range(1 << (high - self.block_order)):
                    self.block_type[block + i] = migratetype
            self.expand(page, order, high, other)
            for i in range(page, page + (1 << order)):
                self.state[i] = KERNEL
            return page
        return NONE

    def _can_claim(self, order: cython.int, migratetype: cython.int) -> cython.bint:
        return order >= self.block_order // 2 or migratetype in (RECLAIMABLE, UNMOVABLE)

    def _steal(self, order: cython.int, migratetype: cython.int) -> cython.bint:
        """Move a block of another migratetype, and perhaps its whole pageblock, to the lists of this one."""
        high: cython.int
        other: cython.int
        for high in range(ORDERS - 1, order - 1, -1):
            other = self._fallback(high, migratetype)
            if other < 0:
                continue
            whole: cython.bint = self._can_claim(high, migratetype)
            if not whole and migratetype == MOVABLE and high > order:
                # It fits any block: spare the large ones (find_smallest).
                for high in range(order, ORDERS):
                    other = self._fallback(high, migratetype)
                    if other >= 0:
                        break
            self.stolen_blocks += 1
            self._claim(self.after[self.pages + other * ORDERS + high], high, migratetype, whole)
            return True
        return False

    def _claim(
        self, page: cython.int, order: cython.int, migratetype: cython.int, whole: cython.bint
    ) -> None:
        block: cython.int = page >> self.block_order
        start: cython.int = block << self.block_order
        old: cython.int = self.block_type[block]
        size: cython.int = 1 << self.block_order
        i: cython.int
        moved: cython.int
        alike: cython.int = 0
        if self.boost_most and order < self.block_order and old != HIGHATOMIC:
            self.boost = min(self.boost + size, self.boost_most)
        if order >= self.block_order:
            for i in range(1 << (order - self.block_order)):
                self.block_type[block + i] = migratetype
            self.claimed_blocks += 1 << (order - self.block_order)
        elif whole and old != HIGHATOMIC and start + size <= self.end:
            # Pages compatible with the new type: what is on LRU lists is movable, the rest is not.
            for i in range(start, start + size):
                if self.state[i] >= LRU:
                    alike += 1
            if migratetype != MOVABLE:
                alike = size - alike if old == MOVABLE else 0
            moved = self.move_blocks(page if start < self.begin else start, start + size, migratetype)
            if migratetype != MOVABLE and old == MOVABLE:
                alike -= moved
            if moved + alike >= size >> 1:
                self.block_type[block] = migratetype
                self.claimed_blocks += 1
            return
        self._delist(page, order)
        self.free_of[self.listed[page]] -= 1 << order
        self.free_of[migratetype] += 1 << order
        self._enlist(page, order, migratetype, True)

    def move_blocks(self, page: cython.int, end: cython.int, migratetype: cython.int) -> cython.int:
        """Put the free blocks from `page` to `end` on the lists of `migratetype`, at their ends (under
        STEAL_FIRST at their heads); pages moved."""
        moved: cython.int = 0
        order: cython.int
        while page < end:
            order = self.head[page]
            if order < 0:
                page += 1
                continue
            self._delist(page, order)
            self.free_of[self.listed[page]] -= 1 << order
            self.free_of[migratetype] += 1 << order
            self._enlist(page, order, migratetype, self.steal == STEAL_CLAIM)
            moved += 1 << order
            page += 1 << order
        return moved

    def take_at(self, page: cython.int) -> None:
        """Take the free block that starts at `page` (compaction isolates it). ValueError: none does."""
        i: cython.int
        order: cython.int = self.head[page]
        if order < 0:
            raise ValueError(f"no free block starts at page {page}")
        self._delist(page, order)
        for i in range(page, page + (1 << order)):
            self.state[i] = KERNEL
        self.free -= 1 << order
        self.free_of[self.listed[page]] -= 1 << order

    # for tests and reports

    def counts(self) -> list[int]:
        """Free blocks by order, as in /proc/buddyinfo."""
        return [sum(self.count[kind * ORDERS + order] for kind in range(TYPES)) for order in range(ORDERS)]

    def counts_of(self, migratetype: int) -> list[int]:
        """… of one migratetype, as in /proc/pagetypeinfo."""
        return [self.count[migratetype * ORDERS + order] for order in range(ORDERS)]

    def block_types(self) -> list[int]:
        """Migratetype by pageblock."""
        return list(self.block_type)

    def set_block_type(self, block: int, migratetype: int) -> None:
        """Say what a pageblock is for, before any of its pages is given."""
        self.block_type[block] = migratetype

    def listing(self, which: int) -> list[int]:
        """Pages of a list, first to last. ValueError: it does not come back to its own node."""
        found: list[int] = []
        node = self.after[self.pages + which]
        while node < self.pages:
            found.append(node)
            if len(found) > self.pages or self.before[self.after[node]] != node:
                raise ValueError(f"list {which} is broken after {len(found)} pages")
            node = self.after[node]
        return found

    def states(self) -> list[int]:
        """What each page is used for."""
        return list(self.state)

    def heads(self) -> list[int]:
        """By page: order of the free block that starts there, or -1."""
        return list(self.head)
