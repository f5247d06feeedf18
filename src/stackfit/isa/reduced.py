"""Arm, AArch64 and RISC-V code to effect arrays: drives the compiled decoders and owns their buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine
from stackfit.isa import aarch64_decode, arm_decode, riscv_decode
from stackfit.isa.effects import Instructions
from stackfit.isa.regions import Regions
from stackfit.isa.x86 import FIELDS

__all__ = ["decode"]

_DECODERS = {
    Machine.ARM: arm_decode.decode_into,
    Machine.AARCH64: aarch64_decode.decode_into,
    Machine.RISCV32: riscv_decode.decode_into,
    Machine.RISCV64: riscv_decode.decode_into,
}


def decode(code: NDArray[np.uint8], machine: Machine, regions: Regions) -> Instructions:
    """Decode a piece of code (at most 4 GiB) from its first byte to its last; `regions` begin at 0."""
    code = np.ascontiguousarray(code)
    capacity = code.size // (4 if machine is Machine.AARCH64 else 2) + len(regions.start) + 64
    arrays: dict[str, NDArray[Any]] = {
        name: np.empty(capacity, np.uint32 if name == "clobbers" else kind) for name, kind in FIELDS
    }
    count = 0
    if code.size:
        # As memoryviews, whose items are plain integers when the decoder runs uncompiled.
        _, count = _DECODERS[machine](
            code.data, 0, 0, regions.start.data, regions.kind.data, regions.shift.data, machine.word,
            *(array.data for array in arrays.values()),
        )  # fmt: skip
    return Instructions(**{name: array[:count] for name, array in arrays.items()})
