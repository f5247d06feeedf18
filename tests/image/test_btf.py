"""BTF as gcc and pahole write it: every type found, names and offsets as DWARF has them, damage told."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from stackfit.image.btf import Kind, Rows, Types, join_types, parse_btf, read_btf
from stackfit.image.load import load_image
from stackfit.image.model import InputError

# kind, name, size or type, parts (name, type, third word), vlen without parts
Given = tuple[Kind, str, int, list[tuple[str, int, int]], bool]


def encode(types: list[Given], begin: int = 0) -> bytes:
    """A .BTF section. `begin`: length of the base's strings."""
    strings, places = bytearray(b"\0"), dict[str, int]()

    def place(text: str) -> int:
        if text not in places:
            places[text] = begin + len(strings)
            strings.extend(text.encode() + b"\0")
        return places[text] if text or begin else 0

    out = bytearray()
    for kind, name, third, parts, flag in types:
        vlen = 0 if kind is Kind.ARRAY else len(parts)
        out += struct.pack("<III", place(name) if name else 0, vlen | kind << 24 | flag << 31, third)
        if kind in (Kind.INT, Kind.VAR, Kind.DECL_TAG):
            out += struct.pack("<I", 0)
        for part, type_id, word in parts:
            if kind in (Kind.STRUCT, Kind.UNION, Kind.ENUM64):
                out += struct.pack("<III", place(part), type_id, word)
            elif kind is Kind.DATASEC:
                out += struct.pack("<III", type_id, word, 4)
            elif kind is Kind.ARRAY:
                out += struct.pack("<III", type_id, 1, word)
            else:
                out += struct.pack("<II", place(part), type_id)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(out), len(out), len(strings))
    return head + bytes(out) + bytes(strings)


SMALL: list[Given] = [
    (Kind.INT, "int", 4, [], False),  # 1
    (Kind.PTR, "", 3, [], False),  # 2 → const file
    (Kind.CONST, "", 4, [], False),  # 3
    (Kind.TYPEDEF, "file_t", 5, [], False),  # 4
    (Kind.STRUCT, "file", 24, [("f_mode", 1, 0), ("f_op", 2, 64), ("f_bit", 1, 3 << 24 | 129)], True),  # 5
    (Kind.FUNC_PROTO, "", 1, [("file", 2, 0), ("pos", 1, 0)], False),  # 6
    (Kind.FUNC, "vfs_read", 6, [], False),  # 7
    (Kind.ARRAY, "", 0, [("", 5, 7)], False),  # 8
]


def table(rows: Rows) -> Types:
    return join_types(rows)[0]


def test_types_members_parameters() -> None:
    types = table(parse_btf("x", encode(SMALL)))
    assert len(types) == 9
    assert [types.kind(one) for one in range(1, 9)] == [given[0] for given in SMALL]
    assert types.functions == {"vfs_read": 6}
    assert [types.part_name(row) for row in types.parts(6)] == ["file", "pos"]
    pointer = int(types.rows.part_type[types.parts(6)[0]])
    assert types.name(types.plain(types.link(pointer))) == "file"
    members = types.parts(types.plain(3))
    assert [types.part_name(row) for row in members] == ["f_mode", "f_op", "f_bit"]
    assert types.rows.part_offset[members.start : members.stop].tolist() == [0, 64, 129]
    assert types.rows.part_bits[members.start : members.stop].tolist() == [0, 0, 3]
    assert (types.size(5), types.link(8), types.size(8)) == (24, 5, 7)


def test_a_chain_of_typedefs_without_end_is_no_type() -> None:
    types = table(parse_btf("x", encode([(Kind.TYPEDEF, "a", 2, [], False), (Kind.CONST, "", 1, [], False)])))
    assert types.plain(1) == types.plain(2) == 0


def test_modules_go_on_where_the_kernel_ends() -> None:
    kernel = parse_btf("vmlinux", encode(SMALL))
    own: list[Given] = [
        (Kind.PTR, "", 5, [], False),
        (Kind.STRUCT, "drv", 8, [("file", 9, 0)], False),
        (Kind.TYPEDEF, "drv_t", 10, [], False),
    ]
    modules = [parse_btf("a.ko", encode(own, len(kernel.strings)), kernel) for _ in range(3)]
    types, shifts = join_types(kernel, modules)
    assert len(types) == 9 + 3 * 3 and shifts == [0, 3, 6]
    for shift in shifts:
        drv = types.plain(11 + shift)
        assert (drv, types.name(drv)) == (10 + shift, "drv")
        (row,) = types.parts(drv)
        assert types.part_name(row) == "file"
        pointer = int(types.rows.part_type[row])
        assert pointer == 9 + shift and types.name(types.link(pointer)) == "file"
    with pytest.raises(ValueError, match="another kernel"):
        join_types(parse_btf("y", encode(SMALL[:1])), modules)


@given(data=st.data())
def test_damage_is_told_and_never_more(data: st.DataObject) -> None:
    good = bytearray(encode(SMALL))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        types = table(parse_btf("x.ko", damaged, None, 0x40))
    except InputError as error:
        assert str(error).startswith("x.ko at offset 0x") and "\n" not in str(error)
        return
    for one in range(len(types)):
        types.name(types.plain(one))
        for row in types.parts(one):
            types.part_name(row)


def members(die: Any) -> dict[str, int]:
    """Name and byte offset of each named member that is no bit field."""
    return {
        child.attributes["DW_AT_name"].value.decode(): child.attributes["DW_AT_data_member_location"].value
        for child in die.iter_children()
        if child.tag == "DW_TAG_member"
        and "DW_AT_name" in child.attributes
        and "DW_AT_data_member_location" in child.attributes
        and "DW_AT_data_bit_offset" not in child.attributes
    }


@pytest.mark.kernel
def test_structs_of_a_kernel_as_its_dwarf_has_them(amd64_kernel: Any, amd64_vmlinux: Path) -> None:
    rows = read_btf(load_image(amd64_kernel.vmlinuz))
    assert rows is not None
    types = table(rows)
    by_name: dict[str, list[int]] = {}
    for one in np.flatnonzero(types.rows.kind == Kind.STRUCT).tolist():
        by_name.setdefault(types.name(one), []).append(one)
    compared = wrong = 0
    with amd64_vmlinux.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info(relocate_dwarf_sections=False)
        for number, unit in enumerate(dwarf.iter_CUs()):
            if number % 40:
                continue
            for die in unit.get_top_DIE().iter_children():
                if die.tag != "DW_TAG_structure_type" or "DW_AT_declaration" in die.attributes:
                    continue
                if "DW_AT_name" not in die.attributes:
                    continue
                candidates = by_name.get(die.attributes["DW_AT_name"].value.decode(), [])
                want = members(die)
                found = [
                    {types.part_name(row): int(types.rows.part_offset[row]) // 8 for row in types.parts(one)}
                    for one in candidates
                    if types.size(one) == die.attributes["DW_AT_byte_size"].value
                ]
                compared += 1
                wrong += not any(want.items() <= one.items() for one in found)
            if number > 800:
                break
    assert compared > 5000
    assert wrong == 0
