"""Marks of process stacks in a memory dump of a virtual machine: how deep each stack has ever been.

Stacks are zeroed when a task is created (kernel/fork.c), so the lowest word above the end marker that is not
zero is the deepest point reached. What this cannot see makes a mark a lower limit: locals that are zero, and
frames that were reserved and not written.

A dump is an ELF core as QEMU's monitor writes it (`dump-guest-memory`): physical memory in PT_LOAD segments,
the registers of each virtual CPU in notes named QEMU. On x86-64 stacks are mapped page by page into the vmalloc
area, so they are found through the page tables from CR3, each ending in a guard page; the same pages show again
in the direct map, at its own distance. On i386 a stack is two adjacent pages in the direct map, and one that
was freed and not written since cannot be told from one in use.

Sources: include/uapi/linux/magic.h (STACK_END_MAGIC), kernel/fork.c:alloc_thread_stack_node, QEMU
target/i386/arch_dump.c (QEMUCPUState), Intel SDM 3A chapter 4 (paging).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import InputError, Machine
from stackfit.measure.model import Mark

__all__ = ["STACK_END_MAGIC", "Dump", "open_dump", "stack_marks"]

STACK_END_MAGIC = 0x57AC6E9D
_PAGE = 4096
_STACK = {Machine.X86_64: 16384, Machine.I386: 8192}  # THREAD_SIZE
_ELF = {62: Machine.X86_64, 3: Machine.I386}
_MOST_SEGMENTS = 4096
# struct QEMUCPUState: version, size, 18 registers of 8 bytes, 10 segments of 24, cr[0..4].
_CR3 = 8 + 18 * 8 + 10 * 24 + 3 * 8
_CR4 = _CR3 + 8
_PRESENT, _LARGE = 1, 1 << 7
_FRAME = 0x000F_FFFF_FFFF_F000  # bits of an entry that are a physical address


@dataclass(frozen=True, eq=False)
class Dump:
    """Physical memory: segments (first address, end, offset in `data`), ascending; CR3 and CR4 of a CPU."""

    path: str
    machine: Machine
    data: NDArray[np.uint8]
    segments: tuple[tuple[int, int, int], ...]
    cr3: int
    cr4: int

    def page(self, physical: int) -> NDArray[np.uint8] | None:
        """The bytes of one page; None: not in the dump."""
        for start, end, offset in self.segments:
            if start <= physical and physical + _PAGE <= end:
                at = offset + physical - start
                return self.data[at : at + _PAGE]
        return None


def open_dump(path: Path) -> Dump:
    """Map an ELF core. InputError: not one, cut short, or without the registers that QEMU notes."""
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", None) or str(error)) from None
    data = np.frombuffer(view, np.uint8)
    return _parse(str(path), data)


def _parse(path: str, data: NDArray[np.uint8]) -> Dump:
    head = data[:64].tobytes()
    if head[:4] != b"\x7fELF" or len(head) < 64 or head[5] != 1:
        kind = (
            " (a compressed kdump? dump-guest-memory without a format writes ELF)"
            if head[:8] == b"KDUMP   "
            else ""
        )
        raise InputError(path, f"not an ELF core{kind}", 0)
    wide = head[4] == 2
    kind_of, machine_of = struct.unpack_from("<HH", head, 16)
    if kind_of != 4 or machine_of not in _ELF:
        raise InputError(
            path, f"ELF, but no core of an x86 machine (type {kind_of}, machine {machine_of})", 16
        )
    if wide:
        table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        layout, names = "<IIQQQQQQ", (0, 2, 4, 5)  # type, offset, paddr, filesz
    else:
        table, size, count = struct.unpack_from("<I", head, 28)[0], *struct.unpack_from("<HH", head, 42)
        layout, names = "<IIIIIIII", (0, 1, 3, 4)
    if size != struct.calcsize(layout) or count > _MOST_SEGMENTS or table + size * count > data.size:
        raise InputError(path, "program headers outside the file", table)
    segments, notes = [], []
    for index in range(count):
        fields = _unpack(layout, data, table + index * size)
        kind, offset, physical, length = (fields[name] for name in names)
        if offset + length > data.size:
            raise InputError(path, f"cut short: segment {index} ends at {offset + length:#x}", data.size)
        if kind == 1 and length:
            segments.append((physical, physical + length, offset))
        elif kind == 4:
            notes.append((offset, length))
    registers = next((found for note in notes for found in _registers(data, *note)), None)
    if registers is None:
        raise InputError(path, "no registers of a CPU: QEMU writes them as notes named QEMU")
    if not segments:
        raise InputError(path, "no memory in it")
    return Dump(path, _ELF[machine_of], data, tuple(sorted(segments)), *registers)


def _unpack(layout: str, data: NDArray[np.uint8], offset: int) -> tuple[int, ...]:
    return struct.unpack(layout, data[offset : offset + struct.calcsize(layout)].tobytes())


def _registers(data: NDArray[np.uint8], offset: int, length: int) -> Iterator[tuple[int, int]]:
    """(CR3, CR4) of each CPU in a note segment."""
    at, end = offset, offset + length
    while at + 12 <= end:
        name_size, size, _ = _unpack("<III", data, at)
        name = at + 12
        body = name + -(-name_size // 4) * 4
        if body + size > end:
            return
        if data[name : name + 4].tobytes() == b"QEMU" and size >= _CR4 + 8:
            cr3, cr4 = _unpack("<QQ", data, body + _CR3)
            yield cr3, cr4
        at = body + -(-size // 4) * 4


def stack_marks(dump: Dump) -> tuple[Mark, ...]:
    """One for each process stack found, the deepest first."""
    found = _vmapped(dump) if dump.machine is Machine.X86_64 else _adjacent(dump)
    marks = [Mark("process", f"{address:#x}", size - lowest, size) for address, size, lowest in found]
    return tuple(sorted(marks, key=lambda mark: (-mark.bytes, mark.owner)))


def _lowest(pages: list[NDArray[np.uint8]], word: int) -> int:
    """Offset of the lowest word that is not zero above the end marker; the size where all are."""
    stack = np.concatenate(pages).view(np.uint64 if word == 8 else np.uint32)
    used = np.flatnonzero(stack[1:])
    return (int(used[0]) + 1) * word if used.size else stack.size * word


# ---------------------------------------------------------------- x86-64


def _vmapped(dump: Dump) -> Iterator[tuple[int, int, int]]:
    """(virtual address, size, offset of the lowest word in use) of stacks in the vmalloc area."""
    size = _STACK[Machine.X86_64]
    mapped, direct = _mappings(dump)
    marker = STACK_END_MAGIC.to_bytes(8, "little")
    for virtual, physical in sorted(mapped.items()):
        if virtual % size:  # THREAD_ALIGN
            continue
        frames = [mapped.get(virtual + offset) for offset in range(0, size, _PAGE)]
        # A guard page follows. The direct map shows the same pages, at its own distance.
        if None in frames or virtual + size in mapped or (virtual - physical) % (1 << 64) in direct:
            continue
        pages = [dump.page(frame) for frame in frames if frame is not None]
        first = pages[0]
        if first is None or first[:8].tobytes() != marker:
            continue
        whole = [page for page in pages if page is not None]
        if len(whole) == len(frames):
            yield virtual, size, _lowest(whole, 8)


def _mappings(dump: Dump) -> tuple[dict[int, int], set[int]]:
    """(virtual → physical of every page of 4 KiB in the upper half of the address space, distances between
    virtual and physical addresses at which memory is mapped by larger pages: the direct map's)."""
    levels = 5 if dump.cr4 & 1 << 12 else 4
    top = 12 + 9 * levels
    small: dict[int, int] = {}
    distances: set[int] = set()
    work = [(dump.cr3 & _FRAME, levels, 0)]
    seen: set[tuple[int, int]] = set()
    while work:
        table, level, base = work.pop()
        page = dump.page(table)
        # A table that maps the same place twice: a broken dump.
        if page is None or (table, base) in seen:
            continue
        seen.add((table, base))
        entries = page.view(np.uint64)
        shift = 12 + 9 * (level - 1)
        for index in np.flatnonzero(entries & np.uint64(_PRESENT)).tolist():
            if level == levels and index < 256:
                continue  # user mode
            entry, virtual = int(entries[index]), base + (index << shift)
            full = virtual - (1 << top) + (1 << 64)  # the upper half, sign-extended
            if level == 1:
                small[full] = entry & _FRAME
            elif level < 4 and entry & _LARGE:
                distances.add((full - (entry & _FRAME & -(1 << shift))) % (1 << 64))
            else:
                work.append((entry & _FRAME, level - 1, virtual))
    return small, distances


# ---------------------------------------------------------------- i386


def _adjacent(dump: Dump) -> Iterator[tuple[int, int, int]]:
    """(physical address, size, offset of the lowest word in use) of page pairs that begin with the marker."""
    size = _STACK[Machine.I386]
    for start, end, offset in dump.segments:
        first = -(-start // size) * size
        count = (end - first) // size
        if count <= 0:
            continue
        at = offset + first - start
        words = dump.data[at : at + count * size].reshape(count, size)
        marker = np.frombuffer(STACK_END_MAGIC.to_bytes(4, "little"), np.uint8)
        for index in np.flatnonzero((words[:, :4] == marker).all(axis=1)).tolist():
            lowest = _lowest([words[index]], 4)
            if lowest < size:
                yield first + index * size, size, lowest
