"""Constants in registers, found within straight-line code: function addresses handed to a call.

Only what no other path can change counts: the search stops at any place that a branch can reach.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine
from stackfit.isa.code import GLOBAL_POINTER, Code
from stackfit.isa.effects import FLAG_MEMORY, NO_REGISTER, RIP, Operation
from stackfit.isa.machines import CONVENTIONS

__all__ = [
    "ARGUMENT_REGISTERS",
    "argument_value",
    "branch_targets",
    "constant_argument",
    "constant_before",
    "value_before",
]

_LOOK_BACK = 24  # instructions searched before the call
_LOOK_FAR = 96  # where instructions do less, and addresses are kept across calls
# Integer argument registers: System V AMD64 ABI 3.2.3; i386 with -mregparm=3 (arch/x86/Makefile).
# AAPCS32 6.4, AAPCS64 6.8.2; RISC-V psABI: a0 to a7.
ARGUMENT_REGISTERS: dict[Machine, tuple[int, ...]] = {
    Machine.X86_64: (7, 6, 2, 1, 8, 9),
    Machine.I386: (0, 2, 1),
    Machine.ARM: (0, 1, 2, 3),
    Machine.AARCH64: tuple(range(8)),
    Machine.RISCV32: tuple(range(10, 18)),
    Machine.RISCV64: tuple(range(10, 18)),
}


def branch_targets(code: Code) -> NDArray[np.bool_]:
    """Rows that a branch or a call can reach: bool by row (one more at the end)."""
    cached: NDArray[np.bool_] | None = code.__dict__.get("_branch_targets")
    if cached is None:
        cached = np.zeros(len(code) + 1, np.bool_)
        cached[code.target[code.target >= 0]] = True
        cached[code.first] = True
        object.__setattr__(code, "_branch_targets", cached)
    return cached


def constant_argument(code: Code, address: int, argument: int, variadic: bool = False) -> int:
    """The function whose address is the n-th argument (from 0) of the call at that address, or -1.

    On i386 a variadic function takes its arguments on the stack, last pushed first.
    """
    if variadic and code.machine is Machine.I386:
        row = code.row_at(address)
        return _pushed(code, row, argument) if row >= 0 else -1
    return _function(code, argument_value(code, address, argument))


def argument_value(code: Code, address: int, argument: int) -> int | None:
    """The number that is the n-th argument (from 0) of the call at that address; in a register, on Arm on the
    stack too."""
    row = code.row_at(address)
    registers = ARGUMENT_REGISTERS[code.machine]
    if row >= 0 and argument >= len(registers) and code.machine is Machine.ARM:
        return _stored(code, row, 4 * (argument - len(registers)))
    if row < 0 or argument >= len(registers):
        return None
    return value_before(code, row, registers[argument], branch_targets(code))


def _function(code: Code, value: int | None) -> int:
    return -1 if value is None else code.functions.at(code.machine.code_address(value))


def _stored(code: Code, row: int, place: int) -> int | None:
    """The number that straight-line code stores so many bytes above the stack pointer before the call."""
    table, joins = code.instructions, branch_targets(code)
    stack_pointer = CONVENTIONS[code.machine].stack_pointer
    for at in range(row - 1, max(row - _LOOK_BACK, -1), -1):
        operation = int(table.operation[at])
        if operation in _BARRIERS or joins[at + 1]:
            return None
        if int(table.base[at]) != stack_pointer or int(table.register[at]) == stack_pointer:
            continue
        offset = place - int(table.displacement[at])
        if operation == Operation.STORE and offset == 0:
            return value_before(code, at, int(table.register[at]), joins)
        if operation == Operation.STORE_MULTIPLE and offset in (0, 4) and int(table.width[at]) == 8:
            pair = int(table.immediate[at])  # strd (isa/arm_decode.py)
            return value_before(code, at, pair >> 8 if offset else pair & 0xFF, joins)
    return None


def _pushed(code: Code, row: int, argument: int) -> int:
    """The function whose address the n-th push before the call pushes, or -1."""
    table, joins = code.instructions, branch_targets(code)
    seen = 0
    for at in range(row - 1, max(row - _LOOK_BACK, -1), -1):
        operation = int(table.operation[at])
        if operation in _BARRIERS or joins[at + 1]:
            return -1
        if operation == Operation.PUSH:
            if seen == argument:
                register = int(table.register[at])
                if register == NO_REGISTER and not int(table.flags[at]) & FLAG_MEMORY:
                    return code.functions.at(int(table.immediate[at]) & 0xFFFF_FFFF)
                return constant_before(code, at, register, joins) if register < 16 else -1
            seen += 1
    return -1


def constant_before(code: Code, row: int, register: int, joins: NDArray[np.bool_]) -> int:
    """The function whose address the register holds at that row, loaded in straight-line code, or -1."""
    return _function(code, value_before(code, row, register, joins))


def value_before(code: Code, row: int, register: int, joins: NDArray[np.bool_]) -> int | None:
    """The number that the register holds at that row, loaded in straight-line code."""
    table = code.instructions
    if register == GLOBAL_POINTER and code.global_pointer is not None:
        return code.global_pointer
    at = row
    kept = () if code.machine.x86 or CONVENTIONS[code.machine].lost >> register & 1 else _CALLS
    for _ in range(_LOOK_BACK if code.machine.x86 else _LOOK_FAR):
        if joins[at]:
            return None
        at -= 1
        if at < 0:
            return None
        operation = int(table.operation[at])
        if operation == Operation.MOVE_IMMEDIATE and int(table.register[at]) == register:
            return int(table.immediate[at]) & code.machine.mask
        if operation == Operation.LEA and int(table.register[at]) == register and int(table.base[at]) == RIP:
            return int(code.address[at]) + int(table.length[at]) + int(table.displacement[at])
        if operation in (Operation.ADD_IMMEDIATE, Operation.MOVE, Operation.LEA) and not code.machine.x86:
            found = _moved(code, at, register, joins)
            if found is not None:
                return found
        if operation == Operation.INSERT_IMMEDIATE and int(table.register[at]) == register:
            found = value_before(code, at, register, joins)
            if found is None:
                return None
            part = 0xFFFF << int(table.scale[at])
            return found & ~part | int(table.immediate[at]) << int(table.scale[at])
        if int(table.clobbers[at]) & (1 << register) or (operation in _BARRIERS and operation not in kept):
            return None
    return None


def _moved(code: Code, row: int, register: int, joins: NDArray[np.bool_]) -> int | None:
    """The number that an addition or a copy at that row leaves in the register (addresses built in parts)."""
    table = code.instructions
    if int(table.register[row]) != register or int(table.index[row]) != NO_REGISTER:
        return None
    added = int(table.operation[row]) == Operation.ADD_IMMEDIATE
    source = register if added else int(table.base[row])
    value = value_before(code, row, source, joins) if source != NO_REGISTER else None
    if value is None:
        return None
    return value + int((table.immediate if added else table.displacement)[row]) & code.machine.mask


_CALLS = (Operation.CALL, Operation.CALL_INDIRECT)
_BARRIERS = (
    Operation.CALL,
    Operation.CALL_INDIRECT,
    Operation.JUMP,
    Operation.JUMP_INDIRECT,
    Operation.RETURN,
    Operation.EXCHANGE,
)
