"""Images to one program: modules get addresses, their relocations are applied, their symbols resolved.

As `kernel/module/main.c` does at load time: undefined symbols are looked up among the exports
(`__ksymtab*`) of the kernel and of the other modules. Relocatable objects that are no modules (members of
archives) see each other's global symbols, as a linker has them: a weak definition gives way to another. What
nobody defines gets an address of its own in `Program.undefined`, so that a call to it stays visible and open.

Relocation types: System V ABI AMD64 supplement table 4.9, i386 supplement table 4.1; image/relocate.py has
the other machines'.
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
from stackfit.image.relocate import Overflow, apply_relocations, later_types, relocation_sizes

__all__ = ["link"]

_PAGE = 4096
# Where modules go: behind the kernel's own addresses, within reach of a 32-bit displacement.
_MODULE_BASE = {Machine.X86_64: 0xFFFF_FFFF_C000_0000, Machine.I386: 0xD000_0000}
_UNDEFINED_BASE = {Machine.X86_64: 0xFFFF_FFFF_F000_0000, Machine.I386: 0xFE00_0000}
# Objects of other machines: any place that an absolute address of 31 bits reaches. What is undefined follows
# them, within reach of a call.
_OBJECT_BASE = 0x1000_0000
_MOST_OBJECTS = 0x4000_0000  # bytes
_COMMON_BINDINGS = (1, 2, 10)  # STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE
_WEAK = 2
_BEHIND_KERNEL = (Machine.AARCH64, Machine.RISCV64)
_MODULE_ALIGNMENT = 2 << 20
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
    owner: NDArray[np.int32]  # index of the module


def link(images: Sequence[Image]) -> Program:
    """Link `images[0]` (a kernel or an executable) with modules into one program.

    A relocatable object alone, or the first of several, counts as a module without a kernel. Raises
    InputError for a module of another machine or a relocation that stackfit does not know, and for one whose
    place does not reach what it names. A module built for another kernel release is linked and warned about.
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
    kernel = base is not None and base.kind is ImageKind.KERNEL and machine in _BEHIND_KERNEL
    if not machine.x86 and base is not None and not kernel:
        raise InputError(
            modules[0].path,
            f"is a relocatable object and {base.path} is linked: give it alone, or with other objects",
        )
    origin = _behind(base) if base is not None and kernel else _MODULE_BASE.get(machine, _OBJECT_BASE)
    buffer, placed, undefined_base = _place(modules, machine, origin)
    first_symbol = np.cumsum([0] + [len(one.symbols) for one in placed])
    values = np.concatenate([one.symbols.records["address"] for one in placed])
    undefined = np.concatenate([one.symbols.records["section"] == -2 for one in placed])
    relocations = _collect(placed, first_symbol, machine)
    thumb = np.concatenate([_thumb(one) for one in placed]) if machine is Machine.ARM else undefined & False
    defined = _definitions(placed)
    _overrule_weak(placed, defined, values, thumb)
    known = ~undefined[relocations.symbol]
    if not machine.x86:
        known &= ~np.isin(relocations.type, later_types(machine))
    _apply(modules, buffer, relocations, values, thumb, known, machine, origin)
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
            elif name in defined:
                values[start + number] = values[defined[name]]
                thumb[start + number] = thumb[defined[name]]
            else:
                own = undefined_base + _UNDEFINED_STRIDE * len(missing)
                values[start + number] = missing.setdefault(name, own)
    if len(missing) * _UNDEFINED_STRIDE > _UNDEFINED_SIZE:
        raise InputError(modules[0].path, f"{len(missing)} undefined symbols in all modules")
    _apply(modules, buffer, relocations, values, thumb, ~known, machine, origin)
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


def _behind(kernel: Image) -> int:
    """Where modules can go: calls reach 128 MiB on arm64 (arch/arm64/kernel/kaslr.c), 2 GiB on RISC-V."""
    end = max(section.end for section in kernel.sections if section.allocated)
    return (end + _MODULE_ALIGNMENT - 1) & -_MODULE_ALIGNMENT


