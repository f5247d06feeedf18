"""What an instruction does to the stack, to registers and to control flow: the vocabulary of decoded code.

A decoder turns bytes into parallel arrays (`Instructions`); nothing downstream looks at bytes again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ABSOLUTE",
    "FLAG_CONDITIONAL",
    "FLAG_FLOATING",
    "FLAG_LOCK_OR_REP",
    "FLAG_MEMORY",
    "FLAG_SEGMENT",
    "NO_REGISTER",
    "RIP",
    "Instructions",
    "Operation",
]

RIP = 16  # `base` of a RIP-relative operand
NO_REGISTER = 255
ABSOLUTE = NO_REGISTER  # `base` of an operand without base register

FLAG_MEMORY = 1  # the r/m operand is in memory: base, index, scale, displacement are valid
FLAG_SEGMENT = 2  # an fs or gs override: per-CPU data in a kernel
FLAG_LOCK_OR_REP = 4
FLAG_FLOATING = 16  # Arm: executed by the floating-point unit
FLAG_CONDITIONAL = 8  # Arm: executed or not, by a condition; control goes on behind it in either case


class Operation(enum.IntEnum):
    """Classes of instructions, by what stack tracking and flow analysis need to know of them."""

    OTHER = 0  # writes the registers in `clobbers`, nothing else of interest
    PUSH = 1  # register (or memory, or an immediate when register is NO_REGISTER)
    POP = 2
    ADD_IMMEDIATE = 3  # register += immediate (sub: negated)
    MOVE = 4  # register = base (a full-width register copy)
    LEA = 5  # register = base + index * scale + displacement
    AND_IMMEDIATE = 6
    LOAD = 7  # register = memory, full width (LOAD_NARROW: zero-extended byte or word)
    STORE = 8  # memory = register, full width
    CALL = 9  # immediate = target, bytes from the section's start
    CALL_INDIRECT = 10  # through register `base`, or memory
    JUMP = 11
    JUMP_INDIRECT = 12
    JUMP_CONDITIONAL = 13  # register = condition code (0..15; 16 = loop/jcxz)
    RETURN = (
        14  # immediate = bytes of arguments popped; displacement = bytes it adds to the stack pointer itself
    )
    INTERRUPT_RETURN = 15
    UNDEFINED = 16  # ud0, ud1, ud2
    BREAKPOINT = 17  # int3; a run of them is one instruction of that length
    INTERRUPT = 18  # int n; immediate = vector
    HALT = 19
    SYSTEM_CALL = 20  # syscall, sysenter
    SYSTEM_RETURN = 21  # sysret, sysexit
    LEAVE = 22
    ENTER = 23
    PUSH_ALL = 24
    POP_ALL = 25
    PUSH_FLAGS = 26
    POP_FLAGS = 27
    EXCHANGE = 28  # register <-> base
    SUBTRACT = 29  # register -= base, or memory
    COMPARE_IMMEDIATE = 30
    MOVE_IMMEDIATE = 31
    STORE_IMMEDIATE = 32
    ADD = 33  # register += base, or memory
    TEST = 34  # register & base, flags only
    LOAD_NARROW = 35  # register = zero-extended memory or register; width = bytes read
    SHIFT_LEFT = 36  # register <<= immediate
    SHIFT_RIGHT = 37
    FAR_JUMP = 38  # far jmp and far ret: leaves the analysed code
    NOP = 39
    BAD = 40  # not an instruction
    COMPARE = 41
    LOAD_MULTIPLE = 42  # registers in `clobbers` = memory; base register `register` += immediate
    STORE_MULTIPLE = 43  # `width` bytes at base + displacement; base register `register` += immediate
    INSERT_IMMEDIATE = 44  # 16 bits of the register, from bit `scale` on, = immediate
    SUBTRACT_REGISTERS = 45  # register = base - index
    ALIGN = 46  # register = base & immediate
    MOVE_CONDITIONAL = 47  # register = base, or memory, or what it was
    READ_SPECIAL = 48  # register = special register `immediate` (mrs, csrr)
    WRITE_SPECIAL = 49  # special register `immediate` = base, or a constant when that is NO_REGISTER
    COPY = 50  # `width` bytes from where SI points to where DI does; CX times with FLAG_LOCK_OR_REP


@dataclass(frozen=True, eq=False)
class Instructions:
    """Decoded instructions of one contiguous piece of code; all arrays have one length.

    `offset` is in bytes from the piece's start. `immediate` of a branch is its target in the same unit
    (it may lie outside the piece). `clobbers` has bit r set when general register r is written.
    Registers have the numbers of their machine; isa/machines.py says which is the stack pointer. A register
    that reads as zero and forgets what is written to it is NO_REGISTER.
    """

    offset: NDArray[np.uint32]
    length: NDArray[np.uint16]  # bytes; more than 15 only for a run of int3
    operation: NDArray[np.uint8]
    width: NDArray[np.uint8]  # operand size, bytes
    register: NDArray[np.uint8]
    base: NDArray[np.uint8]
    index: NDArray[np.uint8]
    scale: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    clobbers: NDArray[np.uint16] | NDArray[np.uint32]  # 16 bits where the machine has 16 registers
    displacement: NDArray[np.int32]
    immediate: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)
