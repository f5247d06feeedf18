"""What the bytes of executable sections hold: instructions, of which set, or data.

Mapping symbols say so: `$a`, `$t`, `$d` on Arm (AAELF32, 5.5.5), `$x`, `$d` on AArch64 and RISC-V. A program
without any of them (stripped, or never marked) is all code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.attributes import read_arm_attributes
from stackfit.image.functions import CodeSection, Functions, mapping_symbol
from stackfit.image.model import Image, ImageKind, Machine, Program
from stackfit.isa.constants import CODE, COMPACT, DATA, THUMB

__all__ = ["Regions", "find_regions", "is_thumb"]

_KINDS = {"$a": CODE, "$x": CODE, "$t": THUMB, "$d": DATA}


_NO_DATA = np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class Regions:
    """By ascending offset into the sections' joined code: what a region holds, its address less its
    offset."""

    start: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    shift: NDArray[np.int64]


def find_regions(
    program: Program,
    sections: list[CodeSection],
    piece: NDArray[np.uint64],
    functions: Functions,
    data: NDArray[np.uint64] = _NO_DATA,
) -> Regions:
    """Regions of all code sections; decoding starts afresh at each, so every function's entry begins one.

    `piece`: where each section begins in the joined code. `data`: addresses of words that are no code, for
    sections in which no mapping symbols say so.
    """
    starts: list[NDArray[np.uint32]] = []
    kinds: list[NDArray[np.uint8]] = []
    shifts: list[NDArray[np.int64]] = []
    for number, code in enumerate(sections):
        image = program.images[code.image]
        marked, kind = _marks(program, code)
        if not marked.size:
            marked, kind = _unmarked_regions(code, _unmarked(image), data)
        # From one section's symbols: what precedes the first is as it is.
        entries = functions.address[functions.section == number]
        address = np.unique(np.concatenate([marked, entries, [np.uint64(code.section.address)]]))
        index = np.searchsorted(marked, address, "right") - 1
        if _compact(image):
            kind = np.where(kind == CODE, np.uint8(COMPACT), kind)
        shift = int(code.section.address) - int(piece[number])
        starts.append((address - np.uint64(shift & 0xFFFF_FFFF_FFFF_FFFF)).astype(np.uint32))
        kinds.append(kind[np.maximum(index, 0)])
        shifts.append(np.full(address.size, np.uint64(shift & 0xFFFF_FFFF_FFFF_FFFF)).view(np.int64))
    return Regions(
        np.concatenate([np.empty(0, np.uint32), *starts]),
        np.concatenate([np.empty(0, np.uint8), *kinds]),
        np.concatenate([np.empty(0, np.int64), *shifts]),
    )


def _compact(image: Image) -> bool:
    """Whether RISC-V code has Zcmp: the architecture string of its attributes says so (psABI, 12)."""
    attributes = image.section(".riscv.attributes")
    return attributes is not None and b"_zcmp" in attributes.data.tobytes()


def is_thumb(program: Program, code: CodeSection) -> bool:
    """Whether a section without mapping symbols is taken for T32."""
    return _unmarked(program.images[code.image]) == THUMB


def _unmarked_regions(
    code: CodeSection, kind: int, data: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """(address, kind): all of one kind, but for the words of data."""
    start, end = np.array([code.section.address, code.section.end], np.uint64)
    words = data[(data >= start) & (data < end)]
    behind = np.setdiff1d(words + np.uint64(4), words)
    behind = np.union1d(behind[behind < end], np.setdiff1d([start], words))
    address = np.concatenate([words, behind])
    kinds = np.concatenate([np.full(words.size, DATA, np.uint8), np.full(behind.size, kind, np.uint8)])
    order = np.argsort(address, kind="stable")
    return address[order], kinds[order]


def _unmarked(image: Image) -> int:
    """Without mapping symbols: T32 on Arm, unless the attributes tell a processor that runs A32; a Linux
    kernel is A32 (its direct calls were read as such, image/raw.py)."""
    if image.machine is not Machine.ARM or image.kind is ImageKind.KERNEL:
        return CODE
    attributes = read_arm_attributes(image)
    if attributes is None and image.entry:  # its lowest bit says what it is
        return THUMB if image.entry & 1 else CODE
    return CODE if attributes is not None and attributes.profile in ("A", "R") else THUMB


def _is_return(program: Program, code: CodeSection, address: int) -> bool:
    """A32 `bx lr` as a word of data: it is written so for assemblers that do not know it."""
    at = address - code.section.address
    return program.machine is Machine.ARM and code.section.data[at : at + 4].tobytes() == b"\x1e\xff\x2f\xe1"


def _marks(program: Program, code: CodeSection) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """(address, kind) of one section's mapping symbols, ascending; of several at one address the last."""
    symbols = program.images[code.image].symbols
    found: dict[int, int] = {}
    records = symbols.records
    local = np.flatnonzero((records["section"] >= 0) & (records["type"] == 0))  # STT_NOTYPE
    for index in local.tolist():
        name = symbols.names[index]
        mark = mapping_symbol(name) if "$" in name else None
        if mark is None:
            continue
        address = int(records["address"][index])
        if code.section.address <= address < code.section.end:
            found[address] = _KINDS[mark]
            if mark == "$d" and _is_return(program, code, address):
                found[address] = CODE
    order = sorted(found)
    return np.array(order, np.uint64), np.array([found[at] for at in order], np.uint8)
