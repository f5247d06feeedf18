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

from stackfit.image.model import (
    RELOCATION_DTYPE,
    Bytes,
    Image,
    ImageKind,
    InputError,
    Machine,
    Program,
    Section,
    Symbols,
)

__all__ = ["link"]

_PAGE = 4096
# Where modules go: behind the kernel's own addresses, within reach of a 32-bit displacement.
_MODULE_BASE = {Machine.X86_64: 0xFFFF_FFFF_C000_0000, Machine.I386: 0xD000_0000}
_UNDEFINED_BASE = {Machine.X86_64: 0xFFFF_FFFF_F000_0000, Machine.I386: 0xFE00_0000}
_UNDEFINED_STRIDE = 16
_MAXIMUM_NAME = 1024  # bytes; KSYM_NAME_LEN (include/linux/kallsyms.h) is 512
_UNDEFINED_SIZE = 0x100_0000  # bytes of addresses for unresolved symbols

# type → (bytes written, relative to the place)
_RELOCATION_KINDS = {
    Machine.X86_64: {
        1: (8, False),
        2: (4, True),
        4: (4, True),
        10: (4, False),
        11: (4, False),
        24: (8, True),
    },
    Machine.I386: {1: (4, False), 2: (4, True), 4: (4, True)},
}


@dataclass(frozen=True, eq=False)
class _Placed:
    """A module in the program's buffer and address space, its relocations not yet applied."""

    module: Image
    sections: tuple[Section, ...]  # at their final addresses; `data` of loaded ones lies in the buffer
    starts: list[int]  # bytes into the buffer, -1 for a section that is not loaded
    symbols: Symbols  # at their final addresses


@dataclass(frozen=True, eq=False)
class _Relocations:
    """All relocations of all modules: places and values in the program's buffer and address space."""

    place: NDArray[np.int64]  # bytes into the buffer
    symbol: NDArray[np.int64]  # index into all modules' symbols
    addend: NDArray[np.int64]
    type: NDArray[np.uint32]


def link(images: Sequence[Image]) -> Program:
    """Link `images[0]` (a kernel or an executable) with modules into one program.

    A relocatable object alone, or the first of several, counts as a module without a kernel. Raises
    InputError for a module of another machine or a relocation that stackfit does not know. A module built
    for another kernel release is linked and warned about.
    """
    base = images[0] if images[0].kind is not ImageKind.MODULE else None
    modules = list(images if base is None else images[1:])
    for module in modules:
        if module.kind is not ImageKind.MODULE:
            raise InputError(module.path, "is not a kernel module (a relocatable object)")
        if module.machine is not images[0].machine:
            raise InputError(
                module.path, f"is for {module.machine.value}, {images[0].path} for {images[0].machine.value}"
            )
    if not modules:
        return Program(tuple(images), {})
    machine = images[0].machine
    if machine not in _RELOCATION_KINDS:
        raise InputError(
            modules[0].path,
            f"a relocatable object for {machine.value}: only linked images of that machine are read",
        )
    buffer, placed = _place(modules, machine)
    first_symbol = np.cumsum([0] + [len(one.symbols) for one in placed])
    values = np.concatenate([one.symbols.records["address"] for one in placed])
    undefined = np.concatenate([one.symbols.records["section"] == -2 for one in placed])
    relocations = _collect(placed, first_symbol, machine)
    known = ~undefined[relocations.symbol]
    _apply(buffer, relocations, values, known, machine)
    linked = [replace(one.module, sections=one.sections, symbols=one.symbols) for one in placed]
    exports = _exports(base) if base is not None else {}
    for module in linked:
        for name, address in _exports(module).items():
            exports.setdefault(name, address)
    missing: dict[str, int] = {}
    bounds = first_symbol.tolist()
    for one, start, end in zip(placed, bounds, bounds[1:], strict=False):
        for number in np.flatnonzero(undefined[start:end]).tolist():
            name = one.symbols.names[number]
            if name in exports:
                values[start + number] = exports[name]
            else:
                own = _UNDEFINED_BASE[machine] + _UNDEFINED_STRIDE * len(missing)
                values[start + number] = missing.setdefault(name, own)
    if len(missing) * _UNDEFINED_STRIDE > _UNDEFINED_SIZE:
        raise InputError(modules[0].path, f"{len(missing)} undefined symbols in all modules")
    _apply(buffer, relocations, values, ~known, machine)
    return Program(
        images=(base, *linked) if base is not None else tuple(linked),
        undefined={address: name for name, address in missing.items() if name},
        warnings=tuple(_release_warnings(base, modules)),
    )


def _release_warnings(base: Image | None, modules: list[Image]) -> list[str]:
    if base is None or base.release is None:
        return []
    return [
        f"{module.path}: built for {module.release}, the kernel is {base.release}"
        for module in modules
        if module.release is not None and module.release != base.release
    ]


