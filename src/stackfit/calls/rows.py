"""Decoded rows as the walk that follows pointers has them: addresses as numbers, constants that are built in
several instructions in one, and which registers a row loads or stores when they are several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.constants import branch_targets
from stackfit.calls.flow_constants import HERE, OTHERS
from stackfit.calls.numbers import Numbers
from stackfit.image.model import Machine
from stackfit.isa.code import GLOBAL_POINTER, Code
from stackfit.isa.effects import FLAG_CONDITIONAL, FLAG_FLOATING, NO_REGISTER, RIP, Operation
from stackfit.isa.machines import CONVENTIONS

__all__ = ["WalkRows", "walk_rows"]

_LOOK_BACK = 32  # instructions between the two halves of a constant
_SAVE, _RESTORE = "__riscv_save_", "__riscv_restore_"  # libgcc's, with their own calling convention
_LINK = 5  # t0
_NONE = -1  # of `listed`: no register
_SEVERAL = (Operation.LOAD_MULTIPLE, Operation.STORE_MULTIPLE)


@dataclass(frozen=True, eq=False)
class WalkRows:
    """By row of code, but `listed`, which has one entry where no row loads or stores several registers.
    `fixed`: the register that has the same value everywhere (NO_REGISTER: none), and that value."""

    operation: NDArray[np.uint8]
    base: NDArray[np.uint8]
    clobbers: NDArray[np.uint32]
    immediate: NDArray[np.int64]
    address: NDArray[np.int64]
    listed: NDArray[np.int64]
    fixed: tuple[int, int]


def walk_rows(code: Code, numbers: Numbers) -> WalkRows:
    table, machine = code.instructions, code.machine
    operation, immediate = table.operation, table.immediate
    base = np.where(table.base == RIP, np.uint8(HERE), table.base) if machine.x86 else table.base
    listed = np.full(1, _NONE, np.int64)
    if machine.x86:
        # `mov $address, %reg` of i386 is decoded without a sign; where it goes on, addresses have one.
        immediate = numbers.addresses(immediate.view(np.uint64))
    else:
        operation, immediate = operation.copy(), immediate.copy()
        if machine.word == 4:  # as the register has it
            held = operation == Operation.MOVE_IMMEDIATE
            immediate[held] &= machine.mask
        _join_constants(code, operation, immediate)
        held = operation == Operation.MOVE_IMMEDIATE
        immediate[held] = numbers.values(immediate[held])
        if machine in (Machine.RISCV32, Machine.RISCV64):
            base = np.where(base == 0, np.uint8(NO_REGISTER), base)  # x0 is zero
            _save_routines(code, operation)
        listed = _listed(code)
    fixed = (NO_REGISTER, 0)
    if code.global_pointer is not None:
        fixed = (GLOBAL_POINTER, int(numbers.addresses(np.array([code.global_pointer], np.uint64))[0]))
    return WalkRows(
        operation, base, table.clobbers.astype(np.uint32), immediate, numbers.addresses(code.address), listed,
        fixed,
    )  # fmt: skip


def _save_routines(code: Code, operation: NDArray[np.uint8]) -> None:
    """They keep the arguments: a call does nothing here, and a jump to one that restores returns."""
    restores = np.array([name.startswith(_RESTORE) for name in code.functions.names], np.bool_)
    known = code.target >= 0
    operation[known & (operation == Operation.CALL) & (code.instructions.register == _LINK)] = Operation.NOP
    jumps = np.flatnonzero(known & (operation == Operation.JUMP))
    jumps = jumps[restores[code.function[code.target[jumps]]]] if restores.size else jumps
    operation[jumps] = Operation.RETURN


def _join_constants(code: Code, operation: NDArray[np.uint8], immediate: NDArray[np.int64]) -> None:
    """What adds to a constant, or puts its upper half in, loads the whole constant where the first part is
    loaded in the same straight-line code."""
    table, joins = code.instructions, branch_targets(code)
    pointer, mask = CONVENTIONS[code.machine].stack_pointer, code.machine.mask
    plain = (table.index == NO_REGISTER) & (table.register != pointer) & (table.register != NO_REGISTER)
    added = np.isin(operation, (Operation.ADD_IMMEDIATE, Operation.INSERT_IMMEDIATE, Operation.LEA)) & plain
    for row in np.flatnonzero(added).tolist():
        kind, register = int(operation[row]), int(table.register[row])
        source = int(table.base[row]) if kind == Operation.LEA else register
        if source == NO_REGISTER:
            continue
        at = row
        for _ in range(_LOOK_BACK):
            if joins[at] or at == 0:
                break
            at -= 1
            if int(operation[at]) == Operation.MOVE_IMMEDIATE and int(table.register[at]) == source:
                value = int(immediate[at])
                if kind == Operation.INSERT_IMMEDIATE:
                    shift = int(table.scale[row])
                    value = (value & ~(0xFFFF << shift)) | int(table.immediate[row]) << shift
                else:
                    value += int((table.displacement if kind == Operation.LEA else table.immediate)[row])
                value &= mask
                operation[row] = Operation.MOVE_IMMEDIATE
                immediate[row] = value - (1 << 64) if value >> 63 else value
                break
            if int(table.clobbers[at]) >> source & 1:
                break


def _listed(code: Code) -> NDArray[np.int64]:
    """See follow_functions(): which registers each row loads or stores, by order of memory."""
    table = code.instructions
    found = np.full(max(len(code), 1), _NONE, np.int64)
    rows = np.flatnonzero(np.isin(table.operation, _SEVERAL) & (table.flags & FLAG_FLOATING == 0))
    known: dict[tuple[int, ...], int] = {}
    columns = zip(
        table.operation[rows].tolist(), table.width[rows].tolist(), table.register[rows].tolist(),
        table.base[rows].tolist(), table.index[rows].tolist(), table.scale[rows].tolist(),
        table.clobbers[rows].tolist(), table.immediate[rows].tolist(), table.flags[rows].tolist(),
        strict=True,
    )  # fmt: skip
    of = _listed_arm if code.machine is Machine.ARM else _listed_other
    values = []
    for column in columns:
        if column not in known:
            known[column] = _packed(of(code.machine, *column))
        values.append(known[column])
    found[rows] = values
    return found


def _packed(registers: list[int]) -> int:
    value = int.from_bytes(bytes((*registers, *[NO_REGISTER] * 8)[:8]), "little")
    return value - (1 << 64) if value >> 63 else value


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(32) if mask >> bit & 1]


def _listed_arm(
    machine: Machine, operation: int, width: int, register: int, base: int, index: int, scale: int,
    clobbers: int, immediate: int, flags: int,
) -> list[int]:  # fmt: skip
    if width < machine.word:
        return []
    if operation == Operation.LOAD_MULTIPLE:
        if index != NO_REGISTER:
            return []
        if register == NO_REGISTER and width == 8 and immediate:  # ldrd
            return [immediate & 0xFF, immediate >> 8]
        loaded = _bits(clobbers & ~(1 << register) if register < 16 else clobbers)
        # Of ldrd with a changing base the order is not known; pop has it.
        ordered = len(loaded) == 1 or register == NO_REGISTER or base == 13 or len(loaded) > 2
        return loaded[:8] if len(loaded) * 4 == width and ordered else []
    if (
        register == NO_REGISTER
        and flags & FLAG_CONDITIONAL
        and width == 4
        and (not scale or index != NO_REGISTER)
    ):
        return [immediate]
    if register == NO_REGISTER and width == 8 and immediate:  # strd
        return [immediate & 0xFF, immediate >> 8]
    low = _bits(scale & 0xFF)
    return low if len(low) * 4 == width else [*low, OTHERS][-8:]


def _listed_other(
    machine: Machine, operation: int, width: int, register: int, base: int, index: int, scale: int,
    clobbers: int, immediate: int, flags: int,
) -> list[int]:  # fmt: skip
    pointer = CONVENTIONS[machine].stack_pointer
    if width < machine.word:
        return []
    if machine is Machine.AARCH64 and register == NO_REGISTER and width == 16 and immediate:
        return [immediate & 0xFF, immediate >> 8]
    if operation == Operation.STORE_MULTIPLE:
        # Registers are saved where the stack pointer moves.
        return [] if base == pointer and register == pointer else [OTHERS]
    loaded = _bits(clobbers & ~(1 << register) if register < 32 else clobbers)
    return loaded if len(loaded) == 1 and width == machine.word and index == NO_REGISTER else []
