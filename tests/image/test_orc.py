"""ORC tables: both entry formats give the depth that the kernel's unwinder would use."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackfit.image.elf import read_elf
from stackfit.image.link import link
from stackfit.image.model import SYMBOL_DTYPE, Image, ImageKind, InputError, Machine, Section, Symbols
from stackfit.image.orc import (
    ORC_TYPE_CALL,
    ORC_TYPE_END_OF_STACK,
    ORC_TYPE_REGS,
    ORC_TYPE_REGS_PARTIAL,
    ORC_TYPE_UNDEFINED,
    OrcFormat,
    OrcTable,
    read_orc,
)
from stackfit.image.vmlinuz import unpack

UNDEFINED, BP, SP, R10, SP_INDIRECT = 0, 4, 5, 6, 9
TEXT = 0xFFFFFFFF81000000
IP = 0xFFFFFFFF82000000  # the table lies above the code: place-relative addresses are negative

# (offset in the text, sp_reg, sp_offset, type of 6.4): what objtool emits for one small function each
LOGICAL = [
    (0x00, SP, 8, ORC_TYPE_CALL),
    (0x01, SP, 16, ORC_TYPE_CALL),
    (0x04, BP, 16, ORC_TYPE_CALL),
    (0x10, SP, 8, ORC_TYPE_CALL),
    (0x14, SP, 1040, ORC_TYPE_CALL),
    (0x20, SP, 0, ORC_TYPE_REGS),
    (0x24, SP, -16, ORC_TYPE_REGS_PARTIAL),
    (0x28, SP_INDIRECT, 0, ORC_TYPE_CALL),
    (0x2C, R10, 0, ORC_TYPE_CALL),
    (0x30, UNDEFINED, 0, ORC_TYPE_END_OF_STACK),
    (0x38, UNDEFINED, 0, ORC_TYPE_UNDEFINED),
]
EXPECTED = {
    -1: -1, 0: 8, 1: 16, 3: 16, 4: -1, 0xF: -1, 0x10: 8, 0x13: 8, 0x14: 1040, 0x1F: 1040, 0x20: -1, 0x24: -1,
    0x28: -1, 0x2C: -1, 0x30: -1, 0x38: -1, 0x1000: -1,
}  # fmt: skip


def older(register: int, kind: int, version: tuple[int, int]) -> int:
    """The last byte of a 4.14 to 6.3 entry."""
    if kind == ORC_TYPE_UNDEFINED:
        return 0
    if kind == ORC_TYPE_END_OF_STACK:
        return 8 if version >= (6, 3) else 4
    signal = 4 if version >= (6, 3) and kind >= ORC_TYPE_REGS else 0
    return (kind - ORC_TYPE_CALL) | signal


def newer(register: int, kind: int, version: tuple[int, int]) -> int:
    """The last byte of an entry from 6.4."""
    return kind | (8 if kind >= ORC_TYPE_REGS else 0)


def section(name: str, address: int, data: bytes) -> Section:
    return Section(name, 1, 2, address, 0x40, len(data), 0, 0, 0, np.frombuffer(data, np.uint8))


def image(*sections: Section, machine: Machine = Machine.X86_64) -> Image:
    return Image(
        "vmlinux", None, ImageKind.KERNEL, machine, sections, Symbols([], np.empty(0, SYMBOL_DTYPE)), {}
    )


def tables(entries: list[tuple[int, int, int, int]], version: tuple[int, int]) -> Image:
    last = newer if version >= (6, 4) else older
    ip = b"".join(struct.pack("<i", TEXT + e[0] - (IP + 4 * i)) for i, e in enumerate(entries))
    orc = b"".join(
        struct.pack("<hhBB", offset, 0, register, last(register, kind, version))
        for _, register, offset, kind in entries
    )
    return image(section(".orc_unwind_ip", IP, ip), section(".orc_unwind", IP + 0x10000, orc))


def depths(table: OrcTable | None, offsets: list[int]) -> list[int]:
    assert table is not None
    return table.depth_at(np.array([TEXT + o for o in offsets], np.uint64)).tolist()


VERSIONS = [(5, 10), (6, 1), (6, 3), (6, 4), (6, 12)]


@pytest.mark.parametrize("version", VERSIONS)
def test_depth_is_cfa_minus_rsp_where_a_call_frame_is_based_on_rsp(version: tuple[int, int]) -> None:
    table = read_orc(tables(LOGICAL, version))
    assert table is not None
    assert table.format is (OrcFormat.FROM_6_4 if version >= (6, 4) else OrcFormat.UP_TO_6_3)
    assert depths(table, list(EXPECTED)) == list(EXPECTED.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_types_have_one_meaning_in_all_formats(version: tuple[int, int]) -> None:
    table = read_orc(tables(LOGICAL, version))
    assert table is not None
    assert table.type.tolist() == [e[3] for e in LOGICAL]
    assert table.sp_register.tolist() == [e[1] for e in LOGICAL]
    assert table.sp_offset.tolist() == [e[2] for e in LOGICAL]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_modules_unsorted_table_is_sorted_and_a_terminator_hides_nothing(version: tuple[int, int]) -> None:
    # .init.text at 0x40 starts where .text ends; its terminator comes later in the file
    entries = [
        (0x40, SP, 8, ORC_TYPE_CALL),
        (0x44, SP, 24, ORC_TYPE_CALL),
        (0x60, UNDEFINED, 0, ORC_TYPE_UNDEFINED),
        (0x00, SP, 8, ORC_TYPE_CALL),
        (0x40, UNDEFINED, 0, ORC_TYPE_UNDEFINED),
    ]
    table = read_orc(tables(entries, version))
    assert depths(table, [0, 0x3F, 0x40, 0x44, 0x5F, 0x60]) == [8, 8, 8, 24, 24, -1]


def test_a_single_function_decides_the_format() -> None:
    for version in VERSIONS:
        table = read_orc(tables(LOGICAL[:1], version))
        assert table is not None and (table.format is OrcFormat.FROM_6_4) == (version >= (6, 4))
        assert depths(table, [-1, 0]) == [-1, 8]


def test_an_image_without_orc_has_no_table() -> None:
    assert read_orc(image()) is None
    i386 = tables(LOGICAL, (6, 1))
    assert read_orc(image(*i386.sections, machine=Machine.I386)) is None


def test_empty_sections_define_nothing() -> None:
    table = read_orc(image(section(".orc_unwind_ip", IP, b""), section(".orc_unwind", IP, b"")))
    assert depths(table, [0, 1]) == [-1, -1]


@pytest.mark.parametrize(
    ("sections", "cause"),
    [
        ([(".orc_unwind_ip", 4)], r"\.orc_unwind_ip without \.orc_unwind$"),
        ([(".orc_unwind", 6)], r"\.orc_unwind without \.orc_unwind_ip$"),
        ([(".orc_unwind_ip", 8), (".orc_unwind", 6)], "2 ORC addresses, 1 ORC entries"),
        ([(".orc_unwind_ip", 7), (".orc_unwind", 6)], "whole 4-byte entries"),
        ([(".orc_unwind_ip", 4), (".orc_unwind", 7)], "whole 6-byte entries"),
    ],
)
def test_sections_that_do_not_fit_are_refused(sections: list[tuple[str, int]], cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        read_orc(image(*(section(name, IP, bytes(size)) for name, size in sections)))


@st.composite
def raw_tables(draw: st.DrawFn) -> tuple[bytes, bytes]:
    count, extra = draw(st.integers(0, 60)), draw(st.sampled_from([0, 0, 0, 1, 4]))
    return draw(st.binary(min_size=4 * count, max_size=4 * count + extra)), draw(
        st.binary(min_size=6 * count, max_size=6 * count)
    )


@given(raw_tables(), st.integers(0, 2**64 - 1))
def test_any_bytes_give_a_sorted_table_or_one_clear_error(raw: tuple[bytes, bytes], address: int) -> None:
    ip, orc = raw
    try:
        table = read_orc(image(section(".orc_unwind_ip", address, ip), section(".orc_unwind", address, orc)))
    except InputError:
        assert len(ip) * 6 != len(orc) * 4
        return
    assert table is not None and len(table) * 4 == len(ip)
    assert (table.address[1:] >= table.address[:-1]).all()
    ends = np.array([0, 2**64 - 1], np.uint64)
    around = np.concatenate([table.address, table.address - np.uint64(1), ends])
    assert (table.depth_at(around) >= -1).all()


@given(st.lists(st.sampled_from([0, 2]), min_size=1, max_size=40), st.data())
def test_a_depth_comes_from_the_entry_that_holds_there(steps: list[int], data: st.DataObject) -> None:
    offsets = np.cumsum(steps).tolist()
    entries = [(o, SP, data.draw(st.integers(0, 2000)), ORC_TYPE_CALL) for o in offsets]
    table = read_orc(tables(entries, data.draw(st.sampled_from(VERSIONS))))
    for at in range(offsets[0], offsets[-1] + 3):
        (depth,) = depths(table, [at])
        assert depth == [e[2] for e in entries if e[0] <= at][-1]


def load(path: Path) -> Image:
    with path.open("rb") as file:
        return read_elf(str(path), memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def function_entries(linked: Image) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Entry addresses of the sized functions in .text."""
    text = linked.section(".text")
    assert text is not None
    records = linked.symbols.records
    chosen = (
        (records["type"] == 2)
        & (records["size"] > 0)
        & (records["address"] >= text.address)
        & (records["address"] < text.end)
    )
    return np.unique(records["address"][chosen])


