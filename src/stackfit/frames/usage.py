"""Frames held against what the compiler itself said of them: gcc's -fstack-usage, of the same build.

gcc writes a row for each function that it emits: place, name, bytes, and how sure these are: `static`;
`dynamic,bounded`, where the stack pointer also moves by amounts that gcc does not add up exactly (on i386,
pushed
arguments); `dynamic`, where it has no bound. The table is that of `stackfit lab build` (stack-usage.csv.xz).
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stackfit.frames.model import OPEN_FRAME, Frames
from stackfit.image.compression import compression_of, decompress
from stackfit.image.model import InputError, Program, Symbols
from stackfit.isa.code import Code

__all__ = [
    "KINDS", "UsageDifference", "UsageKind", "UsageRow", "UsageWitness", "named_places", "read_usage",
    "usage_witness",
]  # fmt: skip

KINDS = ("static", "dynamic,bounded", "dynamic")
_STT_FUNC, _STT_FILE = 2, 4
_NUMBERED = re.compile(r"\.\d+$")
_MOST_BYTES = 64 << 20  # of all rows of a kernel unpacked it is a few


@dataclass(frozen=True)
class UsageRow:
    """One function as a compiler emitted it. `unit`: the source that was compiled; `bytes`: with the return
    address; `source`: file and line that say so; `objects`: those of variable size, each with its place."""

    unit: str
    function: str
    bytes: int
    kind: str
    source: str = ""
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class UsageDifference:
    """A function whose frame is another. `function`: its index."""

    function: int
    row: UsageRow
    frame: int


@dataclass(frozen=True)
class UsageKind:
    """Rows of one kind. `compared`: with a frame; `equal`, `above`, `below`: the frame against gcc's
    bytes."""

    kind: str
    rows: int
    compared: int
    equal: int
    above: int
    below: int
    open: int  # rows whose function's frame has no bound here


@dataclass(frozen=True)
class UsageWitness:
    """`missing`: rows of functions that the image does not have (discarded by the linker, or inlined after
    all).
    `ambiguous`: rows that share file and name with others of another size. `pairs`: (function, row) of all
    others."""

    kinds: tuple[UsageKind, ...]
    missing: int
    ambiguous: int
    differences: tuple[UsageDifference, ...]
    pairs: tuple[tuple[int, UsageRow], ...] = ()


def read_usage(path: Path) -> list[UsageRow]:
    """The table of a build. InputError: it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if compression_of(data) == "xz":
            data = decompress(str(path), data, _MOST_BYTES)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            str(path), getattr(error, "strerror", None) or "not a table of stack usage"
        ) from None
    if len(data) > _MOST_BYTES:
        raise InputError(str(path), "too long for a table of stack usage")
    rows: list[UsageRow] = []
    reader = csv.DictReader(io.StringIO(text))
    try:
        for row in reader:
            if row["kind"] not in KINDS or not 0 <= int(row["bytes"]) < 1 << 31:
                raise ValueError
            unit = row["object"].rsplit("/", 1)[-1].removesuffix(".o") + ".c"
            rows.append(UsageRow(unit, row["function"], int(row["bytes"]), row["kind"]))
    except (AttributeError, KeyError, TypeError, ValueError, csv.Error):
        raise InputError(str(path), f"line {reader.line_num}: no row of stack usage") from None
    if not rows:
        raise InputError(str(path), "no row of stack usage in it")
    return rows


def usage_witness(program: Program, code: Code, frames: Frames, rows: Sequence[UsageRow]) -> UsageWitness:
    """Every row that names one function of the kernel image, or of objects, held against that function's
    compiler_frame."""
    places = named_places(program, code)
    grouped: dict[tuple[str, str], list[UsageRow]] = defaultdict(list)
    for row in rows:
        grouped[row.unit, row.function].append(row)
    # A global function is one of its name; a weak one that lost to it has another unit and no symbol.
    by_name = Counter(function for _, function in grouped)
    missing = ambiguous = 0
    pairs: list[tuple[int, UsageRow]] = []
    for (unit, function), group in grouped.items():
        found = places.get((unit, function), [])
        if not found and by_name[function] == 1:
            found = places.get(("", function), [])
        if not found:
            missing += len(group)
        elif len({(row.bytes, row.kind) for row in group}) > 1 or len(found) > len(group):
            ambiguous += len(group)
        else:
            missing += len(group) - len(found)
            pairs += zip(found, group, strict=False)
    opened = (frames.summary & OPEN_FRAME) != 0
    differences = [
        UsageDifference(function, row, int(frames.compiler_frame[function]))
        for function, row in pairs
        if not opened[function] and frames.compiler_frame[function] != row.bytes
    ]
    return UsageWitness(
        tuple(_kind(kind, rows, pairs, differences, opened) for kind in KINDS),
        missing, ambiguous, tuple(sorted(differences, key=lambda one: one.function)), tuple(pairs),
    )  # fmt: skip


def _kind(
    kind: str,
    rows: Iterable[UsageRow],
    pairs: Sequence[tuple[int, UsageRow]],
    differences: Sequence[UsageDifference],
    opened: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> UsageKind:
    mine = [function for function, row in pairs if row.kind == kind]
    other = [one for one in differences if one.row.kind == kind]
    closed = sum(not opened[function] for function in mine)
    above = sum(one.frame > one.row.bytes for one in other)
    return UsageKind(
        kind, sum(row.kind == kind for row in rows), closed, closed - len(other), above, len(other) - above,
        len(mine) - closed,
    )  # fmt: skip


def named_places(program: Program, code: Code) -> dict[tuple[str, str], list[int]]:
    """(compiled source, name as gcc has it) → functions of the kernel image, or of all objects that were not
    linked; global ones under no source."""
    functions = code.functions
    by_address = {
        int(functions.address[index]): index
        for index in range(len(functions))
        if (program.objects or not functions.image[index])
        and functions.parent[index] < 0
        and not functions.piece[index]
    }
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for image in program.images if program.objects else program.images[:1]:
        _add_places(image.symbols, by_address, places)
    return places


def _add_places(
    symbols: Symbols, by_address: dict[int, int], places: dict[tuple[str, str], list[int]]
) -> None:
    unit = ""
    kinds, values = symbols.records["type"].tolist(), symbols.records["address"].tolist()
    local = (symbols.records["binding"] == 0).tolist()
    shared = Counter(
        value for kind, value, own in zip(kinds, values, local, strict=True) if kind == _STT_FUNC and not own
    )
    for name, kind, value, own in zip(symbols.names, kinds, values, local, strict=True):
        if kind == _STT_FILE:
            unit = Path(name).name
            continue
        index = by_address.get(value)
        if index is None or kind != _STT_FUNC or (not own and shared[value] > 1):
            continue  # of several global names for one function, which one gcc compiled cannot be told
        # gcc numbers the copies that it makes of a function; the table has them without.
        key = unit if own else "", _NUMBERED.sub("", name)
        if index not in places[key]:
            places[key].append(index)
