"""Where function pointers go and where indirect calls take theirs from: the compiled walk over a whole
program.

A second walk knows more than the first: types of arguments that no prototype tells, and of global variables,
are what every call and every store found the first time agree on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.calls.constants import ARGUMENT_REGISTERS
from stackfit.calls.flow import follow_functions
from stackfit.calls.flow_constants import (
    ARGUMENT,
    ARGUMENTS,
    CONSTANT,
    EMBEDS,
    GLOBAL,
    HOLDS,
    MARK_TOLD,
    MOST_ARGUMENTS,
    ORIGIN,
    POINTER,
    RECORD_SIZE,
    ROLE_TRAMPOLINE,
    SITE,
    SMALL,
    STATE_LIMIT,
    STATE_SIZE,
    TYPED,
)
from stackfit.calls.registers import thunk_registers
from stackfit.calls.static_calls import STATIC_CALL_PREFIX
from stackfit.calls.told import told_places
from stackfit.calls.types import Field, TypeLayout
from stackfit.frames.analyse import function_roles, special_rows
from stackfit.frames.model import Frames
from stackfit.image.btf import Kind
from stackfit.image.tables import Tables
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_MEMORY, RIP, Operation

__all__ = ["Flows", "Walk", "addresses_named"]

_ROW, _SINK, _SINK_A, _SINK_B, _KIND, _A, _B = range(RECORD_SIZE)
_ROOM = 1 << 18  # records written at a time
# Their immediates are targets.
_BRANCHES = (Operation.CALL, Operation.JUMP, Operation.JUMP_CONDITIONAL)
# Of more structs than that one is left in 38 of 1,155 cases (Debian's 6.1, all modules), at 76 % of the cost.
_MOST_FITTING = 64


@dataclass(frozen=True, eq=False)
class Flows:
    """`records`: int64[n, 7] as flow_constants.py has them: row, sink, two numbers
    that name it, then the kind of the value and its two numbers.

    `function`: int32[n], the one in whose walk each record was written. `origins`: type of each row's result,
    then of each argument (ARGUMENTS), where only its uses tell it; else 0. `arguments`, `variables`: what was
    known of both. `used`: of variables, what their contents are used as.
    """

    records: NDArray[np.int64]
    function: NDArray[np.int32]
    origins: NDArray[np.int32]
    arguments: NDArray[np.int64]
    variables: dict[int, int]
    used: dict[int, int]


class Walk:
    """The compiled walk over one program, with its arrays.

    `pointers`: code addresses that stand in data; `taken`: functions whose address code holds.
    """

    def __init__(
        self,
        code: Code,
        tables: Tables,
        frames: Frames,
        pointers: NDArray[np.uint64],
        taken: Iterable[int],
        types: TypeLayout,
    ) -> None:
        functions, table, rows = code.functions, code.instructions, len(code)
        special = special_rows(code, tables, pointers)
        self._entered = np.zeros(len(functions), np.bool_)  # from elsewhere than by direct calls
        self._entered[code.function[np.maximum(code.rows_at(pointers), 0)]] = True
        self._entered[list(taken)] = True
        self._code, self._types = code, types
        self._work = np.flatnonzero((functions.parent < 0) & ~functions.piece).astype(np.int32)
        self._root = np.where(functions.parent >= 0, functions.parent, np.arange(len(functions)))
        self._naming, self._named = addresses_named(code)
        told = told_places(code, types, special.marks)
        marks = special.marks.copy()
        marks[told.row] |= MARK_TOLD
        self._told = (told.row, told.place, told.goal, told.offset)
        # `mov $address, %reg` of i386 is decoded without a sign; where it goes on, addresses have one.
        immediate = code.machine.signed(table.immediate.view(np.uint64))
        self._rows = (
            table.operation, table.width, table.register, table.base, table.index, table.flags,
            table.clobbers, table.displacement, immediate, code.machine.signed(code.address),
            table.length, code.target, code.function, frames.depth, frames.stack, marks,
        )  # fmt: skip
        roles, prototype = _with_trampolines(code, types)
        self._functions = (
            code.first[:-1].astype(np.int32), functions.parent, functions.piece.view(np.uint8),
            roles, thunk_registers(functions), frames.no_return.view(np.uint8),
            prototype, types.in_register,
        )  # fmt: skip
        self._tables = (
            special.extra_row, special.extra_to, special.next_row, special.next_to, types.kind, types.named,
            types.link, types.size, types.part_first, types.part_at, types.part_type,
        )  # fmt: skip
        self._order = np.array(ARGUMENT_REGISTERS[code.machine], np.int32)
        self._scratch = (
            np.full(rows, -1, np.int32),
            np.zeros(8 + 2 * STATE_SIZE, np.int64),
            np.empty(STATE_LIMIT * STATE_SIZE, np.int64), np.empty(2 + 3 * STATE_LIMIT, np.int32),
        )  # fmt: skip

    def follow(self, variables: dict[int, int], before: Flows | None = None) -> Flows:
        """Follow typed pointers through every function.

        `variables`: address → plain type of known objects. `before`: an earlier walk; what all its calls hand
        to an argument of unknown type, all its stores put into a global variable, and what pointers of
        unknown type are used as, is the type of that now.
        """
        code, types = self._code, self._types
        arguments = np.zeros((len(code.functions), MOST_ARGUMENTS, 3), np.int64)
        known, used = dict(variables), dict[int, int]()
        origins = np.zeros(len(code) + ARGUMENTS * len(code.functions), np.int32)
        if before is not None:
            arguments = _agreed_arguments(code, before.records, self._entered)
            # Of what has a type, there are no such uses on record any more.
            used = {**_agreed_uses(before.records, types), **before.used}
            known = {**used, **_agreed_variables(before.records, types), **variables}
            origins[:] = before.origins  # what has a type is no ORIGIN any more: its uses are not there again
            _agreed_origins(before.records, types, origins)
            _embedding_origins(code, before.records, types, origins)
        if before is None:
            found = self._follow(self._work, arguments, known, origins)
        else:
            # What has the same inputs has the same records.
            again = self._affected(before, arguments, known, origins)
            kept = ~again[before.function]
            new, function = self._follow(self._work[again[self._work]], arguments, known, origins)
            found = (
                np.concatenate([before.records[kept], new]),
                np.concatenate([before.function[kept], function]),
            )
        return Flows(*found, origins, arguments, known, used)

    def _affected(
        self,
        before: Flows,
        arguments: NDArray[np.int64],
        variables: dict[int, int],
        origins: NDArray[np.int32],
    ) -> NDArray[np.bool_]:
        """Functions of which an argument, an origin, or a variable that their code names has another type
        than before: bool by function."""
        code, rows = self._code, len(self._code)
        affected = (arguments != before.arguments).any((1, 2))
        changed = origins != before.origins
        inside = np.flatnonzero(changed[:rows])
        affected[self._root[code.function[inside]]] = True
        affected[(np.flatnonzero(changed[rows:])) // ARGUMENTS] = True
        # Rows of one function may be on the way of another: what it found out about them tells.
        for sink, column in ((TYPED, _A), (HOLDS, _SINK_A), (EMBEDS, _SINK_A)):
            chosen = before.records[:, _SINK] == sink
            if sink == TYPED:
                chosen &= before.records[:, _KIND] == ORIGIN
            mine = changed[before.records[chosen, column]]
            affected[before.function[chosen][mine]] = True
        other = [one for one, kind in variables.items() if before.variables.get(one) != kind]
        other += [one for one in before.variables if one not in variables]
        if other:
            known = np.array(sorted({*variables, *before.variables}), np.int64)
            at = np.searchsorted(known, self._named, "right") - 1
            hit = (at >= 0) & np.isin(known[np.maximum(at, 0)], other)
            affected[self._root[code.function[self._naming[hit]]]] = True
        return np.asarray(affected, np.bool_)

    def _follow(
        self,
        work: NDArray[np.int32],
        arguments: NDArray[np.int64],
        variables: dict[int, int],
        origins: NDArray[np.int32],
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        at = np.array(sorted(variables), np.int64)
        kinds = np.array([variables[one] for one in at.tolist()], np.int32)
        parts, begin, room = [], 0, _ROOM
        ends = np.zeros(len(work), np.int32)
        owners = [np.empty(0, np.int32)]
        while begin < len(work):
            records = np.empty((room, RECORD_SIZE), np.int64)
            arrays: list[NDArray[Any]] = [
                *self._rows, *self._functions, arguments, *self._tables, at, kinds, self._types.per_cpu_at,
                self._types.per_cpu_type, origins, *self._told, self._order,
            ]  # fmt: skip
            scratch: list[NDArray[Any]] = [*self._scratch, ends, records]
            given: list[Any] = [one.data for one in arrays]
            given += [self._code.machine.word, *(one.data for one in scratch)]
            done, count = follow_functions(work.data, begin, *given)
            if done:
                each = np.diff(ends[begin : begin + done], prepend=0)
                owners.append(np.repeat(work[begin : begin + done], each))
                begin += done
                parts.append(records[:count].copy())
            else:
                room = count + 1
        return np.concatenate([np.empty((0, RECORD_SIZE), np.int64), *parts]), np.concatenate(owners)


def _with_trampolines(code: Code, types: TypeLayout) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Roles and prototypes of functions, trampolines of static calls included: these have the prototype of
    the function that they jump to at first, whatever they are set to later."""
    roles, prototype = function_roles(code.functions).copy(), types.prototype.copy()
    for index, name in enumerate(code.functions.names):
        if name.startswith(STATIC_CALL_PREFIX):
            row = int(code.first[index])
            target = int(code.target[row]) if code.instructions.operation[row] == Operation.JUMP else -1
            if target >= 0 and types.prototype[code.function[target]]:
                roles[index] = ROLE_TRAMPOLINE
                prototype[index] = types.prototype[code.function[target]]
    return roles, prototype


