"""What stack tracking has to know of a machine's procedure call standard.

Sources: System V ABI AMD64 and i386 supplements, chapter 3; AAPCS32 (5.1, 5.2), AAPCS64 (6.1, 6.4); RISC-V
ELF psABI (integer register convention). The Linux kernels keep to these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stackfit.image.model import Machine

__all__ = ["CONVENTIONS", "Convention"]


@dataclass(frozen=True)
class Convention:
    """Registers by their numbers in `Instructions`.

    `exact`: the compiler builds frame sizes in registers, so constants are followed exactly. `alignment`:
    bytes to which the stack pointer is aligned where code may rely on it.
    """

    registers: int  # how many are tracked
    stack_pointer: int
    frame_pointer: int
    lost: int  # bit r set: register r does not survive a call
    exact: bool
    alignment: int
    result: int = 0  # where a function returns a word


def _bits(*registers: int) -> int:
    return sum(1 << register for register in registers)


# x0 to x18 and the link register; x18 is the platform's. ra, t0 to t6, a0 to a7.
_RISCV = Convention(32, 2, 8, _bits(1, 5, 6, 7, *range(10, 18), *range(28, 32)), True, 16, 10)
CONVENTIONS: Mapping[Machine, Convention] = {
    Machine.X86_64: Convention(16, 4, 5, _bits(0, 1, 2, 6, 7, 8, 9, 10, 11), False, 16),
    Machine.I386: Convention(16, 4, 5, _bits(0, 1, 2), False, 4),
    Machine.ARM: Convention(16, 13, 11, _bits(0, 1, 2, 3, 12, 14), True, 8),
    Machine.AARCH64: Convention(32, 31, 29, _bits(*range(19), 30), True, 16),
    Machine.RISCV32: _RISCV,
    Machine.RISCV64: _RISCV,
}
