"""The functions of a program: entry addresses, extents, names, from whatever symbols there are.

A function reaches from its entry to the next entry in its section: symbol sizes are not used, because
kallsyms has none and both sources must give the same functions. Code without any symbol still belongs to a
function, named `sub_ADDRESS`.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, ImageKind, InputError, Machine, Program, Section
from stackfit.image.pointers import distinct

__all__ = [
    "CodeSection",
    "Entries",
    "Functions",
    "code_sections",
    "cold_parent_name",
    "find_functions",
    "mapping_symbol",
    "symbol_entries",
]

# Code that other functions' code is patched with, or jumps into: no function of its own.
_PIECES = (".altinstr_replacement", ".altinstr_aux")
# Symbols that mark no entry: compiler-local labels, and the padding before a function (Linux 6.3, kCFI).
_NOT_ENTRIES = (".L", "__pfx_", "__cfi_", "$")
# Marks that the kernel's linker script puts around groups of functions (include/asm-generic/vmlinux.lds.h).
_MARK = re.compile(
    r"^(_text|_stext|_etext|_sinittext|_einittext|__\w+_text_(start|end)|__indirect_thunk_(start|end)|__alt_instructions(_end)?)$"
)
# Mapping symbols (AAELF32, AAELF64, RISC-V psABI), with what objcopy --prefix-symbols puts before them.
_MAPPING = re.compile(r"^(?:__\w+_)?(\$[atxd])(?:[.xr].*)?$")
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

    def entered(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """As `at`, of each of many addresses."""
        index = np.minimum(np.searchsorted(self.address, addresses), max(len(self.names) - 1, 0))
        if not len(self.names):
            return np.full(addresses.shape, -1, np.int64)
        return np.where(self.address[index] == addresses, index, -1)

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
    kernel = program.images[0]
    if kernel.machine is Machine.ARM and kernel.kind is ImageKind.KERNEL:
        # Its vectors are copied to one place, one set or another (arch/arm/include/asm/vmlinux.lds.h).
        last = np.maximum.accumulate([0, *(code.section.end for code in found)])
        found = [code for code, end in zip(found, last.tolist(), strict=False) if code.section.address >= end]
    for before, after in itertools.pairwise(found):
        if before.section.end > after.section.address:
            raise InputError(
                program.images[after.image].path,
                f"section {after.section.name} overlaps {before.section.name}",
                after.section.offset,
            )
    return found


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries that symbols name, by ascending address: the first name is the function's, then aliases."""

    address: NDArray[np.uint64]
    names: list[tuple[str, ...]]


def symbol_entries(program: Program, sections: list[CodeSection]) -> Entries:
    """All symbols that name an entry in these code sections."""
    if not sections:
        return Entries(np.empty(0, np.uint64), [])
    starts, ends = _bounds(sections)
    image_of = np.array([code.image for code in sections], np.int64)
    usable = np.array([code.section.name not in _PIECES for code in sections], np.bool_)
    parts: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    found: list[tuple[int, int]] = []  # (image, symbol)
    for number, image in enumerate(program.images):
        records = image.symbols.records
        code = np.flatnonzero((records["section"] >= 0) & ~np.isin(records["type"], _no_code(image)))
        address = records["address"][code]
        where = np.searchsorted(starts, address, "right") - 1
        inside = (where >= 0) & (address < ends[where]) & (image_of[where] == number) & usable[where]
        names = image.symbols.names
        kept = [
            symbol
            for symbol in code[inside].tolist()
            if names[symbol]
            and not names[symbol].startswith(_NOT_ENTRIES)
            and not ("$" in names[symbol] and mapping_symbol(names[symbol]))
        ]
        parts.append(records["address"][kept])
        found.extend((number, symbol) for symbol in kept)
    address = np.concatenate(parts)
    order = np.argsort(address, kind="stable")
    address = address[order]
    starting = np.append(True, address[1:] != address[:-1]) if address.size else np.empty(0, np.bool_)
    bounds = [*np.flatnonzero(starting).tolist(), address.size]
    entries: list[tuple[str, ...]] = []
    marks: list[int] = []
    members = order.tolist()
    for group, (first, last) in enumerate(itertools.pairwise(bounds)):
        number, symbol = found[members[first]]
        all_names = program.images[number].symbols.names
        if last - first == 1:
            entries.append((all_names[symbol],))
            if all_names[symbol][0] == "_" and _MARK.match(all_names[symbol]):
                marks.append(group)
            continue
        symbols = [found[index][1] for index in members[first:last]]
        symbols.sort(key=functools.partial(_kallsyms_order, program.images[number]))
        names = [all_names[symbol] for symbol in symbols]
        entries.append((names[0], *dict.fromkeys(names[1:])))
        if all(name[0] == "_" and _MARK.match(name) for name in names):
            marks.append(group)
    places = address[starting]
    if marks:  # a mark of the linker script amid code begins no function
        places = np.delete(places, marks)
        for group in reversed(marks):
            del entries[group]
    return Entries(places, entries)


def _no_code(image: Image) -> tuple[int, ...]:
    """Types of symbols that begin no function: sections, files; where mapping symbols tell data from code,
    objects too (a vector table, constants amid code)."""
    return (3, 4) if image.machine.x86 else (1, 3, 4, 6)


def _bounds(sections: list[CodeSection]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """First address and the address after the last of every code section; an empty one if there is none."""
    starts = [code.section.address for code in sections] or [0]
    ends = [code.section.end for code in sections] or [0]
    return np.array(starts, np.uint64), np.array(ends, np.uint64)


def find_functions(sections: list[CodeSection], entries: Entries, more: NDArray[np.uint64]) -> Functions:
    """The function table. `more`: entry addresses found otherwise, any order (none outside code counts)."""
    starts, ends = _bounds(sections)
    found = distinct(np.concatenate([starts if sections else starts[:0], entries.address, more]))
    section = np.searchsorted(starts, found, "right") - 1
    inside = (section >= 0) & (found < ends[section])
    found, section = found[inside], section[inside]
    following = np.append(found[1:], np.uint64(2**64 - 1)) if found.size else found
    index = np.minimum(np.searchsorted(entries.address, found), max(len(entries.names) - 1, 0))
    named = entries.address[index] == found if len(entries.names) else np.zeros(found.shape, np.bool_)
    all_names = [
        entries.names[at] if has else (f"sub_{address:x}",)
        for at, has, address in zip(index.tolist(), named.tolist(), found.tolist(), strict=True)
    ]
    is_piece = np.array([code.section.name in _PIECES for code in sections], np.bool_)
    image = np.array([code.image for code in sections], np.int32)
    return Functions(
        address=found,
        end=np.minimum(following, ends[section]),
        image=image[section],
        section=section.astype(np.int32),
        names=[names[0] for names in all_names],
        aliases=[names[1:] for names in all_names],
        parent=np.full(found.size, -1, np.int32),
        piece=is_piece[section],
        synthetic=~named,
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


def mapping_symbol(name: str) -> str | None:
    """`$x.5` → `$x`, `__efistub_$d` → `$d`; None for any other name."""
    match = _MAPPING.match(name)
    return match[1] if match else None


def cold_parent_name(name: str) -> str | None:
    """`x.cold` → `x`; None for any other name."""
    match = _COLD.match(name)
    return match["parent"] if match else None
