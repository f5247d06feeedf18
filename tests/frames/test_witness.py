"""Depths of real kernels against independent witnesses: ORC (objtool), `.debug_frame` (gcc and assembler).

Neither is used to compute a depth. Known differences, listed in every failure message: inline assembly
that pushes and pops without a CFI directive (pushf; pop), code entered by other means than a call (ftrace and
rethook trampolines, retpoline thunks, int3_selftest), and labels amid assembly that count as functions.

i386 has no ORC, and its CFA is ebp-based behind each prologue: there CFI is a witness of what ebp holds, and
every return is found at the depth of the entry, which a push, pop or allocation that was missed would spoil.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stackfit.frames.analyse import analyse_frames
from stackfit.frames.model import Frames, SiteKind, StackKind, Summary
from stackfit.image.cfi import CfiTable, read_cfi
from stackfit.image.elf import read_elf
from stackfit.image.link import link
from stackfit.image.model import Image
from stackfit.image.orc import OrcTable, read_orc
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import Code, decode_program

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@dataclass(frozen=True)
class Kernel:
    image: Image
    code: Code
    frames: Frames
    cfi: CfiTable


def analysed(path: Path) -> Kernel:
    image = read_elf(str(path), np.memmap(path, np.uint8, "r").data)
    program = link([image])
    code = decode_program(program)
    frames = analyse_frames(code, read_tables(program), code_pointers(program), frame_pointers=True)
    cfi = read_cfi(image)
    assert cfi is not None
    return Kernel(image, code, frames, cfi)


@pytest.fixture(scope="module")
def amd64(amd64_vmlinux: Path) -> Kernel:
    return analysed(amd64_vmlinux)


@pytest.fixture(scope="module")
def i386(i386_vmlinux: Path) -> Kernel:
    return analysed(i386_vmlinux)


def differences(
    kernel: Kernel, witness: OrcTable | CfiTable, rows: NDArray[np.int32], depth: NDArray[np.int32]
) -> tuple[int, list[str]]:
    """How many of the rows the witness defines, and where it differs."""
    said = witness.depth_at(kernel.code.address[rows])
    functions = kernel.code.functions
    found = [
        f"{functions.names[kernel.code.function[rows[at]]]} {int(kernel.code.address[rows[at]]):#x}: "
        f"{int(depth[at])}, the witness {int(said[at])}"
        for at in np.flatnonzero((said >= 0) & (said != depth)).tolist()
    ]
    return int((said >= 0).sum()), found


def call_sites(kernel: Kernel) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(row, depth) of every call on the function's own stack."""
    frames = kernel.frames
    calls = (frames.site_kind == SiteKind.CALL) | (frames.site_kind == SiteKind.INDIRECT)
    calls &= frames.site_stack == StackKind.FRAME
    return frames.site_row[calls], frames.site_depth[calls]


def instructions(kernel: Kernel) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(row, depth) of every instruction reached on the function's own stack."""
    rows = np.flatnonzero(
        (kernel.frames.visitor >= 0) & (kernel.frames.stack == StackKind.FRAME) & ~kernel.code.padding()
    ).astype(np.int32)
    return rows, kernel.frames.depth[rows]


def test_depths_at_call_sites_are_those_of_orc(amd64: Kernel) -> None:
    orc = read_orc(amd64.image)
    assert orc is not None
    defined, wrong = differences(amd64, orc, *call_sites(amd64))
    assert defined > 150_000
    assert len(wrong) <= defined // 10_000, f"{len(wrong)} of {defined}:\n" + "\n".join(wrong)


def test_depths_at_call_sites_are_those_of_the_debug_frame(amd64: Kernel) -> None:
    defined, wrong = differences(amd64, amd64.cfi, *call_sites(amd64))
    assert defined > 150_000
    assert len(wrong) <= defined // 10_000, f"{len(wrong)} of {defined}:\n" + "\n".join(wrong)


