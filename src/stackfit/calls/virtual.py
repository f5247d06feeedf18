"""Virtual functions of C++: a table of them as a struct, of which every class with one has its own.

An object of a class with virtual functions begins with a pointer to a table (Itanium C++ ABI, 2.5), which
debug information has as its member `_vptr.CLASS`, named by the class that brought it in. As a pointer to a
struct of that class, a virtual call is one through a field of that struct; what constructors store into the
member, and data has there, says which tables there are. A table that nothing known puts anywhere is taken to
be in objects of every class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from stackfit.calls.objects import Data, Placed
from stackfit.calls.types import Field, TypeLayout
from stackfit.image.btf import Kind
from stackfit.image.model import Program

__all__ = ["with_tables", "with_virtual_types"]

_MEMBER = ("_vptr.", "_vptr$")  # gcc, clang
_TABLE = "_ZTV"  # mangled names of tables of virtual functions
_OBJECT = 1  # STT_OBJECT


def with_virtual_types(types: TypeLayout, program: Program) -> TypeLayout:
    """The types with a struct for the virtual functions of each class that has a `_vptr` member."""
    slots = max((size // types.word for _, size in _tables(program)), default=0)
    rows = types.types.rows
    owner = np.repeat(np.arange(len(types.types)), np.diff(rows.first))
    parts = [part for part in range(len(rows.part_type)) if types.types.part_name(part).startswith(_MEMBER)]
    if not slots or not parts:
        return types
    first = len(types.kind)
    classes: dict[str, int] = {}  # name of the member → struct of its functions
    part_type = types.part_type.copy()
    for part in parts:
        name = types.types.part_name(part)
        number = classes.setdefault(name, first + 3 + 2 * len(classes))
        if types.kind[owner[part]] == Kind.STRUCT:
            part_type[part] = number + 1
    # A function of which nothing is known: any, whatever it takes. And a pointer to one.
    kinds = [int(Kind.INT), int(Kind.FUNC_PROTO), int(Kind.PTR)]
    links, sizes, counts = [0, 0, first + 1], [0, 0, types.word], [0, 1, 0]
    extra_type, extra_at = [first + 3], [0]
    for number in classes.values():
        kinds += [int(Kind.STRUCT), int(Kind.PTR)]
        links += [0, number]
        sizes += [slots * types.word, types.word]
        counts += [slots, 0]
        extra_type += [first + 2] * slots
        extra_at += range(0, slots * types.word, types.word)
    begin = int(types.part_first[-1])
    return replace(
        types,
        same=np.concatenate([types.same, np.arange(first, first + len(kinds), dtype=types.same.dtype)]),
        kind=np.concatenate([types.kind, np.array(kinds, types.kind.dtype)]),
        named=np.concatenate([types.named, np.zeros(len(kinds), types.named.dtype)]),
        link=np.concatenate([types.link, np.array(links, types.link.dtype)]),
        size=np.concatenate([types.size, np.array(sizes, types.size.dtype)]),
        part_first=np.concatenate([types.part_first, begin + np.cumsum(counts)]),
        part_at=np.concatenate([types.part_at, np.array(extra_at, types.part_at.dtype)]),
        part_type=np.concatenate([part_type, np.array(extra_type, part_type.dtype)]),
        virtual={number: name[len(_MEMBER[0]) :] for name, number in classes.items()},
    )


def with_tables(program: Program, types: TypeLayout, data: Data, placed: Placed) -> dict[Field, set[int]]:
    """Functions of tables that no constructor and no data puts into an object, as far as is known: by field,
    of every class."""
    found: dict[Field, set[int]] = {}
    if not types.virtual:
        return found
    known = {row for (struct, _), rows in placed.fields.items() if struct in types.virtual for row in rows}
    for address, size in _tables(program):
        start = int(types.numbers.addresses(np.array([address], np.uint64))[0])
        rows = [row for row in data.between(start, start + size) if int(data.function[row]) >= 0]
        for group in _groups(data, rows, types.word):
            if known.isdisjoint(group):
                for row in group:
                    offset = int(data.place[row] - data.place[group[0]])
                    for struct in types.virtual:
                        for at in _possible(offset, group, start, data, types.word):
                            found.setdefault((struct, at), set()).add(int(data.function[row]))
    return found


def _groups(data: Data, rows: list[int], word: int) -> Iterable[list[int]]:
    """Functions that stand side by side: those of one base class. Between them are offsets and the type."""
    group: list[int] = []
    for row in rows:
        if group and int(data.place[row] - data.place[group[-1]]) != word:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _possible(offset: int, group: list[int], start: int, data: Data, word: int) -> Iterable[int]:
    """Where a function of a group can stand in its table: the first one two words behind the table's start,
    or there behind the table of another base."""
    yield offset
    first = int(data.place[group[0]]) - start - 2 * word
    if first > 0:  # null entries before it
        yield offset + first


def _tables(program: Program) -> list[tuple[int, int]]:
    """(address, bytes) of each table of virtual functions that has a symbol."""
    found = []
    for image in program.images:
        records = image.symbols.records
        for index in np.flatnonzero((records["type"] == _OBJECT) & (records["section"] >= 0)).tolist():
            if image.symbols.names[index].startswith(_TABLE):
                found.append((int(records["address"][index]), int(records["size"][index])))
    return sorted(set(found))
