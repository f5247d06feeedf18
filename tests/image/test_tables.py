"""The kernel's tables of code that changes or is left: every format, and tables that make no sense."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elves
from elves import ALLOC, EXECUTE, NOBITS, WRITE, Elf, Part
from stackfit.image.elf import read_elf
from stackfit.image.link import link
from stackfit.image.model import Program
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import Tables, read_tables

MODES = pytest.mark.parametrize("bits", [64, 32])
TEXT, TABLE = 0xC100_0000, 0xC200_0000  # an i386 kernel's; on x86-64 with the upper half set
UPPER = {64: 0xFFFF_FFFF_0000_0000, 32: 0}
NOP5 = bytes.fromhex("0f1f440000")


class Place:
    """Where a table's entry is being written: turns addresses into self-relative words."""

    def __init__(self, bits: int) -> None:
        self.bits, self.data = bits, b""

    def relative(self, *offsets: int) -> Place:
        for offset in offsets:
            self.data += struct.pack("<i", TEXT + offset - (TABLE + len(self.data)))
        return self

    def raw(self, form: str, *values: int) -> Place:
        self.data += struct.pack("<" + form, *values)
        return self

    def pointer(self, offset: int) -> Place:
        return self.raw("Q" if self.bits == 64 else "I", UPPER[self.bits] + TEXT + offset)


def program(bits: int, name: str, table: bytes, code: bytes = NOP5 * 40, flags: int = ALLOC) -> Program:
    """A linked kernel with some code and one table."""
    parts = [
        Part(".text", code, flags=ALLOC | EXECUTE, address=UPPER[bits] + TEXT),
        Part(name, table, flags=flags, address=UPPER[bits] + TABLE),
        Part("__ksymtab", b""),
    ]
    machine = elves.X86_64 if bits == 64 else elves.I386
    return link([read_elf("vmlinux", Elf(bits, machine, elves.EXEC, parts).build())])


def tables(bits: int, name: str, fill: Callable[[Place], object], **more: bytes) -> Tables:
    place = Place(bits)
    fill(place)
    return read_tables(program(bits, name, place.data, **more))


def offsets(addresses: np.ndarray, bits: int) -> list[int]:  # type: ignore[type-arg]
    return [int(address) - UPPER[bits] - TEXT for address in addresses]


# ---------------------------------------------------------------- each table


@MODES
def test_exceptions_since_5_16_and_before(bits: int) -> None:
    found = tables(
        bits, "__ex_table", lambda p: [p.relative(5 * i, 5 * i + 5).raw("I", 0x1203) for i in range(3)]
    )
    assert offsets(found.exceptions.place, bits) == [0, 5, 10]
    assert offsets(found.exceptions.fixup, bits) == [5, 10, 15]
    assert found.exceptions.type.tolist() == [3, 3, 3]  # EX_TYPE_*; registers stand above it
    found = tables(bits, "__ex_table", lambda p: [p.relative(5 * i, 5 * i + 5, 100) for i in range(3)])
    assert found.exceptions.type.tolist() == [-1, -1, -1]


@MODES
@pytest.mark.parametrize("verbose", [True, False])
def test_bugs_and_warnings(bits: int, verbose: bool) -> None:
    def fill(p: Place) -> None:
        for i, flags in enumerate((0, 1, 0x900, 0x901)):
            if bits == 64:
                p.relative(5 * i)
            else:
                p.pointer(5 * i)
            if verbose:
                p.raw("IH", 0x1234, 77)
            p.raw("H", flags)
            if not verbose:
                p.raw("H", 0)  # CONFIG_DEBUG_BUGVERBOSE=n: padded to the pointer's alignment

    found = tables(bits, "__bug_table", fill)
    assert offsets(found.bugs.place, bits) == [0, 5, 10, 15]
    assert found.bugs.warning.tolist() == [False, True, False, True]


