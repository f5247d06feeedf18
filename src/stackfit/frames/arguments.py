"""Arguments that an Arm function stores above its frame, which the compiler does not count as its frame.

A function with variable arguments, or with a structure that begins in registers, first stores the argument
registers r0 to r3 that are concerned, below the caller's stack arguments (AAPCS32, 6.5). They are in the
function's frame here; gcc's `-fstack-usage` leaves them out (config/arm/arm.cc: outgoing_args - saved_args).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine
from stackfit.isa.code import Code
from stackfit.isa.effects import Operation
from stackfit.isa.machines import CONVENTIONS

__all__ = ["may_store_arguments", "stored_arguments"]

_LOOK = 12  # instructions at a function's start
_WORD = 4


def stored_arguments(code: Code) -> NDArray[np.int32]:
    """Bytes of each function's argument registers stored above its frame; 0 on other machines than Arm."""
    found = np.zeros(len(code.functions), np.int32)
    if code.machine is not Machine.ARM:
        return found
    table = code.instructions
    stack_pointer = CONVENTIONS[code.machine].stack_pointer
    moves = (table.register == stack_pointer) & np.isin(
        table.operation, (Operation.ADD_IMMEDIATE, Operation.STORE_MULTIPLE)
    )
    for function in range(len(code.functions)):
        first = int(code.first[function])
        last = min(int(code.first[function + 1]), first + _LOOK)
        rows = (np.flatnonzero(moves[first:last]) + first).tolist()
        if not rows:
            continue
        size = -int(table.immediate[rows[0]])
        if not 0 < size <= 4 * _WORD:
            continue
        # A frame is allocated at once: what precedes another allocation or a push is not yet the frame.
        more = len(rows) > 1 and int(table.immediate[rows[1]]) < 0
        if int(table.operation[rows[0]]) == Operation.STORE_MULTIPLE:
            if _argument_registers(int(table.scale[rows[0]]), int(table.width[rows[0]])) == size:
                found[function] = size
        elif more:
            found[function] = size
    return found


def may_store_arguments(code: Code, function: int) -> int:
    """Bytes of a frame that may be stored arguments: allocated at once, and filled with argument registers.

    That is also how a function without calls saves a structure that came in registers: nothing in the code
    tells them apart, so they count as the compiler's frame.
    """
    table = code.instructions
    first = int(code.first[function])
    last = min(int(code.first[function + 1]), first + _LOOK)
    stack_pointer = CONVENTIONS[code.machine].stack_pointer
    for row in range(first, last):
        if int(table.operation[row]) == Operation.ADD_IMMEDIATE and int(table.register[row]) == stack_pointer:
            size = -int(table.immediate[row])
            return size if 0 < size <= 4 * _WORD and _stores(code, row + 1, last, size) else 0
    return 0


def _argument_registers(registers: int, width: int) -> int:
    """Bytes of a list of registers that is the last of r0 to r3 (bits) and nothing else; else 0."""
    for count in range(1, 5):
        if registers == 0xF & ~(0xF >> count) and width == count * _WORD:
            return width
    return 0


def _stores(code: Code, first: int, last: int, size: int) -> bool:
    """Whether all that was allocated is filled with the last argument registers at once."""
    table = code.instructions
    stack_pointer = CONVENTIONS[code.machine].stack_pointer
    wanted = {4 - index: size - index * _WORD for index in range(1, size // _WORD + 1)}  # register → place
    base, at = stack_pointer, 0  # the register that points into what was allocated, and where
    for row in range(first, last):
        operation = int(table.operation[row])
        own = int(table.base[row]) in (base, stack_pointer)
        place = int(table.displacement[row]) + (at if int(table.base[row]) == base else 0)
        if operation in (Operation.LEA, Operation.MOVE) and int(table.base[row]) == stack_pointer:
            base, at = int(table.register[row]), int(table.displacement[row])
        elif operation == Operation.STORE and own and int(table.register[row]) in wanted:
            if wanted[int(table.register[row])] != place:
                return False
            del wanted[int(table.register[row])]
        elif operation == Operation.STORE_MULTIPLE and own:
            for register in range(4):
                if int(table.scale[row]) >> register & 1 and register in wanted:
                    if wanted[register] != place:
                        return False
                    del wanted[register]
                    place += _WORD
        if not wanted:
            return True
        if operation in (Operation.CALL, Operation.CALL_INDIRECT, Operation.JUMP, Operation.JUMP_CONDITIONAL):
            return False
    return False
