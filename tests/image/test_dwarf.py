"""DWARF as gcc writes it, by pyelftools as oracle: types once each, functions, variables, places of local
pointers; damage told."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.dwarf.descriptions import set_global_machine_arch
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.dwarf.locationlists import LocationParser
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stackfit.image.btf import Kind, Types
from stackfit.image.dwarf import IN_SLOT, Dwarf, read_dwarf
from stackfit.image.dwarf_units import DwarfError, DwarfUnits
from stackfit.image.load import load_image
from stackfit.image.model import InputError
from toolchain import has_gcc

COMMON = """
struct node;
struct operations { int (*open)(struct node *, const char *, ...); void (*close)(struct node *); };
struct node {
    unsigned flag : 3, kind : 5;
    const struct operations *ops;
    union { long a; void *b; };
    char tail[];
};
typedef struct { struct node head; int table[3][4]; } outer_t;
enum color { RED, GREEN };
extern int use(struct node *, int, const char *);
"""
FIRST = (
    COMMON
    + """
struct hidden { int a; };
struct hidden first_hidden;
static int opened(struct node *n, const char *how, ...) { return use(n, 1, how); }
const struct operations my_operations = { .open = opened };
outer_t things[5];
enum color shade;
int walk(void *any, int times)
{
    struct node *n = any;
    for (int i = 0; i < times; i++) {
        if (n->ops) n->ops->close(n);
        n = n->b;
    }
    return use((struct node *)any, times, "x");
}
"""
)
SECOND = (
    COMMON
    + """
