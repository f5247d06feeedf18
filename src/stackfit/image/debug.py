"""Debug information in relocatable files: relocations of the sections that loading leaves alone.

A linker has relocated the debug sections of an executable; of a module's, or another object file's, nobody
has. Relocation types: System V ABI AMD64 supplement table 4.9, i386 supplement table 4.1; absolute words
only, as debug information has no others there. image/relocate.py has the other machines'.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Bytes, Image, ImageKind, InputError, Machine, Section, Symbols
from stackfit.image.relocate import Overflow, apply_relocations, relocation_sizes

__all__ = ["debug_image", "relocated"]

# R_386_32; R_X86_64_64 and R_X86_64_32: relocation types that store S + A, and their bytes
_ABSOLUTE = {Machine.I386: {1: 4}, Machine.X86_64: {1: 8, 10: 4}}
_SHT_RELA, _SHT_REL = 4, 9


def debug_image(image: Image, placed: Image | None = None) -> Image:
    """An image whose debug information speaks of link addresses, its kind EXECUTABLE.

    `image` has the debug sections. `placed`: the same module as it was linked into a program, where `image`
    is a companion of it that was not; sections are told by their names, those of one name by their order. An
    executable stays as it is. Raises InputError.
    """
    if image.kind is not ImageKind.MODULE:
        return image
    if placed is not None:
        image = _moved(image, placed)
    sections = tuple(
        replace(section, data=relocated(image, index), size=section.data.size)
        if section.name.startswith(".debug_") and section.data.size
        else section
        for index, section in enumerate(image.sections)
    )
    return replace(image, sections=sections, kind=ImageKind.EXECUTABLE)


def _moved(image: Image, placed: Image) -> Image:
    """A companion's symbols at the addresses where the linked module has its sections."""
    known: dict[str, list[int]] = {}
    for section in placed.sections:
        if section.allocated:
            known.setdefault(section.name, []).append(section.address)
    bases = np.zeros(len(image.sections), np.uint64)
    for number, section in enumerate(image.sections):
        if section.allocated and known.get(section.name):
            bases[number] = known[section.name].pop(0)
    records = image.symbols.records.copy()
    inside = records["section"] >= 0
    records["address"][inside] += bases[records["section"][inside]]
    return replace(image, symbols=Symbols(image.symbols.names, records))


def relocated(image: Image, index: int) -> Bytes:
    """The bytes of a section that is not loaded, relocated against the image's symbols as they are.

    Symbols of such sections are at their offsets. Raises InputError for a relocation that leads outside.
    """
    section = image.sections[index]
    if image.kind is not ImageKind.MODULE or section.allocated:
        return section.data
    data = section.data.copy()
    for table in image.sections:
        if table.type in (_SHT_RELA, _SHT_REL) and table.info == index:
            _relocate(image, table, data)
    return data


def _relocate(image: Image, table: Section, data: Bytes) -> None:
    integer = f"<i{image.machine.word}"
    names = ["offset", "info", "addend"] if table.type == _SHT_RELA else ["offset", "info"]
    dtype = np.dtype([(name, integer) for name in names])
    if table.data.size % dtype.itemsize:
        cause = f"section {table.name} does not hold whole {dtype.itemsize}-byte relocations"
        raise InputError(image.path, cause, table.offset)
    raw = np.frombuffer(table.data, dtype)
    offset, info = raw["offset"].astype(np.int64), raw["info"].astype(np.int64)
    bits = 32 if image.machine.word == 8 else 8
    symbol, kind = info >> bits, info & (1 << bits) - 1  # a negative symbol is refused below
    records = image.symbols.records
    if not image.machine.x86:
        addend = raw["addend"].astype(np.int64) if table.type == _SHT_RELA else np.zeros(raw.size, np.int64)
        _relocate_reduced(image, table, data, offset, symbol, kind, addend)
        return
    for number, size in _ABSOLUTE.get(image.machine, {}).items():
        chosen = kind == number
        place, target = offset[chosen], symbol[chosen]
        if place.size == 0:
            continue
        if int(place.min()) < 0 or int(place.max()) > data.size - size:
            raise InputError(image.path, f"a relocation in {table.name} lies outside", table.offset)
        if int(target.min()) < 0 or int(target.max()) >= len(records):
            raise InputError(image.path, f"a relocation in {table.name} names no symbol", table.offset)
        value = records["address"][target]  # of the section itself 0: it is not loaded, its offsets stay
        octets = place[:, np.newaxis] + np.arange(size)
        if table.type == _SHT_RELA:
            value = value + raw["addend"][chosen].astype(np.int64).view(np.uint64)
        else:
            value = value + data[octets].view(f"<u{size}").ravel()
        data[octets] = value.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :size]


def _relocate_reduced(
    image: Image,
    table: Section,
    data: Bytes,
    offset: NDArray[np.int64],
    symbol: NDArray[np.int64],
    kind: NDArray[np.int64],
    addend: NDArray[np.int64],
) -> None:
    """On machines other than x86; types that are not known change nothing."""
    sizes = relocation_sizes(image.machine)
    width = np.array([sizes.get(one, 0) for one in kind.tolist()], np.int64)
    if bool(((offset < 0) | (offset + width > data.size)).any()):
        raise InputError(image.path, f"a relocation in {table.name} lies outside", table.offset)
    records = image.symbols.records
    if bool(((symbol < 0) | (symbol >= len(records))).any()):
        raise InputError(image.path, f"a relocation in {table.name} names no symbol", table.offset)
    address = records["address"][symbol]
    every = np.ones(offset.size, np.bool_)
    try:
        apply_relocations(
            data, 0, image.machine, offset, kind.astype(np.uint32), address, addend, ~every, every
        )
    except Overflow as error:
        raise InputError(image.path, f"a relocation in {table.name} {error.cause}", table.offset) from None
