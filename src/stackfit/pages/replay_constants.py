"""Numbers of the compiled replay as plain integers: the same as in `replay_constants.pxd` for Cython."""

from __future__ import annotations

from stackfit.pages.trace import Kind

ALLOC = int(Kind.ALLOC)
FREE = int(Kind.FREE)
TAKE = int(Kind.TAKE)
DRAIN = int(Kind.DRAIN)
RETURN = int(Kind.RETURN)
ISOLATE = int(Kind.ISOLATE)
SCAN = int(Kind.SCAN)
COMPACT = int(Kind.COMPACT)
MARK = int(Kind.MARK)

# Why an event, or a page at a snapshot, does not agree with the free lists.
PAST_LISTS = 0  # it was freed (mm_page_free), no drain followed, and yet it is on the free lists
COMPACTED = 1  # it left the free lists while compaction ran, without an event of its own
UNKNOWN_RETURN = 2  # it joined the free lists, and no event says how
UNKNOWN_TAKE = 3  # it left the free lists, and no event says how
INSIDE = 4  # the kernel takes blocks from their start; this one started inside a free block
OUTSIDE = 5  # its pages are in no zone
CAUSES = 6

# Counters of a run.
TAKEN = 0  # pages
RETURNED = 1  # pages
SCANNED = 2  # pages taken by compaction's scans
PROBLEMS = 3  # rows wanted in `problems`, also those beyond its end
CAUSE_EVENTS = 4  # events by cause
CAUSE_PAGES = 10  # pages by cause
COUNTERS = 16
