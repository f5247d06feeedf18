"""Files of /proc: what they say is read exactly, and what is no such file is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.image.model import InputError
from stackfit.pages.procfs import (
    MAX_ORDERS,
    block_orders,
    buddy_pages,
    parse_buddyinfo,
    parse_counters,
    parse_kpageflags,
    parse_pagetypeinfo,
    parse_zoneinfo,
    read_bytes,
    read_text,
)

RECORDING = Path(__file__).resolve().parents[2] / "fixtures" / "recordings" / "pagetrace-i386"


def text(name: str) -> str:
    return read_text(RECORDING / name)


def test_buddyinfo() -> None:
    info = parse_buddyinfo("b", text("buddyinfo-1"))
    assert info.zones == ((0, "DMA"), (0, "Normal"))
    assert info.row((0, "Normal")).tolist() == [1, 3, 2, 21, 3, 2, 2, 2, 1, 1, 3]
    assert not info.row((0, "HighMem")).any()


def test_zoneinfo() -> None:
    zones = parse_zoneinfo("z", text("zoneinfo-0"))
    assert [zone.name for zone in zones] == ["DMA", "Normal", "HighMem", "Movable"]
    dma, normal = zones[:2]
    assert (dma.minimum, dma.low, dma.high, dma.boost) == (46, 57, 68, 0)
    assert dma.protection == (0, 90, 90, 90) and normal.index == 1
    assert (normal.start_pfn, normal.spanned, normal.present, normal.managed) == (4096, 28634, 28634, 24662)
    assert (normal.pagesets[0].count, normal.pagesets[0].high, normal.pagesets[0].batch) == (318, 352, 3)


def test_pagetypeinfo() -> None:
    types = parse_pagetypeinfo("p", text("pagetypeinfo-2"))
    assert types.pageblock_order == 10 and not types.capped.any()
    assert types.types == ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
    normal = types.zones.index((0, "Normal"))
    assert types.free[normal, 1].tolist() == [1305, 805, 362, 93, 20, 0, 2, 0, 1, 0, 0]
    assert types.blocks[types.zones.index((0, "DMA"))].tolist() == [1, 3, 0, 0, 0]
    assert types.blocks[normal].sum() == 28  # 28,634 page frames in pageblocks of 1,024


def test_a_count_that_the_kernel_capped_is_marked() -> None:
    capped = text("pagetypeinfo-0").replace("      3      2      3      4", " >100000      2      3      4")
    types = parse_pagetypeinfo("p", capped)
    assert types.capped.sum() == 1 and types.free[types.capped].tolist() == [100000]


def test_counters_of_vmstat_and_meminfo_agree() -> None:
    free = parse_counters("v", text("vmstat-2"))["nr_free_pages"]
    assert parse_counters("m", text("meminfo-2"))["MemFree"] == free * 4


@pytest.mark.parametrize("number", range(5))
def test_the_blocks_of_kpageflags_are_those_of_buddyinfo(number: int) -> None:
    path = RECORDING / f"kpageflags-{number}.gz"
    free = buddy_pages(parse_kpageflags(str(path), read_bytes(path, 1 << 20)))
    zone = np.where(np.arange(len(free)) < 4096, 0, 1).astype(np.int16)
    starts, orders = block_orders(free, zone, 11)
    want = parse_buddyinfo("b", text(f"buddyinfo-{number}")).counts
    for index in (0, 1):
        assert np.bincount(orders[zone[starts] == index], minlength=11).tolist() == want[index].tolist()


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(0, 300), st.integers(1, 7))
def test_blocks_are_aligned_maximal_and_cover_exactly_the_free_pages(
    pages: list[bool], border: int, orders: int
) -> None:
    free = np.array(pages)
    zone = (np.arange(len(free)) >= border).astype(np.int16)
    starts, kinds = block_orders(free, zone, orders)
    blocks = dict(zip(starts.tolist(), kinds.tolist(), strict=True))
    covered = [page for start, order in blocks.items() for page in range(start, start + (1 << order))]
    assert covered == np.flatnonzero(free).tolist()
    for start, order in blocks.items():
        assert start % (1 << order) == 0 and zone[start] == zone[start + (1 << order) - 1]
        buddy = start ^ (1 << order)
        if order + 1 < orders and blocks.get(buddy) == order:
            assert zone[start] != zone[buddy]


PARSERS = {
    "buddyinfo-0": parse_buddyinfo,
    "pagetypeinfo-0": parse_pagetypeinfo,
    "zoneinfo-0": parse_zoneinfo,
    "vmstat-0": parse_counters,
    "meminfo-0": parse_counters,
}


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_one_line(name: str, data: st.DataObject) -> None:
    good = text(name)
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(len(good), start + 200)))
    put = data.draw(st.text(alphabet="0123456789 \n\t-,:()>NodezoneDMA\x00é", max_size=40))
    try:
        PARSERS[name]("file", good[:start] + put + good[stop:])
    except InputError as error:
        assert str(error).startswith("file") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("parse", "content"),
    [
        (parse_buddyinfo, ""),
        (parse_buddyinfo, "Node 0, zone DMA 1 2\nNode 0, zone Normal 1"),
        (parse_buddyinfo, "Node 0, zone DMA 1\nNode 0, zone DMA 1"),
        (parse_buddyinfo, "Node 0, zone DMA -1"),
        (parse_buddyinfo, "Node 0, zone DMA " + "999999999999999999 " * MAX_ORDERS),
        (parse_pagetypeinfo, "Page block order: 9\n"),
        (parse_zoneinfo, "Node 0, zone DMA\n  pages free 1\n"),
        (parse_counters, "a b c d"),
    ],
)
def test_what_cannot_be_true_is_refused(parse: object, content: str) -> None:
    with pytest.raises(InputError):
        parse("file", content)  # type: ignore[operator]


def test_half_a_page_flag_is_refused() -> None:
    with pytest.raises(InputError):
        parse_kpageflags("k", b"\0" * 9)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "buddyinfo")
    with pytest.raises(InputError, match="not a regular file"):
        read_text(tmp_path / "buddyinfo")
