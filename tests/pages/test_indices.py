"""Fragmentation indices as the kernel computes them, and stacks that fit, against taking them one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackfit.pages.indices import (
    NOT_FRAGMENTED,
    extfrag_index,
    free_pages,
    stack_fit,
    suitable,
    unusable_index,
)
from stackfit.pages.procfs import Zone

COUNTS = st.lists(st.integers(0, 40), min_size=4, max_size=11).map(lambda row: np.array(row, np.int64))
ZONE = Zone(0, "Normal", 1, 0, 0, 0, 0, 0, 0, 0, 0, (0, 0), None, 0, ())


def test_indices_worked_out_by_hand() -> None:
    # 2 736 pages and 2 blocks of order 2: order 3 fails. 2 744 pages in 2 738 blocks:
    # 1000 − (1000 + 2744 · 1000 / 8) / 2738 = 1000 − 344000 / 2738 = 1000 − 125
    counts = np.array([2736, 0, 2, 0], np.int64)
    assert free_pages(counts) == 2744
    assert extfrag_index(counts, 3) == 875
    assert extfrag_index(counts, 1) == NOT_FRAGMENTED
    assert unusable_index(counts, 1) == 2736 * 1000 // 2744
    assert unusable_index(counts, 3) == 1000


def test_without_free_memory() -> None:
    nothing = np.zeros(11, np.int64)
    assert extfrag_index(nothing, 1) == 0 and unusable_index(nothing, 1) == 1000
    assert stack_fit(nothing, 1, ZONE).above_min == 0


@given(COUNTS, st.integers(0, 3))
def test_indices_stay_in_their_range(counts: np.ndarray, order: int) -> None:
    assert 0 <= unusable_index(counts, order) <= 1000
    index = extfrag_index(counts, order)
    # One block of half the size: 1000 − (1000 + 500) / 1, and no less.
    assert index == NOT_FRAGMENTED or -500 <= index <= 1000
    assert (index == NOT_FRAGMENTED) == (suitable(counts, order) > 0)


def taken_one_by_one(counts: list[int], order: int, reserve: int, withheld: int) -> int:
    """Requests as mm/page_alloc.c lets them through: the watermark, then the smallest block, split."""
    stacks = 0
    while sum(n << at for at, n in enumerate(counts)) - withheld - ((1 << order) - 1) > reserve:
        at = next((at for at in range(order, len(counts)) if counts[at]), None)
        if at is None:
            break
        counts[at] -= 1
        while at > order:
            at -= 1
            counts[at] += 1
        stacks += 1
    return stacks


@given(COUNTS, st.integers(0, 3), st.integers(0, 3000), st.integers(0, 500), st.integers(0, 500))
def test_stacks_that_fit_are_those_that_can_be_taken(
    counts: np.ndarray, order: int, minimum: int, protection: int, withheld: int
) -> None:
    zone = replace(ZONE, minimum=minimum, protection=(protection, 0))
    fit = stack_fit(counts, order, zone, None, withheld, highest=0)
    assert fit.reserve == minimum + protection
    assert fit.above_min == taken_one_by_one(counts.tolist(), order, minimum + protection, withheld)
    assert fit.exact <= fit.split == suitable(counts, order)


@given(COUNTS)
def test_barred_blocks_give_no_stack(counts: np.ndarray) -> None:
    assert stack_fit(counts, 1, ZONE, counts, free_pages(counts)).split == 0


@pytest.mark.parametrize("order", [0, 1, 2])
def test_without_zoneinfo_the_watermark_is_open(order: int) -> None:
    counts = np.array([4, 2, 1], np.int64)
    fit = stack_fit(counts, order, None)
    assert fit.above_min is None and fit.reserve is None and fit.split == suitable(counts, order)
