"""ORC unwind tables: the kernel's own statement of the stack depth at an address.

`.orc_unwind_ip` holds one 32-bit place-relative code address per entry, `.orc_unwind` one 6-byte
`struct orc_entry`: `s16 sp_offset, s16 bp_offset, sp_reg:4, bp_reg:4`, then a byte whose layout changed:

- Linux 4.14 to 6.2: `type:2, end:1`; 6.3: `type:2, signal:1, end:1`; types CALL 0, REGS 1, REGS_PARTIAL 2.
- Linux 6.4 and later: `type:3, signal:1`; types UNDEFINED 0, END_OF_STACK 1, CALL 2, REGS 3, REGS_PARTIAL 4.

The format is chosen by the table itself, not by the release (6.3 and distributions backport): an entry
whose CFA is based on the stack pointer is of type CALL almost everywhere, and objtool never gives such an
entry type UNDEFINED. So among those entries the three low bits are 0 in the older format, 2 in the newer
one; the more frequent value decides. A table without either defines no depth in either format.

Sources: `arch/x86/include/asm/orc_types.h`, `arch/x86/kernel/unwind_orc.c` (`orc_sort_cmp`,
`orc_find`), `tools/objtool/orc_gen.c`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, InputError, Machine, Section

__all__ = [
    "ORC_REG_BP",
    "ORC_REG_BP_INDIRECT",
    "ORC_REG_R10",
    "ORC_REG_SP",
    "ORC_REG_SP_INDIRECT",
    "ORC_REG_UNDEFINED",
    "ORC_TYPE_CALL",
    "ORC_TYPE_END_OF_STACK",
    "ORC_TYPE_REGS",
    "ORC_TYPE_REGS_PARTIAL",
    "ORC_TYPE_UNDEFINED",
    "OrcFormat",
    "OrcTable",
    "read_orc",
]

ORC_REG_UNDEFINED, ORC_REG_BP, ORC_REG_SP, ORC_REG_R10 = 0, 4, 5, 6
ORC_REG_BP_INDIRECT, ORC_REG_SP_INDIRECT = 8, 9
ORC_TYPE_UNDEFINED, ORC_TYPE_END_OF_STACK, ORC_TYPE_CALL, ORC_TYPE_REGS, ORC_TYPE_REGS_PARTIAL = range(5)

_ENTRY = np.dtype([("sp_offset", "<i2"), ("bp_offset", "<i2"), ("registers", "u1"), ("flags", "u1")])


class OrcFormat(enum.Enum):
    """Layout of an entry's last byte."""

    UP_TO_6_3 = "Linux 4.14 to 6.3"
    FROM_6_4 = "Linux 6.4 and later"


@dataclass(frozen=True, eq=False)
class OrcTable:
    """ORC entries by address; an entry holds from its address up to the next one's.

    `type` is an ORC_TYPE_* of 6.4 whatever the image's format. Where two entries share an address the
    later one holds, and section terminators come first, as in the kernel's own sort.
    """

    address: NDArray[np.uint64]  # [n] link addresses, ascending
    sp_register: NDArray[np.uint8]  # [n] ORC_REG_*: what the CFA is based on
    sp_offset: NDArray[np.int32]  # [n] bytes: CFA = register + sp_offset (before an indirection)
    type: NDArray[np.uint8]  # [n] ORC_TYPE_*
    format: OrcFormat

    def __len__(self) -> int:
        return int(self.address.size)

    def depth_at(self, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Depth in bytes before the instruction at each of the n link addresses: i4[n].

        Depth = CFA - rsp, so 8 at a function's entry. -1 where ORC gives no constant: no entry, rbp, r10
        or indirect base, undefined, end of stack, and the register frames of entry code.
        """
        depths = np.full(addresses.shape, -1, np.int32)
        if not self.address.size:
            return depths
        entry = np.searchsorted(self.address, addresses, side="right") - 1
        defined = (
            (entry >= 0)
            & (self.sp_register[entry] == ORC_REG_SP)
            & (self.type[entry] == ORC_TYPE_CALL)
            & (self.sp_offset[entry] >= 0)
        )
        depths[defined] = self.sp_offset[entry[defined]]
        return depths


def read_orc(image: Image) -> OrcTable | None:
    """The ORC table of a linked x86-64 kernel or module; None if it has none.

    The sections must have their final addresses and relocated data. Time and memory are linear in the
    sections' sizes. Raises InputError when the two sections do not belong together.
    """
    addresses, entries = image.section(".orc_unwind_ip"), image.section(".orc_unwind")
    if image.machine is not Machine.X86_64 or (addresses is None and entries is None):
        return None
    if addresses is None or entries is None:
        only = addresses or entries
        assert only is not None
        other = ".orc_unwind_ip" if addresses is None else ".orc_unwind"
        raise InputError(image.path, f"section {only.name} without {other}", only.offset)
    count = _count(image.path, addresses, 4)
    if _count(image.path, entries, _ENTRY.itemsize) != count:
        cause = f"{count} ORC addresses, {entries.data.size // _ENTRY.itemsize} ORC entries"
        raise InputError(image.path, cause, entries.offset)
    relative = np.frombuffer(addresses.data, "<i4").astype(np.int64).view(np.uint64)
    places = np.uint64(addresses.address) + np.arange(0, 4 * count, 4, dtype=np.uint64)
    address = places + relative  # modulo 2^64, as the kernel computes it
    raw = np.frombuffer(entries.data, _ENTRY)
    register = raw["registers"] & np.uint8(15)
    format_ = _format(register, raw["flags"])
    kind = _types(register, raw["flags"], format_)
    # A terminator at the end of one section must not hide the first entry of the next.
    order = np.lexsort((kind != ORC_TYPE_UNDEFINED, address))
    return OrcTable(
        address=address[order],
        sp_register=register[order],
        sp_offset=raw["sp_offset"].astype(np.int32)[order],
        type=kind[order],
        format=format_,
    )


def _count(path: str, section: Section, size: int) -> int:
    if section.data.size != section.size or section.size % size:
        cause = f"section {section.name} of {section.size} bytes does not hold whole {size}-byte entries"
        raise InputError(path, cause, section.offset)
    return section.size // size


def _format(register: NDArray[np.uint8], flags: NDArray[np.uint8]) -> OrcFormat:
    """The structural test of the module's docstring."""
    low = flags[register == ORC_REG_SP] & np.uint8(7)
    newer = int(np.count_nonzero(low == ORC_TYPE_CALL)) > int(np.count_nonzero(low == 0))
    return OrcFormat.FROM_6_4 if newer else OrcFormat.UP_TO_6_3


def _types(register: NDArray[np.uint8], flags: NDArray[np.uint8], format_: OrcFormat) -> NDArray[np.uint8]:
    """ORC_TYPE_* of each entry."""
    if format_ is OrcFormat.FROM_6_4:
        return flags & np.uint8(7)
    kind = (flags & np.uint8(3)) + np.uint8(ORC_TYPE_CALL)
    # An undefined register ends the stack if `end` is set: bit 2, in 6.3 bit 3 (bit 2 is `signal` there).
    ends = np.where(flags & np.uint8(12), ORC_TYPE_END_OF_STACK, ORC_TYPE_UNDEFINED).astype(np.uint8)
    return np.where(register == ORC_REG_UNDEFINED, ends, kind)
