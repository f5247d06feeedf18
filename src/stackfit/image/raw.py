"""Linux kernel images without an ELF file inside: a header, and then memory as the boot loader puts it there.

arm64 and RISC-V ship their `Image`, bare, compressed, or in an EFI application that unpacks it; Arm ships a
`zImage`, whose compressed payload is the same kind of memory. Nothing in it says where sections are. What is
known comes from the image's own kallsyms (the ranges of code, the names) and from the structure of its
tables. What lies between is kept as data.

Sources: Documentation/arm64/booting.rst, Documentation/riscv/boot-image-header.rst,
drivers/firmware/efi/libstub/zboot-header.S, arch/arm/boot/compressed/head.S;
arch/{arm,arm64,riscv}/kernel/vmlinux.lds.S.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.compression import MAXIMUM_OUTPUT, compression_of, decompress_stream
from stackfit.image.kallsyms import read_kallsyms
from stackfit.image.model import SYMBOL_DTYPE, Bytes, Image, ImageKind, InputError, Machine, Section, Symbols
from stackfit.image.raw_tables import find_tables
from stackfit.image.relative import apply_relative, read_relative, relative_type

__all__ = ["is_raw_kernel", "read_raw_kernel"]

_PROGBITS, _NOBITS = 1, 8
_DATA, _READ_ONLY, _CODE = 3, 2, 6  # SHF_ALLOC with SHF_WRITE, alone, with SHF_EXECINSTR
_BANNER = re.compile(rb"Linux version ([^\s\0]{1,200}) \(")
_BUILD_ID = re.compile(rb"\x04\0\0\0(.)\0\0\0\x03\0\0\0GNU\0", re.DOTALL)
_IMAGE_SIZE = 0x10  # of arm64's and RISC-V's header: bytes with .bss
_ZIMAGE_MAGIC = (0x016F2818).to_bytes(4, "little")
_ZBOOT_PAYLOAD = 8  # offset and size of the payload, 32 bits each
_PAGE = 4096
_LARGEST_VDSO = 0x8000  # bytes
_LEAST_RELATIVE = 256
_LEAST_CALLS = 256
_LARGEST_HEAD = 4 << 20  # bytes before _stext
_SHARE = 0.9  # of the direct calls that must lead to a symbol for addresses to be believed
_PAYLOAD_MAGICS = re.compile(
    rb"\xfd7zXZ\0|\x1f\x8b\x08|\x28\xb5\x2f\xfd|\x02\x21\x4c\x18|\x89LZO\0\r\n\x1a\n|\x5d\0\0"
)
_MOST_PAYLOADS = 64  # places tried in a zImage


def _machine_of(data: bytes | memoryview) -> Machine | None:
    """The machine by the header of an uncompressed `Image`."""
    head = bytes(data[:64])
    if head[0x38:0x3C] == b"ARM\x64":
        return Machine.AARCH64
    if head[0x30:0x38] == b"RISCV\0\0\0" and head[0x38:0x3C] == b"RSC\x05":
        return Machine.RISCV64
    return None


def is_raw_kernel(data: bytes | memoryview) -> bool:
    """Whether the data starts like an `Image`, one in an EFI application, or a `zImage`."""
    head = bytes(data[:64])
    zboot = head[:2] == b"MZ" and head[4:8] == b"zimg"
    return _machine_of(data) is not None or zboot or head[0x24:0x28] == _ZIMAGE_MAGIC


def read_raw_kernel(path: str, data: bytes | memoryview) -> Image:
    """Read a kernel image without an ELF file, named from its kallsyms.

    Raises InputError where it is truncated or corrupt, has no kallsyms, or where its code's calls do not lead
    to the functions that these name.
    """
    machine, memory = _unpacked(path, memoryview(data))
    pointers = np.empty(0, np.uint64)
    if machine.word == 8:
        places, values = _relative_table(memory, machine)
    else:
        places = values = pointers
    if places.size:
        base = int(values.min())
        whole = _section(".image", _READ_ONLY, base, memory, 0, memory.size)
        if base % _PAGE or not base <= int(places.min()) <= int(places.max()) < base + memory.size:
            raise InputError(path, "the table of relative relocations does not fit the image")
        (whole,), pointers = apply_relative((whole,), machine, places, values)
        memory = whole.data
        symbols = read_kallsyms(_image(path, machine, (whole,)))
    else:
        symbols = read_kallsyms(_image(path, machine, _anywhere(memory, machine)))
        base = _start_of(path, machine, memory, symbols)
    sections = _sections(path, machine, memory, base, symbols)
    sections = find_tables(sections, machine)
    _check_calls(path, machine, sections, symbols)
    image = _image(path, machine, sections)
    return replace(
        image,
        symbols=read_kallsyms(image),
        symbol_source="kallsyms",
        build_id=_build_id(memory),
        release=_release(memory),
        entry=base,
        pointers=pointers,
    )


def _unpacked(path: str, data: memoryview) -> tuple[Machine, Bytes]:
    """(machine, the kernel as it is in memory)."""
    machine = _machine_of(data)
    if machine is not None:
        return machine, np.frombuffer(data, np.uint8)
    if bytes(data[4:8]) == b"zimg":
        start, size = (
            int.from_bytes(data[at : at + 4], "little") for at in (_ZBOOT_PAYLOAD, _ZBOOT_PAYLOAD + 4)
        )
        if not size or start + size > len(data):
            cause = f"payload of {size} bytes at {start:#x} does not fit in the file's {len(data)} bytes"
            raise InputError(path, cause, _ZBOOT_PAYLOAD)
        inner = data[start : start + size]
        if compression_of(inner) is not None:
            inner = memoryview(decompress_stream(path, inner, MAXIMUM_OUTPUT, start)[0])
        machine = _machine_of(inner)
        if machine is None:
            raise InputError(path, "the payload is no kernel image that is known here", start)
        return machine, np.frombuffer(inner, np.uint8)
    return Machine.ARM, np.frombuffer(_zimage_payload(path, data), np.uint8)


def _zimage_payload(path: str, data: memoryview) -> bytes | bytearray:
    """The kernel in a `zImage`: the first compressed data behind the code that unpacks it which holds one."""
    raw = bytes(data)
    first: InputError | None = None
    for number, match in enumerate(_PAYLOAD_MAGICS.finditer(raw, 0x400)):
        if number == _MOST_PAYLOADS:
            break
        try:
            out, _ = decompress_stream(path, data[match.start() :], MAXIMUM_OUTPUT, match.start())
        except InputError as error:
            first = first or error
            continue
        if _BANNER.search(out):
            return out
    raise first or InputError(path, "a zImage without compressed data in it")


def _section(name: str, flags: int, address: int, memory: Bytes, start: int, stop: int) -> Section:
    return Section(name, _PROGBITS, flags, address, start, stop - start, 0, 0, 0, memory[start:stop])


def _image(path: str, machine: Machine, sections: tuple[Section, ...]) -> Image:
    none = Symbols([], np.empty(0, SYMBOL_DTYPE))
    return Image(path, None, ImageKind.KERNEL, machine, sections, none, {})


def _anywhere(memory: Bytes, machine: Machine) -> tuple[Section, ...]:
    """The image at no address, amid a section that holds every address: its symbols are read all the same."""
    end = _PAGE * (memory.size // _PAGE + 2)
    size = machine.mask - 2 * _PAGE - end
    everything = Section(".anywhere", _NOBITS, _READ_ONLY, end, 0, size, 0, 0, 0, memory[:0])
    return _section(".image", _READ_ONLY, 0, memory, 0, memory.size), everything


def _relative_table(memory: Bytes, machine: Machine) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(places, pointers) of the longest run of relative relocations."""
    words = memory[: memory.size & ~7].view("<u8")
    kind = relative_type(machine)
    at = np.flatnonzero(words[1:-1] == kind) + 1
    none = np.empty(0, np.uint64)
    # Both are kernel addresses: in the upper half.
    at = at[(words[at - 1] >> np.uint64(63) == 1) & (words[at + 1] >> np.uint64(63) == 1)]
    if at.size < _LEAST_RELATIVE:
        return none, none
    # Entries of symbols may stand between them, of another type.
    edges = np.flatnonzero(np.diff(at) > 3 * _LEAST_RELATIVE) + 1
    bounds = np.concatenate([[0], edges, [at.size]])
    longest = int(np.diff(bounds).argmax())
    low, high = int(bounds[longest]), int(bounds[longest + 1]) - 1
    return read_relative(memory[8 * (int(at[low]) - 1) : 8 * (int(at[high]) + 2)], machine)