def addresses_named(code: Code) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, address with the sign of a word) of every address of data that an instruction may hold."""
    table, signed = code.instructions, code.machine.signed
    memory = (table.flags & FLAG_MEMORY > 0) | (table.operation == Operation.LEA)
    relative = np.flatnonzero(memory & (table.base == RIP))
    absolute = np.flatnonzero(memory & (table.base != RIP) & (table.displacement != 0))
    held = np.flatnonzero((table.immediate != 0) & ~np.isin(table.operation, _BRANCHES))
    here = code.address[relative] + table.length[relative] + table.displacement[relative].astype(np.uint64)
    rows = np.concatenate([relative, absolute, held])
    named = np.concatenate(
        [
            signed(here),
            table.displacement[absolute].astype(np.int64),
            signed(table.immediate[held].view(np.uint64)),
        ]
    )
    # A kernel's addresses have the sign; what is nearly zero is an offset.
    data = named < -SMALL
    return rows[data], named[data]


def _agreed(records: NDArray[np.int64], keys: tuple[int, ...]) -> NDArray[np.int64]:
    """One record of each key on whose value all its records agree, null aside."""
    records = records[~((records[:, _KIND] == CONSTANT) & (records[:, _A] == 0))]
    order = np.lexsort([records[:, key] for key in reversed(keys)])
    records = records[order]
    if not len(records):
        return records
    new = np.ones(len(records), np.bool_)
    new[1:] = (records[1:, keys] != records[:-1, keys]).any(1)
    group = np.cumsum(new) - 1
    head = records[new]
    differs = (records[:, (_KIND, _A, _B)] != head[group][:, (_KIND, _A, _B)]).any(1)
    good = np.ones(len(head), np.bool_)
    good[group[differs]] = False
    return head[good]


def _agreed_arguments(
    code: Code, records: NDArray[np.int64], entered: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Pointers that every call of a function hands it, where only direct calls lead there."""
    found = np.zeros((len(code.functions), MOST_ARGUMENTS, 3), np.int64)
    chosen = records[records[:, _SINK] == ARGUMENT]
    agreed = _agreed(chosen, (_SINK_A, _SINK_B))
    agreed = agreed[(agreed[:, _KIND] == POINTER) & ~entered[agreed[:, _SINK_A]]]
    found[agreed[:, _SINK_A], agreed[:, _SINK_B]] = agreed[:, [_KIND, _A, _B]]
    return found