@MODES
@pytest.mark.parametrize("form", ["HBBB", "HBB", "IBB"])
def test_alternatives_of_every_version(bits: int, form: str) -> None:
    def fill(p: Place) -> None:
        for i in range(20):
            p.relative(5 * i, 100 + 5 * i).raw(form, 7, 5, i % 6, *([0] if form == "HBBB" else []))

    found = tables(bits, ".altinstructions", fill).alternatives
    assert offsets(found.place, bits) == [5 * i for i in range(20)]
    assert offsets(found.replacement, bits) == [100 + 5 * i for i in range(20)]
    assert found.length.tolist() == [5] * 20
    assert found.replacement_length.tolist() == [i % 6 for i in range(20)]


def test_alternatives_that_turn_indirect_calls_into_direct_ones() -> None:
    direct, inverted = 1 << 17, 1 << 16  # ALT_FLAG_DIRECT_CALL, ALT_FLAG_NOT

    def fill(p: Place) -> None:
        for i in range(20):
            p.relative(5 * i, 100 + 5 * i).raw("IBB", 7 | (direct if i % 2 else inverted), 5, 5)

    found = tables(64, ".altinstructions", fill)
    assert found.alternatives.direct.tolist() == [bool(i % 2) for i in range(20)]
    assert offsets(found.paravirt, 64) == [5 * i for i in range(1, 20, 2)]


@MODES
def test_paravirt_sites(bits: int) -> None:
    pad = 6 if bits == 64 else 2
    found = tables(
        bits, ".parainstructions", lambda p: [p.pointer(5 * i).raw(f"BB{pad}x", 1, 5) for i in range(3)]
    )
    assert offsets(found.paravirt, bits) == [0, 5, 10]


def keys(count: int, bits: int) -> Callable[[Place], object]:
    def fill(p: Place) -> None:
        for i in range(count):
            p.relative(5 * i, 5 * i + 50).raw("q" if bits == 64 else "i", 64)

    return fill


@MODES
def test_static_keys_in_a_section_of_their_own(bits: int) -> None:
    found = tables(bits, "__jump_table", keys(2, bits)).static_keys
    assert (offsets(found.place, bits), offsets(found.target, bits)) == ([0, 5], [50, 55])


@MODES
def test_static_keys_amid_read_only_data(bits: int) -> None:
    # A linked kernel: __jump_table lies in .rodata, at no known place.
    noise = bytes(range(256)) * 4
    for code in (
        NOP5 * 40,
        b"\xe9\0\0\0\0" * 40,
        b"\x66\x90\x90\x90\x90" * 40,
        bytes.fromhex("3e8d742600") * 40,
    ):
        found = tables(
            bits,
            ".rodata",
            lambda p: (p.raw("1024s", noise), keys(6, bits)(p), p.raw("1024s", noise)),
            code=code,
        )  # type: ignore[arg-type]
        assert offsets(found.static_keys.place, bits) == [5 * i for i in range(6)]
        assert offsets(found.static_keys.target, bits) == [5 * i + 50 for i in range(6)]
    # Two entries in a row may be chance, and an entry is at a nop or a jmp.
    assert not tables(
        bits, ".rodata", lambda p: (keys(2, bits)(p), p.raw("64s", noise))
    ).static_keys.place.size  # type: ignore[arg-type]
    assert not tables(bits, ".rodata", keys(6, bits), code=b"\x50" * 200).static_keys.place.size


@MODES
def test_entries_that_point_outside_the_code_are_left_out(bits: int) -> None:
    def ex(p: Place) -> None:
        p.relative(0, 5).raw("I", 1).relative(-1, 5).raw("I", 1).relative(5, 10_000).raw("I", 1).relative(
            199, 199
        ).raw("I", 1)

    assert offsets(tables(bits, "__ex_table", ex).exceptions.place, bits) == [0, 199]
    assert not tables(
        bits, ".altinstructions", lambda p: [p.relative(-99, -99).raw("HBB", 1, 2, 2)]
    ).alternatives.place.size
    assert not tables(bits, "__jump_table", lambda p: p.relative(0, 5000).raw("q", 0)).static_keys.place.size


