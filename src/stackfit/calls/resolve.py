"""Candidates of indirect calls: what the pointer that a site calls can have been set to.

Every function pointer has a *place*: a field of a struct type, a global variable, a parameter, a function's
result. A site's candidates are the functions that some code or initialised data puts into its place, directly
or by way of other places, and those of the right prototype of which it is not known where they go (*loose*).
A place that is also filled with something unknown may hold any function of its prototype whose address is
taken.

What is taken on trust: functions are not cast to other types; a struct's field is written through its type;
an object of data has the type that its uses, or its shape, say. Sites for which no rung gives anything stay
open.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.calls import flow_constants as flow
from stackfit.calls.constants import ARGUMENT_REGISTERS
from stackfit.calls.flows import Flows, Walk, addresses_named
from stackfit.calls.held import Held, places_named
from stackfit.calls.model import Rung
from stackfit.calls.objects import Data, Placed, callable_functions, place_functions, read_data, with_objects
from stackfit.calls.paravirt import paravirt_overrides
from stackfit.calls.static_calls import STATIC_CALL_UPDATE
from stackfit.calls.types import Field, TypeLayout, read_types
from stackfit.frames.model import Frames
from stackfit.image.btf import Kind
from stackfit.image.functions import Functions
from stackfit.image.model import Image, Program
from stackfit.image.pointers import relative_targets
from stackfit.image.tables import Tables
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_MEMORY, NO_REGISTER, RIP, Operation

__all__ = ["Indirect", "Resolution", "Resolved", "resolve_indirect"]

_ROW, _SINK, _SINK_A, _SINK_B, _KIND, _A, _B = range(flow.RECORD_SIZE)
_Place = tuple[int, int, int]  # a kind of flow_constants and the two numbers that name the place
_PLACES = (flow.FIELD, flow.GLOBAL, flow.PARAMETER, flow.RESULT, flow.MERGED)
_NO_FLOW = (
    flow.OBJECT, flow.SITE, flow.ARGUMENT, flow.HANDED, flow.TYPED, flow.HOLDS, flow.EMBEDS, flow.COPIED,
)  # fmt: skip
_AGGREGATES = (int(Kind.STRUCT), int(Kind.UNION))
_FUNC_PROTO = int(Kind.FUNC_PROTO)
_ROUNDS = 2  # walks that know what the one before found
_COPYING = ("memcpy", "__memcpy", "memmove", "__memmove")
_LARGE = 256  # bytes: an object beyond this size may be an array of some struct


class Indirect(enum.Enum):
    """What resolution may rest on."""

    STRICT = "strict"  # what the image's own constant data settles
    TYPED = "typed"  # … and that pointers are used as their types say
    SIGNATURE = "signature"  # … but any function of the prototype may be in any place of that prototype


@dataclass(frozen=True)
class Resolved:
    """Of one row of code: the rung, the candidates, and the name of the place (`struct file.f_op`).

    No candidates: nothing in the images given fills that place.
    """

    rung: Rung
    candidates: tuple[int, ...]
    place: str


@dataclass(frozen=True)
class Resolution:
    """`sites`: by row of an indirect call. `updates`: by row of a call of `__static_call_update`, the
    functions that the static call is set to there. `held`: what the places asked for hold, by name.
    `paravirt`: what is put into members of pv_ops, by address; None: not known. `strangers`: functions that
    the code of modules without types puts somewhere: of which type the place is, no one knows."""

    sites: Mapping[int, Resolved] = field(default_factory=dict)
    updates: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    paravirt: Mapping[int, tuple[int, ...]] | None = None
    strangers: tuple[int, ...] = ()


def resolve_indirect(
    program: Program,
    code: Code,
    tables: Tables,
    frames: Frames,
    pointers: NDArray[np.uint64],
    mode: Indirect = Indirect.TYPED,
    places: Iterable[str] = (),
    debug: Image | None = None,
    overrides: bool = False,
) -> Resolution:
    """Indirect calls and jumps that can be resolved, and what `places` hold (see Held; not where the mode is
    STRICT); nothing without types. `debug`: a companion of the kernel with its debug information.
    `overrides`: find what guest code puts into pv_ops, too."""
    types = read_types(program, code.functions, debug)
    if types is None:
        return Resolution()
    taken = _taken_in_code(code)
    relative = code.functions.entered(relative_targets(program, code.functions.address))
    listed = set(relative[callable_functions(code.functions)[relative]].tolist())
    walk = Walk(code, tables, frames, pointers, taken | listed, types)
    flows = walk.follow(types.variables)
    copies = _copies(flows, code.functions)
    wholes = [(source, source + size) for _, source, size in copies if size > types.word]
    data = with_objects(read_data(program, code.functions, debug), wholes)
    placed = place_functions(data, types, code.functions, _objects(flows, types))
    copied = _copied(copies, data, placed, types)
    for _ in range(_ROUNDS):
        flows = walk.follow({**copied, **placed.variables, **types.variables}, flows)
    placed = place_functions(data, types, code.functions, [*_objects(flows, types), *copied.items()])
    resolution = _Resolver(code, types, flows, data, placed, taken, listed, mode).resolve(places)
    if not overrides:
        return resolution
    found = paravirt_overrides(program, code.functions, types, data, placed, flows.records)
    return replace(resolution, paravirt=found or None)


def _objects(flows: Flows, types: TypeLayout) -> list[tuple[int, int]]:
    """(address, type): what debug information says of variables, and elsewhere what their uses say."""
    records = flows.records[flows.records[:, _SINK] == flow.OBJECT]
    uses = sorted(set(zip(records[:, _A].tolist(), records[:, _SINK_A].tolist(), strict=True)))
    starts = sorted(types.variables)
    ends = [start + int(types.size[types.variables[start]]) for start in starts]

    def is_told(address: int) -> bool:
        at = bisect_right(starts, address) - 1
        return at >= 0 and (address == starts[at] or address < ends[at])

    return [*types.variables.items(), *(use for use in uses if not is_told(use[0]))]


def _copies(flows: Flows, functions: Functions) -> list[tuple[int, int, int]]:
    """(to, from, bytes or 0) of copies from one object to another, both at addresses that code holds."""
    records = flows.records
    found = records[records[:, _SINK] == flow.COPIED][:, [_SINK_A, _A, _B]].tolist()
    library = [int(one) for name in _COPYING for one in functions.named(name)]
    chosen = (records[:, _SINK] == flow.ARGUMENT) & (records[:, _KIND] == flow.CONSTANT)
    chosen &= np.isin(records[:, _SINK_A], library)
    calls = defaultdict[int, dict[int, int]](dict)
    for row, number, value in records[chosen][:, [_ROW, _SINK_B, _A]].tolist():
        calls[row][number] = value
    found += [[given.get(0, 0), given.get(1, 0), given.get(2, 0)] for given in calls.values()]
    return sorted({(to, source, max(size, 0)) for to, source, size in found if to < 0 and source < 0})


def _copied(
    copies: list[tuple[int, int, int]], data: Data, placed: Placed, types: TypeLayout
) -> dict[int, int]:
    """Objects of unknown type that are copies of ones whose type is known, or the other way: address →
    type."""
    known = {**placed.variables, **types.variables}
    found = {}
    for to, source, size in copies:
        for address, like in ((to, source), (source, to)):
            goal = known.get(like)
            if goal is None or address in known or (size and size < types.size[goal]):
                continue
            end = bisect_right(data.bounds, address)
            if end < len(data.bounds) and address + types.size[goal] <= data.bounds[end]:
                found[address] = goal
    return found


def _taken_in_code(code: Code) -> set[int]:
    """Functions whose address an instruction holds, but not to compare it with what stands elsewhere."""
    table = code.instructions
    operation = table.operation
    held = np.flatnonzero(
        np.isin(
            operation,
            (
                Operation.MOVE_IMMEDIATE,
                Operation.STORE_IMMEDIATE,
                Operation.PUSH,
            ),
        )
        & (table.immediate < 0)
    )
    relative = np.flatnonzero((operation == Operation.LEA) & (table.base == RIP))
    value = np.concatenate(
        [
            table.immediate[held].view(np.uint64) & np.uint64(code.machine.mask),
            code.address[relative] + table.length[relative] + table.displacement[relative].astype(np.uint64),
        ]
    )
    at = code.functions.entered(value)
    return set(at[(at >= 0) & callable_functions(code.functions)[at]].tolist())


def _addresses_held(code: Code) -> NDArray[np.int64]:
    """Addresses of data in code that are not just those of memory operands."""
    rows, named = addresses_named(code)
    table = code.instructions
    direct = (table.flags[rows] & FLAG_MEMORY > 0) & np.isin(table.base[rows], (RIP, NO_REGISTER))
    direct &= (table.index[rows] == NO_REGISTER) & (table.operation[rows] != Operation.LEA)
    immediate = code.machine.signed(table.immediate[rows].view(np.uint64)) == named
    return np.unique(named[~direct | immediate])


class _Resolver:
    def __init__(
        self,
        code: Code,
        types: TypeLayout,
        flows: Flows,
        data: Data,
        placed: Placed,
        taken: set[int],
        listed: set[int],
        mode: Indirect,
    ) -> None:
        self._code, self._types, self._data, self._placed, self._mode = code, types, data, placed, mode
        self._records, self._mask = flows.records, code.machine.mask
        self._called = _functions_at(code, flows.records)  # of each record: the function it has, or -1
        self._holds = defaultdict[_Place, set[int]](set)  # functions put into each place
        self._bounds = data.bounds.tolist()
        self._from = defaultdict[_Place, set[_Place]](set)  # places whose contents are copied there
        self._in_object = defaultdict[int, set[_Place]](set)  # global places by the object that they lie in
        self._own = defaultdict[_Place, set[_Place]](set)  # … but for what a call may have changed there
        self._unknown: set[_Place] = set()  # places that are also filled with something unknown
        self._changed: set[_Place] = set()  # places that a call may fill which knows their address
        self._loose = set[int]()
        self._handed = set[int]()  # to calls of which nothing is known: in parameters, nowhere else
        self._settled = False  # whether all that is loose is known
        self._known: dict[_Place, tuple[set[int], bool]] = {}
        self._held_addresses = np.union1d(_addresses_held(code), data.value)
        self._surroundings: dict[Field, list[tuple[int, Field]]] = {}
        in_data = {int(data.function[row]) for row in (*placed.kept, *placed.loose, *placed.tables)}
        in_data.update(function for members in placed.fields.values() for function in members.values())
        # What is read from a table of offsets is unknown, wherever it goes.
        self._taken = in_data | taken | listed
        self._by_prototype = _by_prototype(types, self._taken)
        self._collect(taken)
        self._loose_by_prototype = _by_prototype(types, self._loose)
        self._handed_by_prototype = _by_prototype(types, self._handed - self._loose)
        # Loose functions of unknown prototype, by their byte in the object; in objects that may be arrays
        # apart.
        self._loose_at = defaultdict[int, list[int]](list)
        self._loose_in_tables = list[int]()
        for row in placed.loose:
            if not types.prototypes_of(int(data.function[row])):
                start = int(data.start[row])
                self._loose_at[int(data.place[row]) - start].append(row)
                if data.end[row] - start > _LARGE:
                    self._loose_in_tables.append(row)
        self._settled = True
        self._known.clear()
        self._fields: dict[Field, tuple[set[int], bool]] = {}
        self._hooks = _SecurityHooks(code, types, data, placed)

    def resolve(self, places: Iterable[str] = ()) -> Resolution:
        return Resolution(self._sites(), self._updates(), self._held(places), strangers=self._strangers())

    def _strangers(self) -> tuple[int, ...]:
        functions, types = self._code.functions, self._types
        typed = {0, *functions.image[types.prototype > 0].tolist()}
        typed.update(int(functions.image[one]) for one in types.ambiguous)
        named = set(self._called[self._records[:, _SINK] == flow.LOOSE].tolist())
        return tuple(sorted(one for one in named if one >= 0 and int(functions.image[one]) not in typed))

    def _held(self, texts: Iterable[str]) -> dict[str, Held]:
        """What places hold, by their names; those that the program does not have are left out."""
        if self._mode is Indirect.STRICT:
            return {}
        namers = defaultdict[int, set[int]](set)
        naming = self._called >= 0
        rows = self._records[naming, _ROW]
        for function, named in zip(
            self._called[naming].tolist(), self._code.function[rows].tolist(), strict=True
        ):
            namers[function].add(named)
        found = {}
        for text, places in places_named(self._types, self._code.functions, texts).items():
            if not places:
                continue
            members, loose, alike, unknown = set[int](), set[int](), set[int](), False
            for place in places:
                held, incomplete = self._reach(place)
                members |= held
                unknown |= incomplete
                prototype = self._prototype_of(place)
                strays = self._strays(place, prototype)
                loose |= strays
                alike |= {one for one in strays if self._types.prototypes_of(one) == (prototype,)}
            loose -= members
            by = {one: tuple(sorted(namers[one])) for one in sorted(members | loose) if one in namers}
            found[text] = Held(
                tuple(sorted(members)), tuple(sorted(loose)), frozenset(alike & loose), unknown, by
            )
        return found

    def _updates(self) -> dict[int, tuple[int, ...]]:
        """What calls of `__static_call_update(key, trampoline, function)` hand over, where it is known."""
        records, found = self._records, dict[int, tuple[int, ...]]()
        for callee in self._code.functions.named(STATIC_CALL_UPDATE):
            chosen = (
                (records[:, _SINK] == flow.ARGUMENT)
                & (records[:, _SINK_A] == callee)
                & (records[:, _SINK_B] == 2)
            )
            for row, kind, a, b in records[chosen][:, [_ROW, _KIND, _A, _B]].tolist():
                answer = self._answer((kind, a, b), (), ()) if kind in (*_PLACES, flow.CONSTANT) else None
                if answer is not None:
                    found[row] = tuple(sorted({*found.get(row, ()), *answer.candidates}))
                elif (kind, a) == (flow.CONSTANT, 0):  # it does nothing then
                    found.setdefault(row, ())
        return found

    def _sites(self) -> dict[int, Resolved]:
        sites = self._records[self._records[:, _SINK] == flow.SITE]
        by_row = defaultdict[int, set[_Place]](set)
        for row, kind, a, b in sites[:, [_ROW, _KIND, _A, _B]].tolist():
            by_row[row].add((kind, a, b))
        handed = defaultdict[int, set[tuple[int, int]]](set)
        for record in self._records[self._records[:, _SINK] == flow.HANDED].tolist():
            handed[record[_ROW]].add((record[_SINK_A], record[_A]))
        found = {}
        answers: dict[tuple[_Place, tuple[tuple[int, int], ...], tuple[int, ...]], Resolved | None] = {}
        for row, places in by_row.items():
            if len(places) == 1:  # two functions that share the row may not mean the same
                (place,) = places
                outside = place[0] == flow.FIELD and not 0 <= place[2] < self._types.size[place[1]]
                arguments = tuple(sorted(handed.get(row, ()))) if outside else ()
                hooked = outside or (place[0] == flow.FIELD and place[1] in self._hooks.types)
                heads = self._hooks.heads_in(int(self._code.function[row])) if hooked else ()
                key = (place, arguments, heads)
                if key not in answers:
                    answers[key] = self._answer(place, arguments, heads)
                answer = answers[key]
                if answer is not None:
                    found[row] = answer
        return found

    def _collect(self, taken: set[int]) -> None:
        """What the records and the data say of each place."""
        for (struct, offset), members in self._placed.fields.items():
            self._holds[flow.FIELD, struct, offset].update(members.values())
        passed = set[tuple[int, int, _Place, int]]()
        stacked = defaultdict[tuple[int, int], set[int]](set)
        matched = defaultdict[tuple[int, int], set[int]](set)
        typed = set(self._records[self._records[:, _SINK] == flow.FIELD, _ROW].tolist())
        escaped = set[_Place]()  # places whose contents go where nothing is known
        handed = set[_Place]()  # … to calls of which nothing is known
        gone = set[int]()  # functions that some record tells of
        registers = len(ARGUMENT_REGISTERS[self._code.machine])  # further arguments are on the stack
        # Constants that are no functions go nowhere of interest; of the unknown it is enough to know where.
        flows, called = self._records, self._called
        sinks, kinds = flows[:, _SINK], flows[:, _KIND]
        known = (called >= 0) | np.isin(kinds, (*_PLACES, flow.OWN, flow.CHANGED))
        placing = np.isin(sinks, _PLACES)
        self._unknown.update(
            _distinct(flows[placing & ~known & (kinds != flow.CONSTANT), _SINK : _SINK_B + 1])
        )
        passing = (sinks == flow.PASSED) & ~known & (kinds != flow.CONSTANT)
        nothing = (flow.UNKNOWN, 0, 0)
        passed.update((a, b, nothing, -1) for _, a, b in _distinct(flows[passing, _SINK : _SINK_B + 1]))
        known &= ~np.isin(sinks, _NO_FLOW) & _of_use(flows)
        rows = flows[known].tolist()
        for (row, sink, sink_a, sink_b, kind, a, b), function in zip(
            rows, called[known].tolist(), strict=True
        ):
            if sink == flow.STACKED:
                stacked[int(self._code.function[row]), function].add(row)
                continue
            if function >= 0:
                gone.add(function)
            if sink == flow.LOOSE:
                if function >= 0:
                    (self._handed if sink_a else self._loose).add(function)
                elif kind in _PLACES:
                    (handed if sink_a else escaped).add((kind, a, b))
                continue
            if sink in (flow.PARAMETER, flow.PASSED) and sink_b >= registers and function >= 0:
                matched[int(self._code.function[row]), function].add(row)
            if sink == flow.PASSED:
                passed.add((sink_a, sink_b, (kind, a, b), function))
                continue
            place = (sink, sink_a, sink_b)
            if sink == flow.FIELD and not 0 <= sink_b < self._types.size[sink_a]:
                # Into the same byte of whatever that struct is embedded in.
                value = (kind, a, b)
                around = self._around_for(place, value, function)
                for inner in around:
                    self._put((flow.FIELD, *inner), value, function)
                if around:
                    continue
                if function >= 0:
                    self._loose.add(function)
                elif kind in _PLACES:
                    escaped.add(value)
                continue
            if sink == flow.FIELD and function >= 0:
                matched[int(self._code.function[row]), function].add(row)
            self._put(place, (kind, a, b), function)
            # Into an object that is read through its type as well, of which nothing is known here.
            if sink == flow.GLOBAL and row not in typed and self._is_shared(sink_a):
                if function >= 0:
                    self._loose.add(function)
                elif kind in _PLACES:
                    escaped.add((kind, a, b))
        for key, rows in stacked.items():
            if len(rows) > len(matched[key]):
                self._loose.add(key[1])
        self._loose.update(taken - gone)
        self._loose.update(int(self._data.function[row]) for row in self._placed.loose)
        for prototype, number, value, function in passed:
            for callee in self._by_prototype.get(prototype, ()):
                self._put((flow.PARAMETER, callee, number), value, function)
        for place in (*self._holds, *self._from, *self._unknown):
            if place[0] == flow.GLOBAL and (index := self._object_at(place[1])):
                self._in_object[index].add(place)
        for place in handed:
            self._handed |= self._reach(place)[0]
        handed_by_prototype = _by_prototype(self._types, self._handed)
        for place in escaped:
            self._loose |= self._reach(place)[0]
            if place[0] == flow.PARAMETER and place[1] in self._taken:
                self._loose |= handed_by_prototype.get(self._prototype_of(place), set())

    def _object_at(self, address: int) -> int:
        """The object that an address lies in: from `_bounds[n - 1]` to `_bounds[n]`; 0 in none."""
        index = bisect_right(self._bounds, address)
        return index if index < len(self._bounds) else 0

    def _is_shared(self, address: int) -> bool:
        """Whether an address lies in an object that may be reached by a pointer too: not in a variable of one
        word, nor where instructions name each place themselves."""
        index = self._object_at(address)
        if not index:
            return True
        start, end = self._bounds[index - 1], self._bounds[index]
        if end - start <= self._types.word:
            return False
        at = int(np.searchsorted(self._held_addresses, start))
        return at < len(self._held_addresses) and int(self._held_addresses[at]) < end

    def _put(self, place: _Place, value: _Place, function: int) -> None:
        if function >= 0:
            self._holds[place].add(function)
        elif value[0] in _PLACES:
            self._from[place].add(value)
        elif value[0] == flow.OWN:
            self._own[place].add((flow.MERGED, value[1], value[2]))
        elif value[0] == flow.CHANGED:
            self._changed.add(place)
        elif value[0] != flow.CONSTANT:
            self._unknown.add(place)

    # ------------------------------------------------------------ answers

    def _answer(
        self, place: _Place, arguments: tuple[tuple[int, int], ...], heads: tuple[int, ...]
    ) -> Resolved | None:
        kind, a, b = place
        types = self._types
        if kind == flow.CONSTANT and self._mode is not Indirect.STRICT:
            function = self._code.functions.at(a & self._mask)
            return Resolved(Rung.CONSTANT, (function,), "") if function >= 0 else None
        if kind == flow.GLOBAL:
            members, constant = self._contents(a, bool(b))
            if constant and members:
                return Resolved(Rung.GLOBAL, tuple(sorted(members)), f"data at {a & self._mask:#x}")
        if self._mode is Indirect.STRICT:
            return None
        if kind == flow.FIELD and heads and a in self._hooks.types:
            return self._on_lists(heads)
        if kind == flow.FIELD and not 0 <= b < types.size[a]:
            return self._in_container(a, b, arguments, heads)
        if kind == flow.GLOBAL:
            members, unknown = self._reach(place)
            if unknown or not members:
                return None
            return Resolved(Rung.GLOBAL, tuple(sorted(members)), f"data at {a & self._mask:#x}")
        prototype = self._prototype_of(place)
        name, rung = self._name(place)
        if kind == flow.PROTOTYPE or self._mode is Indirect.SIGNATURE:
            if not prototype:
                return None
            return Resolved(Rung.SIGNATURE, self._of_prototype(prototype), name)
        if kind not in _PLACES:
            return None
        members, unknown = self._reach(place)
        if unknown:
            # A union's members may all be function pointers, of one prototype or another.
            union = types.pointers_at(a, b) if kind == flow.FIELD and not prototype else set[int]()
            prototypes = {prototype} if prototype else union
            if not prototypes or any(types.kind[one] != _FUNC_PROTO for one in prototypes):
                return None
            whole = members.union(*(self._of_prototype(one) for one in prototypes))
            return Resolved(Rung.SIGNATURE, tuple(sorted(whole)), name)
        if self._takes_strays(place):
            members = members | self._strays(place, prototype)
        return Resolved(rung, tuple(sorted(members)), name)

    def _on_lists(self, heads: tuple[int, ...]) -> Resolved:
        """Security hooks on the lists that a function names."""
        members = set().union(*(self._hooks.functions[head] for head in heads))
        name = self._types.describe(self._hooks.entry)
        place = f"hooks of {name} on the list at {heads[0] & self._mask:#x}"
        return Resolved(Rung.LIST, tuple(sorted(members)), place)

    def _of_prototype(self, prototype: int) -> tuple[int, ...]:
        return tuple(sorted(self._by_prototype.get(prototype, ())))

    def _takes_strays(self, place: _Place) -> bool:
        """Every store into a field need not be seen, nor every call of a function whose address is taken."""
        return place[0] == flow.FIELD or (place[0] == flow.PARAMETER and place[1] in self._taken)

    def _strays(self, place: _Place, prototype: int) -> set[int]:
        """Functions that may be in a place because it is not known where they go."""
        found = set(self._loose_by_prototype.get(prototype, ())) if prototype else set[int]()
        kind, struct, offset = place
        if kind == flow.PARAMETER:
            found |= self._handed_by_prototype.get(prototype, set())
        if not prototype and kind == flow.FIELD:  # a union
            for one in self._types.pointers_at(struct, offset):
                found |= self._loose_by_prototype.get(one, set())
        if kind == flow.FIELD:
            for row in (*self._loose_at.get(offset, ()), *self._loose_in_tables):
                if self._placed.fits(row, (struct, offset)):
                    found.add(int(self._data.function[row]))
        return found

    def _reach(self, place: _Place) -> tuple[set[int], bool]:
        """Functions that get into a place by way of others too; whether something unknown does."""
        if place in self._known:
            return self._known[place]
        seen, work, found, unknown = {(place, False)}, [(place, False)], set[int](), False
        while work:
            one, own = work.pop()
            found |= self._holds.get(one, set())
            unknown |= one in self._unknown or (not own and one in self._changed)
            onward = [(other, own and other[0] == flow.MERGED) for other in self._from.get(one, ())]
            onward += [(other, True) for other in self._own.get(one, ())]
            if one[0] == flow.GLOBAL:
                found |= self._contents(one[1], bool(one[2]))[0]
                for other in self._in_object.get(self._object_at(one[1]), ()):
                    if one[2] or other[2]:  # an element, and any element
                        onward.append((other, False))
            elif one[0] == flow.FIELD and not 0 <= one[2] < self._types.size[one[1]]:
                unknown = True
            elif one != place and self._settled and self._takes_strays(one):
                found |= self._strays(one, self._prototype_of(one))
            for step in onward:
                if step not in seen:
                    seen.add(step)
                    work.append(step)
        self._known[place] = found, unknown
        return found, unknown

    def _contents(self, address: int, table: bool) -> tuple[set[int], bool]:
        """Functions that initialised data has at an address, or in the table there; whether it is
        constant."""
        data = self._data
        row = int(np.searchsorted(data.place, address))
        if not table:
            if row < len(data.place) and data.place[row] == address and data.function[row] >= 0:
                return {int(data.function[row])}, bool(data.constant[row])
            return set(), False
        # The base of an indexed access may lie a little before the table, or within it: both objects then.
        members, constant = set[int](), True
        for at in (address, address + self._types.word):
            index = self._object_at(at)
            if not index:
                continue
            rows = data.between(self._bounds[index - 1], self._bounds[index])
            members.update(int(one) for one in data.function[rows.start : rows.stop] if one >= 0)
            constant = constant and bool(data.constant[rows.start : rows.stop].all())
        return members, constant

    def _in_container(
        self, struct: int, offset: int, arguments: tuple[tuple[int, int], ...], heads: tuple[int, ...]
    ) -> Resolved | None:
        """A byte outside a struct: the same byte of whatever that struct is embedded in, if the function
        pointer there takes arguments as they are handed over."""
        types, members, names = self._types, set[int](), set[Field]()
        unknown = False
        around = self._around(struct, offset)
        if heads and any(outer == self._hooks.entry for outer, _ in around):
            return self._on_lists(heads)
        for place in dict.fromkeys(inner for _, inner in around):
            prototype = self._prototype_of((flow.FIELD, *place))
            if prototype and not self._takes(prototype, arguments):
                continue
            names.add(place)
            held, incomplete = self._of_field(place, prototype)
            unknown |= incomplete
            members |= held
        if not names or unknown:
            return None
        some = ", ".join(types.member_name(*field) for field in sorted(names)[:3])
        text = f"{types.describe(struct)} {offset:+d}, in {some}" + (" …" if len(names) > 3 else "")
        return Resolved(Rung.CONTAINER, tuple(sorted(members)), text)

    def _around(self, struct: int, offset: int) -> list[tuple[int, Field]]:
        """(struct, field): the function pointers at a byte off a struct, in the structs that it is embedded
        in."""
        if (struct, offset) not in self._surroundings:
            found = []
            for outer, at in self._types.containers.get(struct, ()):
                field = self._types.function_field(outer, at + offset)
                if field is not None:
                    found.append((outer, field))
            self._surroundings[struct, offset] = found
        return self._surroundings[struct, offset]

    def _around_for(self, place: _Place, value: _Place, function: int) -> set[Field]:
        """Fields at a byte off a struct, in the structs that it is embedded in, that a value fits."""
        if function >= 0:
            prototypes = set(self._types.prototypes_of(function))
        else:
            prototypes = {self._prototype_of(value)} - {0} if value[0] in _PLACES else set()
        return {
            inner
            for _, inner in self._around(place[1], place[2])
            if self._prototype_of((flow.FIELD, *inner)) in prototypes
        }

    def _of_field(self, field: Field, prototype: int) -> tuple[set[int], bool]:
        """Functions that a field can have, and whether others too that are not known."""
        if field not in self._fields:
            place = (flow.FIELD, *field)
            held, incomplete = self._reach(place)
            if incomplete and prototype:
                held = held | set(self._of_prototype(prototype))
            self._fields[field] = held | self._strays(place, prototype), incomplete and not prototype
        return self._fields[field]

    def _takes(self, prototype: int, arguments: tuple[tuple[int, int], ...]) -> bool:
        """Whether a prototype's parameters can be pointers to these types."""
        types = self._types
        for register, pointed in arguments:
            part = int(types.in_register[prototype, register])
            if part < 0:
                continue
            goal = int(types.link[types.part_type[part]])
            known = types.named[goal] and types.named[pointed] and types.kind[pointed] in _AGGREGATES
            if (
                known
                and types.kind[goal] in _AGGREGATES
                and goal != pointed
                and not types.starts_with(goal, pointed)
                and not types.starts_with(pointed, goal)
            ):
                return False
        return True

    def _prototype_of(self, place: _Place) -> int:
        kind, a, b = place
        types = self._types
        goal = 0
        if kind == flow.PROTOTYPE:
            goal = a
        elif kind == flow.FIELD:
            goal = _pointed(types, a, b)
        elif kind == flow.PARAMETER and types.prototype[a]:
            part = int(types.in_register[types.prototype[a], b])
            if part >= 0:
                goal = int(types.link[types.part_type[part]])
        elif kind == flow.RESULT and types.prototype[a]:
            goal = int(types.link[types.link[types.prototype[a]]])
        return goal if types.kind[goal] == _FUNC_PROTO else 0

    def _name(self, place: _Place) -> tuple[str, Rung]:
        kind, a, b = place
        names = self._code.functions.names
        if kind == flow.FIELD:
            return self._types.member_name(a, b), Rung.FIELD
        if kind == flow.PARAMETER:
            return f"parameter {b + 1} of {names[a]}", Rung.PARAMETER
        if kind == flow.MERGED:
            return "one of several pointers", Rung.PARAMETER
        if kind == flow.RESULT:
            return f"what {names[a]} returns", Rung.PARAMETER
        return "a pointer of known prototype", Rung.SIGNATURE