struct hidden { long b, c; };
struct hidden second_hidden;
int use(struct node *n, int times, const char *how)
{
    static int calls;
    return calls++ + times + how[0] + (n != 0);
}
__attribute__((cold, noinline)) static int fail(int n) { __asm__ volatile (""); return n + 1; }
int split(int n, struct node *node)
{
    if (n < 0) { fail(n); return fail(n + 3) + use(node, n, "fail"); }
    return n + (node != 0);
}
void _start(void) { for (;;) ; }
"""
)


def build(directory: Path, bits: int, *options: str) -> Path:
    """Two units linked, so that every relocation is applied."""
    if not has_gcc(bits):
        pytest.skip(f"no gcc for -m{bits}")
    directory.mkdir(exist_ok=True)
    (directory / "first.c").write_text(FIRST)
    (directory / "second.c").write_text(SECOND)
    output = directory / "program"
    command = [
        "gcc",
        f"-m{bits}",
        "-O2",
        "-g",
        "-nostdlib",
        "-static",
        "-ffreestanding",
        "-fno-pic",
        "-no-pie",
    ]
    files = [str(directory / "first.c"), str(directory / "second.c")]
    subprocess.run([*command, *options, *files, "-o", str(output)], check=True)
    return output


@pytest.fixture(
    scope="module",
    params=[(64, 5), (64, 4), (64, 2), (32, 5), (32, 3)],
    ids=lambda one: f"{one[0]}-dwarf{one[1]}",
)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bits, version = request.param
    return build(tmp_path_factory.mktemp("dwarf"), bits, f"-gdwarf-{version}", "-gstrict-dwarf")


def read(path: Path) -> tuple[Dwarf, Types]:
    found = read_dwarf(load_image(path))
    assert found is not None
    return found, Types(found.types)


def layout(types: Types, index: int) -> list[tuple[str, int, int]]:
    rows = types.rows
    return [
        (types.part_name(row), int(rows.part_offset[row]), int(rows.part_bits[row]))
        for row in types.parts(index)
    ]


def text(types: Types, index: int, depth: int = 0) -> str:
    """A type as C would say it, roughly."""
    kind = types.kind(index)
    if kind in (Kind.PTR, Kind.ARRAY):
        size = str(types.size(index)) if kind is Kind.ARRAY else ""
        return f"{text(types, types.link(index), depth)}{'*' if kind is Kind.PTR else f'[{size}]'}"
    if kind in (Kind.CONST, Kind.VOLATILE, Kind.TYPEDEF):
        return text(types, types.link(index), depth)
    if kind is Kind.FUNC_PROTO:
        parameters = [text(types, int(types.rows.part_type[row])) for row in types.parts(index)]
        return f"{text(types, types.link(index))}({', '.join(parameters)})"
    return types.name(index) or kind.name.lower()


def test_a_type_is_there_once_and_namesakes_are_told_apart(program: Path) -> None:
    _, types = read(program)
    structs = [index for index in range(len(types)) if types.kind(index) is Kind.STRUCT]
    assert sorted(types.name(index) for index in structs) == ["", "hidden", "hidden", "node", "operations"]
    word = 8 if "64" in load_image(program).machine.value else 4
    (node,) = (index for index in structs if types.name(index) == "node")
    assert layout(types, node) == [
        ("flag", 0, 3), ("kind", 3, 5), ("ops", 8 * word, 0), ("", 16 * word, 0), ("tail", 24 * word, 0)
    ]  # fmt: skip
    assert types.size(node) == 3 * word
    assert {types.size(index) for index in structs if types.name(index) == "hidden"} == {4, 2 * word}


def addresses(path: Path) -> dict[str, int]:
    """Symbols of an ELF file."""
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


def test_functions_have_their_prototypes_by_address(program: Path) -> None:
    found, types = read(program)
    symbols = addresses(program)
    prototypes = {address: text(types, kind) for address, kind in found.functions.tolist()}
    assert prototypes[symbols["use"]] == "int(node*, int, char*)"
    assert prototypes[symbols["walk"]] == "int(void*, int)"
    assert prototypes[symbols["opened"]] == "int(node*, char*, void)"  # … and more arguments
    assert prototypes[symbols["_start"]] == "void()"
    assert "split.cold" in symbols  # in two parts: DW_AT_ranges
    assert prototypes[symbols["split"]] == "int(int, node*)"


def test_functions_of_an_assembler_have_no_prototype(tmp_path: Path) -> None:
    """GNU as writes DW_TAG_subprogram without parameters for every function symbol."""
    source = tmp_path / "entry.S"
    source.write_text(".globl enter\n.type enter, @function\nenter: ret\n.size enter, . - enter\n")
    path = build(tmp_path, 64, "-gdwarf-5", str(source))
    assert addresses(path)["enter"] not in read(path)[0].functions[:, 0]
    assert addresses(path)["use"] in read(path)[0].functions[:, 0]


def test_variables_have_their_types_by_address(program: Path) -> None:
    found, types = read(program)
    symbols = addresses(program)
    kinds = {address: text(types, kind) for address, kind in found.variables.tolist()}
    calls = next(name for name in symbols if name.startswith("calls"))
    assert kinds[symbols["my_operations"]] == "operations"
    assert kinds[symbols["things"]] == "struct[5]"
    assert kinds[symbols["shade"]] == "color"
    assert kinds[symbols[calls]] == "int"
    inner = next(
        index for index in range(len(types)) if types.kind(index) is Kind.ARRAY and types.size(index) == 12
    )
    assert text(types, inner) == "int[12]"  # int[3][4]: as many elements, in one row


def simple_places(dwarf: Any, unit: Any) -> set[tuple[int, int, int, int]]:
    """(from, to, register or IN_SLOT, number) of the pointers to structs, by pyelftools."""
    lists, expressions = LocationParser(dwarf.location_lists()), DWARFExprParser(unit.structs)
    low = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
    found = set()
    for entry in unit.iter_DIEs():
        if (
            entry.tag not in ("DW_TAG_variable", "DW_TAG_formal_parameter")
            or "DW_AT_location" not in entry.attributes
        ):
            continue
        of = entry
        while "DW_AT_type" not in of.attributes:
            (origin,) = {"DW_AT_abstract_origin", "DW_AT_specification"} & set(of.attributes)
            of = of.get_DIE_from_attribute(origin)
        kind = of.get_DIE_from_attribute("DW_AT_type")
        if kind.tag != "DW_TAG_pointer_type" or "DW_AT_type" not in kind.attributes:
            continue
        if kind.get_DIE_from_attribute("DW_AT_type").tag != "DW_TAG_structure_type":
            continue
        attribute = entry.attributes["DW_AT_location"]
        if not LocationParser.attribute_has_location(attribute, unit["version"]):
            continue
        place = lists.parse_from_attribute(attribute, unit["version"], entry)
        if not isinstance(place, list):
            continue
        base = low.value if low is not None else 0
        for one in place:
            if hasattr(one, "base_address"):
                base = one.base_address
            if not hasattr(one, "loc_expr") or one.begin_offset == one.end_offset:
                continue
            begin, end = one.begin_offset, one.end_offset
            if not getattr(one, "is_absolute", False):
                begin, end = begin + base, end + base
            steps = expressions.parse_expr(one.loc_expr)
            names = [step.op_name for step in steps]
            if len(steps) == 1 and names[0].startswith("DW_OP_reg"):
                found.add((begin, end, steps[0].op - 0x50, 0))
            elif len(steps) == 2 and names[0].startswith("DW_OP_breg") and names[1] == "DW_OP_stack_value":
                found.add((begin, end, steps[0].op - 0x70, steps[0].args[0]))
            elif names == ["DW_OP_fbreg"]:
                found.add((begin, end, IN_SLOT, steps[0].args[0]))
    return found


def test_places_of_local_pointers_are_those_of_pyelftools(program: Path) -> None:
    found, types = read(program)
    structs = [row for row in found.locals.tolist() if types.kind(types.plain(row[4])) is Kind.STRUCT]
    with program.open("rb") as file:
        elf = ELFFile(file)
        set_global_machine_arch(elf.get_machine_arch())
        dwarf = elf.get_dwarf_info()
        expected = set().union(*(simple_places(dwarf, unit) for unit in dwarf.iter_CUs()))
    assert expected
    assert {tuple(row[:4]) for row in structs} == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = build(tmp_path_factory.mktemp("whole"), 64, "-gdwarf-5")
    names = ("info", "abbrev", "str", "line_str", "loclists", "rnglists")
    image = load_image(path)
    sections = {name: image.section(f".debug_{name}") for name in names}
    return {
        name: section.data.tobytes() if section is not None else b"" for name, section in sections.items()
    }


def all_units(sections: dict[str, bytes]) -> None:
    """Read everything that the sections hold."""
    arrays = [
        np.frombuffer(sections[name], np.uint8)
        for name in ("info", "abbrev", "str", "line_str", "loclists", "rnglists")
    ]
    units, at = DwarfUnits(*arrays, np.empty(0, np.uint8), np.empty(0, np.uint8)), 0
    while at < len(sections["info"]):
        after = units.read(at)
        assert after > at
        at = after
        units.types()
        units.functions()
        units.variables()
        units.locals()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_told_and_nothing_else_happens(whole: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([key for key, value in whole.items() if value]))
    damaged = bytearray(whole[name])
    for _ in range(data.draw(st.integers(0, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    try:
        all_units({**whole, name: bytes(damaged[:cut])})
    except DwarfError as error:
        assert error.cause


def unit(entries: bytes, abbreviations: bytes) -> tuple[bytes, bytes]:
    body = struct.pack("<HBBI", 5, 1, 8, 0) + entries
    return struct.pack("<I", len(body)) + body, abbreviations


def test_types_that_lead_to_themselves_are_read() -> None:
    # 1: a unit with children; 2: const, type by ref4; 3: pointer likewise
    abbreviations = bytes([1, 0x11, 1, 0, 0, 2, 0x26, 0, 0x49, 0x13, 0, 0, 3, 0x0F, 0, 0x49, 0x13, 0, 0, 0])
    # the first entry is at 12, then const at 13 → 18, pointer at 18 → 13
    entries = bytes([1, 2]) + struct.pack("<I", 18) + bytes([3]) + struct.pack("<I", 13) + b"\0"
    info, table = unit(entries, abbreviations)
    all_units({"info": info, "abbrev": table, "str": b"", "line_str": b"", "loclists": b"", "rnglists": b""})


def test_entries_within_too_many_others_are_an_error() -> None:
    abbreviations = bytes([1, 0x11, 1, 0, 0, 0])
    info, table = unit(bytes([1]) * 2000, abbreviations)
    with pytest.raises(DwarfError) as caught:
        all_units(
            {"info": info, "abbrev": table, "str": b"", "line_str": b"", "loclists": b"", "rnglists": b""}
        )
    assert caught.value.section == ".debug_info" and "within" in caught.value.cause


def test_an_error_names_file_offset_and_cause(tmp_path: Path) -> None:
    path = build(tmp_path / "made", 64)
    image = load_image(path)
    section = image.section(".debug_info")
    assert section is not None
    data = bytearray(path.read_bytes())
    data[section.offset + 4 : section.offset + 6] = b"\x63\0"  # version 99
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    with pytest.raises(InputError, match=rf"damaged.*{section.offset:#x}.*version 99"):
        read_dwarf(load_image(damaged))


@pytest.mark.kernel
def test_units_of_a_kernel_are_read_as_pyelftools_reads_them(amd64_vmlinux: Path) -> None:
    found, types = read(amd64_vmlinux)
    variables = {address & (1 << 64) - 1 for address, _ in found.variables.tolist()}
    own = {tuple(row[:4]) for row in found.locals.tolist()}
    rows = np.flatnonzero(found.types.kind == Kind.STRUCT).tolist()
    structs = {(types.name(index), types.size(index)) for index in rows}
    seen = 0
    with amd64_vmlinux.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info(relocate_dwarf_sections=False)
        for one in list(dwarf.iter_CUs())[7::250]:
            assert {(begin, end, *rest) for begin, end, *rest in signed(simple_places(dwarf, one))} <= own
            for entry in one.iter_DIEs():
                place = entry.attributes.get("DW_AT_location")
                address = bytes(place.value) if place is not None and place.form == "DW_FORM_exprloc" else b""
                if entry.tag == "DW_TAG_variable" and len(address) == 9 and address[0] == 3:
                    assert int.from_bytes(address[1:], "little") in variables
                    seen += 1
                if entry.tag == "DW_TAG_structure_type" and {"DW_AT_name", "DW_AT_byte_size"} <= set(
                    entry.attributes
                ):
                    name = entry.attributes["DW_AT_name"].value.decode()
                    assert (name, entry.attributes["DW_AT_byte_size"].value) in structs
                    seen += 1
    assert seen > 1000


def signed(places: set[tuple[int, int, int, int]]) -> set[tuple[int, ...]]:
    """Addresses as the arrays have them."""
    return {(*(at - (at >> 63 << 64) for at in place[:2]), *place[2:]) for place in places}
