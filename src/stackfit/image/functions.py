"""The functions of a program: entry addresses, extents, names, from whatever symbols there are.

A function reaches from its entry to the next entry in its section: symbol sizes are not used, because
kallsyms has none and both sources must give the same functions. Code without any symbol still belongs to a
function, named `sub_ADDRESS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, InputError, Program, Section

__all__ = ["CodeSection", "Functions", "code_sections", "find_functions"]

# Code that other functions' code is patched with, or jumps into: no function of its own.
_PIECES = (".altinstr_replacement", ".altinstr_aux")
# Symbols that mark no entry: compiler-local labels, and the padding before a function (Linux 6.3, kCFI).
_NOT_ENTRIES = (".L", "__pfx_", "__cfi_", "$")
# Marks that the kernel's linker script puts around groups of functions (include/asm-generic/vmlinux.lds.h).
_MARK = re.compile(r"^(_text|_stext|_etext|_sinittext|_einittext|__\w+_text_(start|end)|__indirect_thunk_(start|end)|__alt_instructions(_end)?)$")
_COLD = re.compile(r"^(?P<parent>.+)\.cold(\.\d+)?$")
_SPLIT = re.compile(r"^(?P<parent>.+?)\.(part|isra|constprop|cold)(\.\d+)?(\..+)?$")


@dataclass(frozen=True, eq=False)
class CodeSection:
    """An executable section of one of the program's images, at its final address."""

    image: int
    section: Section


@dataclass(frozen=True, eq=False)
class Functions:
    """All functions, by ascending entry address; every array has one length."""

    address: NDArray[np.uint64]
    end: NDArray[np.uint64]  # exclusive; padding after the function included
    image: NDArray[np.int32]  # index into Program.images
    section: NDArray[np.int32]  # index into the list of code sections
    names: list[str]
    aliases: list[tuple[str, ...]]
    parent: NDArray[np.int32]  # of a `.cold` piece: the function it is analysed with; else -1
    piece: NDArray[np.bool_]  # no function of its own (alternatives' replacement code)
    synthetic: NDArray[np.bool_]  # no symbol: found by a call, a pointer, or as a section's start

    def __len__(self) -> int:
        return len(self.names)

    def at(self, address: int) -> int:
        """Index of the function whose entry is at that address, or -1."""
        index = int(np.searchsorted(self.address, np.uint64(address)))
        return index if index < len(self.names) and int(self.address[index]) == address else -1

    def containing(self, address: int) -> int:
        """Index of the function whose extent holds that address, or -1."""
        index = int(np.searchsorted(self.address, np.uint64(address), "right")) - 1
        return index if index >= 0 and address < int(self.end[index]) else -1

    def named(self, name: str) -> list[int]:
        """Indexes of all functions of that name (exact, aliases included)."""
        return self._by_name().get(name, [])

    def _by_name(self) -> dict[str, list[int]]:
        cache: dict[str, list[int]] | None = self.__dict__.get("_names_cache")
        if cache is None:
            cache = {}
            for index, (name, aliases) in enumerate(zip(self.names, self.aliases, strict=True)):
                cache.setdefault(name, []).append(index)
                for alias in aliases:
                    cache.setdefault(alias, []).append(index)
            object.__setattr__(self, "_names_cache", cache)
        return cache

    def part_of(self, index: int) -> str | None:
        """Name of the function that the compiler split this one from (`x.part.0` → `x`), or None."""
        match = _SPLIT.match(self.names[index])
        return match["parent"] if match else None


def code_sections(program: Program) -> list[CodeSection]:
    """All executable sections by ascending address; InputError when two overlap."""
    found = [
        CodeSection(number, section)
        for number, image in enumerate(program.images)
        for section in image.sections
        if section.executable and section.allocated and section.data.size
    ]
    found.sort(key=lambda code: code.section.address)
    for before, after in zip(found, found[1:], strict=False):
        if before.section.end > after.section.address:
            raise InputError(
                program.images[after.image].path,
                f"section {after.section.name} overlaps {before.section.name}",
                after.section.offset,
            )
    return found


