"""Page tables of an x86 kernel in a dump: virtual → physical.

Sources: Intel SDM 3A chapter 4; arch/x86/include/asm/page_64.h:__phys_addr_nodebug (the image's distance).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from stackfit.image.model import InputError, Machine
from stackfit.measure.core import PAGE, Dump

__all__ = ["Paging", "read_paging"]

_PRESENT, _LARGE = 1, 1 << 7
_FRAME = 0x000F_FFFF_FFFF_F000  # bits of an entry that are a physical address
_IMAGE = 0xFFFF_FFFF_8000_0000  # __START_KERNEL_map
_PAE, _LA57 = 1 << 5, 1 << 12  # of CR4
_FEWEST_TABLES = 4096  # walked, whatever the memory's size; beyond, an eighth of its pages


@dataclass(frozen=True, eq=False)
class Paging:
    """Pages of 4 KiB, and larger ones as (virtual, physical, size); of the kernel's half of the addresses."""

    small: dict[int, int]
    large: tuple[tuple[int, int, int], ...]

    def physical(self, virtual: int) -> int | None:
        """None: not mapped."""
        frame = self.small.get(virtual & -PAGE)
        if frame is not None:
            return frame + (virtual & PAGE - 1)
        for start, target, size in self.large:
            if start <= virtual < start + size:
                return target + virtual - start
        return None

    def distance(self) -> int:
        """Virtual less physical address of most of the mapped memory: on i386 PAGE_OFFSET."""
        counts = Counter[int]()
        for virtual, physical, size in self.large:
            counts[virtual - physical] += size
        for virtual, physical in self.small.items():
            counts[virtual - physical] += PAGE
        return counts.most_common(1)[0][0] if counts else 0


def read_paging(dump: Dump) -> Paging:
    """The kernel's mappings. InputError: page tables that do not end, or are not in the dump."""
    if dump.machine is Machine.X86_64:
        levels = 5 if (dump.cr4 >= 0 and dump.cr4 & _LA57) or dump.number("pgtable_l5_enabled") else 4
        walker = _Walker(dump, levels, 8)
    else:
        # Without registers: the machine's vendor kernels tell PAE by a line of VMCOREINFO.
        wide = bool(dump.cr4 & _PAE) if dump.cr4 >= 0 else "CONFIG_X86_PAE" in dump.kernel
        walker = _Walker(dump, 3 if wide else 2, 8 if wide else 4)
    for root in _roots(dump):
        found = walker.walk(root)
        if found.small or found.large:
            return found
    raise InputError(dump.path, "no kernel mapping in the page tables")


def _roots(dump: Dump) -> list[int]:
    """Physical addresses where the top table may be, the surest first."""
    roots = []
    table = dump.symbol("swapper_pg_dir")
    if dump.machine is Machine.X86_64 and table is not None and table >= _IMAGE:
        roots.append((table - _IMAGE + (dump.number("phys_base") or 0)) & _FRAME)
    if dump.cr3 >= 0:
        if dump.machine is Machine.I386:
            roots.append(dump.cr3 & 0xFFFF_FFE0)
        else:
            # With page-table isolation user mode has a second table, the next page.
            roots += [dump.cr3 & _FRAME & ~PAGE, dump.cr3 & _FRAME]
    return roots


class _Walker:
    def __init__(self, dump: Dump, levels: int, entry: int) -> None:
        self.dump = dump
        self.levels = levels
        self.bits = 9 if entry == 8 else 10
        self.entry = entry
        self.wide = dump.machine is Machine.X86_64
        self.most = _FEWEST_TABLES + sum(end - start for start, end, _ in dump.segments) // PAGE // 8

    def walk(self, root: int) -> Paging:
        """Every present page above the user's half."""
        small: dict[int, int] = {}
        large: list[tuple[int, int, int]] = []
        work = [(root, self.levels, 0)]
        seen: set[tuple[int, int]] = set()
        while work:
            table, level, base = work.pop()
            if (table, base) in seen:
                continue
            seen.add((table, base))
            if len(seen) > self.most:
                raise InputError(self.dump.path, "page tables without an end: a table maps itself")
            shift = 12 + self.bits * (level - 1)
            for index, entry in self._entries(table, level):
                virtual = base + (index << shift)
                if level == self.levels and not self._is_kernel(virtual):
                    continue
                full = self._extended(virtual)
                if level == 1:
                    small[full] = entry & _FRAME
                elif entry & _LARGE and level <= (3 if self.levels > 3 else 2):
                    large.append((full, self._frame(entry, shift), 1 << shift))
                else:
                    work.append((entry & _FRAME, level - 1, virtual))
        return Paging(small, tuple(sorted(large)))

    def _entries(self, table: int, level: int) -> list[tuple[int, int]]:
        """(index, entry) of what is present in a table; none where it is not in the dump."""
        top = self.levels == 3 and level == 3  # PAE: four entries, anywhere below 4 GiB
        data = self.dump.read(table, 32 if top else PAGE)
        if data is None:
            return []
        raw = np.frombuffer(data.tobytes(), np.uint64 if self.entry == 8 else np.uint32)
        entries = raw.astype(np.uint64)
        present = np.flatnonzero(entries & np.uint64(_PRESENT))
        return list(zip(present.tolist(), entries[present].tolist(), strict=True))

    def _frame(self, entry: int, shift: int) -> int:
        frame = entry & _FRAME & -(1 << shift)
        # PSE-36: bits 13 to 20 of an entry of 4 MiB are bits 32 to 39 of the address.
        return frame | (entry >> 13 & 0xFF) << 32 if self.entry == 4 else frame

    def _is_kernel(self, virtual: int) -> bool:
        """The upper half; on i386 all, because where the kernel begins is a matter of its configuration."""
        return not self.wide or bool(virtual >> (12 + self.bits * self.levels - 1) & 1)

    def _extended(self, virtual: int) -> int:
        """Sign-extended."""
        return virtual - (1 << 12 + self.bits * self.levels) + (1 << 64) if self.wide else virtual
