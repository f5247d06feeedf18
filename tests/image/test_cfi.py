"""CFI tables: the CFA rules that other readers of the same DWARF decode, and no harm from bad bytes."""

from __future__ import annotations

import io
import mmap
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.dwarf.callframe import FDE, CallFrameInfo
from elftools.dwarf.structs import DWARFStructs
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.image.cfi import (
    CFA_UNDEFINED,
    MAXIMUM_CIES,
    MAXIMUM_SECTION,
    MAXIMUM_STATES,
    CfiTable,
    read_cfi,
)
from stackfit.image.elf import read_elf
from stackfit.image.link import link
from stackfit.image.model import SYMBOL_DTYPE, Image, ImageKind, InputError, Machine, Section, Symbols
from stackfit.image.orc import read_orc

TEXT = 0x1000
RSP, ESP = 7, 4

# ---------------------------------------------------------------- synthetic sections


def uleb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def entry(body: bytes, wide: bool = False) -> bytes:
    head = struct.pack("<IQ", 0xFFFFFFFF, len(body)) if wide else struct.pack("<I", len(body))
    return head + body


def cie(
    version: int = 1, wide: bool = False, program: bytes = b"\x0c\x07\x08", augmentation: bytes = b""
) -> bytes:
    """def_cfa rsp+8; code alignment 1, data alignment -8."""
    name, _, data = augmentation.partition(b"|")
    body = (b"\xff" * 8 if wide else b"\xff" * 4) + bytes([version]) + name + b"\0"
    body += bytes([8, 0]) if version == 4 else b""
    body += uleb(1) + b"\x78" + uleb(16) + (uleb(len(data)) + data if name else b"")
    return entry(body + program, wide)


def fde(program: bytes, start: int = TEXT, size: int = 0x100, cie_at: int = 0, wide: bool = False) -> bytes:
    return entry(struct.pack("<QQQ" if wide else "<IQQ", cie_at, start, size) + program, wide)


def section(name: str, address: int, data: bytes, flags: int = 0) -> Section:
    return Section(name, 1, flags, address, 0x40, len(data), 0, 0, 0, np.frombuffer(data, np.uint8))


def image(debug: bytes = b"", eh: bytes = b"", eh_at: int = 0x8000) -> Image:
    sections = [section(".text", TEXT, b"\x90" * 0x1000, 6)]
    sections += [section(".debug_frame", 0, debug)] if debug else []
    sections += [section(".eh_frame", eh_at, eh, 2)] if eh else []
    symbols = Symbols([], np.empty(0, SYMBOL_DTYPE))
    return Image("vmlinux", None, ImageKind.KERNEL, Machine.X86_64, tuple(sections), symbols, {})


def table_of(debug: bytes = b"", eh: bytes = b"") -> CfiTable:
    table = read_cfi(image(debug, eh))
    assert table is not None
    return table


def depths(table: CfiTable, *offsets: int) -> list[int]:
    return table.depth_at(np.array([TEXT + o for o in offsets], np.uint64)).tolist()


def test_depth_follows_the_program_and_ends_with_the_fde() -> None:
    # push at 0, sub at 4, add at 0x40, pop at 0x44, ret at 0x45
    program = b"\x41\x0e\x10\x47\x0e\xd0\x01\x02\x38\x0e\x10\x45\x0e\x08"
    table = table_of(cie() + fde(program, size=0x48))
    assert depths(table, -1, 0, 1, 7, 8, 0x3F, 0x40, 0x44, 0x45, 0x47, 0x48) == [
        -1, 8, 16, 16, 208, 208, 16, 16, 8, 8, -1,
    ]  # fmt: skip
    assert (table.start.tolist(), table.end.tolist()) == ([TEXT], [TEXT + 0x48])
    assert table.notes == ()


