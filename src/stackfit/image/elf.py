"""ELF files to images: header, sections, symbols, relocations, notes (System V gABI chapters 4 and 5).

Little-endian x86 only. Every offset and size in a header is checked against the file before it is used,
so a lying header ends in one `InputError` that names the place.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

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

__all__ = ["is_elf", "read_elf"]

_MACHINES = {3: Machine.I386, 62: Machine.X86_64}
_MACHINE_NAMES = {8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "Arm", 183: "AArch64", 243: "RISC-V"}
_ET_REL, _ET_EXEC, _ET_DYN = 1, 2, 3
_SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA, _SHT_NOTE, _SHT_NOBITS, _SHT_REL = 2, 3, 4, 7, 8, 9
_SHF_COMPRESSED = 0x800
_SHN_LORESERVE, _SHN_XINDEX, _SHN_ABS = 0xFF00, 0xFFFF, 0xFFF1
MAXIMUM_SECTIONS = 100_000
MAXIMUM_SYMBOLS = 20_000_000
MAXIMUM_DECOMPRESSED_SECTION = 1 << 30

_SECTION_64 = np.dtype(
    [("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("address", "<u8"), ("offset", "<u8"), ("size", "<u8"),
     ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entry_size", "<u8")]
)  # fmt: skip
_SECTION_32 = np.dtype(
    [("name", "<u4"), ("type", "<u4"), ("flags", "<u4"), ("address", "<u4"), ("offset", "<u4"), ("size", "<u4"),
     ("link", "<u4"), ("info", "<u4"), ("align", "<u4"), ("entry_size", "<u4")]
)  # fmt: skip
_SYMBOL_64 = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")])
_SYMBOL_32 = np.dtype([("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2")])
_RELA_64 = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_RELA_32 = np.dtype([("offset", "<u4"), ("info", "<u4"), ("addend", "<i4")])
_REL_64 = np.dtype([("offset", "<u8"), ("info", "<u8")])
_REL_32 = np.dtype([("offset", "<u4"), ("info", "<u4")])


def is_elf(data: bytes | memoryview) -> bool:
    """Whether the file starts with the ELF magic."""
    return bytes(data[:4]) == b"\x7fELF"


def read_elf(path: str, data: bytes | memoryview, module: str | None = None) -> Image:
    """Read one ELF file.

    `path` names the file in errors; `module` names a kernel module (else taken from `.modinfo` or the path).
    Raises InputError on anything that is not a well-formed little-endian x86 ELF file.
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
    machine = _MACHINES.get(machine_number)
    if machine is None:
        name = _MACHINE_NAMES.get(machine_number, f"number {machine_number}")
        raise InputError(path, f"machine {name} is not supported (x86-64 and i386 are)", 18)
    if (machine is Machine.X86_64) != bits64:
        raise InputError(path, f"ELF class does not fit machine {machine.value}", 4)
    if file_type not in (_ET_REL, _ET_EXEC, _ET_DYN):
        raise InputError(path, f"ELF type {file_type} is not an executable or a relocatable object", 16)
    if bits64:
        header_offset, entry_size, count, names_index = number(40, 8), number(58, 2), number(60, 2), number(62, 2)
    else:
        header_offset, entry_size, count, names_index = number(32, 4), number(46, 2), number(48, 2), number(50, 2)
    if header_offset == 0:
        raise InputError(path, "no section headers (stripped of them)", 32 if not bits64 else 40)
    headers = _section_headers(path, raw, bits64, header_offset, entry_size, count)
    if names_index == _SHN_XINDEX:
        names_index = int(headers["link"][0])
    sections = _sections(path, raw, headers, names_index, bits64)
    symbols, symtab_index = _symbols(path, sections, bits64, file_type == _ET_REL)
    relocations = _relocations(path, sections, symtab_index, len(symbols), bits64, file_type == _ET_REL)
    kind = _kind(file_type, sections)
    release, own_name = _identity(kind, sections)
    if kind is ImageKind.MODULE and module is None:
        module = own_name or re.sub(r"\.ko(\.\w+)?$", "", path.rsplit("/", 1)[-1]).replace("-", "_")
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
    )


def _section_headers(
    path: str, raw: Bytes, bits64: bool, offset: int, entry_size: int, count: int
) -> NDArray[np.void]:
    dtype = _SECTION_64 if bits64 else _SECTION_32
    if entry_size != dtype.itemsize:
        raise InputError(path, f"section header entries of {entry_size} bytes, {dtype.itemsize} expected", offset)
    if offset + entry_size > raw.size:
        raise InputError(path, "section headers lie beyond the end of the file", offset)
    if count == 0:  # more than 0xff00 sections: the count is in entry 0
        count = int(np.frombuffer(raw[offset : offset + entry_size], dtype)["size"][0])
    if count == 0 or count > MAXIMUM_SECTIONS:
        raise InputError(path, f"{count} sections (1 to {MAXIMUM_SECTIONS} accepted)", offset)
    if offset + count * entry_size > raw.size:
        raise InputError(path, "section headers lie beyond the end of the file", offset)
    return np.frombuffer(raw[offset : offset + count * entry_size], dtype)


