"""From decoded code to frames: prepares the tables, runs the tracker, finds functions that never return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.frames.arguments import stored_arguments
from stackfit.frames.clobbered import lost_registers
from stackfit.frames.constants import (
    CONTINUES,
    EXTRA,
    INDIRECT_THUNK,
    JOIN,
    NEXT,
    RETURN_THUNK,
    RUNTIME_NOP,
    STATE_LIMIT,
    STATE_SIZE,
    SWITCH,
    WAITING_LIMIT,
)
from stackfit.frames.model import Frames, SiteKind, StackKind, Summary
from stackfit.frames.switches import NO_SWITCHES, Switches
from stackfit.frames.track import track_functions
from stackfit.image.functions import Functions
from stackfit.image.model import Machine
from stackfit.image.tables import Tables
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_CONDITIONAL, Operation
from stackfit.isa.machines import CONVENTIONS
from stackfit.isa.save_routines import ALTERNATE_LINK

__all__ = ["SpecialRows", "analyse_frames", "function_roles", "special_rows"]

# arch/x86/lib/retpoline.S, arch/x86/include/asm/nospec-branch.h; calls of the profiler are patched to nops at
# boot (kernel/trace/ftrace.c) and happen only while tracing is on.
_RETURN_THUNKS = ("__x86_return_thunk",)
_INDIRECT_THUNK_PREFIXES = (
    "__x86_indirect_thunk_",
    "__x86_indirect_call_thunk_",
    "__x86_indirect_jump_thunk_",
    "__x86_indirect_its_thunk_",
)
_PROFILERS = ("__fentry__", "mcount", "_mcount", "__gnu_mcount_nc")


def function_roles(functions: Functions) -> NDArray[np.uint8]:
    """Functions that stand for an instruction: 1 = a return, 2 = an indirect branch, 3 = nothing."""
    roles = np.zeros(len(functions), np.uint8)
    for index, (name, aliases) in enumerate(zip(functions.names, functions.aliases, strict=True)):
        if name[:1] != "_" and not name.endswith(("mcount", "_stub")):
            continue
        for text in (name, *aliases) if aliases else (name,):
            if text in _RETURN_THUNKS:
                roles[index] = RETURN_THUNK
            elif text.startswith(_INDIRECT_THUNK_PREFIXES):
                roles[index] = INDIRECT_THUNK
            elif text in _PROFILERS:
                roles[index] = RUNTIME_NOP
    return roles


def analyse_frames(
    code: Code,
    tables: Tables,
    pointers: NDArray[np.uint64],
    frame_pointers: bool = False,
    switches: Switches = NO_SWITCHES,
) -> Frames:
    """Track every function of a program; see frames/track.py for the method.

    `pointers`: code addresses that stand in data (image/pointers.py); those inside a function are the
    targets of its jump tables; those that `switches` adds are known from the code. `frame_pointers`: also
    note at every row what the frame pointer's register holds.

    A function returns when a return, or a tail call to a function that returns, is reachable; what follows a
    call to one that does not is not executed. Starting from "all return", functions found not to are taken
    back until nothing changes (the greatest fixpoint). After _MOST_ROUNDS the others are left as
    returning: more is taken to run than does, no less.
    """
    functions = code.functions
    count = len(functions)
    tracker = _Tracker(code, special_rows(code, tables, pointers, switches), frame_pointers)
    tracker.follow_save_routines(code)
    no_return = np.zeros(count, np.uint8)
    own = (functions.parent < 0) & ~functions.piece
    parts: list[NDArray[np.int32]] = []
    # Most that do not return have no instruction that could: known beforehand, their callers are walked once.
    work = np.flatnonzero(own & ~_has_way_out(code)).astype(np.int32)
    for _ in range(_MOST_ROUNDS):
        if not work.size:
            break
        tracker.walk(work, no_return)
        tracker.forget(work)
        found = work[tracker.per_function["summary"][work] & _MAY_RETURN == 0]
        no_return[found] = 1
        work = np.setdiff1d(work, found) if found.size else found
    work = np.flatnonzero(own).astype(np.int32)
    rounds = 0
    while work.size:
        rounds += 1
        work, made = tracker.walk(work, no_return)
        made = _unique_sites(made)
        redone = np.zeros(count, np.bool_)
        redone[work] = True
        parts = [part[~redone[part[:, _FUNCTION]]] for part in parts] + [made]
        found = np.flatnonzero(own & (no_return == 0) & (tracker.per_function["summary"] & _MAY_RETURN == 0))
        if not found.size or rounds == _MOST_ROUNDS:
            break
        no_return[found] = 1
        sites = np.concatenate(parts)
        lost = np.zeros(count + 1, np.bool_)  # the last one for "no callee" (-1)
        lost[found] = True
        calls = lost[sites[:, _CALLEE]] & (sites[:, _KIND] <= SiteKind.TAIL)
        work = tracker.forget(sites[calls, _FUNCTION])
    sites = np.concatenate(parts) if parts else np.empty((0, len(SITE_FIELDS)), np.int32)
    sites = sites[np.lexsort((sites[:, _KIND], sites[:, _ROW], sites[:, _FUNCTION]))]
    narrow = {"kind": np.uint8, "stack": np.uint8}
    columns: dict[str, Any] = {
        f"site_{name}": np.ascontiguousarray(sites[:, column], narrow.get(name, np.int32))
        for column, name in enumerate(SITE_FIELDS)
    }
    stored = stored_arguments(code)
    tracker.per_function["compiler_frame"] -= np.minimum(stored, tracker.per_function["compiler_frame"])
    return Frames(
        depth=tracker.depth,
        stack=tracker.stack,
        visitor=tracker.visitor,
        frame_pointer=tracker.frame_pointer,
        no_return=no_return.astype(np.bool_),
        **columns,
        **tracker.per_function,
    )


SITE_FIELDS = ("function", "row", "callee", "depth", "kind", "stack", "under")
_FUNCTION, _ROW, _CALLEE, _DEPTH, _KIND, _STACK = range(6)
_MOST_ROUNDS = (
    100  # each finds callers of those found before; a kernel takes 9, one that is made to a million
)
# A function of which not all is known counts as one that returns.
_MAY_RETURN = Summary.RETURNS | Summary.TOO_COMPLEX | Summary.UNDECODED | Summary.CONFLICT
_LEAVING = (
    Operation.CALL,
    Operation.CALL_INDIRECT,
    Operation.JUMP,
    Operation.JUMP_INDIRECT,
    Operation.JUMP_CONDITIONAL,
)


_POPS_LINK = ("__gnu_mcount_nc",)


@dataclass(frozen=True)
class SpecialRows:
    """Rows with other successors than their instruction says, as the tracker wants them."""

    marks: NDArray[np.uint8]  # EXTRA, NEXT, CONTINUES, JOIN, SWITCH of frames/constants.py
    extra_row: NDArray[np.int32]  # ascending
    extra_to: NDArray[np.int32]
    next_row: NDArray[np.int32]  # ascending, distinct
    next_to: NDArray[np.int32]


class _Tracker:
    """The compiled walk with its arrays; results gather in `depth`, `stack`, `visitor`, `per_function`."""

    def __init__(self, code: Code, special: SpecialRows, frame_pointers: bool) -> None:
        functions, table, rows, count = code.functions, code.instructions, len(code), len(code.functions)
        self.depth = np.zeros(rows, np.int32)
        self.stack = np.zeros(rows, np.uint8)
        self.visitor = np.full(rows, -1, np.int32)
        self.frame_pointer = np.full(rows if frame_pointers else 0, -1, np.int32)
        self.per_function: dict[str, Any] = {
            name: np.zeros(count, np.int32)
            for name in ("frame", "compiler_frame", "summary", "reached", "allocation")
        }
        convention = CONVENTIONS[code.machine]
        self._machine = (
            code.machine.word, code.machine.return_bytes, convention.registers, convention.stack_pointer,
            convention.frame_pointer, convention.exact,
        )  # fmt: skip
        self._owner, self._parent, self._piece = code.function, functions.parent, functions.piece
        self._rows = (
            table.operation, table.width, table.register, table.base, table.index, table.scale, table.flags,
            table.clobbers.astype(np.uint32, copy=False), table.displacement, table.immediate,
            code.address.view(np.int64), table.length, code.target, code.function, special.marks,
        )  # fmt: skip
        self._popped = _pops(code)
        self._functions = (
            code.first[:-1].astype(np.int32), functions.parent, functions.piece.view(np.uint8),
            functions.synthetic.view(np.uint8), function_roles(functions), _allocates(code),
            self._popped, lost_registers(code),
        )  # fmt: skip
        self._successors = (special.extra_row, special.extra_to, special.next_row, special.next_to)
        self._scratch = (
            np.zeros(rows, np.int32), np.zeros(STATE_SIZE, np.int32),
            np.empty(STATE_LIMIT * STATE_SIZE, np.int32),
            np.empty(WAITING_LIMIT * STATE_SIZE, np.int32), np.empty(WAITING_LIMIT, np.int32),
        )  # fmt: skip
        self._capacity = 2 * int(np.isin(table.operation, _LEAVING).sum()) + 4096

    def follow_save_routines(self, code: Code) -> None:
        """Note what RISC-V's save routines take off the stack pointer of who calls them.

        `jal t0, __riscv_save_N` (gcc's -msave-restore; psABI: t0 is the alternate link register) saves
        registers in the caller's frame: the routine returns deeper than it was entered.
        """
        table = code.instructions
        if code.machine not in (Machine.RISCV32, Machine.RISCV64):
            return
        calls = (table.operation == Operation.CALL) & (table.register == ALTERNATE_LINK) & (code.target >= 0)
        work = np.unique(code.function[code.target[calls]]).astype(np.int32)
        returns = table.operation == Operation.RETURN
        for function in work.tolist():  # one by one: they share the code of their ends
            one = np.array([function], np.int32)
            self.walk(one, np.zeros(len(code.functions), np.uint8))
            rows = np.flatnonzero(returns & (self.visitor == function))
            self._popped[function] = -int(self.depth[rows].max()) if rows.size else 0
            self.forget(one)

    def walk(
        self, work: NDArray[np.int32], no_return: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Track the functions in `work` (ascending).

        Returns the functions walked, and the sites found: int32[n, len(SITE_FIELDS)].
        """
        while True:
            sites = np.empty((self._capacity, len(SITE_FIELDS)), np.int32)
            # As memoryviews, whose items are plain integers when the tracker runs uncompiled.
            arrays: list[NDArray[Any]] = [
                *self._rows, *self._functions, no_return, *self._successors, self.visitor, self.depth,
                self.stack, self.frame_pointer, *self._scratch, sites, *self.per_function.values(),
            ]  # fmt: skip
            made = track_functions(work.data, *self._machine, *[array.data for array in arrays])
            if made >= 0:
                return work, sites[:made]
            self._capacity *= 2
            work = self.forget(work)

    def forget(self, work: NDArray[np.int32]) -> NDArray[np.int32]:
        """Let the rows of these functions be walked afresh: what was found there no longer holds.

        Returns these functions and those of which they had walked rows, which are to be walked again as well:
        who runs on past a call that does not return runs into the next function.
        """
        parent, owner = self._parent, self._owner
        chosen = np.zeros(parent.size + 1, np.bool_)  # the last one for "no visitor" (-1)
        chosen[work] = True
        while True:
            again = np.flatnonzero(chosen[self.visitor])
            self.visitor[again] = -1
            self.stack[again] = 0
            lost = np.zeros(parent.size, np.bool_)
            lost[owner[again]] = True
            lost[parent[lost & (parent >= 0)]] = True
            lost &= (parent < 0) & ~self._piece & ~chosen[:-1]
            if not lost.any():
                return np.flatnonzero(chosen).astype(np.int32)
            chosen[:-1] |= lost


def _allocates(code: Code) -> NDArray[np.uint8]:
    """Functions that take a number off the stack pointer (alloca, VLA), in their cold piece too."""
    table, parent = code.instructions, code.functions.parent
    stack_pointer = CONVENTIONS[code.machine].stack_pointer
    found = np.zeros(len(code.functions), np.uint8)
    found[code.function[(table.operation == Operation.SUBTRACT) & (table.register == stack_pointer)]] = 1
    cold = np.flatnonzero((found == 1) & (parent >= 0))
    found[parent[cold]] = 1
    return found


def _has_way_out(code: Code) -> NDArray[np.bool_]:
    """Functions with an instruction, in their cold piece too, that may return or go on in another function.

    A hint only: who has none may still return by falling into the next function.
    """
    operation, target = code.instructions.operation, code.target
    rows = np.flatnonzero(_OUT[operation])
    to = target[rows]
    inside = (to >= 0) & (code.function[to] == code.function[rows])
    rows = rows[~inside]
    found = np.zeros(len(code.functions), np.bool_)
    found[code.function[rows]] = True
    cold = np.flatnonzero(found & (code.functions.parent >= 0))
    found[code.functions.parent[cold]] = True
    return found


_OUT = np.zeros(256, np.bool_)
_OUT[[Operation.RETURN, Operation.JUMP, Operation.JUMP_INDIRECT]] = True


def _pops(code: Code) -> NDArray[np.int32]:
    """Bytes of arguments that each function pops when it returns (`ret $N`), 0 if its returns disagree.

    On i386 the hidden pointer of a function that returns a structure (System V ABI i386, 2.2), and stdcall.
    On Arm what gcc's -pg pushes before it calls the profiler (arch/arm/kernel/entry-ftrace.S).
    """
    table, functions = code.instructions, code.functions
    returns = np.flatnonzero(table.operation == Operation.RETURN)
    owner, bytes_popped = code.function[returns], table.immediate[returns]
    least = np.full(len(functions), np.iinfo(np.int32).max, np.int32)
    most = np.zeros(len(functions), np.int32)
    np.minimum.at(least, owner, bytes_popped)
    np.maximum.at(most, owner, bytes_popped)
    if code.machine is Machine.ARM:
        for name in _POPS_LINK:
            least[functions.named(name)] = most[functions.named(name)] = code.machine.word
    return np.where(least == most, most, 0).astype(np.int32)


def _unique_sites(sites: NDArray[np.int32]) -> NDArray[np.int32]:
    """One record per (function, row, callee): a place reached twice keeps its greatest depth, and stays below
    an allocation of unknown size if it once was."""
    if not len(sites):
        return sites
    place = sites[:, _FUNCTION].astype(np.int64) << 32 | sites[:, _ROW]
    order = np.argsort(place, kind="stable")  # nearly in order already
    place = place[order]
    again = np.zeros(place.size, np.bool_)  # several records of one place
    again[1:] = place[1:] == place[:-1]
    again[:-1] |= again[1:]
    if not again.any():
        return sites[order]
    several = sites[order[again]]
    several = several[
        np.lexsort((-several[:, _DEPTH], several[:, _CALLEE], several[:, _ROW], several[:, _FUNCTION]))
    ]
    new = np.ones(len(several), np.bool_)
    new[1:] = (several[1:, : _CALLEE + 1] != several[:-1, : _CALLEE + 1]).any(1)
    below = np.logical_or.reduceat(several[:, _STACK] == StackKind.BELOW_ALLOCATION, np.flatnonzero(new))
    kept = several[new]
    kept[below, _STACK] = StackKind.BELOW_ALLOCATION
    return np.concatenate([sites[order[~again]], kept])


def special_rows(
    code: Code, tables: Tables, pointers: NDArray[np.uint64], switches: Switches = NO_SWITCHES
) -> SpecialRows:
    """Where control goes on that the instructions alone do not say; arguments as for analyse_frames()."""
    key_row = code.rows_at(tables.static_keys.place)
    alternatives = tables.alternatives
    replaced = alternatives.replacement_length > 0
    place, replacement = alternatives.place[replaced], alternatives.replacement[replaced]
    place_row, replacement_row = code.rows_at(place), code.rows_at(replacement)
    # Nothing, or what a callback makes (arm64, alternative_has_feature_likely): a jump may become a nop.
    emptied = code.rows_at(alternatives.place[~replaced])
    behind_emptied = alternatives.place[~replaced] + alternatives.length[~replaced].astype(np.uint64)
    is_jump = (emptied >= 0) & (code.instructions.operation[emptied] == Operation.JUMP)
    pairs = [
        (np.where(is_jump, emptied, -1), code.rows_at(behind_emptied)),
        (key_row, code.rows_at(tables.static_keys.target)),
        # A key that is true in the image has a jmp there: patched to a nop, execution falls through.
        (key_row, np.where((key_row >= 0) & (key_row + 1 < len(code)), key_row + 1, -1)),
        (code.rows_at(tables.exceptions.place), code.rows_at(tables.exceptions.fixup)),
        (place_row, replacement_row),
        _jump_tables(code, pointers),
        (switches.row, switches.to),
    ]
    extra_row = np.concatenate([row for row, _ in pairs])
    extra_to = np.concatenate([to for _, to in pairs])
    good = (extra_row >= 0) & (extra_to >= 0)
    order = np.lexsort((extra_to[good], extra_row[good]))
    extra_row, extra_to = extra_row[good][order].astype(np.int32), extra_to[good][order].astype(np.int32)
    # The last instruction of a replacement goes on behind the code that it replaces.
    end = replacement + alternatives.replacement_length[replaced].astype(np.uint64)
    last_row = np.searchsorted(code.address, end) - 1
    behind_row = code.rows_at(place + alternatives.length[replaced].astype(np.uint64))
    good = (replacement_row >= 0) & (behind_row >= 0) & (place_row >= 0) & (last_row >= replacement_row)
    # One replacement per place; where a place has several, each has its own code.
    next_row, one = np.unique(last_row[good], return_index=True)
    next_to = behind_row[good][one].astype(np.int32)
    warning = code.rows_at(tables.bugs.place[tables.bugs.warning])
    marks = np.zeros(len(code), np.uint8)
    marks[extra_row] |= EXTRA
    marks[next_row] |= NEXT
    marks[warning[warning >= 0]] |= CONTINUES
    joins = np.zeros(len(code), np.bool_)
    for rows in (code.target[code.target >= 0], extra_to, next_to):
        joins[rows] = True
    marks[joins] |= JOIN
    marks[switches.jump] |= SWITCH
    last = _last_calls(code)
    to = code.target[last]
    inside = (to >= 0) & (code.first[code.function[np.maximum(to, 0)]] != to)
    marks[last[~inside]] |= SWITCH  # goes on nowhere
    if last.size:  # only where no code is patched
        next_row, next_to = last[inside], code.target[last[inside]]
        marks[next_row] |= NEXT
    conditional = np.flatnonzero(code.instructions.flags & FLAG_CONDITIONAL) + 1
    marks[conditional[conditional < len(code)]] |= JOIN
    return SpecialRows(marks, extra_row, extra_to, next_row.astype(np.int32), next_to)


def _last_calls(code: Code) -> NDArray[np.int64]:
    """Direct calls behind which no code follows in their section but padding, ascending.

    What they call does not return, or data would be run; into the middle of their own function they are jumps
    (T32 without far branches has no other). Not on x86, where sections are padded; and where functions are
    guessed, so may be what is data: only of what no image given defines.
    """
    table = code.instructions
    calls = np.flatnonzero(table.operation == Operation.CALL)
    target = code.target[calls]
    owner = code.function[np.maximum(target, 0)]
    inside = (owner == code.function[calls]) & (code.first[owner] != target)
    rows = calls[(target < 0) | inside | ~code.functions.synthetic[code.function[calls]]]
    if code.machine.x86 or not rows.size:
        return np.empty(0, np.int64)
    idle = np.append(code.padding(), True)
    bad = np.append(table.operation == Operation.BAD, True)
    end = np.append(code.address[:-1] + table.length[:-1] != code.address[1:], [True, True])  # a section's
    found = []
    for row in rows.tolist():
        at = row
        while not end[at] and idle[at + 1] and not bad[at + 1]:
            at += 1
        if end[at] or bad[at + 1]:
            found.append(row)
    return np.array(found, np.int64)


def _jump_tables(code: Code, pointers: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indirect jump, target) rows: a pointer in data to the middle of a function is a target of each of
    the indirect jumps in that function (switch tables, computed goto as in the BPF interpreter)."""
    functions, operation = code.functions, code.instructions.operation
    target = code.rows_at(pointers)
    target = target[target >= 0]
    target = np.unique(target[code.address[target] != functions.address[code.function[target]]])
    target = target[~functions.piece[code.function[target]]]
    thunk = function_roles(functions) == INDIRECT_THUNK
    jump = np.flatnonzero((operation == Operation.JUMP_INDIRECT) | (operation == Operation.JUMP))
    to = code.target[jump]
    jump = jump[(operation[jump] == Operation.JUMP_INDIRECT) | ((to >= 0) & thunk[code.function[to]])]
    of_target, of_jump = code.function[target], code.function[jump]
    rows, targets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for function in np.intersect1d(of_target, of_jump).tolist():
        own_targets = target[slice(*np.searchsorted(of_target, [function, function + 1]))]
        own_jumps = jump[slice(*np.searchsorted(of_jump, [function, function + 1]))]
        if own_jumps.size * own_targets.size <= _MOST_PAIRS and own_targets.size <= _MOST_TARGETS:
            rows.append(np.repeat(own_jumps, own_targets.size))
            targets.append(np.tile(own_targets, own_jumps.size))
        else:  # hand on what is known from each target to the next: the same reach, in linear space
            rows.append(np.concatenate([own_jumps, own_targets[:-1]]))
            targets.append(np.concatenate([np.full(own_jumps.size, own_targets[0]), own_targets[1:]]))
    return np.concatenate(rows), np.concatenate(targets)


_MOST_PAIRS = WAITING_LIMIT // 2  # all can be put off at once
_MOST_TARGETS = WAITING_LIMIT // 2