# offset, restore, expression, val_expression, offset_extended, offset_extended_sf, val_offset,
# val_offset_sf, restore_extended, undefined, same_value, register, GNU_args_size,
# GNU_negative_offset_extended, GNU_window_save, nop
OTHER_REGISTERS = bytes.fromhex(
    "8302 c3 1003017f 1603017f 05830102 11037e 140302 15037e 068301 0703 0803 090306 2e08 2f0301 2d 00"
)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"\x0a\x41\x0e\x20\x41\x0b", [8, 32, 8]),  # remember, restore
        (b"\x0a\x0e\x20\x0a\x0e\x30\x0b\x41\x0b\x41\x00", [32, 8, 8]),  # nested
        (b"\x0a\x41\x0d\x06\x41\x0b", [8, -1, 8]),  # rbp-based, then as before
        (b"\x41\x0c\x0a\x00\x41\x0c\x07\x08", [8, -1, 8]),  # r10-based
        (b"\x41\x0f\x02\x77\x08\x41\x0c\x07\x20", [8, -1, 32]),  # expression
        (b"\x41\x12\x07\x7d\x41\x13\x7e", [8, 24, 16]),  # def_cfa_sf, def_cfa_offset_sf: factored by -8
        (b"\x01" + struct.pack("<Q", TEXT + 1) + b"\x0e\x18\x41\x0e\x08", [8, 24, 8]),  # set_loc
        (b"\x03\x01\x00\x0e\x18\x04\x01\x00\x00\x00\x0e\x08", [8, 24, 8]),  # advance_loc2, advance_loc4
        (OTHER_REGISTERS + b"\x41\x0e\x10\x41\x0e\x08", [8, 16, 8]),
        (b"\x40\x0e\x10\x40\x0e\x18\x41\x0e\x20\x41\x00", [24, 32, 32]),  # advances by 0: the last rule holds
    ],
)
def test_every_instruction_of_dwarf(program: bytes, expected: list[int]) -> None:
    table = table_of(cie() + fde(program))
    assert table.notes == ()
    assert depths(table, 0, 1, 2) == expected


def test_a_program_with_addresses_is_not_shared_between_fdes() -> None:
    program = b"\x01" + struct.pack("<Q", TEXT + 0x10) + b"\x0e\x20"
    table = table_of(cie() + fde(program, TEXT, 0x10) + fde(program, TEXT + 0x10, 0x10))
    assert depths(table, 0, 0xF, 0x10, 0x1F, 0x20) == [8, 8, 32, 32, -1]


@pytest.mark.parametrize("version", [1, 3, 4])
@pytest.mark.parametrize("wide", [False, True])
def test_all_versions_in_32_bit_and_64_bit_dwarf(version: int, wide: bool) -> None:
    table = table_of(cie(version, wide) + fde(b"\x41\x0e\x10", wide=wide))
    assert depths(table, 0, 1) == [8, 16]


def test_a_cie_may_follow_its_fdes() -> None:
    first = fde(b"\x41\x0e\x10")
    assert depths(table_of(fde(b"\x41\x0e\x10", cie_at=len(first)) + cie()), 0, 1) == [8, 16]


def eh_frame(encoding: int, start: bytes, size: bytes, augmentation: bytes = b"zR") -> bytes:
    letters = {b"R": bytes([encoding]), b"P": b"\x03" + b"\0" * 4, b"L": b"\x1b", b"S": b""}
    data = b"".join(letters[augmentation[i : i + 1]] for i in range(1, len(augmentation)))
    head = b"\0" * 4 + b"\x01" + augmentation + b"\0\x01\x78\x10" + uleb(len(data)) + data + b"\x0c\x07\x08"
    out = entry(head)
    handler = b"\x04\x0e\x60\x0e\x60" if b"L" in augmentation else b"\0"  # data that is no program
    return out + entry(struct.pack("<I", len(out) + 4) + start + size + handler + b"\x41\x0e\x10")


@pytest.mark.parametrize(
    ("encoding", "start", "size"),
    [
        (0x1B, lambda place: struct.pack("<i", TEXT - place), struct.pack("<i", 0x40)),  # pcrel sdata4
        (0x1C, lambda place: struct.pack("<q", TEXT - place), struct.pack("<q", 0x40)),  # pcrel sdata8
        (0x03, lambda place: struct.pack("<I", TEXT), struct.pack("<I", 0x40)),  # udata4
        (0x02, lambda place: struct.pack("<H", TEXT), struct.pack("<H", 0x40)),  # udata2
        (0x00, lambda place: struct.pack("<Q", TEXT), struct.pack("<Q", 0x40)),  # absptr
        (0x01, lambda place: uleb(TEXT), uleb(0x40)),  # uleb128
    ],
)
@pytest.mark.parametrize("augmentation", [b"zR", b"zPLR"])
def test_pointer_encodings_of_eh_frame(encoding: int, start: Any, size: bytes, augmentation: bytes) -> None:
    behind = 8 if b"L" in augmentation else 4  # augmentation data and program
    place = 0x8000 + len(eh_frame(encoding, b"", b"", augmentation)) - behind  # of the initial location
    table = table_of(eh=eh_frame(encoding, start(place), size, augmentation) + bytes(4))
    assert depths(table, -1, 0, 1, 0x3F, 0x40) == [-1, 8, 16, 16, -1]


