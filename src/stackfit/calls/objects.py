"""Pointers to functions that stand in a program's data: where each is, and in a field of what.

Which type an object has is told by the code that hands its address to a typed parameter or stores it in a
typed field, by a typed object that points to it, and, where nothing does, by its *shape*: the structs of its
size whose function-pointer fields take exactly the functions that stand there. Tables of pointers and single
pointers have no struct: only code that names their address reaches them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.static_calls import STATIC_CALL_PREFIX
from stackfit.calls.types import PER_CPU, Field, TypeLayout
from stackfit.image.btf import Kind
from stackfit.image.functions import Functions
from stackfit.image.model import Image, Program, Section
from stackfit.image.pointers import METADATA, PATCH_LISTS

__all__ = ["Data", "Placed", "callable_functions", "place_functions", "read_data", "with_objects"]

_MOST_SHAPES = 16  # more structs than that fit an object: its shape tells nothing
# Chosen on the 6.1 kernel: no table of functions is that long, no array of structs longer than that, and
# symbols are at most a cache line apart from the end of the object before.
_LONG_LIST = 512  # pointers
_MOST_ELEMENTS = 1 << 12
_SLACK = 64  # bytes


@dataclass(frozen=True, eq=False)
class Data:
    """Pointers in data, by ascending place. `start`, `end`: the object that a place lies in, by the symbols.

    `function`: index of the function whose entry is pointed to, else -1. `constant`: never written to.
    """

    place: NDArray[np.int64]
    value: NDArray[np.int64]
    function: NDArray[np.int32]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    constant: NDArray[np.bool_]
    bounds: NDArray[np.int64]  # where symbols and sections begin or end, ascending

    def between(self, start: int, end: int) -> range:
        return range(bisect_left(self.place, start), bisect_left(self.place, end))


@dataclass(frozen=True, eq=False)
class Placed:
    """What place_functions() made of Data.

    `fields`: row of Data → function that stands there, for each field in initialised data; `kept`: rows of
    Data in members that are no function pointers; `loose`: rows that no type tells; `tables`: rows in tables
    of pointers and single pointers; `variables`: address → type of what lies there.
    """

    fields: dict[Field, dict[int, int]]
    kept: list[int]
    loose: list[int]
    tables: list[int]
    variables: dict[int, int]
    _placement: _Placement

    def fits(self, row: int, field: Field) -> bool:
        """Whether the object that a loose row lies in can be the struct, the row in that field of it."""
        return self._placement.fits(row, *field)


def read_data(program: Program, functions: Functions, debug: Image | None = None) -> Data:
    """All pointers in the data of a program, but those in tables that describe code. `debug`: a companion of
    the kernel; its symbols tell objects apart where the kernel's own name functions only."""
    machine = program.machine
    word, signed = machine.word, machine.signed
    places, values, starts, ends, constant, edges = [], [], [], [], [], []
    for image in program.images:
        symbols = _symbols(image)
        if debug is not None and image is program.images[0]:
            symbols = np.union1d(symbols, _symbols(debug))
        for index, section in enumerate(image.sections):
            if (
                not section.allocated
                or section.executable
                or section.name.startswith((*METADATA, *PATCH_LISTS))
            ):
                continue
            own = symbols[(symbols >= section.address) & (symbols < section.end)]
            bounds = np.concatenate([[section.address], own, [section.end]]).astype(np.uint64)
            edges.append(signed(bounds))
            at = _pointers(image, index)
            if not at.size:
                continue
            offsets = (at - np.uint64(section.address)).astype(np.int64)
            inside = offsets <= section.data.size - word
            at, offsets = at[inside], offsets[inside]
            places.append(signed(at))
            read = section.data[offsets[:, None] + np.arange(word)].view(f"<i{word}").ravel()
            values.append(read.astype(np.int64))
            row = np.searchsorted(bounds, at, "right") - 1
            starts.append(signed(bounds[row]))
            ends.append(signed(bounds[np.minimum(row + 1, bounds.size - 1)]))
            constant.append(_is_constant(image, section, at))
    empty = np.empty(0, np.int64)
    place = np.concatenate([empty, *places])
    order = np.argsort(place, kind="stable")
    value = np.concatenate([empty, *values])[order]
    found = functions.entered(value.view(np.uint64) & np.uint64(machine.mask))
    return Data(
        place=place[order],
        value=value,
        function=np.where((found >= 0) & callable_functions(functions)[found], found, -1).astype(np.int32),
        start=np.concatenate([empty, *starts])[order],
        end=np.concatenate([empty, *ends])[order],
        constant=np.concatenate([np.empty(0, np.bool_), *constant])[order],
        bounds=np.unique(np.concatenate([empty, *edges])),
    )