def _place(modules: list[Image], machine: Machine, base: int) -> tuple[Bytes, list[_Placed], int]:
    """Give every allocated section an address and a place in one buffer, and copy it there.

    Returns the first address for what is undefined, too.
    """
    if machine in _UNDEFINED_BASE:
        limit = _UNDEFINED_BASE[machine] - base
    else:
        limit = min(_MOST_OBJECTS, machine.mask - base - _UNDEFINED_SIZE)
    if limit <= 0:
        raise InputError(
            modules[0].path, f"no addresses are left for modules behind the kernel, from {base:#x}"
        )
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
        if machine.x86:
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
    return buffer, placed, _UNDEFINED_BASE.get(machine, base + (size + _PAGE - 1 & ~(_PAGE - 1)))


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
    if machine.x86:
        known = {0: 0, **{kind: width for kind, (width, _) in _RELOCATION_KINDS[machine].items()}}  # R_*_NONE
    else:
        known = relocation_sizes(machine)
    widths = np.full(max(known) + 2, -1, np.int64)
    for kind, width in known.items():
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
        owner=owner[number_of].astype(np.int32),
    )


def _definitions(placed: list[_Placed]) -> dict[str, int]:
    """Global symbols of the objects that are no kernel modules, by name: their index among all objects'
    symbols. Of several the first that is not weak (gABI, "Symbol binding")."""
    found: dict[str, tuple[bool, int]] = {}
    first = 0
    for one in placed:
        records = one.symbols.records
        if not one.module.modinfo:
            chosen = (records["section"] != -2) & np.isin(records["binding"], _COMMON_BINDINGS)
            for number in np.flatnonzero(chosen).tolist():
                entry = int(records["binding"][number]) == _WEAK, first + number
                name = one.symbols.names[number]
                found[name] = min(found.get(name, entry), entry)
        first += len(records)
    return {name: index for name, (_, index) in found.items()}


def _overrule_weak(
    placed: list[_Placed], defined: dict[str, int], values: NDArray[np.uint64], thumb: NDArray[np.bool_]
) -> None:
    """References to a weak definition lead to the one that is not weak, where there is such a one."""
    first = 0
    for one in placed:
        records = one.symbols.records
        if not one.module.modinfo:
            for number in np.flatnonzero((records["section"] >= 0) & (records["binding"] == _WEAK)).tolist():
                chosen = defined[one.symbols.names[number]]
                values[first + number], thumb[first + number] = values[chosen], thumb[chosen]
        first += len(records)


def _thumb(one: _Placed) -> NDArray[np.bool_]:
    """Which of a module's symbols are functions in T32 code: the last mapping symbol at or before each says
    so (AAELF32, 5.5.5)."""
    records = one.symbols.records
    place = records["section"].astype(np.int64) << 32 | records["address"].astype(np.int64)
    marks = [number for number, name in enumerate(one.symbols.names) if name[:2] in ("$a", "$t", "$d")]
    if not marks:
        return np.zeros(len(records), np.bool_)
    marks.sort(key=lambda number: int(place[number]))
    is_thumb = np.array([one.symbols.names[number][1] == "t" for number in marks], np.bool_)
    before = np.searchsorted(place[marks], place, "right") - 1
    same = records["section"][marks][np.maximum(before, 0)] == records["section"]
    return np.asarray(
        (records["type"] == 2) & (records["section"] >= 0) & (before >= 0) & same & is_thumb[before], np.bool_
    )


def _apply(
    modules: list[Image],
    buffer: Bytes,
    relocations: _Relocations,
    values: NDArray[np.uint64],
    thumb: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    machine: Machine,
    base: int,
) -> None:
    """Write symbol + addend (− place) at every chosen place; i386 keeps the addend in the place itself.

    `base`: the buffer's address.
    """
    if not machine.x86:
        symbol = relocations.symbol
        try:
            signed = base - (base >> 63 << 64)
            apply_relocations(
                buffer, signed, machine, relocations.place, relocations.type, values[symbol],
                relocations.addend, thumb[symbol], chosen,
            )  # fmt: skip
        except Overflow as error:
            path = modules[int(relocations.owner[error.index])].path
            raise InputError(path, f"a relocation {error.cause}") from None
        return
    origin = np.uint64(base)
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
            value -= place.astype(np.uint64) + origin
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
