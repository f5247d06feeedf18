"""x86 bzImage to the ELF file inside it, the kernel's release and its KASLR relocation tables.

Sources: `Documentation/x86/boot.rst` (setup header), `arch/x86/boot/compressed/mkpiggy.c` (payload),
`arch/x86/tools/relocs.c` (emit_relocs) and `arch/x86/boot/compressed/misc.c` (handle_relocations).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.compression import compression_of, decompress_stream
from stackfit.image.elf import is_elf
from stackfit.image.model import InputError

__all__ = ["Unpacked", "is_bzimage", "unpack"]

_SETUP_SECTORS, _BOOT_FLAG, _MAGIC, _VERSION, _KERNEL_VERSION = 0x1F1, 0x1FE, 0x202, 0x206, 0x20E
_PAYLOAD_OFFSET, _PAYLOAD_LENGTH = 0x248, 0x24C
_HEADER_END = 0x250
_SECTOR = 512
_SHT_NOBITS = 8
_SECTION_64 = np.dtype(
    [("name", "<u4"), ("type", "<u4"), ("_", "V16"), ("offset", "<u8"), ("size", "<u8"), ("__", "V24")]
)
_SECTION_32 = np.dtype(
    [("name", "<u4"), ("type", "<u4"), ("_", "V8"), ("offset", "<u4"), ("size", "<u4"), ("__", "V16")]
)


@dataclass(frozen=True, eq=False)
class Unpacked:
    """What a bzImage holds.

    `elf` is the kernel's ELF file without what the build appends to it. The relocation arrays are the places
    that KASLR moves, as link addresses (uint64; 32-bit table entries, sign-extended on x86-64 as the kernel
    does; a place in the per-CPU template is given at its load address, not at its link address):
    `relocations_64` hold 64-bit absolute addresses, `relocations_32` 32-bit ones, `inverse_32` 32-bit
    differences (per-CPU offset − kernel address), from which the kernel's shift is subtracted.
    All three are empty when the image has no table; `notes` then says so.
    """

    elf: memoryview
    compression: str
    release: str | None  # `uname -r`; None when the setup header names none
    relocations_64: NDArray[np.uint64]
    relocations_32: NDArray[np.uint64]
    inverse_32: NDArray[np.uint64]
    notes: tuple[str, ...] = ()


def is_bzimage(data: bytes | memoryview) -> bool:
    """Whether the data starts like an x86 kernel image: boot flag 0xaa55 and `HdrS`."""
    flag, magic = bytes(data[_BOOT_FLAG : _BOOT_FLAG + 2]), bytes(data[_MAGIC : _MAGIC + 4])
    return flag == b"\x55\xaa" and magic == b"HdrS"


def unpack(path: str, data: bytes | memoryview, cap: int | None = None) -> Unpacked:
    """Unpack an x86 bzImage in memory.

    `path` names the file in errors; `cap` is the greatest accepted size of the decompressed payload in bytes
    (None: compression.most_output).
    Raises InputError when the data is no bzImage with a payload (boot protocol 2.08, Linux 2.6.26, or later),
    or the payload is truncated, corrupt, larger than `cap`, of another size than it states, or no ELF file.
    """
    view = memoryview(data)
    if not is_bzimage(view):
        raise InputError(path, "not an x86 bzImage (no setup header)", _MAGIC)
    if len(view) < _HEADER_END:
        raise InputError(path, "setup header is truncated", len(view))
    version = _number(view, _VERSION, 2)
    if version < 0x208:
        protocol = f"{version >> 8}.{version & 0xFF:02}"
        cause = f"boot protocol {protocol} does not say where the payload is (2.08 and later do)"
        raise InputError(path, cause, _VERSION)
    sectors = view[_SETUP_SECTORS] or 4
    start = (sectors + 1) * _SECTOR + _number(view, _PAYLOAD_OFFSET, 4)
    length = _number(view, _PAYLOAD_LENGTH, 4)
    if length == 0 or start + length > len(view):
        cause = f"payload of {length} bytes at {start:#x} does not fit in the file's {len(view)} bytes"
        raise InputError(path, cause, _PAYLOAD_OFFSET)
    payload = view[start : start + length]
    out, used = decompress_stream(path, payload, cap, start)
    kind = compression_of(payload) or ""
    # Every method but gzip, whose own trailer says it, is followed by the 32-bit size of the content.
    trailer = bytes(payload[used:])
    if trailer and trailer != (len(out) & 0xFFFFFFFF).to_bytes(4, "little"):
        behind = trailer[:8].hex(" ")
        cause = f"{kind} data of {len(out)} decompressed bytes is followed by {behind}, not by its size"
        raise InputError(path, cause, start + used)
    if not trailer and kind != "gzip":
        raise InputError(path, f"{kind} data is not followed by its decompressed size", start + used)
    end, bits64 = _elf_end(path, out, start)
    tables, note = _relocations(out, end, bits64)
    return Unpacked(
        elf=memoryview(out).toreadonly()[:end],
        compression=kind,
        release=_release(view, sectors),
        relocations_64=tables[0],
        relocations_32=tables[2],
        inverse_32=tables[1],
        notes=(note,) if note else (),
    )


def _number(data: bytes | bytearray | memoryview, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


def _release(data: memoryview, sectors: int) -> str | None:
    """First word of the version string that the setup header points to (`uname -r`)."""
    pointer = _number(data, _KERNEL_VERSION, 2)
    if pointer == 0 or pointer >= sectors * _SECTOR:
        return None
    text = bytes(data[pointer + _SECTOR : (sectors + 1) * _SECTOR]).split(b"\0", 1)[0]
    word = text.split(b" ", 1)[0]
    return word.decode("ascii") if re.fullmatch(rb"[\x21-\x7e]{1,64}", word) else None


def _elf_end(path: str, data: bytes | bytearray, place: int) -> tuple[int, bool]:
    """(bytes of the ELF file at the start of `data`, whether it is a 64-bit one)."""
    if not is_elf(data) or len(data) < 64:
        raise InputError(path, "the payload is not an ELF file", place)
    bits64 = data[4] == 2
    if bits64:
        table, entry, count = _number(data, 40, 8), _number(data, 58, 2), _number(data, 60, 2)
    else:
        table, entry, count = _number(data, 32, 4), _number(data, 46, 2), _number(data, 48, 2)
    dtype = _SECTION_64 if bits64 else _SECTION_32
    end = table + count * dtype.itemsize
    if table == 0 or count == 0 or entry != dtype.itemsize or end > len(data):
        cause = "the payload's ELF file has no section headers, or they lie beyond its end"
        raise InputError(path, cause, place)
    headers = np.frombuffer(data, dtype, count, table)
    for header in headers[headers["type"] != _SHT_NOBITS]:
        end = max(end, int(header["offset"]) + int(header["size"]))
    if end > len(data):
        raise InputError(path, f"the payload's ELF file is truncated ({len(data)} of {end} bytes)", place)
    return end, bits64


def _relocations(
    data: bytes | bytearray, end: int, bits64: bool
) -> tuple[list[NDArray[np.uint64]], str | None]:
    """([64-bit places, inverse places, 32-bit places], note) from the words behind the ELF file.

    Each group starts with a zero word. i386 has one (32-bit), x86-64 has 64-bit, inverse, 32-bit; the inverse
    group is gone since Linux 6.15 (per-CPU addresses are ordinary ones there).
    """
    none = [np.empty(0, np.uint64)] * 3
    size = len(data) - end
    if size == 0:
        return none, "no relocation table is appended: which absolute pointers the kernel holds is not known"
    unknown = f"the {size} bytes behind the ELF file are no relocation table: absolute pointers are not known"
    if size % 4:
        return none, unknown
    words = np.frombuffer(data, "<i4", size // 4, end)
    zeros = np.flatnonzero(words == 0)
    if zeros.size not in ((2, 3) if bits64 else (1,)) or words[0] != 0:
        return none, unknown
    if bits64:
        wide = words.astype(np.int64).view(np.uint64)  # a 64-bit kernel's addresses are sign-extended
    else:
        wide = words.view("<u4").astype(np.uint64)
    groups = [group[1:] for group in np.split(wide, zeros[1:])]
    empty = none[0]
    if not bits64:
        return [empty, empty, groups[0]], None
    return [groups[0], groups[1] if len(groups) == 3 else empty, groups[-1]], None
