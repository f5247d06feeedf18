"""What debug information tells the walk: at which rows of code a place holds a pointer to what.

A variable's range of addresses tells at its first row, and where paths meet within it: between these the
walk keeps the value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.flow_constants import MARK_JOIN, TOLD_SLOT
from stackfit.calls.types import TypeLayout
from stackfit.image.dwarf import IN_SLOT
from stackfit.image.model import Machine
from stackfit.isa.code import Code
from stackfit.isa.machines import CONVENTIONS

__all__ = ["Told", "told_places"]

# Registers by DWARF number (System V psABI of each machine): ours go ax, cx, dx, bx, sp, bp, si, di, r8 …
_REGISTERS = {
    Machine.X86_64: (0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15),
    Machine.I386: (0, 1, 2, 3, 4, 5, 6, 7),
    Machine.ARM: tuple(range(16)),
    Machine.AARCH64: tuple(range(32)),
    Machine.RISCV32: tuple(range(32)),
    Machine.RISCV64: tuple(range(32)),
}
_MOST_JOINS = 1 << 24  # in all ranges together


@dataclass(frozen=True, eq=False)
class Told:
    """At `row` (ascending), `place` (a register, or TOLD_SLOT and a slot's depth) points to byte `offset` of
    an object of type `goal`."""

    row: NDArray[np.int32]
    place: NDArray[np.int32]
    goal: NDArray[np.int32]
    offset: NDArray[np.int64]


def told_places(code: Code, types: TypeLayout, marks: NDArray[np.uint8]) -> Told:
    """The local pointers of the types' debug information, by row. `marks`: of rows where paths meet."""
    begin, end, place, offset, goal = types.locals.T
    number = np.full(IN_SLOT + 1, -1, np.int64)
    registers = _REGISTERS[code.machine]
    number[: len(registers)] = registers
    number[IN_SLOT] = TOLD_SLOT
    where = number[np.clip(place, 0, IN_SLOT)]
    slot = where == TOLD_SLOT
    where = np.where(slot, where - offset, where)
    # `register + n` is the variable: the register points n bytes before it.
    offset = np.where(slot, 0, -offset)
    first = code.rows_at(begin.view(np.uint64))
    good = (
        (where >= 0)
        & (where != CONVENTIONS[code.machine].stack_pointer)
        & (first >= 0)
        & (goal > 0)
        & (~slot | (where > TOLD_SLOT))
    )
    where, offset, goal, first = where[good], offset[good], goal[good], first[good].astype(np.int64)
    last = np.searchsorted(code.address, end[good].view(np.uint64))
    joins = np.flatnonzero(marks & MARK_JOIN)
    low = np.searchsorted(joins, first, "right")
    number_of = np.maximum(np.searchsorted(joins, last) - low, 0)
    if int(number_of.sum()) > _MOST_JOINS:
        number_of[:] = 0
    which = np.repeat(np.arange(first.size), number_of)
    step = np.arange(which.size) - np.repeat(np.cumsum(number_of) - number_of, number_of)
    row = np.concatenate([first, joins[low[which] + step]])
    every = np.concatenate([np.arange(first.size), which])
    # One of several variables in a place: the largest object, which holds the others.
    size = types.size[goal[every]]
    order = np.lexsort((offset[every], goal[every], -size, where[every], row))
    row, every, size = row[order], every[order], size[order]
    new = np.ones(row.size, np.bool_)
    new[1:] = (row[1:] != row[:-1]) | (where[every[1:]] != where[every[:-1]])
    chosen = every[new]
    return Told(
        row=row[new].astype(np.int32),
        place=where[chosen].astype(np.int32),
        goal=goal[chosen].astype(np.int32),
        offset=offset[chosen],
    )
