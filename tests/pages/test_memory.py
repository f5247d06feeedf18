"""What a request goes through before it fails: watermarks, kswapd, reclaim, compaction, the OOM rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stackfit.cli.main import main
from stackfit.image.model import InputError
from stackfit.pages import allocator_constants as c
from stackfit.pages.era import ERAS, Era, load_era
from stackfit.pages.memory import Handle, Memory, OutOfMemory, Settings, ZoneSpec
from stackfit.pages.placement import place_blocks

PAGES = 8 * 1024
ANY = load_era("linux-6.1")
SHIPPED = Path(__file__).resolve().parents[2] / "src" / "stackfit" / "pages" / "eras"


def memory(era: Era = ANY, pages: int = PAGES, **settings: object) -> Memory:
    """One zone, all of it free."""
    found = Memory([ZoneSpec("Normal", pages, pages)], era, Settings(10, **settings))  # type: ignore[arg-type]
    place_blocks(found.zones[0], {c.MOVABLE: [0] * 10 + [pages >> 10]})
    if not era.mobility:
        found.zones[0].move_blocks(0, pages, c.UNMOVABLE)
        for block in range(pages >> 10):
            found.zones[0].set_block_type(block, c.UNMOVABLE)
    return found


def fill(found: Memory, state: int, leave: int) -> list[Handle]:
    """Single pages of a state until so many are free (those on per-CPU lists are not)."""
    return [
        found.allocate_page(state, c.MOVABLE if state != c.SLAB else c.RECLAIMABLE)
        for _ in range(max(found.free - leave, 0))
    ]


def holes(found: Memory, state: int) -> list[Handle]:
    """All memory taken (whatever the watermarks say), every second page of it given back: free memory, and
    no two pages side by side."""
    zone, handles = found.zones[0], []
    which = {c.ANONYMOUS: c.INACTIVE_ANONYMOUS, c.PINNED: c.UNEVICTABLE}[state]
    while (page := zone.allocate(0, c.MOVABLE, -PAGES, 0, False)) >= 0:
        handles.append(Handle(0, zone.adopt(page, state, which)))
    handles.sort(key=found.page)
    for handle in handles[::2]:
        found.release_page(handle)
    zone.drain()
    assert not any(found.counts()[1:])
    return handles[1::2]


def in_use(found: Memory) -> int:
    return sum(state not in (c.FREE, c.PER_CPU, c.ABSENT) for zone in found.zones for state in zone.states())


# watermarks and reserves


@pytest.mark.parametrize(
    ("era", "low", "high"), [("linux-6.1", 5, 6), ("linux-2.6.24", 5, 6), ("linux-2.6.5", 8, 12)]
)
def test_watermarks_in_quarters_of_min(era: str, low: int, high: int) -> None:
    zone = memory(load_era(era), min_free_kb=1600).zones[0]
    assert (zone.minimum, zone.low * 4, zone.high * 4) == (400, low * 400, high * 400)


def test_min_free_kbytes_is_the_kernels_formula_or_what_an_era_says() -> None:
    # 32 MiB: sqrt(32768 kB × 16) = 724 kB (the table in mm/page_alloc.c)
    assert memory().zones[0].minimum == 724 // 4
    assert memory(load_era("linux-2.6.5")).zones[0].minimum == 1024 // 4


@pytest.mark.parametrize("era", ERAS)
def test_nothing_is_given_below_the_min_watermark_but_to_atomic_requests(era: str) -> None:
    found = memory(load_era(era))
    with pytest.raises(OutOfMemory):
        while True:
            found.allocate(0, c.UNMOVABLE)
    minimum = found.zones[0].minimum
    batch = found.zones[0].per_cpu_batch
    assert minimum - batch <= found.free <= minimum + 1
    deeper = 0
    with pytest.raises(OutOfMemory, match="atomic"):
        while True:
            found.allocate(0, c.UNMOVABLE, atomic=True)
            deeper += 1
    # A half, then a quarter of the rest: 3/8 of min remain (ALLOC_HIGH, ALLOC_HARDER).
    assert deeper > 0
    assert found.free == pytest.approx(minimum * 3 / 8, abs=batch + 1)


def test_a_lower_zone_keeps_its_reserve_from_requests_that_could_use_a_higher_one() -> None:
    specs = [ZoneSpec("DMA", 4096, 4096), ZoneSpec("Normal", PAGES, PAGES)]
    found = Memory(specs, ANY, Settings(10))
    for zone in found.zones:
        place_blocks(zone, {c.MOVABLE: [0] * 10 + [zone.pages >> 10]})
    with pytest.raises(OutOfMemory):
        while True:
            found.allocate(0, c.UNMOVABLE)
    low = found.zones[0]
    assert low.free == pytest.approx(low.minimum + PAGES // 256, abs=low.per_cpu_batch + 1)
    before = low.free
    found.allocate(0, c.UNMOVABLE, highest=0)  # a request for the lower zone itself
    assert low.free <= before


def test_pageblocks_kept_for_atomic_requests_are_kept_from_others() -> None:
    found = memory(pages=32 * 1024, compaction=False)
    zone = found.zones[0]
    for _ in range(40):
        found.allocate(2, c.UNMOVABLE, atomic=True)
    most = zone.managed // 100 + 1024
    assert 0 < zone.highatomic_pages <= most + 1024
    assert zone.highatomic_pages == 1024 * zone.block_types().count(c.HIGHATOMIC)
    kept = zone.highatomic_pages
    assert not zone.watermark_ok(0, found.free - kept, 0, False)
    assert zone.watermark_ok(0, found.free - kept, 0, True)
    with pytest.raises(OutOfMemory):
        while True:
            found.allocate(0, c.UNMOVABLE)
    # Nothing is reclaimable, so should_reclaim_retry ends before it would give them back (6.1 does that).
    assert zone.highatomic_pages == kept
    assert found.free >= kept
    for _ in range(kept // 1024):
        assert zone.unreserve_highatomic(c.MOVABLE)
    assert zone.highatomic_pages == 0 and not zone.unreserve_highatomic(c.MOVABLE)
    found.allocate(0, c.UNMOVABLE)
    none = memory(load_era("linux-2.6.24"), pages=32 * 1024)
    none.allocate(2, c.UNMOVABLE, atomic=True)
    assert none.zones[0].highatomic_pages == 0


# the OOM rule


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("order", "what"), [(1, "OOM killer"), (3, "OOM killer"), (4, "it fails")])
def test_up_to_order_3_the_oom_killer_is_called_with_memory_free(era: str, order: int, what: str) -> None:
    found = memory(load_era(era), compaction=False)
    holes(found, c.PINNED)
    with pytest.raises(OutOfMemory, match=what):
        while True:
            found.allocate(order, c.UNMOVABLE)
    assert found.free > 3 * found.zones[0].high
    found.allocate(0, c.UNMOVABLE)


def test_as_long_as_anything_is_freed_an_old_kernel_goes_on_and_a_new_one_gives_up_in_time() -> None:
    """Cached pages among pinned ones: reclaim always frees some and no two of them are side by side."""

    def until_it_fails(era: Era) -> tuple[Memory, int]:
        found = memory(era, compaction=False)
        handles = fill(found, c.FILE, 600)
        handles.sort(key=found.page)
        for handle in handles[::2]:
            found.pin(handle)
        with pytest.raises(OutOfMemory):
            while True:
                found.allocate(1, c.UNMOVABLE)
        return found, len(handles) // 2

    old, cached = until_it_fails(load_era("linux-2.6.24"))
    assert old.events.total(c.STOLEN) >= cached - 1  # it has taken the whole cache for nothing
    new, _ = until_it_fails(ANY)
    assert new.events.stalls <= old.events.stalls


# reclaim


def test_clean_cache_is_taken_before_a_request_fails_and_used_pages_are_spared_once() -> None:
    found = memory()
    handles = fill(found, c.FILE, 400)
    used = set(handles[:100])
    for handle in used:
        found.reference(handle)
    for _ in range(len(handles) // 2):
        found.allocate(0, c.UNMOVABLE)
    gone = [handle for handle in handles if found.page(handle) < 0]
    assert gone and not used & set(gone)
    assert found.events.total(c.STOLEN) == len(gone)
    assert in_use(found) + found.free + found.zones[0].per_cpu_count == PAGES


def test_anonymous_memory_goes_to_swap_as_far_as_there_is_any() -> None:
    found = memory(swap_pages=300)
    handles = fill(found, c.ANONYMOUS, 400)
    with pytest.raises(OutOfMemory):
        while True:
            found.allocate(0, c.UNMOVABLE)
    assert found.swap_used == found.events.total(c.SWAPPED) == 300
    assert sum(found.page(handle) == c.SWAPPED_OUT for handle in handles) <= 300
    for handle in handles:
        found.release_page(handle)
    assert found.swap_used == 0
    none = memory(swap_pages=300, swappiness=0)
    fill(none, c.ANONYMOUS, 400)
    with pytest.raises(OutOfMemory):
        while True:
            none.allocate(0, c.UNMOVABLE)
    assert none.swap_used == 0


def test_a_page_is_free_when_swap_has_it_and_read_back_it_need_not_be_written_again() -> None:
    found = memory(swap_pages=PAGES)
    handles = fill(found, c.ANONYMOUS, 400)
    for _ in range(1000):
        found.allocate(0, c.UNMOVABLE)
    gone = [handle for handle in handles if found.page(handle) == c.SWAPPED_OUT]
    assert 600 <= len(gone) <= found.events.total(c.SWAPPED) == found.swap_used
    begun = found.processor.now
    back = found.refault(gone[0], c.ANONYMOUS, c.MOVABLE)
    assert found.page(back) >= 0 and found.swap_used == found.events.total(c.SWAPPED)
    assert found.processor.now >= begun + found.times.read


def test_kswapd_waits_for_the_cpu_and_requests_go_on_without_it() -> None:
    found = memory(boost=False)
    fill(found, c.FILE, found.zones[0].low + 8)
    for _ in range(20):
        found.allocate(0, c.UNMOVABLE)
    assert found.processor.busy and found.free < found.zones[0].low and not found.events.kswapd[c.STOLEN]
    found.processor.sleep(100_000)
    assert not found.processor.busy and found.free >= found.zones[0].high
    assert not found.events.stalls


def test_pages_of_a_large_family_keep_kswapd_from_making_room_in_time() -> None:
    stalls = {}
    for members in (1, 2000):
        found = memory(swap_pages=PAGES, boost=False)
        for handle in fill(found, c.ANONYMOUS, found.zones[0].low + 8):
            found.relate(handle, members)
        for _ in range(400):
            found.allocate(0, c.UNMOVABLE)
            found.processor.sleep(100)
        stalls[members] = found.events.stalls
    assert stalls[2000] > stalls[1] == 0


def test_kswapd_restores_the_high_watermark_and_gives_up_when_nothing_helps() -> None:
    found = memory()
    fill(found, c.FILE, 0)
    zone = found.zones[0]
    assert found.free >= zone.minimum
    found.balance(0, 0)
    assert found.free >= zone.high
    hopeless = memory()
    with pytest.raises(OutOfMemory):
        fill(hopeless, c.PINNED, 0)
    for _ in range(20):
        hopeless.balance(0, 0)
    assert hopeless.events.kswapd_runs == 16  # MAX_RECLAIM_RETRIES
    assert hopeless.events.kswapd[c.STOLEN] == 0


def test_without_an_order_kswapd_does_not_look_for_blocks() -> None:
    blind = memory(load_era("linux-2.6.5"), compaction=False)
    fill(blind, c.FILE, 300)
    free = blind.free
    assert free > blind.zones[0].high or not blind.balance(0, 0)
    scanned = blind.events.kswapd[c.SCANNED]
    blind.balance(0, 0)
    assert blind.events.kswapd[c.SCANNED] == scanned


# compaction


def test_compaction_makes_a_block_of_scattered_pages_and_loses_none() -> None:
    found = memory(boost=False)
    kept = holes(found, c.ANONYMOUS)
    before = sorted(handle.handle for handle in kept)
    free = found.free
    place = found.allocate(6, c.UNMOVABLE)
    assert place.page % 64 == 0
    assert found.events.direct[c.MIGRATED] > 0 and found.events.compactions >= 1
    assert sorted(handle.handle for handle in kept) == before
    assert all(found.page(handle) >= 0 for handle in kept)
    assert len({found.page(handle) for handle in kept}) == len(kept)
    assert free - found.free - found.zones[0].per_cpu_count <= 64


def test_pinned_pages_move_only_where_the_sysctl_lets_them() -> None:
    moved = {}
    for may in (True, False):
        found = memory(pinned_may_move=may, boost=False)
        for handle in holes(found, c.ANONYMOUS):
            found.pin(handle)
        try:
            found.allocate(5, c.UNMOVABLE)
        except OutOfMemory:
            assert not may
        moved[may] = found.events.direct[c.MIGRATED]
    assert moved[True] > 0
    assert moved[False] == 0


def test_compaction_that_fails_is_deferred_longer_and_longer() -> None:
    found = memory(pinned_may_move=False, boost=False)
    for handle in holes(found, c.ANONYMOUS):
        found.pin(handle)
    for _ in range(40):
        with pytest.raises(OutOfMemory):
            while True:
                found.allocate(2, c.UNMOVABLE)
    assert found.events.compactions_deferred > 0
    off = memory(pinned_may_move=False, boost=False, compaction=False)
    holes(off, c.PINNED)
    with pytest.raises(OutOfMemory):
        while True:
            off.allocate(2, c.UNMOVABLE)
    assert off.events.compactions == 0


def test_stealing_raises_the_watermarks_until_kswapd_has_run() -> None:
    found = memory()
    found.allocate(0, c.UNMOVABLE)
    small = [found.allocate(8, c.MOVABLE) for _ in range(3)]
    assert small
    zone = found.zones[0]
    zone.boost = 0
    while not zone.boost:
        found.allocate(4, c.RECLAIMABLE if zone.stolen_blocks % 2 else c.UNMOVABLE)
        if found.free < zone.high:
            pytest.fail("no pageblock was stolen from")
    assert zone.boost <= max(zone.high * 3 // 2, 1024)
    found.balance(0, 0)
    assert zone.boost == 0


# eras


def test_a_shipped_era_that_was_only_read_says_so_with_its_source() -> None:
    assert set(ERAS) == {"linux-6.1", "linux-2.6.5", "linux-2.6.24", "linux-2.6.35"}
    for name in ERAS:
        era = load_era(name)
        if name == "linux-6.1":
            assert era.assumption is None
        else:
            assert era.assumption is not None
            for text in (name, era.kernel, "not held against a running kernel", "not modelled"):
                assert text in era.assumption


def test_an_older_kernel_leaves_what_it_does_not_take_with_its_owner() -> None:
    """2.6.24: a small steal splits the block on the other's lists; a large one moves the pageblock."""
    for wish, order, claimed in ((c.UNMOVABLE, 3, False), (c.RECLAIMABLE, 3, True), (c.UNMOVABLE, 9, True)):
        found = memory(load_era("linux-2.6.24"), pages=1024)
        zone = found.zones[0]
        taken = zone.take(10, c.MOVABLE)
        zone.put(taken + 1024 - (1 << order), order, c.MOVABLE)  # all else is in use
        page = zone.take(0, wish)
        assert page == taken + 1024 - (1 << order)
        rest = [1] * order + [0] * (c.ORDERS - order)
        assert zone.counts_of(wish if claimed else c.MOVABLE) == rest
        assert sum(zone.counts_of(c.MOVABLE if claimed else wish)) == 0
        # Half of the pageblock has to be free for it to change its type.
        assert zone.block_types() == [wish if order == 9 else c.MOVABLE]