def find_functions(
    program: Program, sections: list[CodeSection], more: dict[int, list[int]] | None = None
) -> Functions:
    """The function table. `more`: entry addresses found otherwise, by code section."""
    per_image: dict[int, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}
    for number, image in enumerate(program.images):
        records = image.symbols.records
        usable = np.flatnonzero((records["section"] >= 0) & (records["type"] != 3) & (records["type"] != 4))
        order = usable[np.argsort(records["address"][usable], kind="stable")]
        per_image[number] = (records["address"][order], order)
    address: list[int] = []
    end: list[int] = []
    image_index: list[int] = []
    section_index: list[int] = []
    names: list[str] = []
    aliases: list[tuple[str, ...]] = []
    piece: list[bool] = []
    synthetic: list[bool] = []
    for number, code in enumerate(sections):
        section, image = code.section, program.images[code.image]
        addresses, order = per_image[code.image]
        low, high = np.searchsorted(addresses, np.array([section.address, section.end], np.uint64))
        is_piece = section.name in _PIECES
        entries: dict[int, list[int]] = {}
        for at, symbol in zip(addresses[low:high].tolist(), order[low:high].tolist(), strict=True):
            name = image.symbols.names[symbol]
            if name and not is_piece and not name.startswith(_NOT_ENTRIES):
                entries.setdefault(at, []).append(symbol)
        for at in [at for at, group in entries.items() if all(_MARK.match(image.symbols.names[one]) for one in group)]:
            del entries[at]  # a mark of the linker script amid code begins no function
        extra = [] if more is None else more.get(number, [])
        starts = sorted({section.address, *entries, *extra})
        for at, following in zip(starts, [*starts[1:], section.end], strict=True):
            group = entries.get(at, [])
            if len(group) > 1:
                group.sort(key=lambda symbol: _kallsyms_order(image, symbol))
            address.append(at)
            end.append(following)
            image_index.append(code.image)
            section_index.append(number)
            names.append(image.symbols.names[group[0]] if group else f"sub_{at:x}")
            aliases.append(tuple(dict.fromkeys(image.symbols.names[symbol] for symbol in group[1:])))
            piece.append(is_piece)
            synthetic.append(not group)
    return Functions(
        address=np.array(address, np.uint64),
        end=np.array(end, np.uint64),
        image=np.array(image_index, np.int32),
        section=np.array(section_index, np.int32),
        names=names,
        aliases=aliases,
        parent=np.full(len(names), -1, np.int32),
        piece=np.array(piece, np.bool_),
        synthetic=np.array(synthetic, np.bool_),
    )


def _kallsyms_order(image: Image, symbol: int) -> tuple[bool, bool, int, str, int]:
    """Which of several names at one address the kernel itself prints first.

    scripts/kallsyms.c, compare_symbols(): strong before weak, linker-script marks last, fewer leading
    underscores first, then as `nm -n` lists them: by name. A table read from kallsyms is in that order.
    """
    if image.symbol_source == "kallsyms":
        return False, False, 0, "", symbol
    name = image.symbols.names[symbol]
    weak = int(image.symbols.records["binding"][symbol]) == 2
    return weak, _linker_script_mark(name), len(name) - len(name.lstrip("_")), name, symbol


def _linker_script_mark(name: str) -> bool:
    """scripts/kallsyms.c, may_be_linker_script_provide_symbol()."""
    if len(name) < 8 or not name.startswith("_"):
        return False
    if name.startswith(("__start_", "__stop_", "__end_")):
        return True
    return name.startswith("_") and name.endswith(("_start", "_end", "_text", "_etext"))


def cold_parent_name(name: str) -> str | None:
    """`x.cold` → `x`; None for any other name."""
    match = _COLD.match(name)
    return match["parent"] if match else None


