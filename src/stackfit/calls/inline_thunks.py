"""Retpolines in place: replacement code that pushes a target and returns to it instead of calling it.

i386's CALL_NOSPEC has one among the alternatives of a `call *%reg`. The function that it enters returns
behind the replacement's last call, not behind the instruction that the image has there.

Source: arch/x86/include/asm/nospec-branch.h (CALL_NOSPEC of 32-bit kernels).
"""

from __future__ import annotations

import numpy as np

from stackfit.image.tables import Alternatives
from stackfit.isa.code import Code
from stackfit.isa.constants import SP
from stackfit.isa.effects import Operation

__all__ = ["inline_thunks"]

_MOST_STEPS = 64  # instructions of one replacement; the kernel's has 8
_CALLS = (Operation.CALL, Operation.CALL_INDIRECT)


def inline_thunks(code: Code, alternatives: Alternatives) -> dict[int, tuple[int, ...]]:
    """Place of an indirect call → (link addresses behind the calls that its retpolines make instead)."""
    rows = code.rows_at(alternatives.place)
    operation = code.instructions.operation
    indirect = (rows >= 0) & (operation[np.maximum(rows, 0)] == Operation.CALL_INDIRECT)
    found: dict[int, tuple[int, ...]] = {}
    for index in np.flatnonzero(indirect & (alternatives.replacement_length > 0)).tolist():
        first = int(alternatives.replacement[index])
        back = _back(code, first, first + int(alternatives.replacement_length[index]))
        if back >= 0:
            place = int(alternatives.place[index])
            found[place] = (*found.get(place, ()), place + back - first)
    return found


def _back(code: Code, first: int, end: int) -> int:
    """The return address that a replacement leaves to the function that it enters by a return; -1: none."""
    instructions = code.instructions
    word = code.machine.word
    stack: list[int] = []  # pushed return addresses, the last on top; 0: something else
    row = code.row_at(first)
    for _ in range(_MOST_STEPS):
        if row < 0 or row >= len(code) or not first <= int(code.address[row]) < end:
            return -1
        operation = instructions.operation[row]
        if operation in _CALLS:
            stack.append(int(code.address[row]) + int(instructions.length[row]))
        elif operation == Operation.PUSH:
            stack.append(0)
        elif operation == Operation.LEA and instructions.register[row] == instructions.base[row] == SP:
            words, rest = divmod(int(instructions.displacement[row]), word)
            if rest or not 0 <= words <= len(stack):
                return -1
            del stack[len(stack) - words :]
        elif operation == Operation.RETURN:
            pushed = len(stack) >= 2 and stack[-1] == 0
            return stack[-2] if pushed and first < stack[-2] <= end else -1
        if operation in (Operation.CALL, Operation.JUMP):
            row = int(code.target[row])
        elif operation in (Operation.CALL_INDIRECT, Operation.JUMP_INDIRECT, Operation.JUMP_CONDITIONAL):
            return -1
        else:
            row += 1
    return -1