def test_a_signal_frame_has_no_depth_and_is_counted() -> None:
    start, size = struct.pack("<I", TEXT), struct.pack("<I", 0x40)
    table = table_of(eh=eh_frame(0x03, start, size, b"zRS"))
    assert depths(table, 0, 1) == [-1, -1]
    assert table.notes == ("1 FDEs left out: signal frame: depth undefined",)


def test_debug_frame_is_preferred_and_duplicates_are_counted() -> None:
    eh = eh_frame(0x03, struct.pack("<I", TEXT), struct.pack("<I", 0x100))
    table = table_of(cie() + fde(b"\x42\x0e\x20"), eh)
    assert depths(table, 0, 1, 2) == [8, 8, 32]
    assert table.notes == ("1 FDEs left out: same range as another",)


def test_fdes_that_overlap_or_lie_outside_code_are_left_out_and_counted() -> None:
    bad = fde(b"", start=TEXT + 0x20, size=0x20) + fde(b"", start=0, size=8) + fde(b"", start=TEXT + 0xFF0)
    table = table_of(cie() + bad + fde(b"\x41\x0e\x10"))
    assert depths(table, 1, 0x20, 0xFF, 0x100) == [16, 16, 16, -1]
    assert table.notes == (
        "2 FDEs left out: outside executable sections",
        "1 FDEs left out: overlaps another",
    )


def test_an_image_without_cfi_has_no_table() -> None:
    assert read_cfi(image()) is None


