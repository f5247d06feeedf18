# cython: boundscheck=True, wraparound=False, cdivision=True
"""One zone: watermarks, per-CPU lists and LRU lists over the free lists (compiled; runs uncompiled too).

A block of the kernel's own is known by its first page and never moves. A page that reclaim may take or
compaction may move (anonymous memory, page cache, reclaimable slabs) is known by a *handle*, which leads to
wherever the page is now. Counts are pages.

Sources: mm/page_alloc.c of Linux 6.1 (zone_watermark_ok, rmqueue, rmqueue_bulk, free_unref_page_commit,
free_pcppages_bulk) and, for older rules, of the versions that `eras/` names.
"""

from __future__ import annotations

from collections.abc import Sequence

import cython
import numpy as np

if not cython.compiled:
    from stackfit.pages.allocator_constants import (
        ACTIVE_ANONYMOUS,
        ACTIVE_FILE,
        ANONYMOUS,
        BELOW,
        COPIED,
        FILE,
        FREE,
        HIGHATOMIC,
        INACTIVE_ANONYMOUS,
        INACTIVE_FILE,
        KERNEL,
        LRU_LISTS,
        MARKED,
        MOVABLE,
        NONE,
        ORDERS,
        PER_CPU,
        PER_CPU_LISTS,
        PER_CPU_ORDERS,
        PER_CPU_TYPES,
        PINNED,
        SETTLED,
        SLABS,
        SWAPPED_OUT,
        UNEVICTABLE,
        WATERMARK_FLAT,
        WATERMARK_HALVING,
        WRITEBACK,
        YOUNG,
    )
    from stackfit.pages.buddy import Buddy

__all__ = ["Zone"]


