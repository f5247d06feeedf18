"""DWARF debug information: types, prototypes, variables and the places of local pointers of a whole file.

Types come as the rows of a BTF section would, each once however many units repeat it; dwarf_units.py has the
reading itself. What a unit refers to in another one (link-time optimisation, supplementary files) is void
here. Sources: DWARF 5; versions 2 to 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.image.btf import Kind, Rows
from stackfit.image.dwarf_constants import IN_INFO, IN_LINES, IN_SLOT, IN_STRINGS
from stackfit.image.dwarf_units import DwarfError, DwarfUnits
from stackfit.image.model import Bytes, Image, InputError

__all__ = ["IN_SLOT", "Dwarf", "read_dwarf"]

_EMPTY = np.empty(0, np.uint8)


@dataclass(frozen=True, eq=False)
class Dwarf:
    """What one file's debug information says. Numbers of types are rows of `types`; addresses are those of
    the file.

    `functions`: int64[n, 2] address, prototype. `variables`: int64[n, 2] address, type. `locals`: int64[n, 5]
    from and up to which address a local pointer is in a register, that register's DWARF number (IN_SLOT: in
    the frame), what to add to it (bytes; the slot's place above the CFA), what the pointer points to.
    """

    types: Rows
    functions: NDArray[np.int64]
    variables: NDArray[np.int64]
    locals: NDArray[np.int64]


def read_dwarf(image: Image, base: Rows | None = None) -> Dwarf | None:
    """The debug information of a linked image; None: it has none. InputError: it is damaged.

    `base`: types of the same kernel, to whose end these are numbered on (as a module's BTF is).
    """
    info = _data(image, ".debug_info")
    if not info.size:
        return None
    strings, lines = _data(image, ".debug_str"), _data(image, ".debug_line_str")
    lists = _data(image, ".debug_loclists" if image.section(".debug_loclists") is not None else ".debug_loc")
    ranges = _data(
        image, ".debug_rnglists" if image.section(".debug_rnglists") is not None else ".debug_ranges"
    )
    units = DwarfUnits(
        info, _data(image, ".debug_abbrev"), strings, lines, lists, ranges,
        _data(image, ".debug_addr"), _data(image, ".debug_str_offsets"),
    )  # fmt: skip
    types, parts = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    functions, variables, places = (list[NDArray[np.int64]]() for _ in range(3))
    at = 0
    try:
        while at < info.size:
            at = units.read(at)
            new, pieces = units.types()
            types.append(new)
            parts.append(pieces)
            functions.append(units.functions())
            variables.append(units.variables())
            places.append(units.locals())
    except DwarfError as error:
        raise _damaged(image, error) from None
    found = _joined(types, 6)
    names = {IN_STRINGS: strings, IN_INFO: info, IN_LINES: lines}
    return Dwarf(
        _rows(found, _joined(parts, 5), names, base),
        *(
            _numbered(_joined(one, columns), base)
            for one, columns in ((functions, 2), (variables, 2), (places, 5))
        ),
    )


def _data(image: Image, name: str) -> Bytes:
    section = image.section(name)
    return np.ascontiguousarray(section.data) if section is not None else _EMPTY


def _joined(parts: list[NDArray[np.int64]], columns: int) -> NDArray[np.int64]:
    return np.concatenate([np.empty((0, columns), np.int64), *parts])


def _damaged(image: Image, error: DwarfError) -> InputError:
    name = error.section or ".debug_info"
    section = image.section(name)
    offset = section.offset + error.at if section is not None else None
    return InputError(image.path, f"{name}: {error.cause}", offset)


def _numbered(rows: NDArray[np.int64], base: Rows | None) -> NDArray[np.int64]:
    """Rows whose last column numbers types from 1, numbered on from the base's."""
    if base is not None:
        rows[:, -1] += np.where(rows[:, -1] > 0, len(base.kind) - 1, 0)
    return rows


def _rows(
    types: NDArray[np.int64], parts: NDArray[np.int64], sections: dict[int, Bytes], base: Rows | None
) -> Rows:
    """Types and their parts as a BTF section has them. A type's parts follow those of the type before."""
    void = 0 if base is not None else 1
    shift = len(base.kind) - 1 if base is not None else 0
    begin = len(base.strings) if base is not None else 0
    strings, at = _names(np.concatenate([types[:, 1:3], parts[:, 0:2]]), sections, begin)

    def led_to(numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        return np.where(numbers > 0, numbers + shift, 0).astype(np.int32)

    def column(values: NDArray[Any], kind: type[Any]) -> NDArray[Any]:
        return np.concatenate([np.zeros(void, kind), values.astype(kind)])

    owner = np.repeat(types[:, 0], types[:, 5])
    member = np.isin(owner, (Kind.STRUCT, Kind.UNION))
    return Rows(
        kind=column(types[:, 0], np.uint8),
        name_at=column(at[: len(types)], np.uint32),
        link=column(led_to(types[:, 3]), np.int32),
        size=column(np.clip(types[:, 4], 0, (1 << 32) - 1), np.uint32),
        first=np.concatenate([np.zeros(1 + void, np.int64), np.cumsum(types[:, 5])]),
        part_name_at=at[len(types) :].astype(np.uint32),
        part_type=led_to(parts[:, 2]),
        part_offset=np.where(member, np.clip(parts[:, 3], 0, (1 << 32) - 1), 0).astype(np.uint32),
        part_bits=np.where(member, np.clip(parts[:, 4], 0, 255), 0).astype(np.uint8),
        strings=strings,
        begin=len(base.kind) if base is not None else 0,
        strings_begin=begin,
    )


def _names(
    places: NDArray[np.int64], sections: dict[int, Bytes], begin: int
) -> tuple[bytes, NDArray[np.int64]]:
    """A string table that starts at offset `begin`, and where in it each name is: (section, byte) in
    `places`. An unnamed one is at 0, the empty string."""
    unique, back = np.unique(places, axis=0, return_inverse=True)
    texts = {key: data.tobytes() for key, data in sections.items() if key != IN_INFO}
    known, blob, found = dict[bytes, int](), bytearray(b"" if begin else b"\0"), list[int]()
    info = sections[IN_INFO]
    for section, at in unique.tolist():
        if section == IN_INFO:
            text = info[at : at + 4096].tobytes().split(b"\0", 1)[0]
        elif section in texts and 0 <= at < len(texts[section]):
            end = texts[section].find(b"\0", at)
            text = texts[section][at : end if end >= 0 else None]
        else:
            text = b""
        if not text:
            found.append(0)
            continue
        if text not in known:
            known[text] = begin + len(blob)
            blob += text + b"\0"
        found.append(known[text])
    return bytes(blob), np.array(found, np.int64)[back.ravel()]
