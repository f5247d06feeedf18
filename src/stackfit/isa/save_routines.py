"""RISC-V's routines that save and restore registers for functions, where the images given do not define them.

`-msave-restore` (gcc and clang) has functions begin with `jal t0, __riscv_save_N` and end with a jump to
`__riscv_restore_N`. These move the caller's stack pointer by `ra` and N of the registers s0 to s11, rounded
up to 16 bytes (libgcc config/riscv/save-restore.S), as Zcmp's cm.push and cm.popret do. Where they are given,
their code says so itself.
"""

from __future__ import annotations

import re

import numpy as np

from stackfit.image.model import Machine, Program
from stackfit.isa.effects import FLAG_MEMORY, NO_REGISTER, Instructions, Operation

__all__ = ["ALTERNATE_LINK", "stand_in_for_save_routines"]

ALTERNATE_LINK = 5  # t0 (psABI: the alternate link register)
_STACK_POINTER = 2
_NAME = re.compile(r"__riscv_(save|restore)_([0-9]|1[0-2])")


def stand_in_for_save_routines(program: Program, table: Instructions) -> None:
    """Turn calls of undefined save routines into the pushes that they are, and jumps to undefined restore
    routines into returns. A call of anything else undefined with their link register may move the stack
    pointer by any number.
    """
    if program.machine not in (Machine.RISCV32, Machine.RISCV64) or not program.undefined:
        return
    word = program.machine.word
    leaving = (table.operation == Operation.CALL) | (table.operation == Operation.JUMP)
    outside = np.array(sorted(program.undefined), np.int64)
    for row in np.flatnonzero(leaving & np.isin(table.immediate, outside)).tolist():
        match = _NAME.fullmatch(program.undefined[int(table.immediate[row])])
        size = 0 if match is None else (int(match[2]) + 1) * word + 15 & ~15
        saves = int(table.operation[row]) == Operation.CALL and int(table.register[row]) == ALTERNATE_LINK
        if saves and match is not None and match[1] == "save":
            table.operation[row] = Operation.STORE_MULTIPLE
            table.register[row] = table.base[row] = _STACK_POINTER
            table.flags[row] = FLAG_MEMORY
            table.clobbers[row] = 1 << _STACK_POINTER | 1 << ALTERNATE_LINK
            table.immediate[row] = table.displacement[row] = -size
            table.width[row] = size
        elif saves:
            table.operation[row] = Operation.SUBTRACT
            table.register[row], table.base[row] = _STACK_POINTER, NO_REGISTER
        elif match is not None and match[1] == "restore" and int(table.operation[row]) == Operation.JUMP:
            table.operation[row] = Operation.RETURN
            table.register[row] = table.base[row] = NO_REGISTER
            table.immediate[row], table.displacement[row] = 0, size