GOOD = fde(b"\x41\x0e\x10", start=TEXT + 0x800)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (fde(b"\x04\xff\xff\xff\xff\x0e\x10\x41"), "moves beyond its range"),
        (fde(b"\x04\xff\xff\xff\x7f\x0e\x10" * 100), "moves beyond its range"),
        (fde(b"\x01" + bytes(8)), "moves backwards"),
        (fde(b"\x0a" * (MAXIMUM_STATES + 1)), "too many remembered states"),
        (fde(b"\x0b"), "never remembered"),
        (fde(b"\x0e"), "truncated"),
        (fde(b"\x0e\x80"), "truncated"),
        (fde(b"\x0e" + b"\x80" * 100 + b"\x01"), "more than 64 bits"),
        (fde(b"\x0e\xff\xff\xff\xff\x0f"), "out of bounds"),
        (fde(b"\x0c\xff\xff\x07\x08"), "out of bounds"),
        (fde(b"\x0f\x7f"), "truncated"),
        (fde(b"\x0f\x00\x0d\x06"), "is an expression"),
        (fde(b"\x3f"), "unknown call frame instruction"),
        (fde(b"", size=0), "empty range"),
        (fde(b"", size=2**64 - 1), "beyond the address space"),
        (entry(b"\0" * 6), "truncated"),
        (entry(b"\0"), "truncated"),
        (fde(b"", cie_at=0x7FFFFFFF), "no CIE where the FDE says"),
        (fde(b"", cie_at=len(cie())), "no CIE where the FDE says"),  # the FDE itself
        (fde(b"", cie_at=4), "no CIE where the FDE says"),  # inside the CIE
    ],
)
def test_a_bad_fde_is_left_out_and_counted_and_its_neighbours_stay(bad: bytes, reason: str) -> None:
    table = table_of(cie() + bad + GOOD)
    assert depths(table, 0, 1, 0x800, 0x801) == [-1, -1, 8, 16]
    (note,) = table.notes
    assert note.startswith("1 FDEs left out: ") and reason in note


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (cie(version=2), "unknown CIE version"),
        (cie(augmentation=b"q|"), "unknown augmentation"),
        (cie(augmentation=b"zR|\x9b"), "unsupported pointer encoding"),
        (cie(augmentation=b"zR|\x0d"), "unsupported pointer encoding"),
        (cie(program=b"\x41\x0c\x07\x08"), "CIE program moves the location"),
        (cie(program=b"\x0c\x07"), "truncated"),
        (entry(b"\xff\xff\xff\xff\x01zzzz"), "truncated"),
    ],
)
def test_a_bad_cie_costs_only_its_own_fdes(bad: bytes, reason: str) -> None:
    good = fde(b"\x41\x0e\x10", start=TEXT + 0x800, cie_at=len(bad))
    table = table_of(bad + cie() + fde(b"") + good)
    assert depths(table, 0, 0x801) == [-1, 16]
    (note,) = table.notes
    assert reason in note


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (cie() + struct.pack("<I", 0x1000) + bytes(8), "ends beyond section .debug_frame"),
        (cie() + struct.pack("<IQ", 0xFFFFFFFF, 2**63) + bytes(8), "ends beyond section .debug_frame"),
        (cie() + struct.pack("<I", 0xFFFFFFF0) + bytes(8), "reserved length"),
        (cie() + b"\x01\x02", "ends inside an entry's length"),
        (cie() + b"\xff\xff\xff\xff\x01", "ends inside an entry's length"),
    ],
)
def test_entries_that_do_not_fill_their_section_are_refused(data: bytes, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as error:
        read_cfi(image(data))
    assert error.value.offset is not None and error.value.offset >= 0x40 + len(cie())


def test_a_section_above_the_cap_is_refused() -> None:
    with pytest.raises(InputError, match=f"{MAXIMUM_SECTION} accepted"):
        read_cfi(image(bytes(MAXIMUM_SECTION + 1)))


def test_more_cies_than_the_cap_are_refused() -> None:
    with pytest.raises(InputError, match=f"more than {MAXIMUM_CIES} CIEs"):
        read_cfi(image(entry(b"\xff\xff\xff\xff\x01") * (MAXIMUM_CIES + 1)))


VALID = cie() + fde(b"\x41\x0e\x10\x47\x0e\xd0\x01\x0a\x02\x38\x0e\x10\x45\x0b\x0f\x01\x77", size=0x80) + GOOD
VALID_EH = eh_frame(0x1B, struct.pack("<i", TEXT + 0x400 - 0x8020), struct.pack("<i", 0x40))


@settings(deadline=2000)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
    st.booleans(),
    st.integers(0, 60),
)
def test_corrupted_bytes_give_a_consistent_table_or_one_clear_error(
    changes: list[tuple[int, int]], eh: bool, cut: int
) -> None:
    data = bytearray(VALID_EH if eh else VALID)
    for place, value in changes:
        data[place % len(data)] = value
    damaged = bytes(data[: len(data) - cut])
    try:
        table = read_cfi(image(eh=damaged) if eh else image(damaged))
    except InputError:
        return
    if table is None:
        return
    assert (table.address[1:] >= table.address[:-1]).all()
    assert (table.start < table.end).all() and (table.start[1:] >= table.end[:-1]).all()
    everywhere = np.arange(TEXT - 8, TEXT + 0x1008, dtype=np.uint64)
    found = table.depth_at(everywhere)
    inside = ((everywhere[:, None] >= table.start) & (everywhere[:, None] < table.end)).any(axis=1)
    assert (found[~inside] == -1).all() and (found >= -1).all()


# ---------------------------------------------------------------- compiled programs, against pyelftools

