"""How fragmented a zone is, and how many stacks still fit: computed from its free lists alone.

`counts`: free blocks by order (one row of buddyinfo), int64. Sources: mm/vmstat.c (fill_contig_page_info,
__fragmentation_index, unusable_free_index), mm/page_alloc.c (__zone_watermark_ok) of Linux 6.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.pages.procfs import Zone

__all__ = [
    "NOT_FRAGMENTED",
    "Fit",
    "extfrag_index",
    "extfrag_indices",
    "free_pages",
    "stack_fit",
    "suitable",
    "unusable_index",
    "unusable_indices",
]

NOT_FRAGMENTED = -1000  # the kernel's answer where a block is free: the index has no meaning


def free_pages(counts: NDArray[np.int64]) -> int:
    """Pages in the free lists."""
    return sum(int(count) << order for order, count in enumerate(counts))


def suitable(counts: NDArray[np.int64], order: int) -> int:
    """Blocks of `order` that the free lists hold, larger blocks split."""
    return sum(int(count) << (high - order) for high, count in enumerate(counts) if high >= order)


def extfrag_index(counts: NDArray[np.int64], order: int) -> int:
    """External fragmentation index in thousandths, as debugfs' extfrag_index prints it (/1000).

    NOT_FRAGMENTED: a request of this order would be met. Else near 0 or below: it fails for want of memory,
    near 1000: for fragmentation. Integer division as in the kernel (mm/vmstat.c:__fragmentation_index).
    """
    blocks = int(np.sum(counts))
    if not blocks:
        return 0
    if suitable(counts, order):
        return NOT_FRAGMENTED
    return 1000 - (1000 + free_pages(counts) * 1000 // (1 << order)) // blocks


def unusable_index(counts: NDArray[np.int64], order: int) -> int:
    """Share of free memory that a request of this order cannot use, thousandths; 1000 without free memory."""
    free = free_pages(counts)
    if not free:
        return 1000
    return (free - (suitable(counts, order) << order)) * 1000 // free


def extfrag_indices(counts: NDArray[np.int64]) -> list[int]:
    """`extfrag_index` by order."""
    return [extfrag_index(counts, order) for order in range(len(counts))]


def unusable_indices(counts: NDArray[np.int64]) -> list[int]:
    """`unusable_index` by order."""
    return [unusable_index(counts, order) for order in range(len(counts))]


@dataclass(frozen=True)
class Fit:
    """How many more contiguous stacks of `order` one zone's free lists give now: stacks and nothing else.

    `exact`: free blocks of exactly that order. `split`: with larger blocks split. `above_min`: of those, how
    many one request after the other gets before the min watermark and the lowmem protection, together
    `reserve` pages, stop it; both None where the watermarks are unknown. Not counted: what reclaim,
    compaction and the per-CPU lists would give, and all else that a fork allocates.
    """

    order: int
    exact: int
    split: int
    above_min: int | None
    reserve: int | None


def stack_fit(
    counts: NDArray[np.int64],
    order: int,
    zone: Zone | None,
    barred: NDArray[np.int64] | None = None,
    withheld: int = 0,
    highest: int | None = None,
) -> Fit:
    """Fit of one zone. `barred`: free blocks by order that a GFP_KERNEL request may not take (highatomic,
    CMA, isolated). `withheld`: pages that the watermark check leaves out for it (the pageblocks reserved as
    highatomic, free or not; free CMA and isolated pages). `highest`: index of the highest zone that the
    request may use, whose lowmem protection holds here; None: this zone.

    A request passes while free − withheld − (2^order − 1) > min + protection and a block is there
    (mm/page_alloc.c:__zone_watermark_unusable_free, __zone_watermark_ok).
    """
    usable = counts if barred is None else np.maximum(counts - barred, 0)
    split = suitable(usable, order)
    exact = int(usable[order]) if order < len(usable) else 0
    if zone is None:
        return Fit(order, exact, split, None, None)
    index = zone.index if highest is None else highest
    reserve = zone.minimum + (zone.protection[index] if index < len(zone.protection) else 0)
    room = free_pages(counts) - withheld - ((1 << order) - 1) - reserve
    passes = -(-room >> order) if room > 0 else 0  # the last one needs a single page above
    return Fit(order, exact, split, min(split, passes), reserve)
