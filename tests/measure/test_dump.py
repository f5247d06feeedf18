"""Marks of stacks in a memory dump, on cores that are made here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from stackfit.image.model import InputError, Machine
from stackfit.measure.core import open_dump
from stackfit.measure.dump import STACK_END_MAGIC, stack_marks

PAGE = 4096
STACK = 16384


def core(memory: bytes, cr3: int, machine: int = 62, cr4: int = 0) -> bytes:
    """An ELF core as QEMU writes it: one note with a CPU's registers, one segment of memory from 0."""
    state = bytearray(8 + 18 * 8 + 10 * 24 + 6 * 8)
    struct.pack_into("<QQ", state, 8 + 18 * 8 + 10 * 24 + 3 * 8, cr3, cr4)
    note = struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + bytes(state)
    head = 64 + 2 * 56
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    notes = struct.pack("<IIQQQQQQ", 4, 0, head, 0, 0, len(note), len(note), 0)
    load = struct.pack("<IIQQQQQQ", 1, 0, head + len(note), 0, 0, len(memory), len(memory), 0)
    return header + notes + load + note + memory


class Memory:
    """Physical memory with page tables of four levels at its start."""

    def __init__(self, pages: int) -> None:
        self.bytes = bytearray(pages * PAGE)
        self.next = 1  # page 0 is the top table

    def table(self, at: int, index: int) -> int:
        (entry,) = struct.unpack_from("<Q", self.bytes, at + 8 * index)
        if not entry:
            entry = self.next * PAGE | 3
            self.next += 1
            struct.pack_into("<Q", self.bytes, at + 8 * index, entry)
        return entry & ~0xFFF

    def map(self, virtual: int, physical: int, large: bool = False) -> None:
        at = 0
        for shift in (39, 30):
            at = self.table(at, virtual >> shift & 511)
        if large:
            struct.pack_into("<Q", self.bytes, at + 8 * (virtual >> 21 & 511), physical | 0x83)
            return
        at = self.table(at, virtual >> 21 & 511)
        struct.pack_into("<Q", self.bytes, at + 8 * (virtual >> 12 & 511), physical | 3)

    def word(self, physical: int, value: int) -> None:
        struct.pack_into("<Q", self.bytes, physical, value)


VMALLOC, DIRECT = 0xFFFFC90000000000, 0xFFFF888000000000