def test_depths_at_all_instructions_are_those_of_both_witnesses(amd64: Kernel) -> None:
    orc = read_orc(amd64.image)
    assert orc is not None
    for witness in (orc, amd64.cfi):
        defined, wrong = differences(amd64, witness, *instructions(amd64))
        assert defined > 2_000_000
        assert len(wrong) <= defined // 10_000, f"{len(wrong)} of {defined}:\n" + "\n".join(wrong)


def test_depths_of_i386_are_those_of_the_debug_frame_where_it_knows_them(i386: Kernel) -> None:
    rows, depth = instructions(i386)
    defined, wrong = differences(i386, i386.cfi, rows, depth)
    assert defined > 200_000
    assert len(wrong) <= defined // 5_000, f"{len(wrong)} of {defined}:\n" + "\n".join(wrong)
    said = i386.cfi.depth_at(i386.code.address[rows])
    checked = np.unique(i386.code.function[rows[said >= 0]])
    spoiled = np.unique(i386.code.function[rows[(said >= 0) & (said != depth)]])
    assert len(checked) - len(spoiled) > 40_000


@pytest.mark.parametrize(("arch", "least"), [("amd64", 35_000), ("i386", 35_000)])
def test_whole_functions_are_as_the_debug_frame_has_them(
    arch: str, least: int, request: pytest.FixtureRequest
) -> None:
    """Functions with CFI at every instruction, by esp or by ebp, and every row of it equal."""
    kernel: Kernel = request.getfixturevalue(arch)
    rows, depth = instructions(kernel)
    address, function = kernel.code.address[rows], kernel.code.function[rows]
    by_stack, by_frame = kernel.cfi.depth_at(address), kernel.cfi.frame_pointer_at(address)
    stated = (by_stack >= 0) | (by_frame >= 0)
    wrong = (by_stack >= 0) & (by_stack != depth)
    wrong |= (by_frame >= 0) & (by_frame != kernel.frames.frame_pointer[rows])
    count = len(kernel.code.functions)
    instructions_of = np.bincount(function, minlength=count)
    whole = (np.bincount(function[stated], minlength=count) == instructions_of) & (instructions_of > 0)
    spoiled = whole & (np.bincount(function[wrong], minlength=count) > 0)
    names = [kernel.code.functions.names[index] for index in np.flatnonzero(spoiled).tolist()]
    assert whole.sum() - len(names) >= least, (int(whole.sum()), len(names))
    assert len(names) <= whole.sum() // 1000, names


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_every_return_is_at_the_depth_of_the_entry(arch: str, request: pytest.FixtureRequest) -> None:
    kernel: Kernel = request.getfixturevalue(arch)
    summary = kernel.frames.summary
    returning = (summary & Summary.RETURNS) != 0
    unbalanced = np.flatnonzero((summary & Summary.UNBALANCED) != 0)
    names = [kernel.code.functions.names[index] for index in unbalanced]
    assert returning.sum() > 40_000
    assert len(names) <= returning.sum() // 1000, names


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_almost_all_code_is_reached(arch: str, request: pytest.FixtureRequest) -> None:
    kernel: Kernel = request.getfixturevalue(arch)
    real = ~kernel.code.padding()
    unreached = real & (kernel.frames.visitor < 0)
    counts = np.bincount(kernel.code.function[unreached], minlength=len(kernel.code.functions))
    worst = [
        f"{kernel.code.functions.names[index]}: {counts[index]}"
        for index in np.argsort(-counts)[:40].tolist()
    ]
    assert real.sum() > 1_000_000
    assert unreached.sum() <= real.sum() // 1000, f"{unreached.sum()} of {real.sum()}: {worst}"


@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_nothing_is_given_up_and_little_stays_open(arch: str, request: pytest.FixtureRequest) -> None:
    kernel: Kernel = request.getfixturevalue(arch)
    for bit, most in (
        (Summary.TOO_COMPLEX, 0),
        (Summary.UNBOUNDED, 5),
        (Summary.GROWS, 3),
        (Summary.UNDECODED, 10),
    ):
        found = np.flatnonzero((kernel.frames.summary & bit) != 0)
        assert len(found) <= most, (bit.name, [kernel.code.functions.names[index] for index in found])
