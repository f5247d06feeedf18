"""BTF: the types of a kernel and its modules, as every distribution's kernel carries them.

Type ids count from 1; 0 is void. A module's types are *split*: their ids and string offsets go on where the
kernel's end. `join_types` puts the types of all images of a program into one table. Sizes and offsets are
bytes unless a name says bits. Sources: Documentation/bpf/btf.rst, include/uapi/linux/btf.h of Linux 6.1.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, InputError

__all__ = ["Kind", "Rows", "Types", "join_types", "parse_btf", "read_btf"]

_Damaged = Callable[[int, str], InputError]
_MAGIC = 0xEB9F
_HEADER = 24  # bytes, up to str_len
_MOST_LINKS = 64  # typedefs and qualifiers in a row; a longer chain is a cycle
_BITFIELD = 1 << 31  # kind_flag


class Kind(enum.IntEnum):
    """BTF_KIND_*."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_KINDS = len(Kind)
# Words behind each type: always, and for each of its vlen parts.
_FIXED = [0] * _KINDS
_FIXED[Kind.INT] = _FIXED[Kind.VAR] = _FIXED[Kind.DECL_TAG] = 1
_FIXED[Kind.ARRAY] = 3
_EACH = [0] * _KINDS
_EACH[Kind.STRUCT] = _EACH[Kind.UNION] = _EACH[Kind.DATASEC] = _EACH[Kind.ENUM64] = 3
_EACH[Kind.ENUM] = _EACH[Kind.FUNC_PROTO] = 2
_LINKS = (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG)
_SIZED = (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT, Kind.DATASEC)
_REFERRING = (
    Kind.PTR, *_LINKS, Kind.FUNC, Kind.FUNC_PROTO, Kind.VAR, Kind.DECL_TAG,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rows:
    """Types of one image as they stand in its section: arrays of types with a row for each id from `begin`,
    which with `strings_begin` is where the base ends (0: there is none).

    `link`: the type that a pointer, typedef, qualifier, function, variable or prototype (its return type)
    refers to, an array's element type, else 0. `size`: bytes; of an array the number of its elements, else 0.

    Parts are members of structs and unions, parameters of prototypes, variables of sections, values of
    enumerations: those of the n-th type are rows `first[n]` to `first[n + 1]`. `part_offset`: bits in a
    struct, bytes in a section, else 0; `part_bits`: of a bit field, else 0.
    """

    kind: NDArray[np.uint8]
    name_at: NDArray[np.uint32]
    link: NDArray[np.int32]
    size: NDArray[np.uint32]
    first: NDArray[np.int64]
    part_name_at: NDArray[np.uint32]
    part_type: NDArray[np.int32]
    part_offset: NDArray[np.uint32]
    part_bits: NDArray[np.uint8]
    strings: bytes
    begin: int
    strings_begin: int


@dataclass(frozen=True, eq=False)
class Types:
    """The types of a kernel and its modules: the rows are those of every id from 0 (void)."""

    rows: Rows

    def __len__(self) -> int:
        return len(self.rows.kind)

    def kind(self, type_id: int) -> Kind:
        return Kind(int(self.rows.kind[type_id]))

    def link(self, type_id: int) -> int:
        return int(self.rows.link[type_id])

    def size(self, type_id: int) -> int:
        return int(self.rows.size[type_id])

    def text(self, offset: int) -> str:
        """The string at an offset."""
        strings = self.rows.strings
        return strings[offset : strings.index(b"\0", offset)].decode("utf-8", "replace")

    def name(self, type_id: int) -> str:
        """A type's name; empty when it has none."""
        return self.text(int(self.rows.name_at[type_id]))

    def plain(self, type_id: int) -> int:
        """The type behind typedefs and qualifiers; 0 for void, and for a chain that never ends."""
        return int(self.resolved[type_id])

    @cached_property
    def resolved(self) -> NDArray[np.int32]:
        """`plain` of every type."""
        found = np.arange(len(self), dtype=np.int32)
        linking = np.isin(self.rows.kind, _LINKS)
        for _ in range(_MOST_LINKS):
            at = np.flatnonzero(linking[found])
            if not at.size:
                return found
            found[at] = self.rows.link[found[at]]
        found[linking[found]] = 0
        return found

    @cached_property
    def functions(self) -> dict[str, int]:
        """Prototype of each function, by name; the first of equals."""
        found: dict[str, int] = {}
        for index in np.flatnonzero(self.rows.kind == Kind.FUNC).tolist():
            found.setdefault(self.name(index), self.link(index))
        return found

    def parts(self, type_id: int) -> range:
        """Rows of a type's parts."""
        return range(int(self.rows.first[type_id]), int(self.rows.first[type_id + 1]))

    def part_name(self, row: int) -> str:
        return self.text(int(self.rows.part_name_at[row]))


def read_btf(image: Image, base: Rows | None = None) -> Rows | None:
    """The types of an image; None: it has none. `base`: the kernel's, for a module. InputError."""
    section = image.section(".BTF")
    if section is None or not section.size:
        return None
    return parse_btf(image.path, section.data.tobytes(), base, section.offset)


def join_types(kernel: Rows, modules: Sequence[Rows] = ()) -> tuple[Types, list[int]]:
    """One table, the kernel's types first; and what to add to the ids of each module's own types (those from
    its `begin`) to find them there."""
    tables, shifts = [kernel], list[int]()
    ids, texts, parts = len(kernel.kind), len(kernel.strings), int(kernel.first[-1])
    for module in modules:
        if (module.begin, module.strings_begin) != (len(kernel.kind), len(kernel.strings)):
            raise ValueError("a module's types are split from another kernel's")
        shifts.append(ids - module.begin)
        tables.append(_shifted(module, ids - module.begin, texts - module.strings_begin, parts))
        ids += len(module.kind)
        texts += len(module.strings)
        parts += int(module.first[-1])
    rows = Rows(
        kind=np.concatenate([one.kind for one in tables]),
        name_at=np.concatenate([one.name_at for one in tables]),
        link=np.concatenate([one.link for one in tables]),
        size=np.concatenate([one.size for one in tables]),
        first=np.concatenate([kernel.first, *(one.first[1:] for one in tables[1:])]),
        part_name_at=np.concatenate([one.part_name_at for one in tables]),
        part_type=np.concatenate([one.part_type for one in tables]),
        part_offset=np.concatenate([one.part_offset for one in tables]),
        part_bits=np.concatenate([one.part_bits for one in tables]),
        strings=b"".join(one.strings for one in tables),
        begin=0,
        strings_begin=0,
    )
    return Types(rows), shifts


def _shifted(one: Rows, ids: int, texts: int, parts: int) -> Rows:
    """A module's types as they are numbered in a table of several."""

    def moved(values: NDArray[Any], begin: int, by: int) -> NDArray[Any]:
        return np.where(values >= begin, values + by, values).astype(values.dtype)

    return replace(
        one,
        name_at=moved(one.name_at, one.strings_begin, texts),
        link=moved(one.link, one.begin, ids),
        first=one.first + parts,
        part_name_at=moved(one.part_name_at, one.strings_begin, texts),
        part_type=moved(one.part_type, one.begin, ids),
    )


def parse_btf(path: str, data: bytes, base: Rows | None = None, offset: int = 0) -> Rows:
    """The types in a .BTF section, which lies at `offset` of the file `path`; of a module only its own.
    InputError: it is damaged."""

    def damaged(at: int, cause: str) -> InputError:
        return InputError(path, f".BTF: {cause}", offset + at)

    if len(data) < _HEADER:
        raise damaged(0, f"{len(data)} bytes are no header")
    magic, version = int.from_bytes(data[:2], "little"), data[2]
    if magic != _MAGIC or version != 1:
        raise damaged(0, f"magic {magic:#x} and version {version}, not {_MAGIC:#x} and 1")
    head, type_at, type_size, string_at, string_size = np.frombuffer(data[4:_HEADER], "<u4").tolist()
    types_from, strings_from = head + type_at, head + string_at
    if head < _HEADER or types_from + type_size > len(data) or type_size % 4:
        raise damaged(4, "types lie outside the section")
    if strings_from + string_size > len(data):
        raise damaged(16, "strings lie outside the section")
    strings = data[strings_from : strings_from + string_size]
    # A module whose types need no name of its own has no strings.
    if not strings.endswith(b"\0") and (strings or base is None):
        raise damaged(strings_from, "the last string does not end")
    words = np.frombuffer(data[types_from : types_from + type_size], "<u4")
    at = _scan(words, lambda word, cause: damaged(types_from + 4 * word, cause))
    return _build(words, at, base, strings, lambda word, cause: damaged(types_from + 4 * word, cause))


def _scan(words: NDArray[np.uint32], damaged: _Damaged) -> NDArray[np.int64]:
    """Where each type starts, in words."""
    flat, found, word, end = words.tolist(), list[int](), 0, len(words)
    while word < end:
        if word + 3 > end:
            raise damaged(word, "the last type is cut off")
        info = flat[word + 1]
        kind = info >> 24 & 31
        if not 0 < kind < _KINDS:
            raise damaged(word, f"type {len(found) + 1} is of kind {kind}, which is not known")
        found.append(word)
        word += 3 + _FIXED[kind] + _EACH[kind] * (info & 0xFFFF)
    if word != end:
        raise damaged(found[-1], "the last type is cut off")
    return np.array(found, np.int64)


def _build(
    words: NDArray[np.uint32], at: NDArray[np.int64], base: Rows | None, strings: bytes, damaged: _Damaged
) -> Rows:
    info = words[at + 1] if at.size else np.zeros(0, np.uint32)
    kind = (info >> 24 & 31).astype(np.uint8)
    third = words[at + 2] if at.size else np.zeros(0, np.uint32)
    link = np.where(np.isin(kind, _REFERRING), third, 0)
    size = np.where(np.isin(kind, _SIZED), third, 0)
    arrays = np.flatnonzero(kind == Kind.ARRAY)
    link[arrays] = words[at[arrays] + 3]
    size[arrays] = words[at[arrays] + 5]
    each = np.array(_EACH, np.int64)[kind]
    number = np.where(each > 0, info & 0xFFFF, 0).astype(np.int64)
    row = np.repeat(np.arange(at.size), number)
    begin = np.cumsum(number) - number
    part = at[row] + 3 + each[row] * (np.arange(row.size) - begin[row])
    section = kind[row] == Kind.DATASEC
    name_word = np.where(section, 0, words[part]) if row.size else np.zeros(0, np.uint32)
    valued = np.isin(kind[row], (Kind.ENUM, Kind.ENUM64))
    part_type = np.where(section, words[part], np.where(valued, 0, words[part + 1]))
    member = np.isin(kind[row], (Kind.STRUCT, Kind.UNION))
    offset = np.zeros(row.size, np.uint32)
    offset[section] = words[part[section] + 1]
    offset[member] = words[part[member] + 2]
    fields = member & ((info[row] & _BITFIELD) != 0)
    bits = np.where(fields, offset >> 24, 0).astype(np.uint8)
    offset[fields] &= 0xFFFFFF
    names = words[at] if at.size else np.zeros(0, np.uint32)
    known = len(base.kind) if base is not None else 1
    texts = (len(base.strings) if base is not None else 0) + len(strings)
    for place, values, limit, what in (
        (at, names, texts, "a name"),
        (at, link, known + at.size, "a type"),
        (part, name_word, texts, "a part's name"),
        (part, part_type, known + at.size, "a part's type"),
    ):
        wrong = np.flatnonzero(values >= limit)
        if wrong.size:
            raise damaged(int(place[wrong[0]]), f"{what} is number {int(values[wrong[0]])} of {limit}")
    void = 0 if base is not None else 1
    return Rows(
        kind=np.concatenate((np.zeros(void, np.uint8), kind)),
        name_at=np.concatenate((np.zeros(void, np.uint32), names.astype(np.uint32))),
        link=np.concatenate((np.zeros(void, np.int32), link.astype(np.int32))),
        size=np.concatenate((np.zeros(void, np.uint32), size.astype(np.uint32))),
        first=np.concatenate((np.zeros(1 + void, np.int64), np.cumsum(number))),
        part_name_at=name_word.astype(np.uint32),
        part_type=part_type.astype(np.int32),
        part_offset=offset,
        part_bits=bits,
        strings=strings,
        begin=len(base.kind) if base is not None else 0,
        strings_begin=len(base.strings) if base is not None else 0,
    )
