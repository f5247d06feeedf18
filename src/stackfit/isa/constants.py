"""Numbers that the compiled modules share, as plain integers: the same as in `constants.pxd` for Cython.

Compiled, a name from the `.pxd` is a C constant; uncompiled, the hot modules import it from here.
"""

from __future__ import annotations

from stackfit.isa.effects import FLAG_CONDITIONAL, FLAG_FLOATING, FLAG_MEMORY, NO_REGISTER, Operation
from stackfit.isa.effects import RIP as RIP_BASE

# Operation, by name.
(
    OTHER,
    PUSH,
    POP,
    ADD_IMMEDIATE,
    MOVE,
    LEA,
    AND_IMMEDIATE,
    LOAD,
    STORE,
    CALL,
    CALL_INDIRECT,
    JUMP,
    JUMP_INDIRECT,
    JUMP_CONDITIONAL,
    RETURN,
    INTERRUPT_RETURN,
    UNDEFINED,
    BREAKPOINT,
    INTERRUPT,
    HALT,
    SYSTEM_CALL,
    SYSTEM_RETURN,
    LEAVE,
    ENTER,
    PUSH_ALL,
    POP_ALL,
    PUSH_FLAGS,
    POP_FLAGS,
    EXCHANGE,
    SUBTRACT,
    COMPARE_IMMEDIATE,
    MOVE_IMMEDIATE,
    STORE_IMMEDIATE,
    ADD,
    TEST,
    LOAD_NARROW,
    SHIFT_LEFT,
    SHIFT_RIGHT,
    FAR_JUMP,
    NOP,
    BAD,
    COMPARE,
    LOAD_MULTIPLE,
    STORE_MULTIPLE,
    INSERT_IMMEDIATE,
    SUBTRACT_REGISTERS,
    ALIGN,
    MOVE_CONDITIONAL,
    READ_SPECIAL,
    WRITE_SPECIAL,
    COPY,
) = map(int, Operation)

# Attribute bits of an opcode in x86_decode.MAPS.
HAS_MODRM = 1
IMM8 = 2
IMMZ = 4  # 2 bytes with an operand-size prefix, else 4
TO_REG = 8  # writes the general register in ModRM.reg
TO_RM = 16  # writes the general register in ModRM.rm when that is a register
RESERVED = 32
RESERVED_64 = 64  # no instruction in 64-bit mode
VECTOR = 256  # EVEX: general registers only where said

# General registers by their numbers in ModRM, and the two values of `base` that are none.
AX = 0
CX = 1
DX = 2
BX = 3
SP = 4
BP = 5
SI = 6
DI = 7
R11 = 11
RIP = RIP_BASE
NONE = NO_REGISTER

# Bits of `flags`.
MEMORY = FLAG_MEMORY
CONDITIONAL = FLAG_CONDITIONAL
FLOATING = FLAG_FLOATING

# What a region of code holds (isa/regions.py).
CODE = 0  # instructions of the machine; on Arm A32
THUMB = 1
DATA = 2
COMPACT = 3  # RISC-V with Zcmp, whose encodings are those of compressed double-precision stores elsewhere