class Zone(Buddy):
    """`begin`, `pages`, `block_order`, `steal`, `tail_hint`: see Buddy. `protection`: pages kept from
    requests that could have used the zone with that index (lowmem_reserve). Watermarks, `per_cpu_*` and the
    rest are set by whoever makes the zone; until then nothing is withheld and there are no per-CPU lists.
    """

    def __init__(
        self,
        name: str,
        begin: int,
        pages: int,
        block_order: int,
        steal: int,
        tail_hint: bool,
        protection: Sequence[int],
    ) -> None:
        Buddy.__init__(self, begin, pages, block_order, steal, tail_hint)
        pages = self.pages
        self.name = name
        self.managed = 0
        self.minimum = self.low = self.high = 0
        self.watermark_rule = 0
        self.mobility = True
        self.per_cpu_orders = 0
        self.per_cpu_high = 0
        self.per_cpu_batch = 1
        self.per_cpu_scaled = False
        self.per_cpu_count = 0
        self.working_set = False
        self.reclaim_active = False
        self.age = 0
        self.evicted_at = np.zeros(pages, np.int64).data
        self.evicted_settled = np.zeros(pages, np.uint8).data
        self.family = np.zeros(pages, np.int32).data
        self.written = np.zeros(pages, np.int32).data
        self.written_count = 0
        self.free_factor = 0
        self.highatomic_pages = 0
        self.splits = 0
        self.protection = np.array(protection, np.int64).data
        self.listed_pages = np.zeros(SLABS - LRU_LISTS + 1, np.int64).data
        self.referenced = np.zeros(pages, np.uint8).data
        self.handle_of = np.full(pages, -1, np.int32).data
        self.page_of = np.full(pages, NONE, np.int32).data
        self.free_handles = np.arange(pages - 1, -1, -1, dtype=np.int32).data
        self.handles_left = pages

    # watermarks

    def watermark_ok(
        self, order: cython.int, mark: cython.longlong, highest: cython.int, atomic: cython.bint
    ) -> cython.bint:
        """Would a request of `order` leave the zone above `mark` pages (the boost included by the caller)?

        `highest`: index of the highest zone that the request may use. `atomic`: it may go deeper.
        """
        free: cython.longlong = self.free
        o: cython.int
        kind: cython.int
        if atomic:
            mark -= mark // 2
            mark -= mark // 4
        else:
            free -= self.highatomic_pages
        if self.watermark_rule == WATERMARK_FLAT:
            return free >= mark + self.protection[highest] + (1 << order)
        free -= (1 << order) - 1
        if free <= mark + self.protection[highest]:
            return False
        if order == 0:
            return True
        if self.watermark_rule == WATERMARK_HALVING:
            for o in range(order):
                for kind in range(HIGHATOMIC + 1):
                    free -= self.count[kind * ORDERS + o] << o
                mark >>= 1
                if free <= mark:
                    return False
            return True
        for o in range(order, ORDERS):
            for kind in range(HIGHATOMIC + (1 if atomic else 0)):
                if self.count[kind * ORDERS + o]:
                    return True
        return False

    # allocation

    def allocate(
        self,
        order: cython.int,
        migratetype: cython.int,
        mark: cython.longlong,
        highest: cython.int,
        atomic: cython.bint,
    ) -> cython.int:
        """First page of a block of 2^order pages; BELOW: the watermark forbids it, NONE: there is no block.

        The pages are KERNEL, referenced by that page; `adopt` gives a single one to an LRU list.
        """
        if order < 0 or order >= ORDERS or migratetype < 0 or migratetype >= HIGHATOMIC:
            raise ValueError(f"order {order}, migratetype {migratetype}")
        if not self.watermark_ok(order, mark, highest, atomic):
            return BELOW
        if not self.mobility:
            migratetype = 0
        if order < self.per_cpu_orders:
            return self._from_per_cpu(order, migratetype)
        page: cython.int = NONE
        if atomic and self.highatomic_pages:
            page = self.take(order, HIGHATOMIC)
        if page < 0:
            page = self.take(order, migratetype)
        return page

    def allocate_many(
        self,
        order: cython.int,
        migratetype: cython.int,
        mark: cython.longlong,
        highest: cython.int,
        pages: cython.int[::1],
    ) -> cython.int:
        """`allocate` into `pages`, one after the other until it is full or there is no more; how many."""
        n: cython.Py_ssize_t
        page: cython.int
        for n in range(pages.shape[0]):
            page = self.allocate(order, migratetype, mark, highest, False)
            if page < 0:
                return n
            pages[n] = page
        return pages.shape[0]

    def release_many(self, pages: cython.int[::1], order: cython.int) -> None:
        """`release` each, first to last."""
        n: cython.Py_ssize_t
        for n in range(pages.shape[0]):
            self.release(pages[n], order)

    def _from_per_cpu(self, order: cython.int, migratetype: cython.int) -> cython.int:
        which: cython.int = PER_CPU_LISTS + order * PER_CPU_TYPES + migratetype
        page: cython.int = self.after[self.pages + which]
        i: cython.int
        if page >= self.pages:
            self._refill(order, migratetype, which)
            page = self.after[self.pages + which]
            if page >= self.pages:
                return NONE
        self.free_factor >>= 1
        self.unlink(page)
        self.per_cpu_count -= 1 << order
        for i in range(page, page + (1 << order)):
            self.state[i] = KERNEL
        return page

    def _refill(self, order: cython.int, migratetype: cython.int, which: cython.int) -> None:
        """rmqueue_bulk: up to a batch of blocks, in the order of the free list."""
        batch: cython.int = self.per_cpu_batch
        i: cython.int
        page: cython.int
        if batch > 1:
            batch = max(batch >> order, 2)
        while batch > 0:
            batch -= 1
            page = self.take(order, migratetype)
            if page < 0:
                return
            for i in range(page, page + (1 << order)):
                self.state[i] = PER_CPU
            self.listed[page] = migratetype
            self.link_last(page, which)
            self.per_cpu_count += 1 << order

    def release(self, page: cython.int, order: cython.int) -> None:
        """Give back a block of the kernel's own. ValueError: it is not one."""
        i: cython.int
        if page < self.begin or order < 0 or order >= ORDERS or page + (1 << order) > self.end:
            raise ValueError(f"no block of order {order} at page {page}")
        for i in range(page, page + (1 << order)):
            if self.state[i] != KERNEL:
                raise ValueError(f"page {i} is not in use by the kernel")
        kind: cython.int = self.block_type[page >> self.block_order]
        if order >= self.per_cpu_orders or not self.per_cpu_high:
            self.put(page, order, kind)
            return
        if kind == HIGHATOMIC:
            kind = MOVABLE
        for i in range(page, page + (1 << order)):
            self.state[i] = PER_CPU
        self.listed[page] = kind
        which: cython.int = order * PER_CPU_TYPES + kind
        self.link_first(page, PER_CPU_LISTS + which)
        self.per_cpu_count += 1 << order
        high: cython.int = self._per_cpu_limit()
        if self.per_cpu_count >= high:
            self._free_bulk(self._number_to_free(high), which)

    def _per_cpu_limit(self) -> cython.int:
        """nr_pcp_high: while kswapd is at work, what is freed goes back almost at once (5.14 and later)."""
        if self.reclaim_active and self.per_cpu_scaled:
            return min(self.per_cpu_high, self.per_cpu_batch << 2)
        return self.per_cpu_high

    def _number_to_free(self, high: cython.int) -> cython.int:
        """nr_pcp_free: at least a batch; more for as long as pages are only freed (5.14 and later)."""
        batch: cython.int = self.per_cpu_batch
        if not self.per_cpu_scaled:
            return batch
        if high < batch:
            return 1
        most: cython.int = high - batch
        number: cython.int = batch << self.free_factor
        if number < most:
            self.free_factor += 1
        return max(min(number, most), batch)

    def _free_bulk(self, wanted: cython.int, start: cython.int) -> None:
        """free_pcppages_bulk: from the cold ends of the lists, list after list, beginning after `start`'s
        predecessor; each list is emptied before the next one's turn."""
        lists: cython.int = PER_CPU_ORDERS * PER_CPU_TYPES
        which: cython.int = start
        order: cython.int
        page: cython.int
        i: cython.int
        wanted = min(wanted, self.per_cpu_count)
        while wanted > 0:
            page = self.before[self.pages + PER_CPU_LISTS + which]
            if page >= self.pages:
                which = which + 1 if which + 1 < lists else 0
                continue
            order = which // PER_CPU_TYPES
            self.unlink(page)
            wanted -= 1 << order
            self.per_cpu_count -= 1 << order
            for i in range(page, page + (1 << order)):
                self.state[i] = KERNEL
            self.put(page, order, self.listed[page])

    def drain(self) -> None:
        """Empty the per-CPU lists (drain_all_pages)."""
        self._free_bulk(self.per_cpu_count, 0)

    # pages on LRU lists

    def adopt(self, page: cython.int, state: cython.int, which: cython.int) -> cython.int:
        """Put a page just allocated on the LRU list `which`, as `state`; its handle."""
        if self.state[page] != KERNEL or self.handle_of[page] >= 0:
            raise ValueError(f"page {page} is not newly allocated")
        if not LRU_LISTS <= which <= SLABS:
            raise ValueError(f"list {which} is no LRU list")
        self.handles_left -= 1
        handle: cython.int = self.free_handles[self.handles_left]
        self.handle_of[page] = handle
        self.page_of[handle] = page
        self.state[page] = state
        # A fault leaves a page young, a read marks it; both count as its first use.
        self.referenced[page] = 0
        self.family[page] = 1
        if self.working_set:
            self.referenced[page] = YOUNG if state == ANONYMOUS else MARKED
        # Which list a page is on is kept where free blocks have their migratetype.
        self.listed[page] = which
        self.link_first(page, which)
        self.listed_pages[which - LRU_LISTS] += 1
        return handle

    def page(self, handle: cython.int) -> cython.int:
        """Where a handle's page is; negative: what `forget` said."""
        return self.page_of[handle]

    def reference(self, handle: cython.int) -> None:
        """The page was used: reclaim will spare it once."""
        page: cython.int = self.page_of[handle]
        if page < 0:
            return
        if not self.working_set or self.state[page] != FILE:
            self.referenced[page] |= YOUNG
        elif not self.referenced[page] & MARKED:
            self.referenced[page] |= MARKED
        elif self.listed[page] == INACTIVE_FILE:  # folio_mark_accessed: the second use
            self.activate(handle)

    def activate(self, handle: cython.int) -> None:
        """To the active list: a page of the working set (ANONYMOUS or FILE)."""
        page: cython.int = self.page_of[handle]
        if page < 0 or (self.state[page] != ANONYMOUS and self.state[page] != FILE):
            return
        self.referenced[page] &= ~MARKED
        self.requeue(page, ACTIVE_FILE if self.state[page] == FILE else ACTIVE_ANONYMOUS)
        self.age += 1

    def settle(self, handle: cython.int) -> None:
        """The page has been on an active list before (folio_set_workingset)."""
        if self.page_of[handle] >= 0:
            self.referenced[self.page_of[handle]] |= SETTLED

    def settled(self, handle: cython.int) -> cython.bint:
        """Had this handle's page been on an active list when reclaim took it?"""
        return self.evicted_settled[handle] != 0

    def relate(self, handle: cython.int, members: cython.int) -> None:
        """The page is a child's that has not used it. So many mappings are looked at to find the one that it
        has (rmap_walk_anon goes through those of the parent and of all children made before)."""
        page: cython.int = self.page_of[handle]
        if page >= 0:
            self.family[page] = members
            self.referenced[page] = 0

    def copied(self, handle: cython.int) -> None:
        """Swap keeps its copy of the page, which was read from there."""
        if self.page_of[handle] >= 0:
            self.referenced[self.page_of[handle]] |= COPIED

    def has_copy(self, handle: cython.int) -> cython.bint:
        """Is there a place in swap that belongs to this handle's page?"""
        page: cython.int = self.page_of[handle]
        return page == SWAPPED_OUT or (page >= 0 and self.referenced[page] & COPIED != 0)

    def begin_write(self, page: cython.int) -> None:
        """Write a page to swap; it stays on its list until `end_write`."""
        self.referenced[page] |= WRITEBACK | COPIED
        self.written[self.written_count] = self.handle_of[page]
        self.written_count += 1

    def take_written(self) -> list[int]:
        """Handles of the pages that began to be written since the last call."""
        handles = [self.written[n] for n in range(self.written_count)]
        self.written_count = 0
        return handles

    def end_write(self, handle: cython.int) -> None:
        """The page is in swap: it is the next that reclaim looks at (folio_rotate_reclaimable)."""
        page: cython.int = self.page_of[handle]
        if page < 0 or not self.referenced[page] & WRITEBACK:
            return
        self.referenced[page] &= ~WRITEBACK
        if self.state[page] != ANONYMOUS:
            return
        self.unlink(page)
        self.listed_pages[self.listed[page] - LRU_LISTS] -= 1
        self.listed[page] = INACTIVE_ANONYMOUS
        self.link_last(page, INACTIVE_ANONYMOUS)
        self.listed_pages[INACTIVE_ANONYMOUS - LRU_LISTS] += 1

    def distance(self, handle: cython.int) -> cython.longlong:
        """Pages that were evicted or activated since this handle's page was (workingset_refault)."""
        return self.age - self.evicted_at[handle]

    def pin(self, handle: cython.int) -> None:
        """Make a handle's page unevictable (mlock). ValueError: it has none."""
        page: cython.int = self.page_of[handle]
        if page < 0:
            raise ValueError(f"handle {handle} has no page")
        self.state[page] = PINNED
        self.requeue(page, UNEVICTABLE)

    def requeue(self, page: cython.int, which: cython.int) -> None:
        """To the head of an LRU list."""
        self.unlink(page)
        self.listed_pages[self.listed[page] - LRU_LISTS] -= 1
        self.listed[page] = which
        self.link_first(page, which)
        self.listed_pages[which - LRU_LISTS] += 1

    def forget(self, handle: cython.int, mark: cython.int) -> None:
        """Free a handle's page and keep the handle, which now leads to `mark` (negative)."""
        page: cython.int = self.page_of[handle]
        if page < 0 or mark >= 0:
            raise ValueError(f"handle {handle} has no page")
        self.unlink(page)
        self.listed_pages[self.listed[page] - LRU_LISTS] -= 1
        self.handle_of[page] = -1
        self.page_of[handle] = mark
        self.state[page] = KERNEL
        self.release(page, 0)

    def release_handle(self, handle: cython.int) -> None:
        """Free a handle, and its page if it has one. ValueError: it is free already."""
        if not 0 <= handle < self.pages or self.page_of[handle] == NONE:
            raise ValueError(f"handle {handle} is free already")
        if self.page_of[handle] >= 0:
            self.forget(handle, NONE)
        self.page_of[handle] = NONE
        self.free_handles[self.handles_left] = handle
        self.handles_left += 1

    def move(self, source: cython.int, target: cython.int) -> None:
        """Migrate an LRU page to `target`, a page taken off the free lists; the old one is freed to them."""
        handle: cython.int = self.handle_of[source]
        which: cython.int = self.listed[source]
        self.unlink(source)
        self.handle_of[source] = -1
        self.handle_of[target] = handle
        self.page_of[handle] = target
        self.state[target] = self.state[source]
        self.referenced[target] = self.referenced[source]
        self.family[target] = self.family[source]
        self.listed[target] = which
        self.link_first(target, which)
        self.state[source] = KERNEL
        self.put(source, 0, self.block_type[source >> self.block_order])

    # setting up, tests and reports

    def list_of(self, page: cython.int) -> cython.int:
        """The LRU list that a page is on."""
        return self.listed[page] if self.handle_of[page] >= 0 else NONE

    def pages_on(self, which: int) -> int:
        """Pages on an LRU list."""
        return self.listed_pages[which - LRU_LISTS]

    def set_protection(self, protection: Sequence[int]) -> None:
        """lowmem_reserve, pages by index of the highest zone that a request may use."""
        self.protection = np.array(protection, np.int64).data

    def occupy(self, first: int, pages: int) -> None:
        """Say that pages which were never freed are the kernel's (they may be released later)."""
        for page in range(first, first + pages):
            if self.state[page] == FREE:
                raise ValueError(f"page {page} is free")
            self.state[page] = KERNEL

    def reserve_highatomic(self, page: int) -> bool:
        """Keep the pageblock of `page` for atomic requests; at most one more than 1 % of the zone."""
        size = 1 << self.block_order
        most = self.managed // 100 + size
        block = page >> self.block_order
        if self.highatomic_pages >= most or self.block_type[block] == HIGHATOMIC or not self.mobility:
            return False
        self.highatomic_pages += size
        self.block_type[block] = HIGHATOMIC
        self.move_blocks(block * size, (block + 1) * size, HIGHATOMIC)
        return True

    def unreserve_highatomic(self, migratetype: int) -> bool:
        """Give one reserved pageblock with free pages back to `migratetype`; False: there is none."""
        for order in range(ORDERS):
            page = self.after[self.pages + HIGHATOMIC * ORDERS + order]
            if page < self.pages:
                block = page >> self.block_order
                self.highatomic_pages -= min(1 << self.block_order, self.highatomic_pages)
                self.block_type[block] = migratetype
                self.move_blocks(block << self.block_order, (block + 1) << self.block_order, migratetype)
                return True
        return False