def _string(table: bytes, offset: int) -> str:
    end = table.find(b"\0", offset)
    return table[offset : end if end >= 0 else len(table)].decode("utf-8", "replace")


def _sections(
    path: str, raw: Bytes, headers: NDArray[np.void], names_index: int, bits64: bool
) -> tuple[Section, ...]:
    contents: list[Bytes] = []
    for index, header in enumerate(headers):
        offset, size = int(header["offset"]), int(header["size"])
        if int(header["type"]) in (0, _SHT_NOBITS) or size == 0:
            contents.append(raw[:0])
            continue
        if offset + size > raw.size:
            raise InputError(path, f"section {index} of {size} bytes ends beyond the end of the file", offset)
        data = raw[offset : offset + size]
        if int(header["flags"]) & _SHF_COMPRESSED:
            data = _decompressed(path, data, offset, bits64)
        contents.append(data)
    if names_index >= len(contents):
        raise InputError(path, f"section name table {names_index} does not exist", 62 if bits64 else 50)
    names = contents[names_index].tobytes()
    return tuple(
        Section(
            name=_string(names, int(header["name"])) if int(header["name"]) < len(names) else "",
            type=int(header["type"]),
            flags=int(header["flags"]) & ~_SHF_COMPRESSED,
            address=int(header["address"]),
            offset=int(header["offset"]),
            size=int(header["size"]) if not int(header["flags"]) & _SHF_COMPRESSED else int(data.size),
            link=int(header["link"]),
            info=int(header["info"]),
            entry_size=int(header["entry_size"]),
            data=data,
        )
        for header, data in zip(headers, contents, strict=True)
    )


def _decompressed(path: str, data: Bytes, offset: int, bits64: bool) -> Bytes:
    header = 24 if bits64 else 12
    if data.size < header:
        raise InputError(path, "compressed section is shorter than its header", offset)
    kind = int.from_bytes(data[:4].tobytes(), "little")
    at = 8 if bits64 else 4
    size = int.from_bytes(data[at : at + (8 if bits64 else 4)].tobytes(), "little")
    if size > MAXIMUM_DECOMPRESSED_SECTION:
        raise InputError(path, f"compressed section of {size} bytes (1 GiB accepted)", offset)
    body = data[header:].tobytes()
    if kind == 1:
        try:
            out = zlib.decompressobj().decompress(body, size)
        except zlib.error as error:
            raise InputError(path, f"compressed section: {error}", offset) from None
    elif kind == 2:
        import zstandard

        try:
            out = zstandard.ZstdDecompressor().decompress(body, max_output_size=size)
        except zstandard.ZstdError as error:
            raise InputError(path, f"compressed section: {error}", offset) from None
    else:
        raise InputError(path, f"section compressed by unknown method {kind}", offset)
    if len(out) != size:
        raise InputError(path, f"compressed section holds {len(out)} bytes, {size} promised", offset)
    return np.frombuffer(out, np.uint8)


def _names_of(path: str, table: bytes, offsets: NDArray[np.uint32], place: int) -> list[str]:
    if offsets.size and int(offsets.max()) >= max(len(table), 1):
        raise InputError(path, "a symbol's name lies outside the string table", place)
    text = table.decode("latin-1")  # one byte, one character: offsets stay offsets
    find = text.find
    names: list[str] = []
    for offset in offsets.tolist():
        end = find("\0", offset)
        names.append(text[offset:end] if end >= 0 else text[offset:])
    return names


def _symbols(path: str, sections: tuple[Section, ...], bits64: bool, relocatable: bool) -> tuple[Symbols, int]:
    """The symbol table and its section's index (-1 when there is none)."""
    for index, section in enumerate(sections):
        if section.type == _SHT_SYMTAB:
            break
    else:
        return Symbols([], np.empty(0, SYMBOL_DTYPE)), -1
    dtype = _SYMBOL_64 if bits64 else _SYMBOL_32
    if section.entry_size != dtype.itemsize:
        raise InputError(path, f"symbols of {section.entry_size} bytes, {dtype.itemsize} expected", section.offset)
    count = section.data.size // dtype.itemsize
    if count > MAXIMUM_SYMBOLS:
        raise InputError(path, f"{count} symbols ({MAXIMUM_SYMBOLS} accepted)", section.offset)
    if section.link >= len(sections) or sections[section.link].type != _SHT_STRTAB:
        raise InputError(path, "the symbol table has no string table", section.offset)
    raw = np.frombuffer(section.data[: count * dtype.itemsize], dtype)
    names = _names_of(path, sections[section.link].data.tobytes(), raw["name"], section.offset)
    records = np.zeros(count, SYMBOL_DTYPE)
    records["address"] = raw["value"]
    records["size"] = raw["size"]
    records["type"] = raw["info"] & 15
    records["binding"] = raw["info"] >> 4
    place = raw["section"].astype(np.int32)
    extended = _extended_indexes(sections, index, count)
    if extended is not None:
        place = np.where(place == _SHN_XINDEX, extended, place)
    defined = (place < _SHN_LORESERVE) | (raw["section"] == _SHN_XINDEX)
    if bool((defined & (place >= len(sections))).any()):
        bad = int(np.flatnonzero(defined & (place >= len(sections)))[0])
        raise InputError(path, f"symbol {bad} lies in section {int(place[bad])}, which does not exist", section.offset)
    records["section"] = np.where(place == 0, -2, np.where(defined, place, -1))
    for number in np.flatnonzero(records["type"] == 3).tolist():  # STT_SECTION symbols have no name of their own
        at = int(records["section"][number])
        if not names[number] and at >= 0:
            names[number] = sections[at].name
    return Symbols(names, records), index


