"""Depths held against the unwind tables that the images carry: a second opinion, never an input.

ORC (arch/x86/include/asm/orc_types.h) and DWARF CFI state the distance between the stack pointer and the
caller's frame where that is based on the stack pointer; both were made by others (objtool, the compiler).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.frames.model import Frames, SiteKind, StackKind
from stackfit.image.cfi import read_cfi
from stackfit.image.load import check_same_build
from stackfit.image.model import Image, Program
from stackfit.image.orc import read_orc
from stackfit.isa.code import Code

__all__ = ["Disagreement", "Witness", "cfi_witness", "orc_witness"]


@dataclass(frozen=True)
class Disagreement:
    """A call site at which the witness states another depth (bytes)."""

    function: int
    address: int
    depth: int
    witness: int


@dataclass(frozen=True)
class Witness:
    """Agreement at call sites. `defined`: sites for which the witness states a depth."""

    name: str
    sites: int
    defined: int
    disagreements: tuple[Disagreement, ...]

    @property
    def equal(self) -> int:
        return self.defined - len(self.disagreements)


def _call_sites(frames: Frames) -> NDArray[np.int64]:
    """Calls on the function's own stack: both tables speak of the instruction before the call."""
    calls = np.isin(frames.site_kind, (SiteKind.CALL, SiteKind.INDIRECT))
    return np.flatnonzero(calls & (frames.site_stack == StackKind.FRAME))


def _compare(
    name: str, code: Code, frames: Frames, sites: NDArray[np.int64], stated: NDArray[np.int32]
) -> Witness:
    depth = frames.site_depth[sites]
    defined = stated >= 0
    wrong = np.flatnonzero(defined & (stated != depth))
    return Witness(
        name,
        int(sites.size),
        int(defined.sum()),
        tuple(
            Disagreement(
                int(frames.site_function[sites[at]]),
                int(code.address[frames.site_row[sites[at]]]),
                int(depth[at]),
                int(stated[at]),
            )
            for at in wrong.tolist()
        ),
    )


def orc_witness(program: Program, code: Code, frames: Frames) -> Witness | None:
    """ORC of the kernel and of every module that has it; None when no image has."""
    sites = _call_sites(frames)
    address = code.address[frames.site_row[sites]]
    image = code.functions.image[code.function[frames.site_row[sites]]]
    stated = np.full(sites.size, -1, np.int32)
    found = False
    order = np.argsort(image, kind="stable")
    bounds = np.searchsorted(image[order], np.arange(len(program.images) + 1))
    for number, one in enumerate(program.images):
        table = read_orc(one)
        if table is not None:
            found = True
            mine = order[bounds[number] : bounds[number + 1]]
            stated[mine] = table.depth_at(address[mine])
    return _compare("ORC", code, frames, sites, stated) if found else None


def cfi_witness(code: Code, frames: Frames, kernel: Image, debug: Image) -> Witness | None:
    """DWARF CFI of a debug companion of the kernel. InputError when it is of another build."""
    check_same_build(kernel, debug)
    table = read_cfi(debug)
    if table is None:
        return None
    sites = _call_sites(frames)
    sites = sites[code.functions.image[code.function[frames.site_row[sites]]] == 0]
    return _compare("CFI", code, frames, sites, table.depth_at(code.address[frames.site_row[sites]]))
