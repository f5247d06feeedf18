"""Preemption priorities of Cortex-M handlers: those that a file declares, and those that code sets with
constants (Armv7-M ARM B1.5.4, B3.2.10 to B3.2.12 SHPR, B3.4.9 NVIC_IPR, B3.2.6 AIRCR.PRIGROUP).

Only the group's part of a priority tells what preempts what: of one group none does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stackfit.calls.constants import branch_targets, value_before
from stackfit.isa.code import Code
from stackfit.isa.effects import NO_REGISTER, Operation

__all__ = ["CodePriorities", "read_priorities"]

_SHPR, _IPR, _AIRCR = 0xE000ED18, 0xE000E400, 0xE000ED0C
_FIRST_SYSTEM, _FIRST_INTERRUPT, _MOST_INTERRUPTS = 4, 16, 496  # exception numbers
_KEY = 0x05FA  # what AIRCR takes a write with
_STORES = (Operation.STORE, Operation.STORE_MULTIPLE)


@dataclass(frozen=True)
class CodePriorities:
    """`bytes_of`: exception number → the byte that code writes to its priority register; those written with
    several values are left out. `group`: AIRCR.PRIGROUP as code sets it, None: it does not, or to several
    values. `unknown`: whether code writes to these registers in a way that is not understood."""

    bytes_of: Mapping[int, int]
    group: int | None
    unknown: bool


def read_priorities(code: Code) -> CodePriorities:
    """What stores with constant addresses and values set."""
    found: dict[int, set[int]] = {}
    groups: set[int] = set()
    unknown = False
    for row, address, width in _stores(code):
        value = _stored(code, row)
        if address == _AIRCR and width == 4:
            if value is None:
                unknown = True  # a reset request reads the group back and keeps it
            elif value >> 16 == _KEY:
                groups.add(value >> 8 & 7)
            continue
        if address >= _SHPR:
            first = _FIRST_SYSTEM + address - _SHPR
        else:
            first = _FIRST_INTERRUPT + address - _IPR
        for byte in range(width):
            if value is None:
                found.setdefault(first + byte, set()).add(-1)
            else:
                found.setdefault(first + byte, set()).add(value >> 8 * byte & 0xFF)
    known = {number: min(values) for number, values in found.items() if len(values) == 1 and -1 not in values}
    return CodePriorities(known, groups.pop() if len(groups) == 1 else None, unknown)


def _stores(code: Code) -> Iterator[tuple[int, int, int]]:
    """(row, address, bytes) of stores into priority registers, and AIRCR."""
    table, joins = code.instructions, branch_targets(code)
    ranges = ((_SHPR, _SHPR + 12), (_IPR, _IPR + _MOST_INTERRUPTS), (_AIRCR, _AIRCR + 4))
    rows = (table.operation == Operation.STORE) | (table.operation == Operation.STORE_MULTIPLE)
    for row in rows.nonzero()[0].tolist():
        width, base = int(table.width[row]), int(table.base[row])
        if width > 4 or base >= 13 or int(table.index[row]) != NO_REGISTER:
            continue
        start = value_before(code, row, base, joins)
        if start is None:
            continue
        address = start + int(table.displacement[row]) & code.machine.mask
        if any(low <= address < high for low, high in ranges):
            yield row, address, width


def _stored(code: Code, row: int) -> int | None:
    table = code.instructions
    register = int(table.register[row])
    if int(table.operation[row]) == Operation.STORE_MULTIPLE:
        if register != NO_REGISTER:  # the base register moves on: which one is stored is not told
            return None
        register = int(table.immediate[row])  # strb, strh (isa/arm_decode.py)
    return value_before(code, row, register, branch_targets(code)) if register < 16 else None
