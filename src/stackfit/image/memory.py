"""What stands at an address of a program: words, strings, objects with a symbol."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Program, Section

__all__ = ["Memory"]

_OBJECT = 1  # STT_OBJECT
_MOST_TEXT = 64  # bytes: names of tasks are much shorter


class Memory:
    """Reads a program's data by address."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._word = program.machine.word
        self.sections: list[Section] = sorted(
            (one for image in program.images for one in image.sections if one.allocated and one.size),
            key=lambda section: section.address,
        )

    def section(self, address: int) -> Section | None:
        """The section that has that address."""
        for section in self.sections:
            if section.address <= address < section.end:
                return section
        return None

    def word(self, address: int) -> int | None:
        """The word at that address; None where the image has no data."""
        section = self.section(address)
        if section is None:
            return None
        at = address - section.address
        if at + self._word > section.data.size:
            return None
        return int.from_bytes(section.data[at : at + self._word].tobytes(), "little")

    def text(self, address: int) -> str | None:
        """The printable NUL-terminated string there."""
        section = self.section(address)
        if section is None:
            return None
        at = address - section.address
        raw, end, _ = section.data[at : at + _MOST_TEXT].tobytes().partition(b"\0")
        return raw.decode("ascii") if end and raw and raw.isascii() and raw.decode().isprintable() else None

    @cached_property
    def _objects(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], list[str]]:
        found: dict[int, tuple[int, str]] = {}
        for image in self._program.images:
            records = image.symbols.records
            for index in np.flatnonzero((records["type"] == _OBJECT) & (records["section"] >= 0)).tolist():
                address, size = int(records["address"][index]), int(records["size"][index])
                if size > found.get(address, (0, ""))[0]:
                    found[address] = size, image.symbols.names[index]
        order = sorted(found)
        return (
            np.array(order, np.uint64),
            np.array([found[at][0] for at in order], np.uint64),
            [found[at][1] for at in order],
        )

    def object(self, address: int) -> tuple[str, int, int] | None:
        """(name, address, bytes) of the object with a symbol that has that address."""
        starts, sizes, names = self._objects
        index = int(np.searchsorted(starts, np.uint64(address), "right")) - 1
        if index < 0 or address >= int(starts[index]) + int(sizes[index]):
            return None
        return names[index], int(starts[index]), int(sizes[index])

    def symbol(self, *names: str) -> int | None:
        """The value of the first of these symbols that the program defines (absolute ones too)."""
        for name in names:
            for image in self._program.images:
                for index, known in enumerate(image.symbols.names):
                    if known == name and int(image.symbols.records["section"][index]) != -2:
                        return int(image.symbols.records["address"][index])
        return None
