"""Inputs of at most 1 MiB that are made to take time or memory: what chance does not find.

Each is a function of nothing that gives bytes; CASES says which targets of fuzz/targets.py read it.
"""

from __future__ import annotations

import bz2
import functools
import lzma
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lz4.block
import zstandard

from elves import (
    ALLOC,
    COMPRESSED,
    DYN,
    EXEC,
    EXECUTE,
    NOBITS,
    PROGBITS,
    REL,
    RELA,
    STRTAB,
    SYMTAB,
    X86_64,
    Elf,
    Part,
    rela,
    symbol,
)

CASES: dict[str, tuple[tuple[str, ...], Callable[[], bytes]]] = {}
MIB = 1 << 20
CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"


def hostile(*targets: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    def keep(make: Callable[[], bytes]) -> Callable[[], bytes]:
        CASES[make.__name__] = (targets, functools.cache(make))
        return make

    return keep


# ---------------------------------------------------------------- compression


def repeated(piece: bytes, times: int) -> Callable[[Callable[[bytes], bytes], Callable[[], bytes]], bytes]:
    """`piece` over and over through an incremental compressor, so that making a bomb takes no memory."""

    def run(step: Callable[[bytes], bytes], end: Callable[[], bytes]) -> bytes:
        block = piece * (MIB // len(piece))
        return b"".join([*(step(block) for _ in range(times)), end()])

    return run


ZEROS = bytes(MIB)


@hostile("elf", "recording", "events", "procfs", "kpageflags", "usage", "vmlinuz")
def gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return repeated(ZEROS, 200)(packer.compress, packer.flush)


@hostile("elf", "recording", "kpageflags", "usage")
def xz_bomb() -> bytes:
    packer = lzma.LZMACompressor(preset=0)
    return repeated(ZEROS, 200)(packer.compress, packer.flush)


@hostile("elf")
def lzma_bomb() -> bytes:
    packer = lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=0)
    return repeated(ZEROS, 200)(packer.compress, packer.flush)


@hostile("elf")
def bzip2_bomb() -> bytes:
    packer = bz2.BZ2Compressor(9)
    return repeated(ZEROS, 200)(packer.compress, packer.flush)


@hostile("elf", "recording")
def zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return repeated(ZEROS, 200)(packer.compress, packer.flush)


@hostile("elf")
def lz4_bomb() -> bytes:
    block = lz4.block.compress(bytes(8 << 20), store_size=False)
    return b"\x02\x21\x4c\x18" + (struct.pack("<I", len(block)) + block) * (MIB // (len(block) + 4))


def _text_bomb(line: str) -> bytes:
    packer = lzma.LZMACompressor(preset=0)
    return repeated(line.encode(), 200)(packer.compress, packer.flush)


@hostile("recording")
def bomb_of_stack_rows() -> bytes:
    return _text_bomb("  0)     2128      48   schedule+0x5/0xd0\n")


@hostile("recording")
def bomb_of_calls() -> bytes:
    return _text_bomb(" a-1 [000] d..1. 1.2: callee <-caller\n")


@hostile("recording")
def bomb_of_empty_lines() -> bytes:
    return _text_bomb("\n" * 64)


@hostile("traces")
def bomb_of_json() -> bytes:
    packer = lzma.LZMACompressor(preset=0)
    return packer.compress(b'{"a":[') + repeated(b"[],", 100)(packer.compress, lambda: b"") + packer.flush()


@hostile("events")
def bomb_of_events() -> bytes:
    return _text_bomb("1,1,mm_page_free,pfn=8,order=0\n")


@hostile("usage")
def bomb_of_usage() -> bytes:
    packer = lzma.LZMACompressor(preset=0)
    head = packer.compress(b"object,function,bytes,kind\n")
    return head + repeated(b"a/b.o,f,16,static\n", 100)(packer.compress, packer.flush)


# ---------------------------------------------------------------- ELF


@hostile("elf", "code", "check", "tables")
def sections_over_each_other() -> bytes:
    """Thousands of executable sections that are all the same half MiB of the file."""
    code = b"\x90" * (500 << 10)
    parts = [Part(".t", code, flags=ALLOC | EXECUTE, address=0x1000)]
    parts += [Part("", flags=ALLOC | EXECUTE, address=0x1000, size=len(code), offset=64) for _ in range(7000)]
    return Elf(parts=parts, type=REL).build()


@hostile("elf", "code", "check", "tables")
def many_sections() -> bytes:
    parts = [Part(".text", b"\xc3", flags=ALLOC | EXECUTE) for _ in range(12_000)]
    return Elf(parts=parts, type=REL).build()


@hostile("elf", "code", "check")
def sections_without_contents_beyond_measure() -> bytes:
    parts = [Part(".text", b"\xc3" * 64, flags=ALLOC | EXECUTE, address=0x1000)]
    parts += [
        Part(".bss", type=NOBITS, flags=flags, address=1 << 45, size=1 << 44)
        for flags in (ALLOC, ALLOC | EXECUTE)
    ]
    return Elf(parts=parts, type=EXEC).build()


@hostile("elf", "code", "check", "lists")
def many_symbols() -> bytes:
    """A function at every byte of the code."""
    code = b"\x90" * 20_000
    names = b"\0" + b"".join(b"f%d\0" % i for i in range(20_000))
    table, at = [bytes(24)], 1
    for i in range(20_000):
        table.append(symbol(64, at, 0x1000 + i, 1))
        at = names.index(b"\0", at) + 1
    parts = [
        Part(".text", code, flags=ALLOC | EXECUTE, address=0x1000),
        Part(".symtab", b"".join(table), SYMTAB, 0, link=3, entry_size=24),
        Part(".strtab", names, STRTAB, 0),
    ]
    return Elf(parts=parts, type=EXEC).build()


@hostile("elf", "code")
def names_within_names() -> bytes:
    """Every symbol's name is the tail of one that is half a MiB long."""
    names = b"\0" + b"a" * 500_000 + b"\0"
    table = [bytes(24)] + [symbol(64, 1 + i, 0x1000, 1) for i in range(20_000)]
    parts = [
        Part(".text", b"\xc3" * 64, flags=ALLOC | EXECUTE, address=0x1000),
        Part(".symtab", b"".join(table), SYMTAB, 0, link=3, entry_size=24),
        Part(".strtab", names, STRTAB, 0),
    ]
    return Elf(parts=parts, type=EXEC).build()


@hostile("elf")
def section_names_within_names() -> bytes:
    parts = [Part("n" * 300_000)] + [Part("", name_offset=1 + i) for i in range(10_000)]
    return Elf(parts=parts, type=REL).build()


@hostile("elf", "check", "code")
def many_relocations() -> bytes:
    table = b"".join(rela(8 * (i % 1000), 1, 1) for i in range(40_000))
    parts = [
        Part(".text", bytes(8192), flags=ALLOC | EXECUTE),
        Part(".symtab", bytes(24) + symbol(64, 0, 0, 1), SYMTAB, 0, link=3, entry_size=24),
        Part(".strtab", b"\0", STRTAB, 0),
        Part(".rela.text", table, RELA, 0, link=2, info=1, entry_size=24),
    ]
    return Elf(parts=parts, type=REL).build()


@hostile("elf", "dwarf", "source")
def compressed_section_bombs() -> bytes:
    body = zlib.compress(bytes(100 << 20), 9)
    data = struct.pack("<IIQQ", 1, 0, 100 << 20, 1) + body
    parts = [
        Part(".debug_info", data, PROGBITS, COMPRESSED),
        Part(".debug_abbrev", data, PROGBITS, COMPRESSED),
    ]
    return Elf(parts=parts, type=EXEC).build()


def _text(code: bytes, bits: int = 64, type_: int = DYN) -> bytes:
    named = symbol(bits, 1, 0x1000, 1)
    parts = [
        Part(".text", code, flags=ALLOC | EXECUTE, address=0x1000),
        Part(".symtab", bytes(len(named)) + named, SYMTAB, 0, link=3, entry_size=len(named)),
        Part(".strtab", b"\0start_kernel\0", STRTAB, 0),
        Part("__ksymtab", b""),
    ]
    return Elf(bits, X86_64 if bits == 64 else 3, type_, parts).build()


@hostile("code", "check")
def a_mib_of_calls_to_the_next() -> bytes:
    return _text(b"\xe8\0\0\0\0" * 150_000)


@hostile("code", "check")
def a_mib_of_branches() -> bytes:
    """Conditional jumps all over one function: forwards and backwards."""
    out = bytearray()
    for i in range(100_000):
        goal = (i * 7919) % 100_000
        out += b"\x0f\x84" + struct.pack("<i", 6 * (goal - i - 1))
    return _text(bytes(out) + b"\xc3")


@hostile("code", "check")
def a_mib_of_pushes_and_loops() -> bytes:
    """Every branch meets a way of another depth."""
    out = b"".join(b"\x50\x74" + struct.pack("b", -3 if i % 40 else -100) for i in range(200_000))
    return _text(out + b"\xc3")


@hostile("code", "check")
def everybody_calls_everybody() -> bytes:
    out = bytearray()
    for i in range(30_000):
        for goal in ((i * 31) % 30_000, (i * 17 + 5) % 30_000, (i * 101 + 7) % 30_000):
            out += b"\xe8" + struct.pack("<i", 32 * goal - len(out) - 5)
        out += b"\x48\x83\xec\x08\x48\x83\xc4\x08\xc3"
        out += b"\xcc" * (32 * (i + 1) - len(out))
    return _text(bytes(out))


@hostile("code", "check")
def a_chain_without_end() -> bytes:
    """Functions that each call the next: as deep as there are functions."""
    out = b"".join(b"\x55\xe8" + struct.pack("<i", 9) + b"\x5d\xc3" + b"\xcc" * 8 for _ in range(60_000))
    return _text(out)


# ---------------------------------------------------------------- debug information


def _debug(info: bytes, abbreviations: bytes, **sections: bytes) -> bytes:
    code = Part(".text", b"\x55\xc3" * 2048, flags=ALLOC | EXECUTE, address=0x1000)
    table = bytes(24) + symbol(64, 1, 0x1000, 1)
    parts = [
        code,
        Part(".symtab", table, SYMTAB, 0, link=3, entry_size=24),
        Part(".strtab", b"\0main\0", STRTAB, 0),
        Part(".debug_info", info, flags=0),
        Part(".debug_abbrev", abbreviations, flags=0),
        *(Part("." + name, data, flags=0) for name, data in sections.items()),
    ]
    return Elf(parts=parts, type=EXEC).build()


def _unit(entries: bytes, version: int = 4) -> bytes:
    body = struct.pack("<HIB", version, 0, 8) + entries
    return struct.pack("<I", len(body)) + body


# 1: unit with code and a range; 2: function; 3: typedef; 4: block of children; 5: leaf; 6: variable with a
# list; 7: block with ranges; 8: number; 9: typedef without name
_ABBREVIATIONS = (
    b"\x01\x11\x01\x11\x01\x12\x07\0\0"
    b"\x02\x2e\x01\x03\x08\x11\x01\x12\x07\x49\x13\0\0"
    b"\x03\x16\0\x03\x08\x49\x13\0\0"
    b"\x04\x0b\x01\0\0"
    b"\x05\x0a\0\0\0"
    b"\x06\x34\0\x03\x08\x02\x17\0\0"
    b"\x07\x0b\x01\x55\x17\0\0"
    b"\x08\x34\0\x1c\x0f\0\0"
    b"\x09\x16\0\x49\x13\0\0"
    b"\0"
)
_TOP = b"\x01" + struct.pack("<QQ", 0x1000, 0x1000)


def _function(type_at: int) -> bytes:
    return b"\x02main\0" + struct.pack("<QQI", 0x1000, 0x800, type_at)


@hostile("dwarf", "source")
def a_typedef_of_itself() -> bytes:
    at = 11 + len(_TOP)
    typedef = b"\x03t\0" + struct.pack("<I", at)
    return _debug(_unit(_TOP + typedef + _function(at) + b"\0\0"), _ABBREVIATIONS)


@hostile("dwarf", "source")
def blocks_within_blocks() -> bytes:
    return _debug(_unit(_TOP + _function(11) + b"\x04" * 900_000 + bytes(900)), _ABBREVIATIONS)


@hostile("dwarf", "source")
def very_many_entries() -> bytes:
    return _debug(_unit(_TOP + b"\x05" * 300_000 + _function(11) + b"\0\0"), _ABBREVIATIONS)


@hostile("dwarf", "source")
def a_million_entries_in_a_function() -> bytes:
    return _debug(_unit(_TOP + _function(11) + b"\x05" * 900_000 + b"\0\0"), _ABBREVIATIONS)


@hostile("dwarf", "source")
def a_number_without_end() -> bytes:
    return _debug(_unit(_TOP + _function(11) + b"\x08" + b"\x80" * 900_000 + b"\0\0\0"), _ABBREVIATIONS)


@hostile("dwarf", "source")
def numbers_almost_without_end() -> bytes:
    number = b"\x08" + b"\x80" * 8000 + b"\0"
    return _debug(_unit(_TOP + _function(11) + number * 110 + b"\0\0"), _ABBREVIATIONS)


@hostile("dwarf", "source")
def lists_that_many_share() -> bytes:
    """Ten thousand variables, the places of each a list of ten thousand."""
    places = b"".join(struct.pack("<QQH", i, i + 1, 1) + b"\x50" for i in range(10_000)) + bytes(16)
    variable = b"\x06v\0" + struct.pack("<I", 0)
    return _debug(_unit(_TOP + _function(11) + variable * 50_000 + b"\0\0"), _ABBREVIATIONS, debug_loc=places)


@hostile("dwarf", "source")
def ranges_that_many_share() -> bytes:
    ranges = b"".join(struct.pack("<QQ", i, i + 1) for i in range(20_000)) + bytes(16)
    block = b"\x07" + struct.pack("<I", 0) + b"\0"
    return _debug(_unit(_TOP + _function(11) + block * 50_000 + b"\0\0"), _ABBREVIATIONS, debug_ranges=ranges)


@hostile("dwarf", "source")
def many_units() -> bytes:
    return _debug(_unit(_TOP + b"\0") * 30_000, _ABBREVIATIONS)


@hostile("dwarf", "source")
def many_abbreviations() -> bytes:
    more = b"".join(b"%s\x05\0\0\0" % _uleb(10 + i) for i in range(100_000))
    return _debug(_unit(_TOP + _function(11) + b"\0\0") * 3000, _ABBREVIATIONS[:-1] + more + b"\0")


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@hostile("dwarf", "source")
def types_in_a_long_row() -> bytes:
    """Each typedef leads to the next."""
    start = 11 + len(_TOP)
    entries = b"".join(b"\x09" + struct.pack("<I", start + 5 * (i + 1)) for i in range(150_000))
    end = b"\x03e\0" + struct.pack("<I", start)
    return _debug(_unit(_TOP + entries + end + _function(start) + b"\0\0"), _ABBREVIATIONS)


def _line_table(program: bytes, files: bytes = b"a.c\0\0\0\0") -> bytes:
    lengths = bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    head = bytes([1, 1, 0xFB, 14, 13]) + lengths + b"\0" + files + b"\0"
    head = struct.pack("<I", len(head)) + head
    body = struct.pack("<H", 3) + head + program
    return struct.pack("<I", len(body)) + body


def _lines(table: bytes) -> bytes:
    abbreviations = b"\x01\x11\x01\x11\x01\x12\x07\x10\x17\0\0\0"
    return _debug(_unit(_TOP + struct.pack("<I", 0) + b"\0"), abbreviations, debug_line=table)


@hostile("source")
def a_line_number_without_end() -> bytes:
    return _lines(_line_table(b"\x03" + b"\x80" * 900_000 + b"\0\x01"))


@hostile("source")
def a_million_lines() -> bytes:
    return _lines(_line_table(b"\x20" * 900_000 + b"\0\x01\x01"))


@hostile("source")
def a_million_files() -> bytes:
    return _lines(_line_table(b"\x20\0\x01\x01", b"f\0\0\0\0" * 180_000))


@hostile("cfi")
def many_unwind_rows() -> bytes:
    cie = struct.pack("<I", 16) + struct.pack("<I", 0xFFFFFFFF) + b"\x01\0\x01\x78\x10\x0c\x07\x08" + bytes(4)
    program = b"\x41\x0e\x10\x41\x0e\x08" * 2000
    body = struct.pack("<IQQ", 0, 0x1000, 0x100) + program
    fde = struct.pack("<I", len(body)) + body
    code = Part(".text", b"\xc3" * 8192, flags=ALLOC | EXECUTE, address=0x1000)
    return Elf(parts=[code, Part(".debug_frame", cie + fde * 80, flags=0)], type=EXEC).build()


# ---------------------------------------------------------------- text


@hostile("layout", "assumptions", "scenario", "project")
def toml_of_brackets() -> bytes:
    return b"a = " + b"[" * 900_000


@hostile("layout", "assumptions", "scenario", "project")
def toml_of_dots() -> bytes:
    return b"a." * 500_000 + b"a = 1"


@hostile("layout", "assumptions", "project")
def toml_of_dotted_lines() -> bytes:
    return b"".join(b"k%d." % i + b"a." * 400 + b"a = 1\n" for i in range(1200))


@hostile("layout", "assumptions")
def toml_of_tables() -> bytes:
    return b"".join(b"[a%d]\n" % i for i in range(100_000))


@hostile("layout", "project")
def toml_of_inline_tables() -> bytes:
    return b"a = " + b"{a=" * 250_000 + b"1" + b"}" * 250_000


@hostile("traces", "built")
def json_of_brackets() -> bytes:
    return b'{"a":' + b"[" * 900_000


@hostile("traces")
def json_of_numbers() -> bytes:
    return b'{"schema":"stackfit.traces/1","places":[' + b"9" * 900_000 + b"]}"


@hostile("traces", "built")
def json_of_lists() -> bytes:
    return b'{"schema":"stackfit.traces/1","places":[' + b"[]," * 300_000 + b"0]}"


@hostile("recording")
def lines_that_are_almost_rows_of_perf() -> bytes:
    line = "\tffffffff81234567 vfs_write+0x235 (" + "x" * 60_000 + "\n"
    return (line * 15).encode()


@hostile("recording")
def lines_of_colons() -> bytes:
    return ("a:" + " :" * 30_000 + "\n").encode() * 15


@hostile("recording")
def lines_of_spaces() -> bytes:
    return (" " * 60_000 + "x\n").encode() * 8 + ("a: f" + " " * 60_000 + "x\n").encode() * 8


@hostile("recording")
def lines_of_names() -> bytes:
    return (":" + "a" * 60_000 + "+0x\n").encode() * 15


@hostile("recording")
def lines_of_log_marks() -> bytes:
    return b"Call Trace:\n" + b"".join(b"[ " * 30_000 + b"\n" for _ in range(15))


@hostile("events")
def events_of_fields() -> bytes:
    return b"".join(b"1,1,mm_page_free," + b"pfn=8," * 600 + b"order=0\n" for _ in range(250))


@hostile("events")
def events_of_spaces() -> bytes:
    return b"".join(b"[000] " * 600 + b"\n" for _ in range(250))


@hostile("procfs")
def many_zones() -> bytes:
    return "".join(f"Node {i}, zone Normal 1 2 3\n" for i in range(35_000)).encode()


@hostile("procfs")
def many_zone_heads() -> bytes:
    return "".join(f"Node {i}, zone Normal\n" for i in range(40_000)).encode()


@hostile("procfs")
def many_migratetypes() -> bytes:
    words = " ".join(f"t{i}" for i in range(100_000))
    return f"Page block order: 9\nNumber of blocks type {words}\n".encode()


@hostile("usage")
def a_long_field() -> bytes:
    return b"object,function,bytes,kind\n" + b"a" * 200_000 + b",f,1,static\n"


@hostile("usage")
def a_quote_without_end() -> bytes:
    return b'object,function,bytes,kind\n"' + b"a\n" * 400_000


# ---------------------------------------------------------------- databases


def _changed(*statements: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "d"
        path.write_bytes(lzma.decompress(next((CORPUS / "database").glob("cortex-m*")).read_bytes()))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            for statement in statements:
                connection.execute(statement)
        return path.read_bytes()


_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"


@hostile("database")
def everything_joins_everything() -> bytes:
    return _changed(
        "DROP TABLE sites", "DROP TABLE candidates",
        "CREATE TABLE sites (site, function, reason, kind, candidates)",
        "CREATE TABLE candidates (candidates, function)",
        f"{_NUMBERS} INSERT INTO sites SELECT i, 1, NULL, 'direct', 1 FROM n",
        f"{_NUMBERS} INSERT INTO candidates SELECT 1, i FROM n",
    )  # fmt: skip


@hostile("database")
def a_column_that_is_computed() -> bytes:
    return _changed(
        "DROP TABLE assumptions",
        "CREATE TABLE assumptions (kind, subject, reason GENERATED ALWAYS AS (hex(zeroblob(400000000))))",
        "INSERT INTO assumptions (kind, subject) VALUES (1, 2), (3, 4), (5, 6)",
    )


@hostile("database")
def a_view_without_end() -> bytes:
    return _changed(
        "DROP TABLE assumptions",
        "CREATE VIEW assumptions AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT i AS kind, i AS subject, i AS reason FROM n",
    )


@hostile("database")
def a_million_cells_from_many_columns() -> bytes:
    columns = ", ".join(f"c{i} GENERATED ALWAYS AS (hex(zeroblob(1000000)))" for i in range(500))
    return _changed("DROP TABLE assumptions", f"CREATE TABLE assumptions (kind, subject, reason, {columns})")


# ---------------------------------------------------------------- dumps


@hostile("core")
def page_tables_that_map_themselves() -> bytes:
    memory = bytearray(16 * 4096)
    for index in range(512):
        for page in range(8):
            struct.pack_into("<Q", memory, 4096 * page + 8 * index, (index % 8) * 4096 | 3)
    return _core(bytes(memory))


@hostile("core")
def page_tables_full_of_stacks() -> bytes:
    memory = bytearray(240 * 4096)
    struct.pack_into("<Q", memory, 8 * 400, 4096 | 3)
    for index in range(512):
        struct.pack_into("<Q", memory, 4096 + 8 * index, 8192 | 3)
        struct.pack_into("<Q", memory, 8192 + 8 * index, 3 * 4096 | 3)
        struct.pack_into("<Q", memory, 3 * 4096 + 8 * index, (16 + index % 200) * 4096 | 3)
    return _core(bytes(memory))


@hostile("core")
def many_segments() -> bytes:
    count = 4000
    head = 64 + (count + 1) * 56
    state = bytes(8 + 18 * 8 + 10 * 24 + 6 * 8)
    note = struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + state
    tables = struct.pack("<IIQQQQQQ", 4, 0, head, 0, 0, len(note), len(note), 0)
    for i in range(count):
        tables += struct.pack("<IIQQQQQQ", 1, 0, head, 0, i * 500_000, 400_000, 400_000, 0)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, count + 1, 0, 0, 0)
    return header + tables + note + b"OSRELEASE=" * 60_000


def _core(memory: bytes) -> bytes:
    state = bytes(8 + 18 * 8 + 10 * 24 + 6 * 8)
    note = struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + state
    head = 64 + 2 * 56
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    notes = struct.pack("<IIQQQQQQ", 4, 0, head, 0, 0, len(note), len(note), 0)
    load = struct.pack("<IIQQQQQQ", 1, 0, head + len(note), 0, 0, len(memory), len(memory), 0)
    return header + notes + load + note + memory