def test_an_era_without_a_rule_or_its_source_is_refused(tmp_path: Path) -> None:
    text = (SHIPPED / "linux-2.6.24.toml").read_text(encoding="utf-8")
    path = tmp_path / "era.toml"
    path.write_text(text, encoding="utf-8")
    assert load_era(str(path)).kernel == "2.6.24"
    rules, sources = text.split("[source]\n")
    damaged = [("source", rules)]
    for key in ("kernel", "steal", "min_free_kb", "watermark", "kswapd_order"):
        damaged.append((key, re.sub(rf"(?m)^{key} = .*\n", "", rules, count=1) + "[source]\n" + sources))
    damaged.append(("watermark", rules + "[source]\n" + re.sub(r"(?m)^watermark = .*\n", "", sources)))
    damaged.append(("steal", text.replace('steal = "first"', 'steal = "second"')))
    for key, wrong in damaged:
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(InputError, match=rf"{path}.*{key}"):
            load_era(str(path))


def test_an_output_under_an_era_that_was_only_read_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "anon-holes", "--era", "linux-2.6.24"]) == 0
    shown = capsys.readouterr().out
    assert "linux-2.6.24" in shown and "not held against a running kernel" in shown
    layouts = ["--layout", "linux-2.6-8k", "--layout", "linux-2.6-4k"]
    assert main(["compare", *layouts, "--scenario", "anon-holes", "--era", "linux-2.6.5"]) == 0
    assert "not held against a running kernel" in capsys.readouterr().out
    assert main(["simulate", "anon-holes", "--era", "linux-9"]) == 2
    assert "linux-9" in capsys.readouterr().err
