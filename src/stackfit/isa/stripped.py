"""Where functions begin in an image without symbols, besides what calls, jumps and vectors lead to.

Code behind an end of control flow that nothing in its function leads to begins another one where it starts
as compilers start functions (registers saved, stack allocated), or where its address stands in data or is
built by code. All of it is a guess, and the verdict says so: a label of a jump table that was not understood
looks the same. On Arm the constants amid code are told by the instructions that load them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine
from stackfit.image.pointers import distinct
from stackfit.isa.effects import FLAG_CONDITIONAL, NO_REGISTER, Instructions, Operation
from stackfit.isa.machines import CONVENTIONS

__all__ = ["built_addresses", "literals", "plausible", "prologues"]

_LOOK_BACK = 8  # instructions between the parts of an address
_LOOK_AHEAD = 8  # instructions of a function's start; on Arm, whose constants stand amid code, 1
_ALTERNATE_LINK = 5  # RISC-V: of calls of save routines
_LANDING = (0xD503245F, 0xD50324DF, 0xD503233F, 0xD503237F)  # AArch64: bti c, bti jc, paciasp, pacibsp


def built_addresses(machine: Machine, table: Instructions) -> NDArray[np.uint64]:
    """Numbers that instructions put into registers and that may be code addresses, ascending.

    On Arm those with the lowest bit set, as T32 pointers have it; on AArch64 and RISC-V also sums of an
    instruction's constant and another's a few before it (adrp and add).
    """
    constant = table.operation == Operation.MOVE_IMMEDIATE
    value = table.immediate.astype(np.uint64)
    if machine is Machine.ARM:
        return distinct(value[constant & (table.immediate & 1 == 1)] & ~np.uint64(1))
    parts = [value[constant]]
    moved = table.operation == Operation.ADD_IMMEDIATE
    address = (table.operation == Operation.LEA) & (table.index == NO_REGISTER)
    rows = np.flatnonzero(moved | address)
    base = np.where(moved[rows], table.register[rows], table.base[rows])
    more = np.where(moved[rows], table.immediate[rows], table.displacement[rows]).astype(np.int64)
    for back in range(1, _LOOK_BACK + 1):
        before = np.maximum(rows - back, 0)
        found = constant[before] & (table.register[before] == base)
        parts.append((table.immediate[before[found]] + more[found]).view(np.uint64))
        rows, base, more = rows[~found], base[~found], more[~found]
    return distinct(np.concatenate(parts) & np.uint64(machine.mask))


def prologues(machine: Machine, table: Instructions, word: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Rows that start as a function does: within a few instructions, before any branch, the stack pointer is
    moved down by a constant. `word`: the first four bytes of each row's code."""
    operation, count = table.operation, len(table.operation)
    pointer = CONVENTIONS[machine].stack_pointer
    moves = np.isin(operation, (Operation.ADD_IMMEDIATE, Operation.STORE_MULTIPLE, Operation.STORE))
    down = moves & (table.register == pointer) & (table.immediate < 0)
    down |= (operation == Operation.PUSH) & (table.width > 0)
    if machine in (Machine.RISCV32, Machine.RISCV64):
        down |= (operation == Operation.CALL) & (table.register == _ALTERNATE_LINK)
    if machine is Machine.AARCH64:
        down |= np.isin(word, _LANDING)
    stops = np.isin(
        operation, (*_LEAVES, Operation.CALL, Operation.CALL_INDIRECT, Operation.JUMP_CONDITIONAL)
    )
    stops |= np.isin(operation, (Operation.BAD, Operation.UNDEFINED, Operation.NOP))
    rows = np.arange(count)
    ahead = 1 if machine is Machine.ARM else _LOOK_AHEAD
    following = [
        np.minimum.accumulate(np.where(mask, rows, count)[::-1])[::-1] for mask in (down, stops & ~down)
    ]  # the next row of each kind, at or behind each row
    return np.asarray((following[0] < following[1]) & (following[0] < rows + ahead), np.bool_)


def plausible(table: Instructions) -> NDArray[np.bool_]:
    """Rows from which control gets to where it leaves before it gets to what is no instruction."""
    count = len(table.operation)
    ends = np.isin(table.operation, _LEAVES)
    bad = np.isin(table.operation, (Operation.BAD, Operation.UNDEFINED))
    rows = np.arange(count)
    following = [
        np.minimum.accumulate(np.where(mask, rows, count)[::-1])[::-1] for mask in (ends, bad)
    ]  # the next row of each kind, at or behind each row
    return np.asarray((following[0] < following[1]) & (following[0] < count), np.bool_)


_LEAVES = (Operation.RETURN, Operation.JUMP, Operation.JUMP_INDIRECT, Operation.INTERRUPT_RETURN)


def literals(
    table: Instructions,
    address: NDArray[np.uint64],
    target: NDArray[np.int32],
    entry: NDArray[np.int64],
    word: NDArray[np.uint32],
    thumb: NDArray[np.bool_],
) -> NDArray[np.uint64]:
    """Addresses of the words of data that Arm code loads relative to its own place, ascending.

    Only instructions count that control reaches from `entry` (rows where functions begin). `word`: the first
    four bytes of each row's code; `thumb`: whether a row is T32. Encodings: Armv7-M ARM A7.7.43 and A7.7.233,
    Armv7-A ARM A8.8.64.
    """
    reached = _reached(table, target, entry)
    half = word & 0xFFFF
    place = address & ~np.uint64(3)
    wide = half | word >> 16 << 16
    high, low = wide & 0xFFFF, wide >> 16
    near = thumb & (half >> 11 == 9)  # ldr rT, [pc, #imm8 × 4]
    far = thumb & (high & 0xFF7F == 0xF85F)  # ldr.w rT, [pc, #±imm12]
    vector = thumb & (high & 0xFF3F == 0xED1F) & (low >> 9 & 7 == 5)  # vldr
    arm = ~thumb & (word >> 28 != 15) & (word & 0x0F7F0000 == 0x051F0000)  # ldr rT, [pc, #±imm12]
    found: list[NDArray[np.uint64]] = []
    for mask, ahead, distance, up, size in (
        (near, 4, (half & 0xFF) * 4, near, 4),
        (far, 4, low & 0xFFF, high & 0x80 != 0, 4),
        (vector, 4, (low & 0xFF) * 4, high & 0x80 != 0, 8),
        (arm, 8, word & 0xFFF, word & 0x800000 != 0, 4),
    ):
        rows = np.flatnonzero(mask & reached)
        offset = distance[rows].astype(np.int64)
        offset = np.where(up[rows], offset, -offset) + ahead
        at = place[rows] + offset.view(np.uint64)
        for step in range(0, size, 4):
            found.append(at + np.uint64(step))
    places = distinct(np.concatenate(found))
    index = np.minimum(np.searchsorted(address, places), max(len(address) - 1, 0))
    code = (address[index] == places) & reached[index]  # what is executed is no data
    return np.asarray(places[~code], np.uint64)


def _reached(table: Instructions, target: NDArray[np.int32], entry: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows that control reaches from these."""
    count = len(table.operation)
    goes_on = ~np.isin(table.operation, (*_LEAVES, Operation.BAD, Operation.UNDEFINED)) | (
        table.flags & FLAG_CONDITIONAL != 0
    )
    found = np.zeros(count + 1, np.bool_)
    front = entry[entry < count]
    while front.size:
        found[front] = True
        behind = front[goes_on[front]] + 1
        goal = target[front]
        front = np.unique(np.concatenate([behind[behind < count], goal[goal >= 0]]))
        front = front[~found[front]]
    return found[:-1]
