"""Marks of stacks in a memory dump, found without debug information: how deep each stack has ever been.

Stacks are zeroed when a task is created (kernel/fork.c), so the lowest word above the end marker that is not
zero is the deepest point reached. What this cannot see makes a mark a lower limit: locals that are zero, and
frames that were reserved and not written.

On x86-64 stacks are mapped page by page into the vmalloc area, so they are found through the page tables,
each ending in a guard page; the same pages show again in the direct map, at its own distance. On i386 a stack
is two adjacent pages in the direct map. The end marker of a freed stack gives way to the `struct rcu_head` or
`vm_stack` of its release; one that goes straight to a CPU's cache keeps it, and is told by that cache. Stacks
of CPUs have no marker: they are found by symbols, where the image names data (CONFIG_KALLSYMS_ALL).

Sources: include/uapi/linux/magic.h (STACK_END_MAGIC), kernel/fork.c:alloc_thread_stack_node, cached_stacks;
include/linux/vmalloc.h (vm_struct), arch/x86/include/asm/processor.h (irq_stack, entry_stack),
arch/x86/include/asm/cpu_entry_area.h (exception_stacks), arch/x86/kernel/irq_32.c (word 0 of an irq stack).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, InputError, Machine
from stackfit.measure.core import PAGE, Dump
from stackfit.measure.model import Mark
from stackfit.measure.paging import Paging, read_paging

__all__ = ["ENDED_WORDS", "IST_STACKS", "STACK_END_MAGIC", "THREAD_SIZE", "lowest_used", "stack_marks"]

STACK_END_MAGIC = 0x57AC6E9D
THREAD_SIZE = {Machine.X86_64: 16384, Machine.I386: 8192}
ENDED_WORDS = 3  # struct vm_stack, at the base of a stack that is being freed
# Members of struct exception_stacks in their order, and the layouts' names.
IST_STACKS = {
    "DF_stack": "double-fault",
    "NMI_stack": "nmi",
    "DB_stack": "debug",
    "MCE_stack": "machine-check",
    "VC_stack": "vmm-communication",
    "VC2_stack": "vmm-communication-fallback",
}
_IRQ_STACK = 16384  # x86-64: IRQ_STACK_SIZE
_MOST_CPUS = 8192
_CACHED_STACKS = 2  # NR_CACHED_STACKS


def stack_marks(dump: Dump, image: Image | None = None) -> tuple[Mark, ...]:
    """One for each stack found, the deepest first.

    `image`: of that kernel, for its symbols. InputError: it is of another build.
    """
    if image is not None:
        _same_kernel(dump, image)
    paging = read_paging(dump)
    found = _vmapped(dump, paging) if dump.machine is Machine.X86_64 else _adjacent(dump, paging)
    marks = [
        Mark("process", f"{address:#x}", size - lowest, size, address=address)
        for address, size, lowest in found
    ]
    if image is not None:
        symbols = _Symbols(dump, paging, image)
        ended = symbols.cached()
        named = {mark.address: mark for mark in symbols.marks()}
        marks = [replace(mark, kind="ended") if mark.address in ended else mark for mark in marks]
        marks = [mark for mark in marks if mark.address not in named] + list(named.values())
    return tuple(sorted(marks, key=lambda mark: (-mark.bytes, mark.stack, mark.address)))


def lowest_used(stack: NDArray[np.uint8], word: int, skipped: int) -> int:
    """Offset of the lowest word that is not zero, the first `skipped` left out; the size where all are."""
    words = np.frombuffer(stack.tobytes(), np.uint64 if word == 8 else np.uint32)
    used = np.flatnonzero(words[skipped:])
    return (int(used[0]) + skipped) * word if used.size else words.size * word


def _same_kernel(dump: Dump, image: Image) -> None:
    if image.machine is not dump.machine:
        raise InputError(image.path, f"is {image.machine.value}, the dump {dump.machine.value}")
    if image.build_id is not None and dump.build_id is not None and image.build_id != dump.build_id:
        raise InputError(
            image.path, f"build-id {image.build_id} is not that of the dump's kernel, {dump.build_id}"
        )


# ---------------------------------------------------------------- process stacks


def _vmapped(dump: Dump, paging: Paging) -> Iterator[tuple[int, int, int]]:
    """(virtual address, size, offset of the lowest word in use) of stacks in the vmalloc area."""
    size = THREAD_SIZE[Machine.X86_64]
    marker = STACK_END_MAGIC.to_bytes(8, "little")
    mapped = paging.small
    direct = {(virtual - physical) % (1 << 64) for virtual, physical, _ in paging.large}
    for virtual, physical in sorted(mapped.items()):
        if virtual % size:  # THREAD_ALIGN
            continue
        frames = [mapped.get(virtual + offset) for offset in range(0, size, PAGE)]
        # A guard page follows. The direct map shows the same pages, at its own distance.
        if None in frames or virtual + size in mapped or (virtual - physical) % (1 << 64) in direct:
            continue
        pages = [dump.page(frame) for frame in frames if frame is not None]
        first = pages[0]
        if first is None or first[:8].tobytes() != marker:
            continue
        whole = [page for page in pages if page is not None]
        if len(whole) == len(frames):
            yield virtual, size, lowest_used(np.concatenate(whole), 8, 1)


def _adjacent(dump: Dump, paging: Paging) -> Iterator[tuple[int, int, int]]:
    """(virtual address, size, offset of the lowest word in use) of page pairs that begin with the marker."""
    size, distance = THREAD_SIZE[Machine.I386], paging.distance()
    marker = np.frombuffer(STACK_END_MAGIC.to_bytes(4, "little"), np.uint8)
    for start, end, offset in dump.segments:
        first = -(-start // size) * size
        count = (end - first) // size
        if count <= 0:
            continue
        at = offset + first - start
        words = dump.data[at : at + count * size].reshape(count, size)
        for index in np.flatnonzero((words[:, :4] == marker).all(axis=1)).tolist():
            physical = first + index * size
            if paging.physical(physical + distance) != physical:
                continue  # high memory: no stack
            lowest = lowest_used(words[index], 4, 1)
            if lowest < size:
                yield physical + distance, size, lowest


# ---------------------------------------------------------------- by symbols


class _Symbols:
    """Stacks that the kernel's symbols lead to."""

    def __init__(self, dump: Dump, paging: Paging, image: Image) -> None:
        self.dump = dump
        self.paging = paging
        self.word = dump.machine.word
        records = image.symbols.records
        self.table: dict[str, int] = dict(zip(image.symbols.names, records["address"].tolist(), strict=True))
        self.order = np.unique(records["address"])
        ran = dump.symbol("_stext")
        self.moved = 0 if ran is None or "_stext" not in self.table else ran - self.table["_stext"]

    def cached(self) -> set[int]:
        """Bases of stacks that wait in a CPU's cache for the next task."""
        found = set()
        for base in self._bases():
            for slot in range(_CACHED_STACKS):
                area = self._word(base, "cached_stacks", slot)
                # struct vm_struct: next, addr.
                address = self._read(area + self.word) if area else None
                if address:
                    found.add(address)
        return found

    def marks(self) -> list[Mark]:
        found = []
        start = self.table.get("init_stack", self.table.get("init_thread_union"))
        if start is not None:
            size = THREAD_SIZE[self.dump.machine]
            found += self._mark("process", "idle", "swapper/0", start + self.moved, size, 1)
        wide = self.dump.machine is Machine.X86_64
        for cpu, base in enumerate(self._bases()):
            for stack, address, size in self._wide(base) if wide else self._narrow(base):
                skipped = 1 if not wide and stack in ("hardirq", "softirq") else 0
                found += self._mark(stack, "cpu", f"CPU {cpu}", address, size, skipped)
        return found

    def _wide(self, base: int) -> Iterator[tuple[str, int, int]]:
        at = self._per_cpu(base, "irq_stack_backing_store")
        if at is not None:
            yield "irq", at, _IRQ_STACK
        at = self._per_cpu(base, "entry_stack_storage")
        if at is not None:
            yield "entry", at, PAGE
        at = self._per_cpu(base, "exception_stacks")
        if at is None:
            return
        # Six stacks, or four where the kernel has none for SEV-ES; of one size, a power of two.
        total = self._extent("exception_stacks")
        for count in (6, 4):
            size = total // count
            if size * count == total and size >= PAGE and size & size - 1 == 0:
                for number, name in enumerate(list(IST_STACKS.values())[:count]):
                    yield name, at + number * size, size
                return

    def _narrow(self, base: int) -> Iterator[tuple[str, int, int]]:
        for symbol, stack in (("hardirq_stack_ptr", "hardirq"), ("softirq_stack_ptr", "softirq")):
            pointer = self._word(base, symbol, 0)
            if pointer:
                yield stack, pointer, THREAD_SIZE[Machine.I386]
        at = self._per_cpu(base, "entry_stack_storage")
        if at is not None:
            yield "entry", at, PAGE

    def _mark(self, stack: str, kind: str, owner: str, address: int, size: int, skipped: int) -> list[Mark]:
        physical = self.paging.physical(address)
        data = None if physical is None else self.dump.read(physical, size)
        if data is None:
            return []
        used = size - lowest_used(data, self.word, skipped)
        return [Mark(stack, owner, used, size, kind, owner if stack == "process" else "", address)]

    def _bases(self) -> list[int]:
        """What is added to a per-CPU symbol's address, by CPU."""
        table, count = self.table.get("__per_cpu_offset"), self.table.get("nr_cpu_ids")
        if table is None or count is None:
            return []
        cpus = (self._read(count + self.moved) or 0) & 0xFFFF_FFFF
        if not 0 < cpus <= _MOST_CPUS:
            return []
        bases = [self._read(table + self.moved + cpu * self.word) for cpu in range(cpus)]
        return [base for base in bases if base]

    def _per_cpu(self, base: int, symbol: str) -> int | None:
        at = self.table.get(symbol)
        if at is None:
            return None
        # Per-CPU symbols count from zero on x86-64, and are moved with the image where they do not.
        moved = self.moved if at >> (8 * self.word - 1) else 0
        return (at + moved + base) % (1 << 8 * self.word)

    def _word(self, base: int, symbol: str, index: int) -> int:
        at = self._per_cpu(base, symbol)
        return 0 if at is None else self._read(at + index * self.word) or 0

    def _read(self, address: int) -> int | None:
        physical = self.paging.physical(address)
        data = None if physical is None else self.dump.read(physical, self.word)
        return None if data is None else int.from_bytes(data.tobytes(), "little")

    def _extent(self, symbol: str) -> int:
        """Bytes up to the next symbol."""
        at = self.table[symbol]
        index = int(np.searchsorted(self.order, at, "right"))
        return int(self.order[index]) - at if index < self.order.size else 0
