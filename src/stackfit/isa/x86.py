"""x86 code to effect arrays: drives the compiled decoder and owns its buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.isa.effects import Instructions
from stackfit.isa.x86_decode import MAPS, decode_into, find_starts

__all__ = ["FIELDS", "decode", "rows_at_offsets"]

# Fields of `Instructions` in the order in which decode_into() takes their arrays.
FIELDS: tuple[tuple[str, type[np.generic]], ...] = (
    ("offset", np.uint32),
    ("length", np.uint16),
    ("operation", np.uint8),
    ("width", np.uint8),
    ("register", np.uint8),
    ("base", np.uint8),
    ("index", np.uint8),
    ("scale", np.uint8),
    ("flags", np.uint8),
    ("clobbers", np.uint16),
    ("displacement", np.int32),
    ("immediate", np.int64),
)


def decode(code: NDArray[np.uint8], bits64: bool, starts: NDArray[np.uint32]) -> Instructions:
    """Decode a piece of code (at most 4 GiB) from its first byte to its last.

    `starts`: ascending offsets (bytes) at which instructions begin for certain: decoding starts afresh there.
    """
    code = np.ascontiguousarray(code)
    starts = np.ascontiguousarray(starts, np.uint32)
    capacity = code.size // 4 + 64  # kernels average 5.4 bytes an instruction once int3 runs are collapsed
    arrays: dict[str, NDArray[Any]] = {name: np.empty(capacity, kind) for name, kind in FIELDS}
    position = count = 0
    while position < code.size:
        # As memoryviews, whose items are plain integers when the decoder runs uncompiled.
        outputs = [array.data for array in arrays.values()]
        position, count = decode_into(code.data, bits64, position, count, starts.data, MAPS.data, *outputs)
        if position < code.size:
            more = max(64, (code.size - position) // 2)
            arrays = {
                name: np.concatenate([array, np.empty(more, array.dtype)]) for name, array in arrays.items()
            }
    return Instructions(**{name: array[:count] for name, array in arrays.items()})


def rows_at_offsets(starts: NDArray[np.uint32], offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """Rows of the instructions that start at these offsets (bytes), -1 where none does; `starts` ascend."""
    rows = np.empty(offsets.size, np.int32)
    blocks = np.empty((int(starts[-1]) >> 4) + 1 if starts.size else 0, np.int32)
    find_starts(starts.data, offsets.data, blocks.data, rows.data)
    return rows