def with_objects(data: Data, objects: Iterable[tuple[int, int]]) -> Data:
    """The same pointers, where further objects are known: (start, end) of each."""
    bounds = np.unique(np.concatenate([data.bounds, np.array(list(objects), np.int64).ravel()]))
    row = np.searchsorted(bounds, data.place, "right") - 1
    begin, end = bounds[np.maximum(row, 0)], bounds[np.minimum(row + 1, len(bounds) - 1)]
    return replace(data, start=np.maximum(begin, data.start), end=np.minimum(end, data.end), bounds=bounds)


def callable_functions(functions: Functions) -> NDArray[np.bool_]:
    """Functions that a pointer can call: no pieces of others, no trampolines of static calls."""
    trampoline = np.array([name.startswith(STATIC_CALL_PREFIX) for name in functions.names], np.bool_)
    return np.asarray((functions.parent < 0) & ~functions.piece & ~trampoline, np.bool_)


def _pointers(image: Image, index: int) -> NDArray[np.uint64]:
    """Where a section holds absolute pointers."""
    section = image.sections[index]
    if image.pointers.size:
        # The table has per-CPU data where it is loaded, its section has it at 0 (arch/x86/tools/relocs.c).
        loaded = section.address
        if section.name == PER_CPU:
            loaded = _symbol(image, "__per_cpu_load", section.address)
        inside = (image.pointers >= loaded) & (image.pointers < loaded + section.size)
        return np.sort(image.pointers[inside]) - np.uint64(loaded - section.address)
    table = image.relocations.get(index)
    if table is None:
        return np.empty(0, np.uint64)
    # R_X86_64_64, R_386_32
    return np.sort(table["offset"][table["type"] == 1] + np.uint64(section.address))