def _agreed_variables(records: NDArray[np.int64], types: TypeLayout) -> dict[int, int]:
    """Global variables that every store fills with a pointer to one type: address → type of the pointer."""
    chosen = records[(records[:, _SINK] == GLOBAL) & (records[:, _SINK_B] == 0)]
    agreed = _agreed(chosen, (_SINK_A,))
    agreed = agreed[(agreed[:, _KIND] == POINTER) & (agreed[:, _B] == 0)]
    return {
        address: types.pointer_to[goal]
        for address, goal in agreed[:, [_SINK_A, _A]].tolist()
        if goal in types.pointer_to
    }


def _agreed_uses(records: NDArray[np.int64], types: TypeLayout) -> dict[int, int]:
    """Global variables whose contents are used as pointers to one type, and into which no store puts a
    pointer of a known one: address → type of the pointer."""
    chosen = records[(records[:, _SINK] == TYPED) & (records[:, _KIND] == GLOBAL)]
    stored = set(records[(records[:, _SINK] == GLOBAL) & (records[:, _KIND] == POINTER), _SINK_A].tolist())
    return {
        address: types.pointer_to[goal]
        for address, goal in _greatest(chosen, types).items()
        if goal in types.pointer_to and address not in stored
    }


def _greatest(records: NDArray[np.int64], types: TypeLayout) -> dict[int, int]:
    """Of each value of TYPED records the type that it is used as: where uses differ, the one that starts with
    all the others (a pointer to an object is one to its first member)."""
    uses: dict[int, list[int]] = {}
    for value, goal in np.unique(records[:, [_A, _SINK_A]], axis=0).tolist():
        uses.setdefault(value, []).append(goal)
    found = {}
    for value, goals in uses.items():
        for goal in goals:
            if all(other == goal or types.starts_with(goal, other) for other in goals):
                found[value] = goal
                break
    return found


