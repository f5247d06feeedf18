"""The function table: extents, names and aliases, what is no entry, and sections that overlap."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elves
import toolchain
from elves import ALLOC, EXECUTE, Elf, Part
from stackfit.image.elf import read_elf
from stackfit.image.functions import Functions, code_sections, find_functions, symbol_entries
from stackfit.image.link import link
from stackfit.image.model import InputError, Program
from stackfit.isa.code import decode_program

NOTHING = np.empty(0, np.uint64)


def program(parts: list[Part], symbols: list[tuple[str, int, int]], **more: int) -> Program:
    tables = elves.symbols(64, symbols, first=len(parts) + 1, **more)
    return link([read_elf("a.out", Elf(type=elves.EXEC, parts=[*parts, *tables]).build())])


def text(address: int, size: int, name: str = ".text") -> Part:
    return Part(name, b"\xc3" * size, flags=ALLOC | EXECUTE, address=address)


def functions(built: Program, *more: int) -> Functions:
    sections = code_sections(built)
    return find_functions(sections, symbol_entries(built, sections), np.array(more, np.uint64))


def table(found: Functions) -> list[tuple[int, int, str, tuple[str, ...]]]:
    return list(zip(found.address.tolist(), found.end.tolist(), found.names, found.aliases, strict=True))


def test_a_function_reaches_to_the_next_entry_or_the_end_of_its_section() -> None:
    built = program(
        [text(0x1000, 64), text(0x2000, 32, ".init.text")],
        [("b", 0x1020, 1), ("a", 0x1000, 1), ("c", 0x2008, 2)],
    )
    assert table(functions(built)) == [
        (0x1000, 0x1020, "a", ()),
        (0x1020, 0x1040, "b", ()),
        (0x2000, 0x2008, "sub_2000", ()),
        (0x2008, 0x2020, "c", ()),
    ]
    found = functions(built)
    assert found.synthetic.tolist() == [False, False, True, False]
    assert (found.at(0x1020), found.at(0x1021), found.at(0)) == (1, -1, -1)
    assert (found.containing(0x103F), found.containing(0x1040), found.containing(0xFFF)) == (1, -1, -1)
    assert found.named("c") == [3] and found.named("nothing") == []


def test_entries_found_otherwise_are_named_by_their_address() -> None:
    built = program([text(0x1000, 64)], [("a", 0x1000, 1)])
    found = functions(built, 0x1010, 0x1010, 0x1000, 0x5000, 0, 2**64 - 1)
    assert table(found) == [(0x1000, 0x1010, "a", ()), (0x1010, 0x1040, "sub_1010", ())]


def test_of_several_names_the_one_that_the_kernel_prints_comes_first() -> None:
    # scripts/kallsyms.c, compare_symbols()
    names = ["___deep", "__x64_sys", "plain", "__start_group", "other"]
    built = program([text(0x1000, 64)], [(name, 0x1000, 1) for name in names])
    ((*_, name, aliases),) = table(functions(built))
    assert (name, aliases) == ("other", ("plain", "__x64_sys", "___deep", "__start_group"))
    image = replace(built.images[0], symbol_source="kallsyms")
    ((*_, name, aliases),) = table(functions(replace(built, images=(image,))))
    assert (name, *aliases) == tuple(names)  # already in that order


def test_a_weak_name_stands_behind_a_strong_one(tmp_path: Path) -> None:
    image = toolchain.compiled(tmp_path, ".weak a; .globl b; .text; a: b: ret\n", 64, suffix=".s")
    built = link([image])
    ((*_, name, aliases),) = table(functions(built))
    assert (name, aliases) == ("b", ("a",))


def test_marks_labels_and_other_symbols_begin_no_function() -> None:
    marks = ["_text", "_stext", "_etext", "__entry_text_start", "__entry_text_end", "__indirect_thunk_end"]
    inner = [".L12", "__pfx_f", "__cfi_f", "$x", ""]
    symbols = [("f", 0x1000, 1), *((name, 0x1008, 1) for name in marks + inner)]
    built = program([text(0x1000, 64)], [*symbols, ("absolute", 0x1010, elves.ABS), ("undefined", 0x1018, 0)])
    assert table(functions(built)) == [(0x1000, 0x1040, "f", ())]
    # beside a function's own name a mark is an alias
    built = program([text(0x1000, 64)], [("_stext", 0x1000, 1), ("f", 0x1000, 1)])
    assert table(functions(built)) == [(0x1000, 0x1040, "f", ("_stext",))]


def test_files_and_sections_symbols_begin_no_function() -> None:
    for kind in (3, 4):
        built = program([text(0x1000, 64)], [("x", 0x1010, 1)], kind=kind)
        assert table(functions(built)) == [(0x1000, 0x1040, "sub_1000", ())]


def test_replacement_code_is_a_piece_and_no_function() -> None:
    built = program(
        [text(0x1000, 64), text(0x2000, 32, ".altinstr_replacement")],
        [("f", 0x1000, 1), ("label", 0x2008, 2)],
    )
    found = functions(built)
    assert found.names == ["f", "sub_2000"] and found.piece.tolist() == [False, True]


def test_symbols_of_one_image_do_not_name_anothers_code(tmp_path: Path) -> None:
    modules = []
    for number in (1, 2):
        path = toolchain.compile_object(tmp_path, f"int same(void) {{ return {number}; }}", 64)
        modules.append(read_elf(f"m{number}.ko", path.read_bytes()))
    found = functions(link(modules))
    assert found.named("same") == [0, 1] and found.image.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "parent"),
    [("f.cold", "f"), ("f.cold.3", "f"), ("f.part.0", "f"), ("f.isra.0", "f"), ("f.constprop.0.isra.0", "f"),
     ("f.part.0.cold", "f"), ("f", None), ("f.llvm.1", None)],
)  # fmt: skip
def test_pieces_that_the_compiler_split_name_their_parent(name: str, parent: str | None) -> None:
    found = functions(program([text(0x1000, 64)], [(name, 0x1000, 1)]))
    assert found.part_of(0) == parent


def test_overlapping_code_sections_are_refused() -> None:
    for second in (0x1000, 0x103F, 0x1020):
        with pytest.raises(InputError, match=r"a\.out.*section \.b overlaps \.a"):
            code_sections(program([text(0x1000, 64, ".a"), text(second + (second == 0x1000), 64, ".b")], []))
    assert len(code_sections(program([text(0x1000, 64, ".a"), text(0x1040, 64, ".b")], []))) == 2


def test_overlapping_symbols_and_a_program_without_code() -> None:
    built = program([text(0x1000, 64)], [("a", 0x1000, 1), ("b", 0x1001, 1)], size=64)
    assert [row[2] for row in table(functions(built))] == ["a", "b"]
    assert table(functions(program([Part(".data", b"x", address=0x1000)], [("a", 0x1000, 1)]))) == []
    assert len(decode_program(program([], []))) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 0x1100), st.sampled_from(["a", "b", "_text", ".L1", "f.cold", "__x"])),
        max_size=30,
    ),
    st.lists(st.integers(0, 0x1100), max_size=10),
)
@settings(max_examples=200, deadline=None)
def test_functions_cover_the_code_exactly(symbols: list[tuple[int, str]], more: list[int]) -> None:
    built = program(
        [text(0x400, 0x300), text(0x800, 0x80, ".init.text")], [(name, at, 1) for at, name in symbols]
    )
    found = functions(built, *more)
    covered = [(start, end) for start, end in zip(found.address.tolist(), found.end.tolist(), strict=True)]
    assert all(start < end for start, end in covered)
    for first, last in ((0x400, 0x700), (0x800, 0x880)):
        own = [one for one in covered if first <= one[0] < last]
        assert own[0][0] == first and own[-1][1] == last
        assert all(before[1] == after[0] for before, after in itertools.pairwise(own))
    expected = {at for at, name in symbols if name not in ("_text", ".L1")} | set(more)
    assert {at for at in expected if 0x400 <= at < 0x700 or 0x800 <= at < 0x880} | {0x400, 0x800} == set(
        found.address.tolist()
    )
    assert all(found.names), "every function has a name"


# ---------------------------------------------------------------- functions without symbols


def test_static_functions_of_a_stripped_module_are_found(tmp_path: Path) -> None:
    source = """
    int g(void);
    static __attribute__((noinline)) int called(int x) { return g() + x; }
    static int pointed(int x) { return g() * x; }
    static int taken(int x) { return g() - x; }
    int (*table[])(int) = { pointed };
    void use(int (*)(int));
    int f(int x) { use(taken); return called(x); }
    """
    path = toolchain.compile_object(tmp_path, source, 64, "-O2", "-mcmodel=kernel")
    whole = decode_program(link([read_elf("m.ko", path.read_bytes())]))
    assert {"called", "pointed", "taken", "f"} <= set(whole.functions.names)
    image = read_elf("m.ko", path.read_bytes())
    keep = (image.symbols.records["binding"] != 0) | (image.symbols.records["type"] == 3)
    names = [name if kept else "" for name, kept in zip(image.symbols.names, keep.tolist(), strict=True)]
    records = image.symbols.records.copy()
    records["type"][~keep] = 0
    records["size"][~keep] = 0
    stripped = replace(image, symbols=replace(image.symbols, names=names, records=records))
    found = decode_program(link([stripped]))
    assert set(whole.functions.address.tolist()) <= set(found.functions.address.tolist())


def test_switch_tables_of_a_module_with_symbols_split_no_function(tmp_path: Path) -> None:
    cases = "".join(f"case {i}: return g({i} * x);" for i in range(9))
    source = f"int g(int); int f(int n, int x) {{ switch (n) {{ {cases} }} return 0; }}"
    for bits in (64, 32):
        code = decode_program(link([toolchain.compiled(tmp_path, source, bits, "-O2")]))
        assert set(code.functions.names) <= {"f", "f.cold"}
