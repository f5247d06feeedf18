"""ELF files to images: header, sections, symbols, relocations, notes (System V gABI chapters 4 and 5).

Little-endian x86, Arm, AArch64 and RISC-V. Every offset and size in a header is checked against the file
before it is used, and what a small file could describe as huge (overlapping sections and names, compressed
sections) is capped, so a lying header ends in one `InputError` that names the place.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
import zstandard
from numpy.typing import NDArray

from stackfit.image.compression import MAXIMUM_DICTIONARY, most_output
from stackfit.image.model import (
    RELOCATION_DTYPE,
    SYMBOL_DTYPE,
    Bytes,
    Image,
    ImageKind,
    InputError,
    Machine,
    Section,
    Symbols,
)
from stackfit.image.relative import apply_relative, read_relative

__all__ = ["is_elf", "read_elf"]

_RISCV = 243  # EM_RISCV
_MACHINES = {
    (3, False): Machine.I386,
    (62, True): Machine.X86_64,
    (40, False): Machine.ARM,
    (183, True): Machine.AARCH64,
    (_RISCV, False): Machine.RISCV32,
    (_RISCV, True): Machine.RISCV64,
}
_MACHINE_NAMES = {
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "S/390",
    83: "AVR",
    94: "Xtensa",
}
_ET_REL, _ET_EXEC, _ET_DYN = 1, 2, 3
_SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA, _SHT_NOTE, _SHT_NOBITS, _SHT_REL = 2, 3, 4, 7, 8, 9
_SHT_SYMTAB_SHNDX = 18
_SHF_COMPRESSED = 0x800
_SHN_LORESERVE, _SHN_XINDEX, _SHN_COMMON = 0xFF00, 0xFFFF, 0xFFF2
MAXIMUM_SECTIONS = 100_000
MAXIMUM_SYMBOLS = 20_000_000
MAXIMUM_RELOCATIONS = 20_000_000
MAXIMUM_DECOMPRESSED = 1 << 30  # bytes of all compressed sections together, and see most_output
MAXIMUM_NAMES = 1 << 30  # bytes of all names of one table
_MAXIMUM_NOTES = 1 << 16  # bytes of all notes that are searched for a build id

_SECTION_FIELDS = (
    "name",
    "type",
    "flags",
    "address",
    "offset",
    "size",
    "link",
    "info",
    "align",
    "entry_size",
)
_SECTION_64 = np.dtype(
    list(zip(_SECTION_FIELDS, ["u4", "u4", "u8", "u8", "u8", "u8", "u4", "u4", "u8", "u8"], strict=True))
)
_SECTION_32 = np.dtype([(name, "u4") for name in _SECTION_FIELDS])
_SYMBOL_64 = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_SYMBOL_32 = np.dtype(
    [("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2")]
)
_RELA_64 = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_RELA_32 = np.dtype([("offset", "<u4"), ("info", "<u4"), ("addend", "<i4")])
_REL_64 = np.dtype([("offset", "<u8"), ("info", "<u8")])
_REL_32 = np.dtype([("offset", "<u4"), ("info", "<u4")])


def is_elf(data: bytes | bytearray | memoryview) -> bool:
    """Whether the file starts with the ELF magic."""
    return bytes(data[:4]) == b"\x7fELF"


def read_elf(path: str, data: bytes | bytearray | memoryview, module: str | None = None) -> Image:
    """Read one ELF file.

    `path` names the file in errors; `module` names a kernel module (else taken from `.modinfo` or the path).
    Raises InputError on anything that is not a well-formed little-endian ELF file of a machine known here.
    """
    raw = np.frombuffer(data, np.uint8)
    if raw.size < 52 or not is_elf(data):
        raise InputError(path, "not an ELF file", 0)
    bits64 = int(raw[4]) == 2
    if int(raw[4]) not in (1, 2):
        raise InputError(path, f"unknown ELF class {int(raw[4])}", 4)
    if int(raw[5]) != 1:
        raise InputError(path, "big-endian ELF files are not supported", 5)
    if bits64 and raw.size < 64:
        raise InputError(path, "ELF header is truncated", raw.size)

    def number(offset: int, size: int) -> int:
        return int.from_bytes(raw[offset : offset + size].tobytes(), "little")

    file_type, machine_number = number(16, 2), number(18, 2)
    machine = _MACHINES.get((machine_number, bits64))
    if machine is None:
        other = _MACHINES.get((machine_number, not bits64))
        if other is not None:
            raise InputError(path, f"ELF class does not fit machine {other.value}", 4)
        name = _MACHINE_NAMES.get(machine_number, f"number {machine_number}")
        known = "x86-64, i386, Arm, AArch64 and RISC-V are"
        raise InputError(path, f"machine {name} is not supported ({known})", 18)
    if file_type not in (_ET_REL, _ET_EXEC, _ET_DYN):
        raise InputError(path, f"ELF type {file_type} is not an executable or a relocatable object", 16)
    if bits64:
        header_offset, entry_size, count, names_index = (
            number(40, 8),
            number(58, 2),
            number(60, 2),
            number(62, 2),
        )
    else:
        header_offset, entry_size, count, names_index = (
            number(32, 4),
            number(46, 2),
            number(48, 2),
            number(50, 2),
        )
    if header_offset == 0:
        raise InputError(path, "no section headers (stripped of them)", 32 if not bits64 else 40)
    headers = _section_headers(path, raw, bits64, header_offset, entry_size, count)
    if names_index == _SHN_XINDEX:
        names_index = int(headers["link"][0])
    sections = _sections(path, raw, headers, names_index, bits64)
    symbols, symtab_index = _symbols(path, sections, bits64, machine)
    addends = machine not in (Machine.I386, Machine.ARM)  # in the table, or in the place itself
    relocations = _relocations(
        path, sections, symtab_index, len(symbols), bits64, file_type == _ET_REL, addends
    )
    if file_type == _ET_REL:
        pointers = np.empty(0, np.uint64)
    else:
        sections, pointers = _relative(sections, machine)
    kind = _kind(file_type, sections)
    modinfo = _modinfo(sections) if kind is ImageKind.MODULE else {}
    release = modinfo.get("vermagic", "").split(" ")[0] or None
    if kind is ImageKind.KERNEL:
        release = _release(sections)
    if kind is ImageKind.MODULE and module is None:
        file = re.sub(r"\.(ko(\.\w+)?|o)$", "", path.rsplit("/", 1)[-1])
        module = modinfo.get("name") or file.replace("-", "_")
    return Image(
        path=path,
        module=module if kind is ImageKind.MODULE else None,
        kind=kind,
        machine=machine,
        sections=sections,
        symbols=symbols,
        relocations=relocations,
        build_id=_build_id(sections),
        release=release,
        modinfo=modinfo,
        entry=number(24, 8 if bits64 else 4),
        pointers=pointers,
    )


def _relative(
    sections: tuple[Section, ...], machine: Machine
) -> tuple[tuple[Section, ...], NDArray[np.uint64]]:
    """The sections with their relative relocations applied, and the places of those."""
    tables = [
        read_relative(section.data, machine)
        for section in sections
        if section.type == _SHT_RELA and section.allocated and section.info == 0
    ]
    if not tables:
        return sections, np.empty(0, np.uint64)
    places, pointers = (np.concatenate(column) for column in zip(*tables, strict=True))
    return apply_relative(sections, machine, places, pointers)


def _section_headers(
    path: str, raw: Bytes, bits64: bool, offset: int, entry_size: int, count: int
) -> NDArray[np.void]:
    dtype = _SECTION_64 if bits64 else _SECTION_32
    if entry_size != dtype.itemsize:
        raise InputError(
            path, f"section header entries of {entry_size} bytes, {dtype.itemsize} expected", offset
        )
    if offset + entry_size > raw.size:
        raise InputError(path, "section headers lie beyond the end of the file", offset)
    if count == 0:  # more than 0xff00 sections: the count is in entry 0
        count = int(np.frombuffer(raw[offset : offset + entry_size], dtype)["size"][0])
    if count == 0 or count > MAXIMUM_SECTIONS:
        raise InputError(path, f"{count} sections (1 to {MAXIMUM_SECTIONS} accepted)", offset)
    if offset + count * entry_size > raw.size:
        raise InputError(path, "section headers lie beyond the end of the file", offset)
    return np.frombuffer(raw[offset : offset + count * entry_size], dtype)


def _sections(
    path: str, raw: Bytes, headers: NDArray[np.void], names_index: int, bits64: bool
) -> tuple[Section, ...]:
    columns = list(zip(*(headers[name].tolist() for name in _SECTION_FIELDS), strict=True))
    limit = (1 << 64) - 1 if bits64 else 1 << 32  # the end of a section is an address in 64 bits, too
    left = most_output(raw.size, most=MAXIMUM_DECOMPRESSED)
    contents: list[Bytes] = []
    for index, (_, kind, flags, address, offset, size, *_) in enumerate(columns):
        if address + size > limit:
            raise InputError(path, f"section {index} of {size} bytes ends beyond the address space", offset)
        if kind in (0, _SHT_NOBITS) or size == 0:
            contents.append(raw[:0])
            continue
        if offset + size > raw.size:
            raise InputError(path, f"section {index} of {size} bytes ends beyond the end of the file", offset)
        data = raw[offset : offset + size]
        if flags & _SHF_COMPRESSED:
            data = _decompressed(path, data, offset, bits64, left)
            left -= data.size
        contents.append(data)
    if names_index >= len(contents):
        raise InputError(path, f"section name table {names_index} does not exist", 62 if bits64 else 50)
    names = _names_of(path, contents[names_index], headers["name"], "section")
    return tuple(
        Section(
            name, kind, flags & ~_SHF_COMPRESSED, address, offset,
            int(data.size) if flags & _SHF_COMPRESSED else size, link, info, entry_size, data,
        )
        for name, data, (_, kind, flags, address, offset, size, link, info, _, entry_size) in zip(
            names, contents, columns, strict=True
        )
    )  # fmt: skip


def _decompressed(path: str, data: Bytes, offset: int, bits64: bool, limit: int) -> Bytes:
    """Contents of an SHF_COMPRESSED section (gABI, Elf64_Chdr): zlib or zstd, at most `limit` bytes."""
    header = 24 if bits64 else 12
    if data.size < header:
        raise InputError(path, "compressed section is shorter than its header", offset)
    kind = int.from_bytes(data[:4].tobytes(), "little")
    at = 8 if bits64 else 4
    size = int.from_bytes(data[at : at + (8 if bits64 else 4)].tobytes(), "little")
    if size > limit:
        raise InputError(
            path, f"compressed section of {size} bytes, more than a file of this size may hold", offset
        )
    body = data[header:].tobytes()
    if kind == 1:
        try:
            out = zlib.decompressobj().decompress(body, size + 1)  # one more shows that it is longer
        except zlib.error as error:
            raise InputError(path, f"compressed section: {error}", offset) from None
    elif kind == 2:
        try:
            with zstandard.ZstdDecompressor(max_window_size=MAXIMUM_DICTIONARY).stream_reader(body) as reader:
                out = reader.read(size + 1)
        except zstandard.ZstdError as error:
            raise InputError(path, f"compressed section: {error}", offset) from None
    else:
        raise InputError(path, f"section compressed by unknown method {kind}", offset)
    if len(out) != size:
        more = "more than " if len(out) > size else ""
        raise InputError(
            path, f"compressed section holds {more}{min(len(out), size)} bytes, {size} promised", offset
        )
    return np.frombuffer(out, np.uint8)


def _names_of(path: str, table: Bytes, offsets: NDArray[np.uint32], what: str) -> list[str]:
    """The NUL-terminated names that begin at these offsets of a string table."""
    if offsets.size and int(offsets.max()) >= max(table.size, 1):
        raise InputError(path, f"a {what}'s name lies outside the string table")
    ends = np.append(np.flatnonzero(table == 0), table.size)
    last = ends[np.searchsorted(ends, offsets)]
    if int((last - offsets).sum()) > MAXIMUM_NAMES:  # they may overlap
        raise InputError(path, f"{what} names of more than {MAXIMUM_NAMES} bytes")
    text = table.tobytes().decode("latin-1")  # one byte, one character: offsets stay offsets
    return [text[at:end] for at, end in zip(offsets.tolist(), last.tolist(), strict=True)]


def _symbols(path: str, sections: tuple[Section, ...], bits64: bool, machine: Machine) -> tuple[Symbols, int]:
    """The symbol table and its section's index (-1 when there is none).

    On Arm the lowest bit of a function's address says that its code is T32 (AAELF32, 5.5.3): mapping symbols
    say so too, and it is taken off.
    """
    index = next((number for number, one in enumerate(sections) if one.type == _SHT_SYMTAB), -1)
    if index < 0:
        return Symbols([], np.empty(0, SYMBOL_DTYPE)), -1
    section = sections[index]
    dtype = _SYMBOL_64 if bits64 else _SYMBOL_32
    if section.entry_size != dtype.itemsize:
        raise InputError(
            path, f"symbols of {section.entry_size} bytes, {dtype.itemsize} expected", section.offset
        )
    count = section.data.size // dtype.itemsize
    if count > MAXIMUM_SYMBOLS:
        raise InputError(path, f"{count} symbols ({MAXIMUM_SYMBOLS} accepted)", section.offset)
    if section.link >= len(sections) or sections[section.link].type != _SHT_STRTAB:
        raise InputError(path, "the symbol table has no string table", section.offset)
    raw = np.frombuffer(section.data[: count * dtype.itemsize], dtype)
    names = _names_of(path, sections[section.link].data, raw["name"], "symbol")
    records = np.zeros(count, SYMBOL_DTYPE)
    records["address"] = raw["value"]
    records["size"] = raw["size"]
    records["type"] = raw["info"] & 15
    records["binding"] = raw["info"] >> 4
    if machine is Machine.ARM:
        records["address"] &= np.where(records["type"] == 2, ~np.uint64(1), ~np.uint64(0))  # STT_FUNC
    place = raw["section"].astype(np.int64)
    extended = _extended_indexes(sections, index, count)
    if extended is not None:
        place = np.where(place == _SHN_XINDEX, extended, place)
    defined = (place < _SHN_LORESERVE) | (raw["section"] == _SHN_XINDEX)
    if bool((defined & (place >= len(sections))).any()):
        bad = int(np.flatnonzero(defined & (place >= len(sections)))[0])
        raise InputError(
            path, f"symbol {bad} lies in section {int(place[bad])}, which does not exist", section.offset
        )
    # What is common to several objects (SHN_COMMON) has no place before they are linked: as if undefined.
    nowhere = (place == 0) | (raw["section"] == _SHN_COMMON)
    records["section"] = np.where(nowhere, -2, np.where(defined, place, -1))
    for number in np.flatnonzero(
        records["type"] == 3
    ).tolist():  # STT_SECTION symbols have no name of their own
        at = int(records["section"][number])
        if not names[number] and at >= 0:
            names[number] = sections[at].name
    return Symbols(names, records), index


def _extended_indexes(sections: tuple[Section, ...], symtab: int, count: int) -> NDArray[np.int64] | None:
    for section in sections:
        if section.type == _SHT_SYMTAB_SHNDX and section.link == symtab and section.data.size >= 4 * count:
            return np.frombuffer(section.data[: 4 * count], "<u4").astype(np.int64)
    return None


def _relocations(
    path: str,
    sections: tuple[Section, ...],
    symtab: int,
    symbols: int,
    bits64: bool,
    relocatable: bool,
    addends: bool,
) -> dict[int, NDArray[np.void]]:
    """Relocations of the loaded sections, by the index of the section they apply to."""
    chosen: dict[int, list[Section]] = {_SHT_RELA: [], _SHT_REL: []}
    for section in sections:
        if section.type not in chosen or section.size == 0 or section.link != symtab:
            continue
        if section.info == 0 and section.allocated and not relocatable:
            continue  # of the whole image: _relative()
        if section.info == 0 or section.info >= len(sections):
            raise InputError(path, f"relocations {section.name} apply to no section", section.offset)
        if sections[section.info].allocated:  # readers of debug information decide for themselves
            chosen[section.type].append(section)
    tables: dict[int, NDArray[np.void]] = {}
    for kind, found in chosen.items():
        if found and relocatable and (kind == _SHT_RELA) != addends:
            # The supplements, and the kernel's module loader: i386 and Arm have no addends in the table.
            raise InputError(
                path, f"relocations {found[0].name} have the other machine's form", found[0].offset
            )
        for target, table in _read_relocations(path, sections, found, symbols, bits64, relocatable):
            tables[target] = np.concatenate([tables[target], table]) if target in tables else table
    return tables


def _read_relocations(
    path: str,
    sections: tuple[Section, ...],
    found: list[Section],
    symbols: int,
    bits64: bool,
    relocatable: bool,
) -> list[tuple[int, NDArray[np.void]]]:
    """(target section, table) of every relocation section; all have the same form and are read at once."""
    if not found:
        return []
    rela = found[0].type == _SHT_RELA
    dtype = (_RELA_64 if rela else _REL_64) if bits64 else (_RELA_32 if rela else _REL_32)
    for section in found:
        if section.entry_size != dtype.itemsize:
            raise InputError(
                path, f"relocations of {section.entry_size} bytes, {dtype.itemsize} expected", section.offset
            )
    counts = [section.data.size // dtype.itemsize for section in found]
    total = sum(counts)
    if total > MAXIMUM_RELOCATIONS:
        raise InputError(path, f"{total} relocations ({MAXIMUM_RELOCATIONS} accepted)", found[0].offset)
    pieces = [section.data[: count * dtype.itemsize] for section, count in zip(found, counts, strict=True)]
    raw = np.concatenate(pieces).view(dtype)
    targets = [sections[section.info] for section in found]
    table = np.empty(total, RELOCATION_DTYPE)
    # In an executable (--emit-relocs) offsets are addresses.
    bases = np.array([0 if relocatable else target.address for target in targets], np.uint64)
    table["offset"] = raw["offset"].astype(np.uint64) - np.repeat(bases, counts)
    info = raw["info"].astype(np.uint64)
    shift = np.uint64(32 if bits64 else 8)
    table["symbol"] = info >> shift
    table["type"] = info & ((np.uint64(1) << shift) - np.uint64(1))
    table["addend"] = raw["addend"] if rela else 0
    number = np.repeat(np.arange(len(found)), counts)
    nameless = np.flatnonzero(table["symbol"] >= symbols)
    if nameless.size:
        section = found[int(number[nameless[0]])]
        raise InputError(path, f"a relocation in {section.name} names no symbol", section.offset)
    limits = np.array([max(target.size, 1) for target in targets], np.uint64)
    outside = table["offset"] >= limits[number]
    if relocatable and bool(outside.any()):
        section = found[int(number[outside.argmax()])]
        raise InputError(
            path, f"a relocation in {section.name} lies outside {sections[section.info].name}", section.offset
        )
    result: list[tuple[int, NDArray[np.void]]] = []
    start = 0
    for section, count in zip(found, counts, strict=True):
        part = table[start : start + count]
        if not relocatable:  # kept by --emit-relocs after the linker moved the place: already applied
            part = part[~outside[start : start + count]]
        result.append((section.info, part))
        start += count
    return result


def _kind(file_type: int, sections: tuple[Section, ...]) -> ImageKind:
    if file_type == _ET_REL:
        return ImageKind.MODULE
    if any(section.name in ("__ksymtab", "__ksymtab_strings") for section in sections):
        return ImageKind.KERNEL
    return ImageKind.EXECUTABLE


def _modinfo(sections: tuple[Section, ...]) -> dict[str, str]:
    """What a module says of itself; of a key given more than once, the first."""
    fields: dict[str, str] = {}
    data = next((section.data.tobytes() for section in sections if section.name == ".modinfo"), b"")
    for item in data.split(b"\0"):
        key, separator, value = item.decode("utf-8", "replace").partition("=")
        if separator:
            fields.setdefault(key, value)
    return fields


def _release(sections: tuple[Section, ...]) -> str | None:
    """Of a kernel: from its version banner."""
    first: dict[str, Section] = {}
    for section in sections:
        first.setdefault(section.name, section)
    for name in (".rodata", ".data", ".init.data"):
        if name in first and (match := _BANNER.search(first[name].data.data)):
            return match[1].decode("ascii", "replace")
    return None


_BANNER = re.compile(rb"Linux version ([^\s\0]{1,200}) \(")


def _build_id(sections: tuple[Section, ...]) -> str | None:
    """The GNU build-id note's bytes in hex (gABI notes; NT_GNU_BUILD_ID = 3)."""
    searched = 0
    for section in sections:
        if section.type != _SHT_NOTE or searched + section.data.size > _MAXIMUM_NOTES:
            continue
        searched += section.data.size
        data, at = section.data.tobytes(), 0
        while at + 12 <= len(data):
            name_size, size, kind = (
                int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "little") for i in range(3)
            )
            start = at + 12 + (name_size + 3 & ~3)
            if start + size > len(data):
                break
            if kind == 3 and data[at + 12 : at + 12 + name_size] == b"GNU\0":
                return data[start : start + size].hex()
            at = start + (size + 3 & ~3)
    return None
