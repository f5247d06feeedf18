"""Where code of an image without symbols is entered from outside: its entry point, and a vector table.

A vector table of a Cortex-M begins with the initial stack pointer and the handlers of reset, NMI and
HardFault, each with its lowest bit set (Armv7-M ARM DDI 0403E, B1.5.3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, ImageKind, Machine, Program
from stackfit.image.pointers import distinct

__all__ = ["outside_entries"]

_ALIGNMENT = 128  # bytes: of a vector table (Armv7-M ARM, B3.2.5 VTOR)
_VECTORS = 16 + 496  # exceptions and external interrupts at most (B1.5.2)
_HANDLERS = 3  # reset, NMI, HardFault


def outside_entries(program: Program) -> NDArray[np.uint64]:
    """Addresses of instructions, ascending; nothing on x86, whose kernels have symbols or kallsyms."""
    parts = [np.empty(0, np.uint64)]
    for image in program.images:
        if image.machine.x86 or image.kind is ImageKind.MODULE:
            continue
        parts.append(np.array([image.machine.code_address(image.entry)], np.uint64))
        if image.machine is Machine.ARM:
            parts.append(_vectors(image))
    return distinct(np.concatenate(parts))


def _vectors(image: Image) -> NDArray[np.uint64]:
    """The handlers of what looks like a vector table, at any place where one can be."""
    code = [(section.address, section.end) for section in image.sections if section.executable]
    found: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    for section in image.sections:
        if not section.allocated:
            continue
        for offset in range(-section.address % _ALIGNMENT, section.data.size - 63, _ALIGNMENT):
            words = section.data[offset : offset + 4 * _VECTORS]
            table = words[: words.size & ~3].view("<u4").astype(np.uint64)
            inside = np.zeros(table.size, np.bool_)
            for start, end in code:
                inside |= (table >= start) & (table < end)
            handler = inside & (table & 1 == 1)
            if table[0] and not table[0] & 3 and not inside[0] and handler[1 : 1 + _HANDLERS].all():
                stop = np.flatnonzero(~handler[1:] & (table[1:] != 0))
                end = int(stop[0]) + 1 if stop.size else table.size
                found.append(table[1:end][handler[1:end]] & ~np.uint64(1))
    return np.concatenate(found)
