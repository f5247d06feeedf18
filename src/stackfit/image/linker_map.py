"""GNU ld's map (-Map): which input sections a linked image is made of, where they are, and what was left out.

Source: binutils ld/ldlang.c (print_statements, lang_map). For an image without symbols it has the names of
all global functions, and of local ones that have a section of their own (-ffunction-sections).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stackfit.image.model import SYMBOL_DTYPE, Image, InputError, Symbols

__all__ = ["InputSection", "LinkerMap", "is_linker_map", "name_by_map", "read_linker_map"]

_HEADS = (b"Archive member included", b"Memory Configuration", b"Discarded input sections")
_SNIFFED = 4096  # bytes
_MOST_BYTES = 512 << 20
_DISCARDED, _MAP = "Discarded input sections", "Linker script and memory map"
# ` .text.f        0x08000004        0xa m.o`; the name may stand on a line of its own before the rest.
_INPUT = re.compile(r" (?P<name>\.\S+)?\s+0x(?P<address>[0-9a-f]+)\s+0x(?P<size>[0-9a-f]+) (?P<file>\S.*)")
_ALONE = re.compile(r" (?P<name>\.\S+)")
_OUTPUT = re.compile(
    r"(?P<name>\.\S+)\s+0x(?P<address>[0-9a-f]+)\s+0x(?P<size>[0-9a-f]+)(?: load address .*)?"
)
_SYMBOL = re.compile(r" {16}0x(?P<address>[0-9a-f]+) {16}(?P<name>[A-Za-z_$][\w$.]*)")
_MEMBER = re.compile(r".*\((?P<member>[^()]+)\)")
_FUNCTION_SECTION = re.compile(r"\.text\.(?:(?:unlikely|exit|startup|hot|sorted\.\d+)\.)?(?P<name>\w.*)")
_FUNC, _FILE, _LOCAL, _GLOBAL = 2, 4, 0, 1


@dataclass(frozen=True)
class InputSection:
    """A section of an object as it was linked: address 0 where it was discarded. `file`: as ld names it."""

    name: str
    address: int
    size: int
    file: str

    @property
    def unit(self) -> str:
        """The source that it was compiled from, by the object's name."""
        member = _MEMBER.fullmatch(self.file)
        name = (member["member"] if member else self.file).replace("\\", "/").rsplit("/", 1)[-1]
        stem = name.removesuffix(".o").removesuffix(".obj")
        return stem if "." in stem else f"{stem}.c"

    @property
    def function(self) -> str | None:
        """The function that the section was made for."""
        match = _FUNCTION_SECTION.fullmatch(self.name)
        return match["name"] if match else None


@dataclass(frozen=True)
class LinkerMap:
    """`symbols`: (address, name) of global symbols, and the input section that each is listed under."""

    path: str
    outputs: tuple[tuple[str, int, int], ...]  # name, address, bytes
    inputs: tuple[InputSection, ...]
    discarded: tuple[InputSection, ...]
    symbols: tuple[tuple[int, str, InputSection], ...]


def is_linker_map(path: Path) -> bool:
    """Whether a file starts as GNU ld's maps do. InputError: it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED)
    except (OSError, ValueError) as error:
        raise InputError(str(path), getattr(error, "strerror", None) or str(error)) from None
    return any(one in head for one in _HEADS)


def read_linker_map(path: Path) -> LinkerMap:
    """Read one map. InputError: it has no list of sections."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(str(path), "too long for a linker map")
        lines = path.read_text("utf-8", "replace").split("\n")
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error)) from None
    outputs: list[tuple[str, int, int]] = []
    inputs: list[InputSection] = []
    discarded: list[InputSection] = []
    symbols: list[tuple[int, str, InputSection]] = []
    part = ""
    name = pending = ""
    for line in lines:
        line = line.rstrip("\r")
        if line in (_DISCARDED, _MAP, "Memory Configuration"):
            part = line
        elif match := _INPUT.fullmatch(line):
            name = match["name"] or pending
            one = InputSection(name, int(match["address"], 16), int(match["size"], 16), match["file"])
            if part == _DISCARDED:
                discarded.append(one)
            elif part == _MAP and name:
                inputs.append(one)
        elif part == _MAP and inputs and (match := _SYMBOL.fullmatch(line)):
            at = int(match["address"], 16)
            if inputs[-1].address <= at < inputs[-1].address + inputs[-1].size:
                symbols.append((at, match["name"], inputs[-1]))
        elif part == _MAP and (match := _OUTPUT.fullmatch(line)):
            outputs.append((match["name"], int(match["address"], 16), int(match["size"], 16)))
        match = _ALONE.fullmatch(line)
        pending = match["name"] if match else ""
    if not inputs:
        raise InputError(str(path), "a linker map without sections")
    return LinkerMap(str(path), tuple(outputs), tuple(inputs), tuple(discarded), tuple(symbols))


def name_by_map(image: Image, linked: LinkerMap) -> Image:
    """An image without symbols of its own with the functions that the map names; others as they are.

    InputError: the map is of another image.
    """
    sections = {section.name: section for section in image.sections if section.allocated}
    known = [(name, at, size) for name, at, size in linked.outputs if name in sections and size]
    for name, at, size in known:
        section = sections[name]
        if (section.address, section.size) != (at, size):
            raise InputError(
                linked.path,
                f"is of another image: {name} has {size} bytes at {at:#x},"
                f" {section.size} at {section.address:#x} in {image.path}",
            )
    code = [(section.address, section.end) for section in image.sections if section.executable]
    if len(image.symbols):
        return image
    rows = [(at, name, _GLOBAL, one.unit, one.address + one.size - at) for at, name, one in linked.symbols]
    listed = {at for at, _, _ in linked.symbols}
    rows += [
        (one.address, one.function, _LOCAL, one.unit, one.size)
        for one in linked.inputs
        if one.function is not None and one.size and one.address not in listed
    ]
    rows = [row for row in rows if any(start <= row[0] < end for start, end in code)]
    if not rows:
        raise InputError(linked.path, f"names no function of {image.path}")
    names: list[str] = []
    records: list[tuple[int, int, int, int, int]] = []
    unit = ""
    for at, text, binding, source, size in sorted(rows, key=lambda row: (row[2], row[3], row[0], row[1])):
        if binding == _LOCAL and source != unit:
            unit = source
            names.append(unit)
            records.append((0, 0, -1, _FILE, _LOCAL))
        names.append(text)
        records.append((at, size, _section_at(image, at), _FUNC, binding))
    table = np.array(records, SYMBOL_DTYPE)
    return replace(image, symbols=Symbols(names, table), symbol_source="map")


def _section_at(image: Image, address: int) -> int:
    """Index of the code section that has that address."""
    return next(
        index
        for index, one in enumerate(image.sections)
        if one.executable and one.address <= address < one.end
    )
