"""Builds small ELF files field by field, for tests that need a header to lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

X86_64, I386, ARM, RISCV, MIPS = 62, 3, 40, 243, 8
REL, EXEC, DYN = 1, 2, 3
PROGBITS, SYMTAB, STRTAB, RELA, NOTE, NOBITS, SHT_REL = 1, 2, 3, 4, 7, 8, 9
WRITE, ALLOC, EXECUTE, COMPRESSED = 1, 2, 4, 0x800
ABS, UNDEFINED = 0xFFF1, 0


@dataclass
class Part:
    """A section header and its contents; `size` and `offset` may contradict the contents."""

    name: str
    data: bytes = b""
    type: int = PROGBITS
    flags: int = ALLOC
    address: int = 0
    link: int = 0
    info: int = 0
    entry_size: int = 0
    size: int | None = None
    offset: int | None = None
    name_offset: int | None = None


@dataclass
class Elf:
    """Sections are numbered from 1 in the order of `parts`; the section names' table comes last."""

    bits: int = 64
    machine: int = X86_64
    type: int = REL
    parts: list[Part] = field(default_factory=list)
    big_endian: bool = False
    section_entry_size: int | None = None
    section_offset: int | None = None
    section_count: int | None = None
    names_index: int | None = None

    def build(self) -> bytes:
        order = ">" if self.big_endian else "<"
        names = b"\0"
        offsets = []
        parts = [*self.parts, Part(".shstrtab", type=STRTAB, flags=0)]
        for part in parts:
            offsets.append(len(names))
            names += part.name.encode() + b"\0"
        parts[-1].data = names
        header_size, entry_size = (64, 64) if self.bits == 64 else (52, 40)
        body, headers = b"", [bytes(entry_size)]
        for part, name in zip(parts, offsets, strict=True):
            offset = header_size + len(body) if part.offset is None else part.offset
            size = len(part.data) if part.size is None else part.size
            name = name if part.name_offset is None else part.name_offset
            form = "IIQQQQIIQQ" if self.bits == 64 else "10I"
            headers.append(
                struct.pack(
                    order + form,
                    name,
                    part.type,
                    part.flags,
                    part.address,
                    offset,
                    size,
                    part.link,
                    part.info,
                    1,
                    part.entry_size,
                )
            )
            body += part.data + bytes(-len(part.data) % 8)
        start = header_size + len(body) if self.section_offset is None else self.section_offset
        count = len(headers) if self.section_count is None else self.section_count
        names_index = len(headers) - 1 if self.names_index is None else self.names_index
        ident = b"\x7fELF" + bytes([2 if self.bits == 64 else 1, 2 if self.big_endian else 1, 1]) + bytes(9)
        word = "Q" if self.bits == 64 else "I"
        header = ident + struct.pack(
            order + "HHI" + 3 * word + "I6H", self.type, self.machine, 1, 0, 0, start, 0, header_size, 0, 0,
            entry_size if self.section_entry_size is None else self.section_entry_size, count, names_index,
        )  # fmt: skip
        return header + body + b"".join(headers)


def symbol(
    bits: int, name: int, value: int, section: int, kind: int = 2, binding: int = 1, size: int = 0
) -> bytes:
    info = binding << 4 | kind
    if bits == 64:
        return struct.pack("<IBBHQQ", name, info, 0, section, value, size)
    return struct.pack("<IIIBBH", name, value, size, info, 0, section)


def symbols(bits: int, table: list[tuple[str, int, int]], first: int, **more: int) -> list[Part]:
    """A symbol table (name, value, section) and its strings as sections `first` and `first + 1`."""
    strings = b"\0"
    entries = bytes(24 if bits == 64 else 16)
    for name, value, section in table:
        entries += symbol(bits, len(strings), value, section, **more)
        strings += name.encode() + b"\0"
    return [
        Part(".symtab", entries, SYMTAB, 0, link=first + 1, entry_size=24 if bits == 64 else 16),
        Part(".strtab", strings, STRTAB, 0),
    ]


def rela(offset: int, symbol_index: int, kind: int, addend: int = 0) -> bytes:
    return struct.pack("<QQq", offset, symbol_index << 32 | kind, addend)


def rel(offset: int, symbol_index: int, kind: int) -> bytes:
    return struct.pack("<II", offset, symbol_index << 8 | kind)
