"""Which registers do not survive a call to each function.

By the calling convention, all that it lets a callee change. But a compiler that sees the callee keeps values
in registers which that callee leaves alone (gcc's -fipa-ra, on at -O2): among them the size of a large frame,
on machines that build it in a register. There the callee's code says what it changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine
from stackfit.isa.code import Code
from stackfit.isa.effects import Operation
from stackfit.isa.machines import CONVENTIONS

__all__ = ["lost_registers"]

# Registers that a linker's veneer may change between a call and its callee (AAPCS32 6.1.1, AAPCS64 6.1.1).
_VENEER = {Machine.ARM: 1 << 12 | 1 << 14, Machine.AARCH64: 1 << 16 | 1 << 17 | 1 << 30}
_ENDS = (
    Operation.RETURN, Operation.JUMP, Operation.JUMP_INDIRECT, Operation.UNDEFINED, Operation.NOP,
    Operation.BAD,
)  # fmt: skip


def lost_registers(code: Code) -> NDArray[np.uint32]:
    """Of each function, bit r set: register r does not survive a call to it; the last: of one not known."""
    convention = CONVENTIONS[code.machine]
    count = len(code.functions)
    lost = np.full(count + 1, convention.lost, np.uint32)
    if not convention.exact:
        return lost
    table = code.instructions
    written = np.zeros(count + 1, np.uint32)
    np.bitwise_or.at(written, code.function, table.clobbers.astype(np.uint32))
    written[count] = convention.lost
    unknown = np.isin(
        table.operation,
        (Operation.CALL_INDIRECT, Operation.JUMP_INDIRECT, Operation.SYSTEM_CALL, Operation.INTERRUPT_RETURN,
         Operation.BAD),
    )  # fmt: skip
    branches = np.isin(table.operation, (Operation.CALL, Operation.JUMP, Operation.JUMP_CONDITIONAL))
    unknown |= branches & (code.target < 0)
    written[code.function[unknown]] = convention.lost
    inside = np.flatnonzero(branches & (code.target >= 0))
    caller, callee = code.function[inside], code.function[code.target[inside]]
    # Who runs on into the next function, or has a cold piece, has its effects too.
    last = code.first[1:count] - 1
    last = last[(last >= 0) & ~np.isin(table.operation[last], _ENDS)]
    callers = np.concatenate([caller, code.function[last]])
    callees = np.concatenate([callee, code.function[last + 1]])
    pairs = np.unique(np.stack([callers, callees]), axis=1)
    while True:
        before = written.copy()
        np.bitwise_or.at(written, pairs[0], written[pairs[1]])
        if np.array_equal(before, written):
            break
    return (written & np.uint32(convention.lost)) | np.uint32(_VENEER.get(code.machine, 0) & convention.lost)