class _SecurityHooks:
    """Security modules' hooks: `struct security_hook_list` says which list each goes on
    (include/linux/lsm_hooks.h), and a caller (security/security.c) names the head of the one list that it
    walks.

    `functions`: head → hooks on its list. `entry`: the struct's id, 0 without one; `types`: that and the
    union of hooks in it.
    """

    def __init__(self, code: Code, types: TypeLayout, data: Data, placed: Placed) -> None:
        self.entry = 0
        self.types = set[int]()
        self.functions = defaultdict[int, set[int]](set)
        self._named: dict[int, set[int]] = defaultdict(set)
        for struct in np.flatnonzero((types.kind == Kind.STRUCT) & (types.named > 0)).tolist():
            if types.same[struct] == struct and types.types.name(struct) == "security_hook_list":
                self.entry = struct
        if not self.entry:
            return
        hooks = [
            int(types.part_type[part])
            for part in types.types.parts(self.entry)
            if types.kind[types.part_type[part]] == Kind.UNION
        ]
        self.types = {self.entry, *hooks}
        heads = dict(zip(data.place.tolist(), data.value.tolist(), strict=True))
        for hook in hooks:
            for row, function in placed.fields.get((hook, 0), {}).items():
                head = heads.get(int(data.place[row]) - types.word)
                if head is not None:
                    self.functions[head].add(function)
        if not self.functions:
            return
        table = code.instructions
        absolute = (
            (table.flags & FLAG_MEMORY > 0) & (table.base == NO_REGISTER) & (table.index == NO_REGISTER)
        )
        relative = (table.flags & FLAG_MEMORY > 0) & (table.base == RIP)
        shift = np.where(relative, code.address.view(np.int64) + table.length, 0)
        rows = np.flatnonzero(absolute | relative)
        address = (table.displacement + shift)[rows]
        known = np.isin(address, np.array(sorted(self.functions), np.int64))
        owner = code.function[rows[known]]
        for function, head in zip(owner.tolist(), address[known].tolist(), strict=True):
            self._named[function].add(head)

    def heads_in(self, function: int) -> tuple[int, ...]:
        """Heads of hook lists that a function names."""
        return tuple(sorted(self._named.get(function, ())))