def _place(modules: list[Image], machine: Machine) -> tuple[Bytes, list[_Placed]]:
    """Give every allocated section an address and a place in one buffer, and copy it there."""
    base = _MODULE_BASE[machine]
    limit = _UNDEFINED_BASE[machine] - base
    all_starts: list[list[int]] = []
    size = 0
    for module in modules:
        starts: list[int] = []
        for section in module.sections:
            if not section.allocated:
                starts.append(-1)
                continue
            size = (size + 63) & ~63
            starts.append(size)
            # One byte at least, so that the end of a section is not the start of the next.
            size += max(section.size, 1)
        size = (size + _PAGE - 1) & ~(_PAGE - 1)
        all_starts.append(starts)
        if size > limit:
            raise InputError(
                module.path, f"modules are larger than the {limit >> 20} MiB of addresses for them"
            )
    buffer = np.zeros(size, np.uint8)
    placed: list[_Placed] = []
    for module, starts in zip(modules, all_starts, strict=True):
        sections = []
        for one, start in zip(module.sections, starts, strict=True):
            if start < 0:
                sections.append(one)
                continue
            data = buffer[start : start + one.data.size]
            data[:] = one.data
            sections.append(
                Section(
                    one.name,
                    one.type,
                    one.flags,
                    base + start,
                    one.offset,
                    one.size,
                    one.link,
                    one.info,
                    one.entry_size,
                    data,
                )
            )
        placed.append(_Placed(module, tuple(sections), starts, _absolute(module, sections)))
    return buffer, placed


def _absolute(module: Image, sections: list[Section]) -> Symbols:
    """The module's symbols at their final addresses."""
    records = module.symbols.records.copy()
    addresses = np.array([section.address if section.allocated else 0 for section in sections], np.uint64)
    inside = records["section"] >= 0
    records["address"][inside] += addresses[records["section"][inside]]
    return Symbols(module.symbols.names, records)


def _collect(placed: list[_Placed], first_symbol: NDArray[np.int64], machine: Machine) -> _Relocations:
    """All modules' relocations in one table, checked."""
    tables: list[NDArray[np.void]] = []
    rows: list[tuple[int, int, int, int, int]] = []  # of each table: size, start, limit, first symbol, module
    for number, one in enumerate(placed):
        for target, table in one.module.relocations.items():
            if one.starts[target] >= 0 and len(table):
                tables.append(table)
                size_of = one.sections[target].data.size
                rows.append((len(table), one.starts[target], size_of, int(first_symbol[number]), number))
    size, start, limit, first, owner = np.array(rows, np.int64).reshape(-1, 5).T
    whole = np.empty(int(size.sum()), RELOCATION_DTYPE)
    at = 0
    for table in tables:
        whole[at : at + len(table)] = table
        at += len(table)
    widths = np.full(max(_RELOCATION_KINDS[machine]) + 2, -1, np.int64)
    widths[0] = 0  # R_*_NONE
    for kind, (width, _) in _RELOCATION_KINDS[machine].items():
        widths[kind] = width
    width_of = widths[np.minimum(whole["type"], len(widths) - 1)]
    number_of = np.repeat(np.arange(len(tables)), size)
    offset = whole["offset"].astype(np.int64)
    for wrong in np.flatnonzero(width_of < 0)[:1].tolist():
        path = placed[int(owner[number_of[wrong]])].module.path
        raise InputError(
            path, f"relocation type {int(whole['type'][wrong])} is not known for {machine.value}"
        )
    # The offsets lie in their sections already (image/elf.py); the last byte written has to as well.
    for wrong in np.flatnonzero((offset < 0) | (offset + width_of > limit[number_of]))[:1].tolist():
        path = placed[int(owner[number_of[wrong]])].module.path
        raise InputError(path, f"a relocation reaches beyond its section at {int(offset[wrong]):#x}")
    return _Relocations(
        place=offset + start[number_of],
        symbol=whole["symbol"].astype(np.int64) + first[number_of],
        addend=whole["addend"],
        type=whole["type"],
    )


def _apply(
    buffer: Bytes,
    relocations: _Relocations,
    values: NDArray[np.uint64],
    chosen: NDArray[np.bool_],
    machine: Machine,
) -> None:
    """Write symbol + addend (− place) at every chosen place; i386 keeps the addend in the place itself."""
    base = np.uint64(_MODULE_BASE[machine])
    for kind, (size, relative) in _RELOCATION_KINDS[machine].items():
        pick = np.flatnonzero(chosen & (relocations.type == kind))
        if not pick.size:
            continue
        place = relocations.place[pick]
        value = values[relocations.symbol[pick]] + relocations.addend[pick].astype(np.uint64)
        if machine is Machine.I386:  # SHT_REL
            for byte in range(4):
                value += buffer[place + byte].astype(np.uint64) << np.uint64(8 * byte)
        if relative:
            value -= place.astype(np.uint64) + base
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
    mask = image.machine.mask
    for section in image.sections:
        if not section.name.startswith("__ksymtab") or section is strings or section.data.size < 8:
            continue
        for value, name in _kernel_symbols(section, strings, image.machine, mask):
            at = name - strings.address
            end = text.find(b"\0", at, at + _MAXIMUM_NAME) if 0 <= at < len(text) else -1
            if end >= 0:
                exports[text[at:end].decode("latin-1")] = value
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
    pointers = np.frombuffer(
        section.data[: section.data.size - section.data.size % word].tobytes(), f"<u{word}"
    )
    for fields in (3, 2):
        if pointers.size % fields == 0:
            table = pointers.reshape(-1, fields)
            if bool(((table[:, 1] >= strings.address) & (table[:, 1] < strings.end)).all()):
                return list(zip(table[:, 0].tolist(), table[:, 1].tolist(), strict=True))
    return []
