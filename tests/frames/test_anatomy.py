"""Every byte of a frame: of committed objects with debug information, held against it and against CFI."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from stackfit.frames.analyse import analyse_frames
from stackfit.frames.anatomy import Anatomy, PartKind, frame_anatomy
from stackfit.frames.model import Frames
from stackfit.image.debug import debug_image
from stackfit.image.lines import SourceLines
from stackfit.image.load import load_program
from stackfit.image.locals import read_locals
from stackfit.image.model import Program
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import Code, decode_program

BIN = Path(__file__).resolve().parent.parent.parent / "fixtures" / "anatomy" / "bin"
PLAIN = ("x86_64-O0", "i386-O0")
OPTIMISED = ("x86_64-O2", "i386-O2", "x86_64-protected")


@dataclass(frozen=True, eq=False)
class Sample:
    program: Program
    code: Code
    frames: Frames
    functions: dict[str, int]
    anatomies: dict[str, Anatomy]

    def bare(self, name: str) -> Anatomy:
        """Without debug information."""
        return frame_anatomy(self.code, self.frames, self.functions[name])


@cache
def sample(name: str) -> Sample:
    program = load_program([BIN / f"{name}.o"])
    code = decode_program(program)
    frames = analyse_frames(code, read_tables(program), code_pointers(program), frame_pointers=True)
    image = debug_image(program.images[0])
    lines = SourceLines(image)
    names = code.functions.names
    functions = {names[one]: one for one in range(len(names)) if code.functions.parent[one] < 0}
    anatomies = {
        text: frame_anatomy(
            code, frames, one, read_locals(image, lines, int(code.functions.address[one])), program.undefined
        )
        for text, one in functions.items()
    }
    return Sample(program, code, frames, functions, anatomies)


def parts(anatomy: Anatomy, name: str) -> list[tuple[int, str, tuple[str, ...]]]:
    """(bytes, type, owners) of the parts of that name."""
    return [
        (int(anatomy.end[part] - anatomy.begin[part]), anatomy.types[part], anatomy.owners[part])
        for part in range(len(anatomy))
        if anatomy.names[part] == name
    ]


def places(anatomy: Anatomy, kind: PartKind) -> set[tuple[int, int]]:
    chosen = np.flatnonzero(anatomy.kind == kind)
    return {(int(anatomy.begin[part]), int(anatomy.end[part])) for part in chosen}


@pytest.mark.parametrize("name", (*PLAIN, *OPTIMISED))
def test_parts_cover_the_frame_and_each_byte_counts_once(name: str) -> None:
    found = sample(name)
    assert len(found.anatomies) > 30
    for text, anatomy in found.anatomies.items():
        for one in (anatomy, found.bare(text)):
            assert one.frame == int(found.frames.frame[one.function])
            assert sum(one.bytes.values()) == one.frame == one.use.size
            covered = np.zeros(one.frame, np.bool_)
            for begin, end in zip(one.begin.tolist(), one.end.tolist(), strict=True):
                assert 0 <= begin < end <= one.frame
                covered[begin:end] = True
            assert covered.all(), text
        assert anatomy.debug


@pytest.mark.parametrize("name", PLAIN)
def test_without_optimisation_every_byte_is_accounted_for(name: str) -> None:
    for text, anatomy in sample(name).anatomies.items():
        assert anatomy.accounted == anatomy.frame, text


@pytest.mark.parametrize("name", OPTIMISED)
def test_with_optimisation_nine_of_ten_bytes_are_accounted_for(name: str) -> None:
    anatomies = sample(name).anatomies.values()
    assert sum(one.accounted for one in anatomies) >= 0.9 * sum(one.frame for one in anatomies)
    assert not any(PartKind.UNKNOWN in one.bytes for one in anatomies)


@pytest.mark.parametrize("name", (*PLAIN, *OPTIMISED))
def test_variables_have_their_types_sizes_and_inlined_owners(name: str) -> None:
    anatomies = sample(name).anatomies
    word = sample(name).code.machine.word
    block = 22 * word + 8
    assert parts(anatomies["array"], "b") == [(100, "char[100]", ())]
    assert parts(anatomies["structs"], "b") == [(block, "struct block", ())]
    assert parts(anatomies["structs"], "p") == [(2 * word, "struct pair", ())]
    # From unoptimised code, too: these are always_inline.
    assert parts(anatomies["inlined"], "p") == [(2 * word, "struct pair", ("twice",))]
    owners = {owner for _, _, owner in parts(anatomies["inlined"], "text")}
    assert owners == {("fill",), ("twice", "fill")}
    owners = {owner for _, _, owner in parts(anatomies["inlined_many"], "v")}
    assert owners == {("deep1", "deep2", "deep3"), ("deep2", "deep3")}
    assert parts(anatomies["mixed"], "b") == [(block, "struct block", ("checked",))]
    assert parts(anatomies["vla"], "v") == []  # where that is, is not constant
    assert anatomies["vla"].open and anatomies["alloca_open"].open and not anatomies["mixed"].open


@pytest.mark.parametrize("name", OPTIMISED[:2])
def test_variables_that_take_turns_share_a_slot(name: str) -> None:
    overlap = sample(name).anatomies["overlap"]
    first, second = (overlap.names.index(text) for text in ("a", "b"))
    assert overlap.shared[first] and overlap.shared[second]
    assert overlap.begin[first] < overlap.end[second] and overlap.begin[second] < overlap.end[first]
    assert not set(overlap.ranges[first]) & set(overlap.ranges[second])
    # What only one of them has is what goes with it.
    mine, other = (set(range(int(overlap.begin[one]), int(overlap.end[one]))) for one in (first, second))
    assert overlap.exclusive([first]) == len(mine - other)
    assert overlap.exclusive([first, second]) == len(mine | other)


def test_arguments_results_and_realignment_are_told_apart() -> None:
    for name in ("x86_64-O2", "x86_64-O0"):
        anatomies = sample(name).anatomies
        assert anatomies["stack_args"].bytes[PartKind.OUTGOING] == 24  # three of nine arguments
        assert anatomies["value_args"].bytes[PartKind.OUTGOING] >= 184
        assert anatomies["realigned"].bytes[PartKind.ALIGNMENT] == 56
        results = [
            part for part in range(len(anatomies["nameless_results"]))
            if anatomies["nameless_results"].kind[part] == PartKind.RESULT
        ]  # fmt: skip
        assert [anatomies["nameless_results"].names[part] for part in results] == ["make", "make"]
    assert sample("x86_64-O2").anatomies["alloca_bounded"].bytes[PartKind.ALLOCATION] > 63
    protected = sample("x86_64-protected").anatomies
    assert protected["array"].bytes[PartKind.PROTECTOR] == 8
    assert PartKind.PROTECTOR not in protected["scalar"].bytes


@pytest.mark.parametrize("name", (*PLAIN, *OPTIMISED))
def test_saved_registers_are_those_of_the_unwind_tables(name: str) -> None:
    """CFI says where each register is saved: the compiler's own word, by pyelftools."""
    found = sample(name)
    path = BIN / f"{name}.o"
    wide = found.code.machine.word == 8
    low = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp")
    text = low if wide else ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    stated: dict[tuple[int, int], set[tuple[str, int]]] = {}
    dwarf = ELFFile(io.BytesIO(path.read_bytes())).get_dwarf_info()
    for entry in dwarf.EH_CFI_entries():
        if isinstance(entry, FDE):
            saved = stated.setdefault((int(entry["initial_location"]), int(entry["address_range"])), set())
            for row in entry.get_decoded().table:
                for number, rule in row.items():
                    if isinstance(number, int) and rule.type == "OFFSET" and number != (16 if wide else 8):
                        saved.add((text[number] if number < len(text) else f"r{number}", -rule.arg))
    image = found.program.images[0]
    base = next(one for one in image.sections if one.name == ".text").address
    sizes = dict(zip(image.symbols.names, image.symbols.records["size"].tolist(), strict=True))
    checked = 0
    for name_of, anatomy in found.anatomies.items():
        start = int(found.code.functions.address[anatomy.function]) - base
        expected = stated.get((start, sizes.get(name_of, 0)))
        if expected is None:
            continue
        mine = {
            (anatomy.names[part], int(anatomy.end[part]))
            for part in np.flatnonzero(anatomy.kind == PartKind.SAVED_REGISTER)
        }
        if PartKind.ALIGNMENT in anatomy.bytes:  # at their worst places, and r10 or ecx besides
            assert len(mine) >= len(expected), name_of
            continue
        assert mine == expected, name_of
        checked += len(mine)
    assert checked > 20


@pytest.mark.parametrize("name", (*PLAIN, *OPTIMISED))
def test_without_debug_information_the_code_tells_what_it_can(name: str) -> None:
    found = sample(name)
    for text, anatomy in found.anatomies.items():
        bare = found.bare(text)
        assert not bare.debug and bare.frame == anatomy.frame
        for kind in (PartKind.RETURN_ADDRESS, PartKind.SAVED_REGISTER, PartKind.ALIGNMENT):
            assert places(bare, kind) == places(anatomy, kind), text
        assert PartKind.VARIABLE not in bare.bytes
    array = found.bare("array")
    named = found.anatomies["array"]
    where = named.names.index("b")
    begin, end = int(named.begin[where]), int(named.end[where])
    assert set(array.use[begin:end].tolist()) <= {PartKind.OBJECT, PartKind.SLOT}