@pytest.mark.kernel
def test_functions_of_the_kernel_start_at_depth_8(amd64_vmlinux: Path) -> None:
    kernel = load(amd64_vmlinux)
    table = read_orc(kernel)
    assert table is not None
    entries = function_entries(kernel)
    found = table.depth_at(entries)
    # .cold parts start at their parent's depth; entry code and naked thunks have none
    names = dict(zip(kernel.symbols.records["address"].tolist(), kernel.symbols.names, strict=True))
    whole = np.array([".cold" not in names[int(a)] for a in entries])
    assert len(entries) > 20_000
    assert np.count_nonzero(found[whole] == 8) >= 0.999 * np.count_nonzero(whole)


@pytest.mark.kernel
def test_the_compressed_kernel_carries_the_same_table(amd64_kernel: Any, amd64_vmlinux: Path) -> None:
    packed = unpack(str(amd64_kernel.vmlinuz), amd64_kernel.vmlinuz.read_bytes())
    one = read_orc(read_elf(str(amd64_kernel.vmlinuz), packed.elf))
    other = read_orc(load(amd64_vmlinux))
    assert one is not None and other is not None
    for column in ("address", "sp_register", "sp_offset", "type"):
        assert np.array_equal(getattr(one, column), getattr(other, column))


@pytest.mark.kernel
def test_functions_of_linked_modules_start_at_depth_8(amd64_kernel: Any) -> None:
    paths = sorted(amd64_kernel.modules.rglob("*.ko"))[:40]
    assert paths
    program = link([read_elf(str(path), path.read_bytes()) for path in paths])
    seen = 0
    for module in program.images:
        table = read_orc(module)
        if table is None or module.section(".text") is None:
            continue
        found = table.depth_at(function_entries(module))
        assert (found == 8).all(), module.path
        seen += found.size
    assert seen > 500
