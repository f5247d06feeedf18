"""The allocator keeps every page exactly once, merges every pair of buddies, and counts what is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.pages import allocator_constants as c
from stackfit.pages.compaction import compact
from stackfit.pages.reclaim import deactivate, shrink
from stackfit.pages.zone import Zone

PAGES = 4 * 1024 + 992  # four whole pageblocks and one that the zone does not span to its end
RULES = [c.STEAL_NONE, c.STEAL_FIRST, c.STEAL_CLAIM]


def make(steal: int = c.STEAL_CLAIM, per_cpu: int = 96, pages: int = PAGES, boost: int = 0) -> Zone:
    zone = Zone("Normal", 0, pages, 10, steal, steal == c.STEAL_CLAIM, [0])
    zone.managed = pages
    zone.mobility = steal != c.STEAL_NONE
    zone.watermark_rule = c.WATERMARK_LISTS
    zone.minimum, zone.low, zone.high = 40, 50, 60
    zone.boost_most = boost
    kind = c.MOVABLE if zone.mobility else c.UNMOVABLE
    for block in range(len(zone.block_types())):
        zone.set_block_type(block, kind)
    for start in range(0, pages // 1024 * 1024, 1024):
        zone.put(start, 10, kind)
    page = pages // 1024 * 1024
    for order in range(9, -1, -1):
        if pages - page >= 1 << order:
            zone.put(page, order, kind)
            page += 1 << order
    if per_cpu:
        zone.per_cpu_orders = 4 if steal == c.STEAL_CLAIM else 1
        zone.per_cpu_high = per_cpu
        zone.per_cpu_batch = 7
        zone.per_cpu_scaled = steal == c.STEAL_CLAIM
    return zone


def audit(zone: Zone, held: dict[int, int], handles: dict[int, int]) -> None:
    """Recount everything. `held`: first page → order of blocks in use; `handles`: handle → state."""
    states, heads = zone.states(), zone.heads()
    owner = [0] * zone.pages
    free = 0
    for migratetype in range(c.TYPES):
        counted = [0] * c.ORDERS
        of_type = 0
        for order in range(c.ORDERS):
            for page in zone.listing(migratetype * c.ORDERS + order):
                assert heads[page] == order and page % (1 << order) == 0
                counted[order] += 1
                of_type += 1 << order
                for one in range(page, page + (1 << order)):
                    owner[one] += 1
                    assert states[one] == c.FREE
                buddy = page ^ (1 << order)
                assert order == c.ORDERS - 1 or heads[buddy] != order, "two free buddies"
        assert counted == zone.counts_of(migratetype)
        free += of_type
    assert free == zone.free and sum(head >= 0 for head in heads) == sum(zone.counts())
    on_per_cpu = 0
    for which in range(c.PER_CPU_LISTS, c.LRU_LISTS):
        order = (which - c.PER_CPU_LISTS) // c.PER_CPU_TYPES
        for page in zone.listing(which):
            on_per_cpu += 1 << order
            for one in range(page, page + (1 << order)):
                owner[one] += 1
                assert states[one] == c.PER_CPU
    assert on_per_cpu == zone.per_cpu_count
    for which in range(c.LRU_LISTS, c.LISTS):
        listed = zone.listing(which)
        assert len(listed) == zone.pages_on(which)
        assert all(zone.list_of(page) == which for page in listed)
    for page, order in held.items():
        for one in range(page, page + (1 << order)):
            owner[one] += 1
            assert states[one] == c.KERNEL
    for handle, state in handles.items():
        page = zone.page(handle)
        if page >= 0:
            owner[page] += 1
            assert states[page] == state
    assert owner[: zone.end] == [1] * zone.end, "a page is lost, or owned twice"
    assert not any(owner[zone.end :])


WORK = np.ones(c.TIMES, np.float64).data
OPERATIONS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 10), st.sampled_from([c.UNMOVABLE, c.MOVABLE, c.RECLAIMABLE])),
    st.tuples(st.just("give"), st.integers(0, 10**6), st.just(0)),
    st.tuples(st.just("adopt"), st.sampled_from([c.ANONYMOUS, c.FILE, c.PINNED, c.SLAB]), st.integers(1, 40)),
    st.tuples(st.just("drop"), st.integers(0, 10**6), st.integers(1, 40)),
    st.tuples(st.just("touch"), st.integers(0, 10**6), st.just(0)),
    st.tuples(
        st.just("shrink"),
        st.sampled_from([c.INACTIVE_FILE, c.INACTIVE_ANONYMOUS, c.SLABS]),
        st.integers(0, 60),
    ),
    st.tuples(
        st.just("deactivate"), st.sampled_from([c.ACTIVE_FILE, c.ACTIVE_ANONYMOUS]), st.integers(0, 60)
    ),
    st.tuples(st.just("compact"), st.integers(1, 9), st.booleans()),
    st.tuples(st.just("drain"), st.just(0), st.just(0)),
    st.tuples(st.just("written"), st.just(0), st.just(0)),
    st.tuples(st.just("highatomic"), st.integers(0, 10**6), st.booleans()),
)
LISTS = {
    c.ANONYMOUS: c.INACTIVE_ANONYMOUS,
    c.FILE: c.INACTIVE_FILE,
    c.PINNED: c.UNEVICTABLE,
    c.SLAB: c.SLABS,
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RULES), st.sampled_from([0, 96]), st.lists(OPERATIONS, max_size=120), st.booleans())
def test_no_page_is_lost_or_owned_twice(
    steal: int, per_cpu: int, operations: list[tuple[str, int, int]], lumpy: bool
) -> None:
    zone = make(steal, per_cpu, boost=2048)
    held: dict[int, int] = {}
    handles: dict[int, int] = {}
    cursor = np.array([0, zone.pages], np.int64)
    counters = np.zeros(c.COUNTERS, np.int64)
    writing: list[int] = []
    for name, a, b in operations:
        if name == "take":
            page = zone.allocate(a, b, zone.minimum, 0, False)
            if page >= 0:
                assert page % (1 << a) == 0 and page + (1 << a) <= zone.end
                held[page] = a
        elif name == "give" and held:
            page = sorted(held)[a % len(held)]
            zone.release(page, held.pop(page))
        elif name == "adopt":
            for _ in range(b):
                kind = c.RECLAIMABLE if a == c.SLAB else c.MOVABLE
                page = zone.allocate(0, kind, zone.minimum, 0, False)
                if page < 0:
                    break
                handles[zone.adopt(page, a, LISTS[a])] = a
        elif name == "drop" and handles:
            for _ in range(min(b, len(handles))):
                handle = sorted(handles)[a % len(handles)]
                del handles[handle]
                zone.release_handle(handle)
        elif name == "touch" and handles:
            zone.reference(sorted(handles)[a % len(handles)])
        elif name == "shrink":
            before, room = zone.free + zone.per_cpu_count, int(counters[c.SWAPPED]) + 5
            freed, seen, took = shrink(zone, a, b, 32, room, 2, lumpy, counters.data, WORK)
            assert zone.free + zone.per_cpu_count == before + freed and counters[c.SWAPPED] <= room
            assert seen <= b and took >= seen
            writing += zone.take_written()
        elif name == "written":
            while writing:
                zone.end_write(writing.pop())
        elif name == "deactivate":
            deactivate(zone, a, b, WORK)
        elif name == "compact":
            before = zone.free
            compact(zone, a, c.UNMOVABLE if b else c.MOVABLE, bool(b), False, cursor.data, counters.data,
                    np.zeros(1024, np.int32).data)  # fmt: skip
            assert zone.free == before
            if cursor[0] >= cursor[1]:
                cursor[:] = 0, zone.pages
        elif name == "drain":
            zone.drain()
            assert zone.per_cpu_count == 0
        elif name == "highatomic":
            if b:
                zone.unreserve_highatomic(c.MOVABLE)
            elif steal == c.STEAL_CLAIM:
                zone.reserve_highatomic(a % zone.end)
    audit(zone, held, handles)
    for page, order in held.items():
        zone.release(page, order)
    for handle in handles:
        zone.release_handle(handle)
    zone.drain()
    # Everything is back: nothing but the blocks that the zone began with.
    assert zone.counts() == make(steal).counts()


def test_double_free_and_strangers_are_refused() -> None:
    zone = make()
    page = zone.allocate(0, c.UNMOVABLE, 0, 0, False)
    zone.release(page, 0)
    for wrong in (page, zone.end, -1):
        with pytest.raises(ValueError):
            zone.release(wrong, 0)
    with pytest.raises(ValueError, match="free already"):
        zone.put(1024, 0, c.MOVABLE)
    with pytest.raises(ValueError):
        zone.put(1023, 3, c.MOVABLE)
    with pytest.raises(ValueError):
        zone.allocate(11, c.UNMOVABLE, 0, 0, False)
    handle = zone.adopt(zone.allocate(0, c.MOVABLE, 0, 0, False), c.FILE, c.INACTIVE_FILE)
    zone.release_handle(handle)
    with pytest.raises(ValueError, match="free already"):
        zone.release_handle(handle)


def test_an_order_1_request_needs_its_own_pages_above_the_watermark() -> None:
    # mm/page_alloc.c:__zone_watermark_ok: free - (2^order - 1) > min
    zone = make(per_cpu=0)
    mark = zone.free - 2
    assert zone.watermark_ok(1, mark, 0, False)
    assert not zone.watermark_ok(1, mark + 1, 0, False)
    assert zone.watermark_ok(0, mark + 1, 0, False)
    zone.set_protection([1])
    assert not zone.watermark_ok(0, mark + 1, 0, False)


def test_fragmented_memory_is_free_and_yet_has_no_block() -> None:
    zone = make(per_cpu=0)
    pages = []
    while (page := zone.allocate(0, c.UNMOVABLE, 0, 0, False)) >= 0:
        pages.append(page)
    for page in pages[::2]:
        zone.release(page, 0)
    assert zone.free > 2000
    assert zone.allocate(1, c.UNMOVABLE, 0, 0, False) in (c.NONE, c.BELOW)
    assert zone.allocate(0, c.UNMOVABLE, 0, 0, False) >= 0


def test_stealing_claims_a_pageblock_that_is_mostly_free_and_not_one_the_zone_cuts_off() -> None:
    zone = make(per_cpu=0, pages=1024 + 992)
    assert zone.allocate(0, c.UNMOVABLE, 0, 0, False) >= 0
    assert zone.block_types() == [c.UNMOVABLE, c.MOVABLE]  # the largest block first: order 10
    while zone.counts_of(c.UNMOVABLE) != [0] * c.ORDERS:
        assert zone.allocate(0, c.UNMOVABLE, 0, 0, False) >= 0
    assert zone.allocate(0, c.UNMOVABLE, 0, 0, False) >= 0  # from the last pageblock, block by block
    assert zone.block_types() == [c.UNMOVABLE, c.MOVABLE]


def test_compaction_makes_room_where_pages_can_move() -> None:
    def fragmented(state: int) -> Zone:
        zone = make(per_cpu=0)
        handles = []
        while (page := zone.allocate(0, c.MOVABLE, 0, 0, False)) >= 0:
            handles.append(zone.adopt(page, state, LISTS[state]))
        for handle in handles[::2]:
            zone.release_handle(handle)
        return zone

    def run(zone: Zone) -> int:
        counters = np.zeros(c.COUNTERS, np.int64)
        return compact(zone, 3, c.UNMOVABLE, True, False, np.array([0, zone.pages], np.int64).data,
                       counters.data, np.zeros(1024, np.int32).data)  # fmt: skip

    movable, pinned = fragmented(c.ANONYMOUS), fragmented(c.PINNED)
    assert movable.counts()[3:] == pinned.counts()[3:] == [0] * 8
    assert run(movable) == c.COMPACT_SUCCESS and sum(movable.counts()[3:]) > 0
    assert run(pinned) == c.COMPACT_COMPLETE and sum(pinned.counts()[3:]) == 0


DIGEST = """
import hashlib, json, random, sys
import numpy as np
sys.path.insert(0, {tests!r})
import test_allocator as t
c = t.c
random.seed(5)
seen = []
for steal in t.RULES:
    zone = t.make(steal, boost=2048)
    held, handles = [], []
    cursor, counters = np.array([0, zone.pages], np.int64), np.zeros(c.COUNTERS, np.int64)
    for turn in range(1500):
        order, kind = random.choice([0, 0, 0, 1, 2, 5]), random.randrange(3)
        page = zone.allocate(order, kind, 40, 0, turn % 50 == 0)
        if page >= 0 and order == 0 and kind == c.MOVABLE:
            handles.append(zone.adopt(page, c.FILE, c.INACTIVE_FILE))
        elif page >= 0:
            held.append((page, order))
        if held and random.random() < 0.45:
            zone.release(*held.pop(random.randrange(len(held))))
        if turn % 100 == 99:
            t.shrink(zone, c.INACTIVE_FILE, 50, 32, 0, 1, True, counters.data, t.WORK)
            room = np.zeros(1024, np.int32).data
            t.compact(zone, 4, c.UNMOVABLE, True, False, cursor.data, counters.data, room)
    seen.append([zone.counts(), zone.block_types(), zone.states(), zone.boost, zone.per_cpu_count])
    seen.append(counters.tolist())
print("uncompiled" if sys.modules["stackfit.pages.zone"].__file__.endswith(".py") else "compiled")
print(hashlib.sha256(json.dumps(seen).encode()).hexdigest())
"""


def test_the_uncompiled_modules_do_exactly_the_same(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    target = tmp_path / "stackfit"
    for source in (root / "src" / "stackfit").rglob("*.py"):
        copy = target / source.relative_to(root / "src" / "stackfit")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    script = DIGEST.format(tests=str(Path(__file__).parent))

    def run(path: str | None) -> list[str]:
        environment = dict(os.environ)
        if path is not None:
            environment["PYTHONPATH"] = path
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    plain, installed = run(str(tmp_path)), run(None)
    assert plain[0] == "uncompiled"
    assert plain[1] == installed[1]