def _value(symbols: Symbols, *names: str) -> int | None:
    for name in names:
        if name in symbols.names:
            return int(symbols.records["address"][symbols.names.index(name)])
    return None


def _start_of(path: str, machine: Machine, memory: Bytes, symbols: Symbols) -> int:
    """The link address of the image's first byte: the one at which most direct calls lead to symbols."""
    first = _value(symbols, "_stext")
    if first is None:
        raise InputError(path, "kallsyms do not name _stext: where the image is linked is not known")
    goals = _call_targets(memory, machine)
    low = int(symbols.records["address"].min())
    within = symbols.records["address"] - np.uint64(low)
    entry = np.zeros(memory.size // 2 + 1, np.bool_)
    entry[(within[within < 2 * entry.size - 1] // np.uint64(2)).astype(np.int64)] = True
    best, found = -1, 0
    for head in range(0, _LARGEST_HEAD, _PAGE):  # bytes before _stext
        base = first - head
        at = goals + (base - low) >> 1
        hits = int(entry[at[(at >= 0) & (at < entry.size)]].sum())
        if hits > best:
            best, found = hits, base
    return found


def _call_targets(memory: Bytes, machine: Machine) -> NDArray[np.int64]:
    """Where direct calls lead to: offsets within the image, of everything in it that looks like a call."""
    if machine in (Machine.AARCH64, Machine.ARM):
        words = np.ascontiguousarray(memory[: memory.size & ~3]).view("<u4")
        call = np.flatnonzero(words >> 26 == 37 if machine is Machine.AARCH64 else words >> 24 == 0xEB)
        bits = 26 if machine is Machine.AARCH64 else 24
        distance = (words[call].astype(np.int64) & ((1 << bits) - 1)) << 2
        distance -= (distance >> (bits + 1) & 1) << (bits + 2)
        targets = 4 * call + distance + (8 if machine is Machine.ARM else 0)
    else:  # jal ra, at any even place
        halves = np.ascontiguousarray(memory[: memory.size & ~3]).view("<u2").astype(np.int64)
        word = halves[:-1] | halves[1:] << 16
        call = np.flatnonzero(word & 0xFFF == 0x0EF)
        word = word[call]
        distance = (word >> 21 & 0x3FF) << 1 | (word >> 20 & 1) << 11 | (word >> 12 & 0xFF) << 12
        distance -= (word >> 31 & 1) << 20
        targets = 2 * call + distance
    return targets[(targets >= 0) & (targets < memory.size)]


def _sections(path: str, machine: Machine, memory: Bytes, base: int, symbols: Symbols) -> tuple[Section, ...]:
    """Code where kallsyms say that it begins and ends; what lies between as data."""
    ranges: list[tuple[int, int, str]] = []
    for first, last, name in (("_stext", "_etext", ".text"), ("_sinittext", "_einittext", ".init.text")):
        start, stop = _value(symbols, first), _value(symbols, last)
        if start is None or stop is None:
            raise InputError(path, f"kallsyms do not name {first} and {last}: where code is is not known")
        start, stop = start - base, stop - base
        if not 0 <= start < stop <= memory.size:
            raise InputError(path, f"{first} and {last} do not lie in the image")
        used = np.flatnonzero(memory[start:stop])  # up to its end, which is aligned, there is nothing
        ranges.append((start, start + (int(used[-1]) + 4 & ~3 if used.size else 4), name))
    ranges.sort()
    (_, behind, _), (following, _, _) = ranges
    if following < behind:
        raise InputError(path, "the ranges of code overlap")
    found: list[Section] = []
    at = 0
    for number, (start, stop, name) in enumerate(ranges):
        # Between .text and .init.text lies what the kernel does not change.
        gap = (".head.text", _READ_ONLY) if number == 0 else (".rodata", _READ_ONLY)
        if start > at:
            found.append(_section(gap[0], gap[1], base + at, memory, at, start))
        found.append(_section(name, _CODE, base + start, memory, start, stop))
        at = stop
    if memory.size > at:
        found.append(_section(".data", _DATA, base + at, memory, at, memory.size))
    if machine is not Machine.ARM:
        size = int.from_bytes(memory[_IMAGE_SIZE : _IMAGE_SIZE + 8].tobytes(), "little") - memory.size
        if 0 < size < MAXIMUM_OUTPUT:
            end = base + memory.size
            found.append(Section(".bss", _NOBITS, _DATA, end, memory.size, size, 0, 0, 0, memory[:0]))
    return tuple(found)


def _check_calls(path: str, machine: Machine, sections: tuple[Section, ...], symbols: Symbols) -> None:
    """InputError where direct calls do not lead to symbols: then the addresses are not the code's."""
    text = next(one for one in sections if one.name == ".text")
    targets = _call_targets(text.data, machine).astype(np.uint64) + np.uint64(text.address)
    share = float(np.isin(targets, symbols.records["address"]).mean()) if targets.size else 0.0
    if targets.size < _LEAST_CALLS or share < _SHARE:
        cause = (
            f"{share:.0%} of the calls lead to functions that kallsyms name: the code's address is not known"
        )
        raise InputError(path, cause)


def _release(memory: Bytes) -> str | None:
    match = _BANNER.search(memory.data)
    return match[1].decode("ascii", "replace") if match else None


def _build_id(memory: Bytes) -> str | None:
    """The GNU build-id note's bytes in hex; those of a vdso's ELF file within the image are not its."""
    raw = memory.tobytes()
    found = [
        match
        for match in _BUILD_ID.finditer(raw)
        if match.start() - max(raw.rfind(b"\x7fELF", 0, match.start()), 0) >= _LARGEST_VDSO
    ]
    if len(found) != 1:
        return None
    start, size = found[0].end(), found[0][1][0]
    return memory[start : start + size].tobytes().hex()
