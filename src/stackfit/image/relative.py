"""Relative relocations of position-independent images: absolute pointers whose place holds nothing yet.

A kernel that moves itself (arm64 and RISC-V under CONFIG_RELOCATABLE) and static position-independent
firmware carry a table `.rela.dyn`: at each listed address stands the addend, once it is applied. Sources: ELF
for the Arm 64-bit Architecture (R_AARCH64_RELATIVE), RISC-V ELF psABI (R_RISCV_RELATIVE);
`arch/arm64/kernel/pi/relocate.c`, `arch/riscv/mm/init.c` (relocate_kernel).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Bytes, Machine, Section

__all__ = ["apply_relative", "read_relative", "relative_type"]

_RELATIVE = {Machine.AARCH64: 1027, Machine.RISCV32: 3, Machine.RISCV64: 3}

Addresses = NDArray[np.uint64]


def relative_type(machine: Machine) -> int:
    """The number of the relative relocation; 0 where none is read."""
    return _RELATIVE.get(machine, 0)


def read_relative(table: Bytes, machine: Machine) -> tuple[Addresses, Addresses]:
    """(places, pointers) of a table's entries that are relative; link addresses, in the table's order."""
    none = np.empty(0, np.uint64)
    kind = _RELATIVE.get(machine)
    if kind is None:
        return none, none
    word = f"<u{machine.word}"
    entry = 3 * machine.word
    words = table[: table.size // entry * entry].view(word).reshape(-1, 3).astype(np.uint64)
    chosen = words[words[:, 1] == kind]  # of symbol 0
    return np.ascontiguousarray(chosen[:, 0]), np.ascontiguousarray(chosen[:, 2])


def apply_relative(
    sections: Sequence[Section], machine: Machine, places: Addresses, pointers: Addresses
) -> tuple[tuple[Section, ...], Addresses]:
    """(sections with the pointers at their places, the places that lie in a section), ascending."""
    order = np.argsort(places, kind="stable")
    places, pointers = places[order], pointers[order]
    inside = np.zeros(places.size, np.bool_)
    word = machine.word
    changed: list[Section] = []
    for section in sections:
        if not section.allocated or section.data.size < word:
            changed.append(section)
            continue
        last = section.address + section.data.size - word
        low, high = np.searchsorted(places, [section.address, last + 1]).tolist()
        if low == high:
            changed.append(section)
            continue
        inside[low:high] = True
        data = section.data.copy()
        offset = (places[low:high] - np.uint64(section.address)).astype(np.int64)
        for byte in range(word):
            data[offset + byte] = (pointers[low:high] >> np.uint64(8 * byte)).astype(np.uint8)
        changed.append(replace(section, data=data))
    return tuple(changed), places[inside]
