"""Images to one program: modules get addresses, their relocations are applied, their symbols resolved.

As `kernel/module/main.c` does at load time: undefined symbols are looked up among the exports
(`__ksymtab*`) of the kernel and of the other modules. What nobody exports gets an address of its own in
`Program.undefined`, so that a call to it stays visible and open.

Relocation types: System V ABI AMD64 supplement table 4.9, i386 supplement table 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Bytes, Image, ImageKind, InputError, Machine, Program, Section, Symbols

__all__ = ["link"]

_PAGE = 4096
# Where modules go: behind the kernel's own addresses, within reach of a 32-bit displacement.
_MODULE_BASE = {Machine.X86_64: 0xFFFF_FFFF_C000_0000, Machine.I386: 0xD000_0000}
_UNDEFINED_BASE = {Machine.X86_64: 0xFFFF_FFFF_F000_0000, Machine.I386: 0xFE00_0000}
_UNDEFINED_STRIDE = 16

# type → (bytes written, relative to the place)
_RELOCATION_KINDS = {
    Machine.X86_64: {1: (8, False), 2: (4, True), 4: (4, True), 10: (4, False), 11: (4, False), 24: (8, True)},
    Machine.I386: {1: (4, False), 2: (4, True), 4: (4, True)},
}
# Code and data that the loader drops or never maps.
_METADATA_TYPES = (4, 9)  # SHT_RELA, SHT_REL


@dataclass(frozen=True, eq=False)
class _Relocations:
    """All relocations of all modules: places and values in the program's buffer and address space."""

    place: NDArray[np.int64]  # bytes into the buffer
    address: NDArray[np.uint64]  # link address of the place
    symbol: NDArray[np.int64]  # index into all modules' symbols
    addend: NDArray[np.int64]
    type: NDArray[np.uint32]


def link(images: Sequence[Image]) -> Program:
    """Link `images[0]` (a kernel or an executable) with modules into one program.

    Raises InputError for a module of another machine or a relocation that stackfit does not know. A module
    built for another kernel release is linked and warned about.
    """
    base, modules = images[0], list(images[1:])
    for module in modules:
        if module.kind is not ImageKind.MODULE:
            raise InputError(module.path, "is not a kernel module (a relocatable object)")
        if module.machine is not base.machine:
            raise InputError(
                module.path, f"is for {module.machine.value}, the kernel {base.path} for {base.machine.value}"
            )
    if base.kind is ImageKind.MODULE:
        modules = [base, *modules]
        base = None  # type: ignore[assignment]
    if not modules:
        return Program(tuple(images), {})
    machine = modules[0].machine
    warnings = _release_warnings(base, modules)
    buffer, laid_out = _lay_out(modules, machine)
    symbols = [_absolute(module, sections) for module, (sections, _) in zip(modules, laid_out, strict=True)]
    first_symbol = np.cumsum([0] + [len(table) for table in symbols])
    values = np.concatenate([table.records["address"] for table in symbols])
    undefined = np.concatenate([table.records["section"] == -2 for table in symbols])
    relocations = _collect(modules, laid_out, first_symbol, machine)

    known = ~undefined[relocations.symbol]
    _apply(buffer, relocations, values, known, machine)
    linked = [
        replace(
            module,
            sections=tuple(
                replace(section, data=buffer[start : start + section.data.size]) if start >= 0 else section
                for section, start in zip(sections, starts, strict=True)
            ),
            symbols=table,
        )
        for module, (sections, starts), table in zip(modules, laid_out, symbols, strict=True)
    ]
    exports = _exports(base) if base is not None else {}
    for module in linked:
        for name, address in _exports(module).items():
            exports.setdefault(name, address)
    missing: dict[str, int] = {}
    names = [name for table in symbols for name in table.names]
    for index in np.flatnonzero(undefined).tolist():
        name = names[index]
        address = exports.get(name)
        if address is None:
            address = missing.setdefault(name, _UNDEFINED_BASE[machine] + _UNDEFINED_STRIDE * len(missing))
        values[index] = address
    _apply(buffer, relocations, values, ~known, machine)
    return Program(
        images=(base, *linked) if base is not None else tuple(linked),
        undefined={address: name for name, address in missing.items() if name},
        warnings=tuple(warnings),
    )


def _release_warnings(base: Image | None, modules: list[Image]) -> list[str]:
    if base is None or base.release is None:
        return []
    return [
        f"{module.path}: built for {module.release}, the kernel is {base.release}"
        for module in modules
        if module.release is not None and module.release != base.release
    ]


def _lay_out(modules: list[Image], machine: Machine) -> tuple[Bytes, list[tuple[tuple[Section, ...], list[int]]]]:
    """Give every allocated section an address and a place in one buffer (-1: not loaded)."""
    laid_out: list[tuple[tuple[Section, ...], list[int]]] = []
    pieces: list[tuple[int, Bytes]] = []
    size = 0
    for module in modules:
        sections: list[Section] = []
        starts: list[int] = []
        for section in module.sections:
            if not section.allocated:
                sections.append(section)
                starts.append(-1)
                continue
            size = (size + 63) & ~63
            sections.append(replace(section, address=_MODULE_BASE[machine] + size))
            starts.append(size)
            if section.data.size:
                pieces.append((size, section.data))
            # One byte at least, so that the end of a section is not the start of the next.
            size += max(section.size, 1)
        size = (size + _PAGE - 1) & ~(_PAGE - 1)
        laid_out.append((tuple(sections), starts))
        if size > _UNDEFINED_BASE[machine] - _MODULE_BASE[machine]:
            raise InputError(module.path, "modules are larger than the address range for them")
    buffer = np.zeros(size, np.uint8)
    for start, data in pieces:
        buffer[start : start + data.size] = data
    return buffer, laid_out


