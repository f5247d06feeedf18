"""Flat binaries: memory as it is flashed, without anything that says what and where it is.

The caller says so. Execution starts at the first byte, on a Cortex-M where the vector table there says
(Armv7-M ARM DDI 0403E, B1.5.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stackfit.image.model import SYMBOL_DTYPE, Image, ImageKind, InputError, Machine, Section, Symbols

__all__ = ["ARCHITECTURES", "Flat", "read_flat"]

ARCHITECTURES = {
    "arm": Machine.ARM, "thumb": Machine.ARM, "aarch64": Machine.AARCH64, "riscv32": Machine.RISCV32,
    "riscv64": Machine.RISCV64,
}  # fmt: skip
_PROGBITS, _CODE = 1, 6  # SHF_ALLOC, SHF_EXECINSTR
_MOST_BYTES = 256 << 20  # of flash


@dataclass(frozen=True)
class Flat:
    """What a flat binary is: one of ARCHITECTURES, and the address of its first byte."""

    architecture: str
    base: int


def read_flat(path: str, data: bytes | memoryview, flat: Flat) -> Image:
    """An executable of one section. InputError: it does not fit its address space, or no instruction can be
    at its base."""
    machine = ARCHITECTURES[flat.architecture]
    if len(data) > _MOST_BYTES:
        raise InputError(path, f"a flat binary of {len(data)} bytes ({_MOST_BYTES >> 20} MiB accepted)")
    if flat.base + len(data) - 1 > machine.mask:
        raise InputError(path, f"{len(data)} bytes at {flat.base:#x} end beyond the address space")
    unit = 2 if flat.architecture == "thumb" or machine in (Machine.RISCV32, Machine.RISCV64) else 4
    if flat.base % unit:
        raise InputError(
            path, f"instructions are at multiples of {unit} bytes, {flat.base:#x} (--base) is none"
        )
    raw = np.frombuffer(data, np.uint8)
    section = Section(".flat", _PROGBITS, _CODE, flat.base, 0, raw.size, 0, 0, 0, raw)
    return Image(
        path=path,
        module=None,
        kind=ImageKind.EXECUTABLE,
        machine=machine,
        sections=(section,),
        symbols=Symbols([], np.empty(0, SYMBOL_DTYPE)),
        relocations={},
        entry=_entry(flat, bytes(data[4:8])),
    )


def _entry(flat: Flat, reset: bytes) -> int:
    """Where execution starts; its lowest bit says T32."""
    if flat.architecture != "thumb":
        return flat.base
    handler = int.from_bytes(reset, "little")
    return handler if handler & 1 and handler > flat.base else flat.base | 1