def _of_use(flows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Records but those of merged values that get into no site and no other place."""
    into = flows[:, _SINK] == flow.MERGED
    holds = np.isin(flows[:, _KIND], (flow.MERGED, flow.OWN))
    pairs = np.concatenate([flows[into, _SINK_A : _SINK_B + 1], flows[holds, _A : _B + 1]])
    order = np.lexsort(pairs.T)
    new = np.ones(len(pairs), np.bool_)
    new[1:] = (pairs[order[1:]] != pairs[order[:-1]]).any(1)
    number = np.empty(len(pairs), np.int64)
    number[order] = np.cumsum(new) - 1
    sink, value = np.full(len(flows), -1), np.full(len(flows), -1)
    sink[into], value[holds] = np.split(number, [int(into.sum())])
    used = np.zeros(int(new.sum()) + 1, np.bool_)  # the last one stands for all other places
    used[-1] = True
    step = holds
    while step.any():
        step = holds & used[sink] & ~used[value]
        used[value[step]] = True
    return np.asarray(used[sink], np.bool_)


def _distinct(places: NDArray[np.int64]) -> list[_Place]:
    """The different rows of int64[n, 3]."""
    places = places[np.lexsort(places.T)]
    new = np.ones(len(places), np.bool_)
    new[1:] = (places[1:] != places[:-1]).any(1)
    return [(sink, a, b) for sink, a, b in places[new].tolist()]


def _functions_at(code: Code, records: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each record, the function whose address it has; else -1."""
    found = np.full(len(records), -1, np.int64)
    rows = np.flatnonzero((records[:, _KIND] == flow.CONSTANT) & (records[:, _A] < 0))
    found[rows] = code.functions.entered(records[rows, _A].view(np.uint64) & np.uint64(code.machine.mask))
    return found


def _by_prototype(types: TypeLayout, functions: Iterable[int]) -> dict[int, set[int]]:
    found = defaultdict[int, set[int]](set)
    for function in functions:
        for prototype in types.prototypes_of(function):
            found[prototype].add(function)
    return dict(found)


def _pointed(types: TypeLayout, struct: int, offset: int) -> int:
    leaf = types.leaf(struct, offset)
    return int(types.link[leaf[0]]) if leaf is not None else 0
