"""Registers that indirect-branch thunks jump through, by the thunks' names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.functions import Functions
from stackfit.isa.effects import NO_REGISTER

__all__ = ["thunk_registers"]

_REGISTERS = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *(f"r{number}" for number in range(8, 16)))


def thunk_registers(functions: Functions) -> NDArray[np.uint8]:
    """Of each function: `__x86_indirect_thunk_rax` → 0; NO_REGISTER for all others."""
    found = np.full(len(functions), NO_REGISTER, np.uint8)
    for index, name in enumerate(functions.names):
        if name.startswith("__x86_indirect"):
            for text in (name, *functions.aliases[index]):
                suffix = text.rsplit("_", 1)[-1]
                for register in (suffix, suffix[1:]):
                    if register in _REGISTERS and found[index] == NO_REGISTER:
                        found[index] = _REGISTERS.index(register)
    return found