def _extended_indexes(sections: tuple[Section, ...], symtab: int, count: int) -> NDArray[np.int32] | None:
    for section in sections:
        if section.type == 18 and section.link == symtab and section.data.size >= 4 * count:  # SHT_SYMTAB_SHNDX
            return np.frombuffer(section.data[: 4 * count], "<u4").astype(np.int32)
    return None


def _relocations(
    path: str, sections: tuple[Section, ...], symtab: int, symbols: int, bits64: bool, relocatable: bool
) -> dict[int, NDArray[np.void]]:
    tables: dict[int, NDArray[np.void]] = {}
    for section in sections:
        if section.type not in (_SHT_RELA, _SHT_REL) or section.size == 0 or section.link != symtab:
            continue
        if section.info == 0 or section.info >= len(sections):
            raise InputError(path, f"relocations {section.name} apply to no section", section.offset)
        target = sections[section.info]
        if not target.allocated:
            continue  # debug information: its readers decide for themselves
        rela = section.type == _SHT_RELA
        dtype = (_RELA_64 if rela else _REL_64) if bits64 else (_RELA_32 if rela else _REL_32)
        if section.entry_size != dtype.itemsize:
            raise InputError(
                path, f"relocations of {section.entry_size} bytes, {dtype.itemsize} expected", section.offset
            )
        count = section.data.size // dtype.itemsize
        raw = np.frombuffer(section.data[: count * dtype.itemsize], dtype)
        table = np.zeros(count, RELOCATION_DTYPE)
        # In an executable (--emit-relocs) offsets are addresses.
        base = 0 if relocatable else target.address
        table["offset"] = raw["offset"].astype(np.uint64) - np.uint64(base)
        shift = 32 if bits64 else 8
        table["symbol"] = raw["info"] >> raw["info"].dtype.type(shift)
        table["type"] = raw["info"] & raw["info"].dtype.type((1 << shift) - 1)
        if rela:
            table["addend"] = raw["addend"]
        if count:
            if bool((table["symbol"] >= symbols).any()):
                raise InputError(path, f"a relocation in {section.name} names no symbol", section.offset)
            outside = table["offset"] >= max(target.size, 1)
            if not relocatable:
                table = table[~outside]  # kept by --emit-relocs after the linker moved the place: already applied
            elif bool(outside.any()):
                raise InputError(path, f"a relocation in {section.name} lies outside {target.name}", section.offset)
        if section.info in tables:
            table = np.concatenate([tables[section.info], table])
        tables[section.info] = table
    return tables


def _kind(file_type: int, sections: tuple[Section, ...]) -> ImageKind:
    if file_type == _ET_REL:
        return ImageKind.MODULE
    if any(section.name in ("__ksymtab", "__ksymtab_strings") for section in sections):
        return ImageKind.KERNEL
    return ImageKind.EXECUTABLE


def _identity(kind: ImageKind, sections: tuple[Section, ...]) -> tuple[str | None, str | None]:
    """(release, module name): from `.modinfo` of a module, from the version banner of a kernel."""
    if kind is ImageKind.MODULE:
        fields = dict[str, str]()
        for section in sections:
            if section.name == ".modinfo":
                for item in section.data.tobytes().split(b"\0"):
                    key, _, value = item.decode("utf-8", "replace").partition("=")
                    fields.setdefault(key, value)
        vermagic = fields.get("vermagic", "").split(" ")[0]
        return vermagic or None, fields.get("name")
    if kind is ImageKind.KERNEL:
        for section in sections:
            if section.name in (".rodata", ".data", ".init.data"):
                match = re.search(rb"Linux version (\S+) \(", section.data.tobytes())
                if match:
                    return match[1].decode("ascii", "replace"), None
    return None, None


def _build_id(sections: tuple[Section, ...]) -> str | None:
    """The GNU build-id note's bytes in hex (gABI notes; NT_GNU_BUILD_ID = 3)."""
    for section in sections:
        if section.type != _SHT_NOTE:
            continue
        data, at = section.data.tobytes(), 0
        while at + 12 <= len(data):
            name_size, size, kind = (int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "little") for i in range(3))
            start = at + 12 + (name_size + 3 & ~3)
            if start + size > len(data):
                break
            if kind == 3 and data[at + 12 : at + 12 + name_size] == b"GNU\0":
                return data[start : start + size].hex()
            at = start + (size + 3 & ~3)
    return None