def _is_constant(image: Image, section: Section, at: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether the kernel never writes there. Its .rodata is writable by the section's flags, for the
    variables that are so until the end of boot (include/asm-generic/vmlinux.lds.h: RO_AFTER_INIT_DATA)."""
    if not section.writable:
        return np.ones(at.size, np.bool_)
    if section.name != ".rodata":
        return np.zeros(at.size, np.bool_)
    start, end = (_symbol(image, f"__{side}_ro_after_init", 0) for side in ("start", "end"))
    if not section.address <= start <= end <= section.end:
        return np.zeros(at.size, np.bool_)
    return np.asarray((at < start) | (at >= end), np.bool_)


def _symbol(image: Image, name: str, otherwise: int) -> int:
    """A symbol's address."""
    for index, text in enumerate(image.symbols.names):
        if text == name:
            return int(image.symbols.records["address"][index])
    return otherwise


def _lists_code(data: Data, rows: range) -> bool:
    """Whether an object is a sorted list of places in code (`__mcount_loc` within a linked kernel), not a
    table of functions to call."""
    values = data.value[rows.start : rows.stop]
    return len(rows) >= _LONG_LIST and bool((values[1:] > values[:-1]).all())


def _symbols(image: Image) -> NDArray[np.uint64]:
    records = image.symbols.records
    return np.unique(records["address"][records["section"] >= 0])


def place_functions(
    data: Data, types: TypeLayout, functions: Functions, objects: Iterable[tuple[int, int]]
) -> Placed:
    """Put every function pointer in data into its field. `objects`: (address, type) that code tells."""
    per_cpu = zip(types.per_cpu_at.tolist(), types.per_cpu_type.tolist(), strict=True)
    return _Placement(data, types, functions).run((*objects, *per_cpu))


class _Placement:
    def __init__(self, data: Data, types: TypeLayout, functions: Functions) -> None:
        self._data, self._types = data, types
        self._fields = defaultdict[Field, dict[int, int]](dict)
        self._typed: set[tuple[int, int]] = set()
        self._attributed: set[int] = set()
        self._kept: set[int] = set()
        self._place, self._value = data.place.tolist(), data.value.tolist()
        self._function, self._start, self._end = (
            data.function.tolist(),
            data.start.tolist(),
            data.end.tolist(),
        )
        self._size, self._bounds = types.size.tolist(), data.bounds.tolist()
        self._aggregate = set(np.flatnonzero(np.isin(types.kind, (Kind.STRUCT, Kind.UNION))).tolist())
        self._code = set(np.flatnonzero(types.kind == Kind.FUNC_PROTO).tolist())
        # An array whose length its declaration leaves open: as many elements as there is room for.
        arrays = np.flatnonzero((types.kind == Kind.ARRAY) & (types.size == 0))
        self._open_arrays = dict(zip(arrays.tolist(), types.link[arrays].tolist(), strict=True))
        pointers = np.flatnonzero(types.kind == Kind.PTR)
        self._pointer = dict(zip(pointers.tolist(), types.link[pointers].tolist(), strict=True))
        self._objects: dict[int, int] = {}
        self._fitting: dict[tuple[int, int], bool] = {}
        self._by_prototype: dict[int, list[tuple[int, int]]] = {}  # (byte, struct) of its pointers

    def run(self, objects: Iterable[tuple[int, int]]) -> Placed:
        data = self._data
        self._spread(list(objects), told=True)
        rows = np.flatnonzero(data.function >= 0)
        loose, tables = list[int](), list[int]()
        shapes = self._types.function_pointers
        by_object = defaultdict[tuple[int, int], list[int]](list)
        for row in rows.tolist():
            by_object[int(data.start[row]), int(data.end[row])].append(row)
        found: list[tuple[int, int]] = []
        untyped = list[tuple[tuple[int, int], list[int]]]()
        for (start, end), members in by_object.items():
            members = [row for row in members if row not in self._attributed]
            if not members:
                continue
            fitting = self._shapes(shapes, start, end, members)
            if 0 < len(fitting) <= _MOST_SHAPES:
                found.extend((start, one) for one in fitting)
                table = all(self._function[row] >= 0 for row in data.between(start, end))
                if len(fitting) == 1 and not table:
                    self._objects.setdefault(start, fitting[0])
            else:
                untyped.append(((start, end), members))
        self._spread(found)
        for (start, end), members in untyped:
            members = [row for row in members if row not in self._attributed]
            inside = data.between(start, end)
            if _lists_code(data, inside):
                continue
            if members and all(self._function[row] >= 0 for row in inside):
                tables.extend(members)
            else:
                loose.extend(members)
        return Placed(dict(self._fields), sorted(self._kept), loose, tables, self._variables(), self)

    def _variables(self) -> dict[int, int]:
        """Objects of one type, and single pointers to them."""
        data = self._data
        # Not beyond the symbol that it lies in: what seems larger has another type.
        found = {
            one: goal for one, goal in self._objects.items() if one + self._size[goal] <= self._bound(one)
        }
        pointer_to = self._types.pointer_to
        # Symbols have no size here: what follows a pointer up to the next one may be padding.
        alone = np.ones(len(data.place), np.bool_)
        alone[1:] = data.start[1:] != data.start[:-1]
        alone[:-1] &= alone[1:]
        short = data.end - data.start < self._types.word + _SLACK
        single = np.flatnonzero(alone & short & (data.place == data.start) & (data.function < 0))
        for row in single.tolist():
            pointed = self._objects.get(self._value[row])
            if pointed in pointer_to and self._place[row] not in found:
                found[self._place[row]] = pointer_to[pointed]
        return found

    def _bound(self, address: int) -> int:
        """Where the symbol that an address lies in ends."""
        at = bisect_right(self._bounds, address)
        return self._bounds[at] if at < len(self._bounds) else address

    # ------------------------------------------------------------ types that are told

    def _spread(self, work: list[tuple[int, int]], told: bool = False) -> None:
        """Types of objects at addresses, and of what they point to.

        `told`: not by their shape. A function in a member that is no function pointer is where it is known
        to be then: what is read from there is unknown.
        """
        place, start, end = self._place, self._start, self._end
        aggregate, code, pointer = self._aggregate, self._code, self._pointer
        while work:
            address, type_id = work.pop()
            if type_id in self._open_arrays:
                type_id = self._open_arrays[type_id]
            size = self._size[type_id]
            if size <= 0 or (address, type_id) in self._typed:
                continue
            self._typed.add((address, type_id))
            if type_id in aggregate:
                self._objects.setdefault(address, type_id)
            row = bisect_left(place, address)
            if row >= len(place):
                continue
            limit = min(address + size, self._bound(address))
            if start[row] == address and type_id in aggregate:
                # As many of them as there is room for: an array.
                limit = address + max(min((end[row] - address) // size, _MOST_ELEMENTS), 1) * size
            while row < len(place) and place[row] < limit:
                leaf = self._types.leaf(type_id, (place[row] - address) % size)
                if leaf is not None:
                    goal = pointer.get(leaf[0], -1)
                    if self._function[row] >= 0:
                        if goal in code or leaf[0] == 0:
                            self._fields[leaf[1]][row] = self._function[row]
                            self._attributed.add(row)
                        elif told:
                            self._attributed.add(row)
                            self._kept.add(row)
                    elif goal in aggregate or goal in pointer:
                        work.append((self._value[row], goal))
                row += 1

    # ------------------------------------------------------------ types by shape

    def _shapes(self, index: dict[Field, list[int]], start: int, end: int, members: list[int]) -> list[int]:
        """Structs that an object from `start` to `end` can be, or an array of them."""
        listed: list[int] | None = None
        for row in members:
            prototypes = self._types.prototypes_of(self._function[row])
            here = [one for key in prototypes for one in index.get((self._place[row] - start, key), ())]
            if here and (listed is None or len(here) < len(listed)):
                listed = here
        whole = self._that_fit(listed or (), start, end)
        return whole or self._that_fit(self._elements(index, start, end, members), start, end)

    def _that_fit(self, structs: Iterable[int], start: int, end: int) -> list[int]:
        fitting = []
        for type_id in dict.fromkeys(structs):
            size = self._size[type_id]
            if (
                size > end - start
                or (end - start) % size >= _SLACK
                or not self._fits(type_id, size, start, end)
            ):
                continue
            fitting.append(type_id)
        return fitting

    def _elements(self, index: dict[Field, list[int]], start: int, end: int, members: list[int]) -> list[int]:
        """Structs of which the object can be an array whose first element has no function."""
        if not self._by_prototype:
            for (offset, prototype), structs in index.items():
                self._by_prototype.setdefault(prototype, []).extend((offset, one) for one in structs)
        least: list[int] | None = None
        for row in members:
            at = self._place[row] - start
            here = [
                one
                for key in self._types.prototypes_of(self._function[row])
                for offset, one in self._by_prototype.get(key, ())
                if at >= self._size[one] and at % self._size[one] == offset
            ]
            if here and (least is None or len(here) < len(least)):
                least = here
        return least or []

    def fits(self, row: int, type_id: int, offset: int) -> bool:
        start, end, size = self._start[row], self._end[row], self._size[type_id]
        if size <= 0 or size > end - start or (end - start) % size >= _SLACK:
            return False
        key = (type_id, start)
        if key not in self._fitting:
            self._fitting[key] = self._fits(type_id, size, start, end)
        return self._fitting[key] and (self._place[row] - start) % size == offset

    def _fits(self, type_id: int, size: int, start: int, end: int) -> bool:
        """Whether every pointer of the object stands where the struct has one of its kind."""
        types, pointer, code = self._types, self._pointer, self._code
        for row in self._data.between(start, end):
            leaf = types.leaf(type_id, (self._place[row] - start) % size)
            if leaf is None:
                return False
            if leaf[0] == 0:
                continue
            goal, function = pointer.get(leaf[0], -1), self._function[row]
            if goal in code:
                if function < 0:
                    return False
                prototypes = types.prototypes_of(function)
                if prototypes and goal not in prototypes:
                    return False
            elif goal < 0 or (function >= 0 and goal):
                return False
        return True