def stack(memory: Memory, virtual: int, pages: list[int], used: int | None) -> None:
    """A stack on scattered pages whose lowest word in use is `used` bytes from its base."""
    for number, page in enumerate(pages):
        memory.map(virtual + number * PAGE, page * PAGE)
    memory.word(pages[0] * PAGE, STACK_END_MAGIC)
    if used is not None:
        memory.word(pages[used // PAGE] * PAGE + used % PAGE, 1)


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "core"
    path.write_bytes(data)
    return path


def test_the_lowest_word_in_use_is_the_mark(tmp_path: Path) -> None:
    memory = Memory(64)
    stack(memory, VMALLOC, [40, 35, 37, 33], STACK - 1000)
    stack(memory, VMALLOC + 2 * STACK, [44, 45, 46, 47], 4096)
    marks = stack_marks(open_dump(write(tmp_path, core(bytes(memory.bytes), 0))))
    assert [(mark.bytes, mark.owner, mark.size) for mark in marks] == [
        (STACK - 4096, hex(VMALLOC + 2 * STACK), STACK),
        (1000, hex(VMALLOC), STACK),
    ]


def test_the_direct_map_and_neighbours_are_no_stacks(tmp_path: Path) -> None:
    memory = Memory(64)
    memory.map(DIRECT + (1 << 21), 1 << 21, large=True)
    stack(memory, VMALLOC, [40, 41, 42, 43], STACK - 8)
    for page in (40, 41, 42, 43):  # the same pages, mapped one by one in the direct map
        memory.map(DIRECT + page * PAGE, page * PAGE)
    stack(memory, VMALLOC + 4 * STACK, [48, 49, 50, 51], 8192)
    memory.map(VMALLOC + 5 * STACK, 52 * PAGE)  # no guard page behind it
    marks = stack_marks(open_dump(write(tmp_path, core(bytes(memory.bytes), 0))))
    assert [(mark.bytes, mark.owner) for mark in marks] == [(8, hex(VMALLOC))]


def test_i386_stacks_are_pairs_of_pages(tmp_path: Path) -> None:
    memory = Memory(16)
    for page in range(16):  # the directory is page 0, its table page 1: low memory from 3 GiB on
        struct.pack_into("<I", memory.bytes, PAGE + 4 * page, page * PAGE | 3)
    struct.pack_into("<I", memory.bytes, 4 * 0x300, PAGE | 3)
    struct.pack_into("<I", memory.bytes, 4 * PAGE, STACK_END_MAGIC)
    struct.pack_into("<I", memory.bytes, 4 * PAGE + 8192 - 500, 1)
    struct.pack_into("<I", memory.bytes, 7 * PAGE, STACK_END_MAGIC)  # not at the start of a pair
    dump = open_dump(write(tmp_path, core(bytes(memory.bytes), 0, machine=3)))
    assert dump.machine is Machine.I386
    assert [(mark.bytes, mark.address) for mark in stack_marks(dump)] == [(500, 0xC0004000)]


def test_i386_with_wide_page_tables(tmp_path: Path) -> None:
    """PAE: four entries, anywhere in memory, then tables of 512."""
    memory = Memory(16)
    struct.pack_into("<Q", memory.bytes, 0x60 + 8 * 3, PAGE | 1)  # from 3 GiB on
    struct.pack_into("<Q", memory.bytes, PAGE, 1 << 63 | 2 * PAGE | 3)  # not to be executed
    for page in range(16):
        struct.pack_into("<Q", memory.bytes, 2 * PAGE + 8 * page, 1 << 63 | page * PAGE | 3)
    struct.pack_into("<I", memory.bytes, 6 * PAGE, STACK_END_MAGIC)
    struct.pack_into("<I", memory.bytes, 6 * PAGE + 8192 - 300, 1)
    dump = open_dump(write(tmp_path, core(bytes(memory.bytes), 0x60, machine=3, cr4=1 << 5)))
    assert [(mark.bytes, mark.address) for mark in stack_marks(dump)] == [(300, 0xC0006000)]


def test_five_levels_of_page_tables(tmp_path: Path) -> None:
    memory = Memory(64)
    base = 0xFFA0000000000000  # VMALLOC_START with LA57
    table = 0
    for shift in (48, 39, 30, 21):
        table = memory.table(table, base >> shift & 511)
    for number, page in enumerate((40, 41, 42, 43)):
        struct.pack_into("<Q", memory.bytes, table + 8 * number, page * PAGE | 3)
    memory.word(40 * PAGE, STACK_END_MAGIC)
    memory.word(43 * PAGE + PAGE - 64, 1)
    (mark,) = stack_marks(open_dump(write(tmp_path, core(bytes(memory.bytes), 0, cr4=1 << 12))))
    assert (mark.bytes, mark.address) == (64, base)


def test_a_mark_at_the_end_is_the_whole_stack(tmp_path: Path) -> None:
    memory = Memory(64)
    stack(memory, VMALLOC, [40, 41, 42, 43], 8)
    (mark,) = stack_marks(open_dump(write(tmp_path, core(bytes(memory.bytes), 0))))
    assert mark.bytes == STACK - 8  # all but the end marker


def test_with_page_table_isolation_the_kernel_table_is_the_page_before(tmp_path: Path) -> None:
    memory = Memory(64)
    memory.next = 2  # page 1 is the top table of user mode: it has nothing of the kernel
    stack(memory, VMALLOC, [40, 41, 42, 43], STACK - 72)
    (mark,) = stack_marks(open_dump(write(tmp_path, core(bytes(memory.bytes), PAGE))))
    assert mark.bytes == 72


def test_page_tables_that_map_themselves_are_one_line(tmp_path: Path) -> None:
    memory = Memory(4)
    for index in range(512):
        struct.pack_into("<Q", memory.bytes, 8 * index, 3)  # every entry is the top table again
    with pytest.raises(InputError, match="maps itself"):
        stack_marks(open_dump(write(tmp_path, core(bytes(memory.bytes), 0))))


def test_page_tables_outside_the_dump_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no kernel mapping"):
        stack_marks(open_dump(write(tmp_path, core(bytes(2 * PAGE), 1 << 40))))


def two_segments(second: int) -> bytes:
    """A core whose second segment of memory begins at that physical address."""
    data = bytearray(core(bytes(2 * PAGE), 0))
    struct.pack_into("<H", data, 56, 3)  # the note's bytes begin where the third header is: not read
    load = struct.pack("<IIQQQQQQ", 1, 0, 64, 0, second, 64, 64, 0)
    data[64 + 2 * 56 : 64 + 3 * 56] = load
    return bytes(data)


def test_segments_that_overlap_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two segments have the physical address"):
        open_dump(write(tmp_path, two_segments(PAGE)))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"KDUMP   " + bytes(100), "not an ELF core .a compressed kdump"),
        (
            b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62) + bytes(100),
            "no core of an x86 machine",
        ),
        (core(bytes(PAGE), 0)[:-1], "cut short"),
        (core(bytes(PAGE), 0).replace(b"QEMU", b"CORE"), "neither registers of a CPU"),
        (b"\x7fELF", "not an ELF core"),
    ],
)
def test_what_is_no_dump_is_one_line(data: bytes, cause: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=cause):
        open_dump(write(tmp_path, data))