# ---------------------------------------------------------------- tables that make no sense

NAMES = ["__ex_table", "__bug_table", ".altinstructions", ".parainstructions", "__jump_table", ".rodata"]


@pytest.mark.parametrize("name", NAMES)
@MODES
def test_empty_short_and_absent_tables(bits: int, name: str) -> None:
    for size in (0, 1, 3, 4, 7, 8, 11, 12, 13, 15, 17):
        found = read_tables(program(bits, name, bytes(size)))
        assert found.static_keys.place.dtype == found.paravirt.dtype == np.uint64
    empty = Elf(parts=[Part(name, type=NOBITS, size=1 << 16, flags=ALLOC | WRITE)]).build()
    assert read_tables(link([read_elf("m.ko", empty)])).bugs.place.size == 0


@MODES
@given(
    name=st.sampled_from(NAMES), data=st.binary(max_size=400), filler=st.sampled_from([b"", b"\xff", b"\0"])
)
@settings(max_examples=300, deadline=None)
def test_random_tables_name_only_code(bits: int, name: str, data: bytes, filler: bytes) -> None:
    built = program(bits, name, data + filler * 64)
    found = read_tables(built)
    end = UPPER[bits] + TEXT + len(NOP5 * 40)
    for addresses in (
        found.static_keys.place,
        found.static_keys.target,
        found.exceptions.place,
        found.exceptions.fixup,
        found.alternatives.place,
        found.bugs.place,
        found.paravirt,
    ):
        assert bool(((addresses >= UPPER[bits] + TEXT) & (addresses < end)).all())
    assert found.bugs.warning.shape == found.bugs.place.shape
    assert bool((found.alternatives.replacement_length <= found.alternatives.length).all())


def test_a_megabyte_of_almost_keys_takes_no_time() -> None:
    # Every word points at a nop: entries overlap in all ways.
    words = b"".join(struct.pack("<i", TEXT + 5 * (i % 40) - (TABLE + 4 * i)) for i in range(1 << 18))
    found = read_tables(program(64, ".rodata", words))
    assert 0 < found.static_keys.place.size <= 1 << 18


# ---------------------------------------------------------------- pointers


@MODES
def test_pointers_come_from_relocations_or_the_kernels_own_list(bits: int) -> None:
    from dataclasses import replace

    place = Place(bits)
    for offset in (5, 5, 100, 199, 200, -1):
        place.pointer(offset)
    word = bits // 8
    built = program(bits, ".data", place.data, flags=ALLOC | WRITE)
    # Neither says where a pointer is: linked for one address, every word that is one counts.
    assert offsets(code_pointers(built), bits) == [5, 100, 199]
    listed = (
        UPPER[bits] + TABLE + word * np.array([0, 1, 2, 3, 4, 5, 6, 10**6, -1], np.int64).astype(np.uint64)
    )
    image = replace(built.images[0], pointers=listed.astype(np.uint64))
    assert offsets(code_pointers(replace(built, images=(image,))), bits) == [5, 100, 199]


@MODES
def test_lists_of_places_to_patch_are_no_pointers(bits: int) -> None:
    machine = elves.X86_64 if bits == 64 else elves.I386
    kind = ("rela", elves.RELA, 24) if bits == 64 else ("rel", elves.SHT_REL, 8)
    for name, expected in (("table", 1), (".smp_locks", 0), ("__mcount_loc", 0)):
        entry = elves.rela(8, 1, 1, 3) if bits == 64 else elves.rel(8, 1, 1)
        parts = [
            Part(".text", NOP5, flags=ALLOC | EXECUTE),
            Part(name, bytes(16)),
            *elves.symbols(bits, [("f", 0, 1)], first=3),
            Part(f".{kind[0]}", entry, kind[1], 0, link=3, info=2, entry_size=kind[2]),
        ]
        built = link([read_elf("m.ko", Elf(bits, machine, parts=parts).build())])
        assert len(code_pointers(built)) == expected, name