def _absolute(module: Image, sections: tuple[Section, ...]) -> Symbols:
    """The module's symbols at their final addresses."""
    records = module.symbols.records.copy()
    addresses = np.array([section.address if section.allocated else 0 for section in sections], np.uint64)
    inside = records["section"] >= 0
    if len(records):
        records["address"][inside] += addresses[records["section"][inside]]
    return Symbols(module.symbols.names, records)


def _collect(
    modules: list[Image],
    laid_out: list[tuple[tuple[Section, ...], list[int]]],
    first_symbol: NDArray[np.int64],
    machine: Machine,
) -> _Relocations:
    kinds = _RELOCATION_KINDS[machine]
    tables: list[NDArray[np.void]] = []
    places: list[NDArray[np.int64]] = []
    firsts: list[tuple[int, int]] = []
    implicit: list[bool] = []
    for number, (module, (_, starts)) in enumerate(zip(modules, laid_out, strict=True)):
        rel_targets = {section.info for section in module.sections if section.type == 9}
        for target, table in module.relocations.items():
            start = starts[target]
            if start < 0 or not len(table):
                continue
            limit = module.sections[target].data.size
            if int(table["offset"].max()) + 4 > limit:
                raise InputError(module.path, f"a relocation lies outside {module.sections[target].name}")
            tables.append(table)
            places.append(table["offset"].astype(np.int64) + start)
            firsts.append((int(first_symbol[number]), len(table)))
            implicit.append(target in rel_targets)
        unknown = {int(kind) for table in module.relocations.values() for kind in np.unique(table["type"])} - {0, *kinds}
        if unknown:
            raise InputError(module.path, f"relocation type {min(unknown)} is not known for {machine.value}")
    if not tables:
        empty = np.empty(0, np.int64)
        return _Relocations(empty, empty.astype(np.uint64), empty, empty, empty.astype(np.uint32))
    table = np.concatenate(tables)
    place = np.concatenate(places)
    first = np.repeat([first for first, _ in firsts], [count for _, count in firsts])
    return _Relocations(
        place=place,
        address=place.astype(np.uint64) + np.uint64(_MODULE_BASE[machine]),
        symbol=table["symbol"].astype(np.int64) + first,
        addend=table["addend"].astype(np.int64),
        type=table["type"],
    )


def _apply(
    buffer: Bytes, relocations: _Relocations, values: NDArray[np.uint64], chosen: NDArray[np.bool_], machine: Machine
) -> None:
    """Write symbol + addend (− place) at every chosen place; i386 keeps the addend in the place itself."""
    for kind, (size, relative) in _RELOCATION_KINDS[machine].items():
        pick = np.flatnonzero(chosen & (relocations.type == kind))
        if not pick.size:
            continue
        place = relocations.place[pick]
        if int(place.max()) + size > buffer.size:
            raise InputError("module", "a relocation reaches beyond its section")
        value = values[relocations.symbol[pick]] + relocations.addend[pick].astype(np.uint64)
        if machine is Machine.I386:  # SHT_REL
            for byte in range(4):
                value += buffer[place + byte].astype(np.uint64) << np.uint64(8 * byte)
        if relative:
            value -= relocations.address[pick]
        for byte in range(size):
            buffer[place + byte] = (value >> np.uint64(8 * byte)).astype(np.uint8)


def _exports(image: Image) -> dict[str, int]:
    """Exported symbols by name (`include/linux/export.h`, `kernel/module/internal.h`).

    Both forms of `struct kernel_symbol`: three 32-bit self-relative offsets (value, name, namespace), or
    absolute pointers where the architecture has no relative ones.
    """
    strings = image.section("__ksymtab_strings")
    if strings is None:
        return {}
    text = strings.data.tobytes()
    exports: dict[str, int] = {}
    mask = 0xFFFF_FFFF if image.machine is Machine.I386 else 0xFFFF_FFFF_FFFF_FFFF
    for section in image.sections:
        if not section.name.startswith("__ksymtab") or section is strings or section.data.size < 8:
            continue
        for value, name in _kernel_symbols(section, strings, image.machine, mask):
            at = name - strings.address
            if 0 <= at < len(text):
                exports[text[at : text.find(b"\0", at)].decode("utf-8", "replace")] = value
    return exports


def _kernel_symbols(section: Section, strings: Section, machine: Machine, mask: int) -> list[tuple[int, int]]:
    """(value, name address) of every entry of one `__ksymtab*` section."""
    words = np.frombuffer(section.data[: section.data.size & ~3].tobytes(), "<i4").astype(np.uint64)
    places = np.uint64(section.address) + np.uint64(4) * np.arange(words.size, dtype=np.uint64)
    targets = (places + words) & np.uint64(mask)
    for fields in (3, 2):  # with and without a namespace (5.3)
        if words.size % fields == 0:
            table = targets.reshape(-1, fields)
            if bool(((table[:, 1] >= strings.address) & (table[:, 1] < strings.end)).all()):
                return list(zip(table[:, 0].tolist(), table[:, 1].tolist(), strict=True))
    word = machine.word
    pointers = np.frombuffer(section.data[: section.data.size - section.data.size % word].tobytes(), f"<u{word}")
    for fields in (3, 2):
        if pointers.size % fields == 0:
            table = pointers.reshape(-1, fields)
            if bool(((table[:, 1] >= strings.address) & (table[:, 1] < strings.end)).all()):
                return list(zip(table[:, 0].tolist(), table[:, 1].tolist(), strict=True))
    return []