SOURCE = r"""
#define KEEP __attribute__((noinline))
extern int sink(void *, ...);
KEEP int leaf(int a) { return a * 3; }
KEEP int big(int a) { char b[1000]; sink(b, a); return b[a]; }
KEEP int many(int a) {
    return sink(&a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, a) + sink(&a, a, 2, 3, 4, 5, 6, 7, 8, 9);
}
KEEP int dynamic(int n) { char *b = __builtin_alloca(n); sink(b, n); return b[n / 2]; }
KEEP int vla(int n) { int b[n + 1]; sink(b, n, n, n, n, n, n, n, n); return b[n]; }
KEEP int aligned(int n) { char b[64] __attribute__((aligned(64))); sink(b, n); return b[n]; }
KEEP int early(int a, int b, int c, int d) {
    if (a < 0) return -1;
    int x = sink(&a, b), y = sink(&b, c), z = sink(&c, d), w = sink(&d, a);
    if (x == y) return sink(&a, x, z, w) * x - y * z + w;
    for (int i = 0; i < d; i++) x += sink(&a, i, x, y, z, w);
    return x + y * z - w;
}
int sink(void *p, ...) { return *(volatile char *)p; }
void _start(void) { for (;;) leaf(big(many(dynamic(vla(aligned(early(1, 2, 3, 4))))))); }
"""
COMMON = [
    "-ffreestanding",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-nostdlib",
    "-static",
    "-fno-pie",
    "-no-pie",
]
DEBUG_ONLY = ["-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]


def build(directory: Path, *options: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    source, target = directory / "program.c", directory / "program"
    source.write_text(SOURCE)
    made = subprocess.run(
        ["gcc", *COMMON, *options, str(source), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode and "-m32" in options:
        pytest.skip("gcc cannot build for i386")
    assert made.returncode == 0, made.stderr
    return target


def decoded(entries: list[Any]) -> list[tuple[int, int, list[tuple[int, int, int]]]]:
    """(start, end, [(address, register, offset)]) of each FDE as pyelftools decodes it."""
    result = []
    for item in entries:
        if not isinstance(item, FDE):
            continue
        start = item["initial_location"]
        rows = []
        for row in item.get_decoded().table:
            rule = row["cfa"]
            plain = rule.expr is None
            rows.append((row["pc"], rule.reg if plain else CFA_UNDEFINED, rule.offset if plain else 0))
        if not rows:  # pyelftools gives an FDE without instructions no row: its CIE's rule holds
            rule = item.cie.get_decoded().table[-1]["cfa"]
            rows.append((start, rule.reg, rule.offset))
        result.append((start, start + item["address_range"], rows))
    return result


def compare(table: CfiTable, expected: list[tuple[int, int, list[tuple[int, int, int]]]]) -> int:
    """Compare the rule at the first and last byte of each expected row; the number of rows."""
    count = 0
    for start, end, rows in expected:
        stops = [row[0] for row in rows[1:]] + [end]
        for (address, register, offset), stop in zip(rows, stops, strict=True):
            if address >= stop:
                continue
            at = np.array([address, stop - 1], np.uint64)
            row = table.row_at(at)
            assert table.register[row].tolist() == [register] * 2, hex(address)
            assert table.offset[row].tolist() == [offset] * 2, hex(address)
            depth = offset if register == table.stack_pointer else -1
            assert table.depth_at(at).tolist() == [depth] * 2, hex(address)
            count += 1
        assert start in table.start and end in table.end
    return count


@pytest.mark.parametrize(
    "options",
    [
        ["-O2"],
        ["-O0"],
        ["-O2", "-m32"],
        ["-O0", "-m32"],
        ["-Os", "-m32", "-mno-accumulate-outgoing-args", "-fomit-frame-pointer"],
        ["-O2", *DEBUG_ONLY, "-gdwarf-2"],
        ["-O2", *DEBUG_ONLY, "-gdwarf-4"],
        ["-O2", *DEBUG_ONLY, "-gdwarf-5"],
        ["-O2", *DEBUG_ONLY, "-gdwarf-5", "-gdwarf64"],
        ["-Os", *DEBUG_ONLY, "-gz=zlib"],
        ["-O2", *DEBUG_ONLY, "-m32"],
    ],
    ids=" ".join,
)
def test_rows_equal_pyelftools_for_compiled_programs(tmp_path: Path, options: list[str]) -> None:
    path = build(tmp_path, *options)
    table = read_cfi(read_elf(str(path), path.read_bytes()))
    assert table is not None and table.notes == ()
    assert table.stack_pointer == (ESP if "-m32" in options else RSP)
    with path.open("rb") as file:
        info = ELFFile(file).get_dwarf_info()
        debug = "-g" in options
        entries = info.CFI_entries() if debug else info.EH_CFI_entries()
        expected = decoded(entries)
    assert len(expected) == len(table.start) == 9
    assert compare(table, expected) >= 9


@pytest.mark.parametrize(("options", "word"), [(["-O2"], 8), (["-O2", "-m32"], 4)])
def test_depth_at_entry_is_the_return_address(tmp_path: Path, options: list[str], word: int) -> None:
    path = build(tmp_path, *options)
    program = read_elf(str(path), path.read_bytes())
    table = read_cfi(program)
    assert table is not None
    entries = program.symbols.records["address"][program.symbols.records["type"] == 2]
    assert entries.size == 9 and table.depth_at(entries).tolist() == [word] * 9


ASSEMBLY = """
.cfi_sections .debug_frame
.text
.globl first
.type first, @function
first:
.cfi_startproc
nop
.cfi_adjust_cfa_offset 24
nop
.cfi_adjust_cfa_offset -24
nop
.cfi_endproc
.globl third
third:
.cfi_startproc
nop
.cfi_endproc
.section .init.text, "ax", @progbits
.globl second
.type second, @function
second:
.cfi_startproc
nop
.cfi_def_cfa_offset 1040
nop
.cfi_endproc
"""


@pytest.mark.parametrize(("flag", "word"), [("--64", 8), ("--32", 4)])
def test_a_linked_modules_debug_frame_is_relocated(tmp_path: Path, flag: str, word: int) -> None:
    if shutil.which("as") is None:
        pytest.skip("no assembler")
    paths = [tmp_path / "one.o", tmp_path / "two.o"]
    for path in paths:
        subprocess.run(["as", flag, "-o", str(path), "-"], input=ASSEMBLY, text=True, check=True)
    for module in link([read_elf(str(path), path.read_bytes()) for path in paths]).images:
        table = read_cfi(module)
        assert table is not None and table.notes == ()
        address = dict(zip(module.symbols.names, module.symbols.records["address"].tolist(), strict=True))
        first, second = address["first"], address["second"]
        at = np.array(
            [first, first + 1, first + 2, first + 3, first + 4, second, second + 1, second + 2], np.uint64
        )
        assert table.depth_at(at).tolist() == [word, word + 24, word, word, -1, word, 1040, -1]


# ---------------------------------------------------------------- real kernels


def load(path: Path) -> Image:
    with path.open("rb") as file:
        return read_elf(str(path), memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def sampled(frame: bytes, word: int, count: int) -> list[Any]:
    """pyelftools' reading of `count` random FDEs of a 32-bit .debug_frame, with their CIEs."""
    places, at = [], 0
    while at + 8 <= len(frame):
        length, pointer = struct.unpack_from("<II", frame, at)
        if pointer != 0xFFFFFFFF:
            places.append((at, pointer, length))
        at += 4 + length
    small = bytearray()
    for at, pointer, length in random.Random(20260101).sample(places, count):
        (cie_length,) = struct.unpack_from("<I", frame, pointer)
        cie_at = len(small)
        small += frame[pointer : pointer + 4 + cie_length]
        small += struct.pack("<II", length, cie_at) + frame[at + 8 : at + 4 + length]
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=word)
    return list(CallFrameInfo(io.BytesIO(bytes(small)), len(small), 0, structs).get_entries())


def check_kernel(path: Path, word: int) -> tuple[Image, CfiTable]:
    kernel = load(path)
    table, frame = read_cfi(kernel), kernel.section(".debug_frame")
    assert table is not None and frame is not None and table.notes == ()
    assert len(table.start) > 40_000
    expected = decoded(sampled(frame.data.tobytes(), word, 300))
    assert len(expected) == 300
    assert compare(table, expected) > 600
    return kernel, table


@pytest.mark.kernel
def test_the_amd64_kernels_rows_equal_pyelftools_and_agree_with_orc(amd64_vmlinux: Path) -> None:
    kernel, table = check_kernel(amd64_vmlinux, 8)
    orc, text = read_orc(kernel), kernel.section(".text")
    assert orc is not None and text is not None
    at = np.arange(text.address, text.end, dtype=np.uint64)
    one, other = orc.depth_at(at), table.depth_at(at)
    both = (one >= 0) & (other >= 0)
    assert np.count_nonzero(both) > 0.6 * at.size
    more = (one - other)[both]
    # ORC knows what inline assembly pushes, the compiler does not: whole words more, never fewer
    assert (more >= 0).all() and (more % 8 == 0).all()
    assert np.count_nonzero(more) <= 1e-4 * more.size


@pytest.mark.kernel
def test_the_i386_kernels_rows_equal_pyelftools(i386_vmlinux: Path) -> None:
    _, table = check_kernel(i386_vmlinux, 4)
    found = table.depth_at(table.start)
    # .cold parts start in their parent's frame, most often relative to ebp
    assert set(np.unique(found[found >= 0]) % 4) == {0} and np.count_nonzero(found == 4) > 0.8 * found.size
