"""Numbers of the compiled allocator as plain integers: the same as in `allocator_constants.pxd`."""

from __future__ import annotations

ORDERS = 11  # orders 0 to 10 (MAX_ORDER of i386 and x86-64 in every era)

# Migratetypes (include/linux/mmzone.h). Kernels without grouping by mobility have the first alone.
UNMOVABLE = 0
MOVABLE = 1
RECLAIMABLE = 2
HIGHATOMIC = 3
TYPES = 4

# What a page is used for.
ABSENT = 0  # not the allocator's: firmware, kernel image, boot memory
FREE = 1  # in a free block
PER_CPU = 2  # on a per-CPU list
KERNEL = 3  # the kernel's for good: stack, page table, slab object that nobody can take back
SLAB = 4  # reclaimable slab: dentries, inodes
ANONYMOUS = 5  # on an LRU list, as are all states from here on
FILE = 6
PINNED = 7  # unevictable: mlocked, ramfs
LRU = 5  # states >= LRU are on an LRU list

# Lists. Free lists come first: TYPES * ORDERS of them, then the per-CPU lists by order and migratetype.
PER_CPU_ORDERS = 4  # 0 to 3; kernels before 5.14 use the first alone
PER_CPU_TYPES = 3
PER_CPU_LISTS = 44
LRU_LISTS = 56
INACTIVE_ANONYMOUS = 56
ACTIVE_ANONYMOUS = 57
INACTIVE_FILE = 58
ACTIVE_FILE = 59
UNEVICTABLE = 60
SLABS = 61
LISTS = 62

# How `__rmqueue_fallback` steals.
STEAL_NONE = 0  # one list per order, nothing to steal from (before 2.6.24)
STEAL_FIRST = 1  # 2.6.24: largest block first; its pageblock moves if the block or the wish is big enough
STEAL_CLAIM = 2  # 4.2: … and unmovable wishes move pageblocks too; movable ones take the smallest block

# How `zone_watermark_ok` looks at orders above 0.
WATERMARK_FLAT = 0  # only the number of free pages (before 2.6.9)
WATERMARK_HALVING = 1  # order by order, half the mark each (2.6.9 to 4.3)
WATERMARK_LISTS = 2  # the mark, and a block of the order on some list (4.4)

# Answers that are no page.
NONE = -1  # no block
BELOW = -2  # the watermark forbids

# What is known of a page on an LRU list, bits. YOUNG, MARKED: used since reclaim looked at it, by a page
# table (or plainly used), by a read. WRITEBACK: being written to swap. COPIED: swap has a copy of it.
# SETTLED: it has been on an active list (PG_workingset).
YOUNG = 1
MARKED = 2
WRITEBACK = 4
COPIED = 8
SETTLED = 16

# What a handle without a page leads to.
EVICTED = -3  # page cache or slab: reclaimed
SWAPPED_OUT = -4

# Counters of reclaim and compaction, pages.
SCANNED = 0
STOLEN = 1
SWAPPED = 2
ACTIVATED = 3
MIGRATE_SCANNED = 4
FREE_SCANNED = 5
MIGRATED = 6
WAITING = 7  # met while they were being written
COUNTERS = 8

# What work on a page takes, microseconds: look at one, free it, begin to write it, follow one mapping of an
# anonymous page's family, move a file page from the active list to the inactive one.
LOOK = 0
FREEING = 1
WRITING = 2
FOLLOW = 3
DEMOTE = 4
PASS = 5
TIMES = 6
LONG = 10  # microseconds: work after which somebody else may have the CPU (cond_resched)

COMPACT_SUCCESS = 1
COMPACT_COMPLETE = 2
