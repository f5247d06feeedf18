"""Code addresses that stand in a program's data.

From relocations where the image keeps them, from the KASLR table of a packed kernel where not: both list
every absolute pointer. An image that has neither was linked for one address: there every word of its data
that is a code address counts as one. Tables that describe code (ORC, bug, mcount …) use self-relative offsets
on x86-64; those that hold pointers point to where instructions start all the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, ImageKind, Machine, Program, Section

__all__ = [
    "METADATA",
    "PATCH_LISTS",
    "absolute_targets",
    "code_pointers",
    "distinct",
    "relative_targets",
    "rising_lists",
]

# Pointers in these sections describe code and are not taken by the program itself.
METADATA = (
    "__bug_table",
    ".orc_",
    "__ex_table",
    ".altinstructions",
    "__jump_table",
    ".smp_locks",
    ".return_sites",
    ".retpoline_sites",
    ".static_call_sites",
    ".parainstructions",
    ".discard",
    "__kcrctab",
)
# Lists of places to patch: their pointers say where instructions are, not where control goes.
PATCH_LISTS = (".parainstructions", ".smp_locks", "__mcount_loc", "__patchable_function_entries")


def distinct(addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each address once, ascending. A sort beats numpy.unique's hash table on what is half sorted."""
    ordered = np.sort(addresses)
    keep = np.ones(ordered.size, np.bool_)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]


def code_pointers(program: Program) -> NDArray[np.uint64]:
    """All distinct code addresses found in data that is not itself code: ascending uint64."""
    ranges = sorted(
        (section.address, section.end)
        for image in program.images
        for section in image.sections
        if section.executable and section.allocated
    )
    if not ranges:
        return np.empty(0, np.uint64)
    starts = np.array([start for start, _ in ranges], np.uint64)
    ends = np.array([end for _, end in ranges], np.uint64)
    found = [
        _listed_targets(image, section)
        if image.pointers.size
        else absolute_targets(image, index)
        if index in image.relocations
        else _words(section, image.machine.word)
        for image in program.images
        for index, section in enumerate(image.sections)
        if (image.pointers.size or index in image.relocations or _fixed(image))
        and section.allocated
        and not section.executable
        and section.name not in PATCH_LISTS
    ]
    if not program.machine.x86:
        found = [_without_lists(values, starts, ends) for values in found]
    values = distinct(np.concatenate([np.empty(0, np.uint64), *found]))
    return values[_within(values, starts, ends)]


def _within(
    values: NDArray[np.uint64], starts: NDArray[np.uint64], ends: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    index = np.searchsorted(starts, values, "right") - 1
    return np.asarray((index >= 0) & (values < ends[np.maximum(index, 0)]), np.bool_)


def _without_lists(
    values: NDArray[np.uint64], starts: NDArray[np.uint64], ends: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """What stands side by side in a section, without sorted lists of places to patch that have no section of
    their own (`__mcount_loc`, scripts/sorttable.c)."""
    return values[~rising_lists(values, _within(values, starts, ends))]


def rising_lists(values: NDArray[np.uint64], code: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of these words, some of them addresses of code, are in long runs of ever greater ones."""
    follows = np.zeros(values.size, np.bool_)
    follows[1:] = code[1:] & code[:-1] & (values[1:] > values[:-1])
    first = np.flatnonzero(~follows)
    length = np.diff(np.append(first, values.size))
    return np.repeat(length >= _LONG_LIST, length)


_LONG_LIST = 512  # rising addresses in a row: switch tables of such a length are not sorted by chance


def _fixed(image: Image) -> bool:
    """Whether nothing says where its pointers are: a kernel without KASLR, linked for one address."""
    return image.kind is not ImageKind.MODULE and not image.pointers.size and not image.relocations


def _words(section: Section, width: int) -> NDArray[np.uint64]:
    """Every aligned word of a section; tables that describe code aside."""
    if section.name.startswith(METADATA):
        return np.empty(0, np.uint64)
    skip = -section.address % width
    size = (section.data.size - skip) // width * width
    if size <= 0:
        return np.empty(0, np.uint64)
    return np.asarray(section.data[skip : skip + size].view(f"<u{width}"), np.uint64)


def absolute_targets(image: Image, index: int) -> NDArray[np.uint64]:
    """Addresses that stand in section `index` where its relocations put absolute ones (they are applied)."""
    section, table = image.sections[index], image.relocations[index]
    parts = [np.empty(0, np.uint64)]
    for kind, form in _ABSOLUTE[image.machine].items():
        chosen = table["type"] == kind
        if chosen.any():
            parts.append(_values_at(section, table["offset"][chosen], form))
    return np.concatenate(parts)


# Relocation type → the form of the address it writes: R_386_32; R_X86_64_64, R_X86_64_32, R_X86_64_32S.
# R_ARM_ABS32; R_AARCH64_ABS64; R_RISCV_32, R_RISCV_64.
_ABSOLUTE = {
    Machine.I386: {1: "<u4"},
    Machine.X86_64: {1: "<u8", 10: "<u4", 11: "<i4"},
    Machine.ARM: {2: "<u4"},
    Machine.AARCH64: {257: "<u8"},
    Machine.RISCV32: {1: "<u4"},
    Machine.RISCV64: {1: "<u4", 2: "<u8"},
}


def _listed_targets(image: Image, section: Section) -> NDArray[np.uint64]:
    """Addresses at the section's places that the image's own relocation table lists."""
    inside = (image.pointers >= section.address) & (
        image.pointers - np.uint64(section.address) < section.size
    )
    return _values_at(section, image.pointers[inside] - np.uint64(section.address), f"<u{image.machine.word}")


def _values_at(section: Section, offsets: NDArray[np.uint64], form: str) -> NDArray[np.uint64]:
    """Numbers of that form at these offsets (bytes) of a section; offsets beyond its data are left out."""
    width = np.dtype(form).itemsize
    if section.data.size < width:
        return np.empty(0, np.uint64)
    offsets = offsets[offsets <= section.data.size - width]
    places = offsets.astype(np.int64)[:, None] + np.arange(width)
    return np.asarray(section.data[places].view(form).ravel(), np.uint64)


def relative_targets(program: Program, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Which of these entries of functions (ascending) stand in tables of 32-bit offsets from their own place,
    as a linked kernel's initcalls do (include/linux/init.h: CONFIG_HAVE_ARCH_PREL32_RELOCATIONS).

    No relocation tells of them in a linked image. One word may be such an offset by chance; two side by side
    are taken for a table. Tables that describe code are left out, so are exported symbols: what looks those
    up by name is given what it finds.
    """
    found = [np.empty(0, np.uint64)]
    for image in program.images:
        for section in image.sections:
            skipped = section.name.startswith((*METADATA, *PATCH_LISTS, "__ksymtab", ".BTF"))
            if not section.allocated or section.executable or skipped or not entries.size:
                continue
            words = section.data[: section.data.size // 4 * 4].view("<i4").astype(np.int64)
            places = np.uint64(section.address) + np.arange(0, 4 * words.size, 4, dtype=np.uint64)
            targets = places + words.view(np.uint64)
            hit = entries[np.minimum(np.searchsorted(entries, targets), entries.size - 1)] == targets
            beside = np.zeros(hit.size, np.bool_)
            beside[1:] |= hit[:-1]
            beside[:-1] |= hit[1:]
            found.append(targets[hit & beside])
    return distinct(np.concatenate(found))
