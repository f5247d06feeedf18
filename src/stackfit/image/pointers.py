"""Code addresses that stand in a program's data.

From relocations where the image keeps them, from the KASLR table of a packed kernel where not: both list
every absolute pointer. Tables that describe code (ORC, bug, mcount …) use self-relative offsets on x86-64;
those that hold pointers point to where instructions start all the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Image, Program

__all__ = ["code_pointers"]

# Lists of places to patch: their pointers say where instructions are, not where control goes.
_PATCH_LISTS = (".parainstructions", ".smp_locks", "__mcount_loc", "__patchable_function_entries")


def code_pointers(program: Program) -> NDArray[np.uint64]:
    """All distinct code addresses found in data that is not itself code: ascending uint64."""
    found = [np.empty(0, np.uint64)]
    ranges = [
        (section.address, section.end)
        for image in program.images
        for section in image.sections
        if section.executable and section.allocated
    ]
    starts = np.array([start for start, _ in sorted(ranges)], np.uint64)
    ends = np.array([end for _, end in sorted(ranges)], np.uint64)
    for image in program.images:
        values = _pointer_values(image)
        if starts.size and values.size:
            index = np.searchsorted(starts, values, "right") - 1
            found.append(values[(index >= 0) & (values < ends[np.maximum(index, 0)])])
    return np.unique(np.concatenate(found))


def _pointer_values(image: Image) -> NDArray[np.uint64]:
    word = image.machine.word
    absolute = 1  # R_X86_64_64 and R_386_32
    parts = [np.empty(0, np.uint64)]
    for index, section in enumerate(image.sections):
        if not section.allocated or section.executable or section.data.size < word or section.name in _PATCH_LISTS:
            continue
        if image.pointers.size:
            places = image.pointers[(image.pointers >= section.address) & (image.pointers < section.end)]
            offset = places - np.uint64(section.address)
        elif index in image.relocations:
            table = image.relocations[index]
            offset = table["offset"][table["type"] == absolute]
        else:
            continue
        offset = offset[offset <= section.data.size - word].astype(np.int64)
        value = np.zeros(offset.shape, np.uint64)
        for byte in range(word):
            value |= section.data[offset + byte].astype(np.uint64) << np.uint64(8 * byte)
        parts.append(value)
    return np.concatenate(parts)