def _agreed_origins(records: NDArray[np.int64], types: TypeLayout, origins: NDArray[np.int32]) -> None:
    """Types of pointers that turn up untyped, by what they are used as."""
    chosen = records[(records[:, _SINK] == TYPED) & (records[:, _KIND] == ORIGIN)]
    for origin, goal in _greatest(chosen, types).items():
        origins[origin] = goal


def _embedding_origins(
    code: Code, records: NDArray[np.int64], types: TypeLayout, origins: NDArray[np.int32]
) -> None:
    """Types of further origins: the one struct that has members of the types in use where they are used.

    An object that a mutex is taken in, at some byte, and that holds a pointer at another, is often of the
    only struct that has both. Where several structs do, the origin stays as it is.
    """
    embeds, holds = dict[int, set[Field]](), dict[int, set[tuple[int, int, int]]]()
    for _, _, origin, offset, _, goal, _ in records[records[:, _SINK] == EMBEDS].tolist():
        embeds.setdefault(origin, set()).add((offset, goal))
    for _, _, origin, offset, kind, a, _ in records[records[:, _SINK] == HOLDS].tolist():
        holds.setdefault(origin, set()).add((offset, kind, a))
    called = {int(one) for one in records[(records[:, _SINK] == SITE) & (records[:, _KIND] == ORIGIN), _A]}
    for origin, parts in embeds.items():
        if origins[origin]:
            continue
        first, *rest = sorted(parts)
        fitting = types.embedding.get((first[1], first[0]), set())
        for offset, goal in rest:
            fitting = fitting & types.embedding.get((goal, offset), set())
        if len(fitting) > _MOST_FITTING:
            continue
        fitting = {
            struct
            for struct in fitting
            if all(
                _can_hold(code, types, origins, struct, one, holds, called) for one in holds.get(origin, ())
            )
        }
        # A struct within another one, at its start, is what both are.
        least = [
            one for one in fitting if all(one == other or types.starts_with(other, one) for other in fitting)
        ]
        if len(least) == 1:
            origins[origin] = least[0]


def _can_hold(
    code: Code,
    types: TypeLayout,
    origins: NDArray[np.int32],
    struct: int,
    held: tuple[int, int, int],
    holds: dict[int, set[tuple[int, int, int]]],
    called: set[int],
) -> bool:
    """Whether a byte of a struct can hold a value: (byte, its kind, its number)."""
    offset, kind, a = held
    if not 0 <= offset < types.size[struct]:
        return False
    goals = types.pointers_at(struct, offset)
    if kind == CONSTANT:
        function = code.functions.at(a & code.machine.mask)
        prototypes = types.prototypes_of(function) if function >= 0 else ()
        return bool(goals) and (not prototypes or not goals.isdisjoint((0, *prototypes)))
    if kind == ORIGIN:
        if a in called:
            return any(types.kind[goal] == Kind.FUNC_PROTO for goal in goals)
        calls = [byte for byte, inner, row in holds.get(a, ()) if inner == ORIGIN and row in called]
        if calls:
            return any(
                goal and all(types.function_field(goal, byte) is not None for byte in calls) for goal in goals
            )
        a = int(origins[a])
        if not a:
            return True
    return any(goal in (0, a) or types.starts_with(goal, a) or types.starts_with(a, goal) for goal in goals)
