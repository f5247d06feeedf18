"""Physical memory of a machine from an ELF core: QEMU's (`dump-guest-memory`) or one that kexec left.

The kernel keeps a page of text about itself (VMCOREINFO: release, build-id, where page tables and code are);
a core has it as a note, or it is found in the memory. Registers of virtual CPUs are in notes named QEMU.

Sources: kernel/crash_core.c and arch/x86/kernel/crash_core_*.c (VMCOREINFO), QEMU target/i386/arch_dump.c
(QEMUCPUState), include/uapi/linux/elf.h.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import InputError, Machine

__all__ = ["PAGE", "Dump", "open_dump"]

PAGE = 4096
_ELF = {62: Machine.X86_64, 3: Machine.I386}
_MOST_SEGMENTS = 4096
# struct QEMUCPUState: version, size, 18 registers of 8 bytes, 10 segments of 24, cr[0..4].
_CR3 = 8 + 18 * 8 + 10 * 24 + 3 * 8
_CR4 = _CR3 + 8
_FIRST_LINE = b"OSRELEASE="
_LONGEST_LINE = 200


@dataclass(frozen=True, eq=False)
class Dump:
    """Physical memory: segments (first address, end, offset in `data`), ascending, apart from each other.

    `cr3`, `cr4`: of a CPU, -1 where the core has no registers. `kernel`: VMCOREINFO by key, empty without;
    `kernel_text` as it stands there.
    """

    path: str
    machine: Machine
    data: NDArray[np.uint8]
    segments: tuple[tuple[int, int, int], ...]
    cr3: int = -1
    cr4: int = -1
    kernel: Mapping[str, str] = field(default_factory=dict)
    kernel_text: bytes = b""

    def page(self, physical: int) -> NDArray[np.uint8] | None:
        """The bytes of one page; None: not in the dump."""
        return self.read(physical, PAGE)

    def read(self, physical: int, size: int) -> NDArray[np.uint8] | None:
        """Bytes that lie in one segment; None: not in the dump."""
        for start, end, offset in self.segments:
            if start <= physical and physical + size <= end:
                at = offset + physical - start
                return self.data[at : at + size]
        return None

    @property
    def release(self) -> str | None:
        return self.kernel.get("OSRELEASE")

    @property
    def build_id(self) -> str | None:
        return self.kernel.get("BUILD-ID")

    def symbol(self, name: str) -> int | None:
        """Address of a symbol that VMCOREINFO names, as the kernel ran."""
        return _number(self.kernel.get(f"SYMBOL({name})"), 16)

    def number(self, name: str) -> int | None:
        """A NUMBER of VMCOREINFO."""
        return _number(self.kernel.get(f"NUMBER({name})"), 10)


def _number(text: str | None, base: int) -> int | None:
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


def open_dump(path: Path) -> Dump:
    """Map an ELF core. InputError: not one, cut short, or nothing in it says where the page tables are."""
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", None) or str(error)) from None
    return _parse(str(path), view)


def _parse(path: str, view: mmap.mmap) -> Dump:
    data = np.frombuffer(view, np.uint8)
    head = data[:64].tobytes()
    if head[:4] != b"\x7fELF" or len(head) < 64 or head[5] != 1:
        hint = (
            " (a compressed kdump? dump-guest-memory without a format writes ELF)"
            if head[:8] == b"KDUMP   "
            else ""
        )
        raise InputError(path, f"not an ELF core{hint}", 0)
    wide = head[4] == 2
    kind_of, machine_of = struct.unpack_from("<HH", head, 16)
    if kind_of != 4 or machine_of not in _ELF:
        raise InputError(
            path, f"ELF, but no core of an x86 machine (type {kind_of}, machine {machine_of})", 16
        )
    segments, notes = _headers(path, data, head, wide)
    found = [note for where in notes for note in _notes(data, *where)]
    registers = next(((one.cr3, one.cr4) for one in found if one.cr3 >= 0), (-1, -1))
    text = next((one.text for one in found if one.text), b"") or _kernel_text(view, segments)
    if registers[0] < 0 and not text:
        raise InputError(path, "neither registers of a CPU (QEMU's notes) nor VMCOREINFO in it")
    if not segments:
        raise InputError(path, "no memory in it")
    return Dump(path, _ELF[machine_of], data, segments, *registers, _kernel(text), text)


def _headers(
    path: str, data: NDArray[np.uint8], head: bytes, wide: bool
) -> tuple[tuple[tuple[int, int, int], ...], list[tuple[int, int]]]:
    """(segments of memory, (offset, length) of notes)."""
    if wide:
        table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        layout, columns = "<IIQQQQQQ", (0, 2, 4, 5)  # type, offset, paddr, filesz
    else:
        table, size, count = struct.unpack_from("<I", head, 28)[0], *struct.unpack_from("<HH", head, 42)
        layout, columns = "<IIIIIIII", (0, 1, 3, 4)
    if size != struct.calcsize(layout) or count > _MOST_SEGMENTS or table + size * count > data.size:
        raise InputError(path, "program headers outside the file", table)
    segments, notes = [], []
    for index in range(count):
        fields = _unpack(layout, data, table + index * size)
        kind, offset, physical, length = (fields[column] for column in columns)
        if offset + length > data.size:
            raise InputError(path, f"cut short: segment {index} ends at {offset + length:#x}", data.size)
        if kind == 1 and length:
            segments.append((physical, physical + length, offset))
        elif kind == 4:
            notes.append((offset, length))
    segments.sort()
    if sum(end - start for start, end, _ in segments) > data.size:
        raise InputError(path, "segments share bytes of the file", table)
    for (_, end, _), (start, _, _) in itertools.pairwise(segments):
        if start < end:
            raise InputError(path, f"two segments have the physical address {start:#x}", table)
    return tuple(segments), notes


def _unpack(layout: str, data: NDArray[np.uint8], offset: int) -> tuple[int, ...]:
    return struct.unpack(layout, data[offset : offset + struct.calcsize(layout)].tobytes())


@dataclass(frozen=True)
class _Note:
    cr3: int = -1
    cr4: int = -1
    text: bytes = b""


def _notes(data: NDArray[np.uint8], offset: int, length: int) -> Iterator[_Note]:
    """Notes of a segment that are understood."""
    at, end = offset, offset + length
    while at + 12 <= end:
        name_size, size, _ = _unpack("<III", data, at)
        name = at + 12
        body = name + -(-name_size // 4) * 4
        if body + size > end:
            return
        named = data[name : name + min(name_size, 16)].tobytes().rstrip(b"\0")
        if named == b"QEMU" and size >= _CR4 + 8:
            cr3, cr4 = _unpack("<QQ", data, body + _CR3)
            yield _Note(cr3, cr4)
        elif named == b"VMCOREINFO":
            yield _Note(text=data[body : body + size].tobytes().split(b"\0")[0])
        at = body + -(-size // 4) * 4


def _kernel_text(view: mmap.mmap, segments: tuple[tuple[int, int, int], ...]) -> bytes:
    """VMCOREINFO, which fills a page of its own from the start; empty: not found."""
    for start, end, offset in segments:
        at, stop = offset, offset + end - start
        while (at := view.find(_FIRST_LINE, at, stop)) >= 0:
            if (start + at - offset) % PAGE == 0:
                text = view[at : min(at + PAGE, stop)].split(b"\0")[0]
                if "SYMBOL(swapper_pg_dir)" in _kernel(text):
                    return text
            at += len(_FIRST_LINE)
    return b""


def _kernel(text: bytes) -> dict[str, str]:
    lines = [line.partition("=") for line in text.decode("ascii", "replace").splitlines()]
    return {key: value for key, _, value in lines if len(key) < _LONGEST_LINE and len(value) < _LONGEST_LINE}
