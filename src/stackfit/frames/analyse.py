"""From decoded code to frames: prepares the tables, runs the tracker, finds the functions that never return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stackfit.frames.model import Frames, SiteKind, Summary
from stackfit.frames.track import track_functions
from stackfit.image.functions import Functions
from stackfit.image.tables import Tables
from stackfit.isa.code import Code
from stackfit.isa.effects import Operation

__all__ = ["analyse_frames", "function_roles"]

ROLE_RETURN_THUNK, ROLE_INDIRECT_THUNK, ROLE_NOP = 1, 2, 3
# arch/x86/lib/retpoline.S, arch/x86/include/asm/nospec-branch.h; `__fentry__` is patched to a nop at boot
# (kernel/trace/ftrace.c) and called only while tracing is on.
_RETURN_THUNKS = ("__x86_return_thunk",)
_INDIRECT_THUNK_PREFIXES = (
    "__x86_indirect_thunk_",
    "__x86_indirect_call_thunk_",
    "__x86_indirect_jump_thunk_",
    "__x86_indirect_its_thunk_",
)
_NOPS = ("__fentry__", "mcount", "ftrace_stub", "__sanitizer_cov_trace_pc")


def function_roles(functions: Functions) -> NDArray[np.uint8]:
    """Functions that stand for an instruction: 1 = a return, 2 = an indirect branch, 3 = nothing."""
    roles = np.zeros(len(functions), np.uint8)
    for index, (name, aliases) in enumerate(zip(functions.names, functions.aliases, strict=True)):
        if not name.startswith("_") and not name.endswith(("mcount", "_stub")):
            continue
        for text in (name, *aliases):
            if text in _RETURN_THUNKS:
                roles[index] = ROLE_RETURN_THUNK
            elif text.startswith(_INDIRECT_THUNK_PREFIXES):
                roles[index] = ROLE_INDIRECT_THUNK
            elif text in _NOPS[:2]:
                roles[index] = ROLE_NOP
    return roles


def analyse_frames(code: Code, tables: Tables, pointers: NDArray[np.uint64]) -> Frames:
    """Track every function of a program; see frames/track.py for the method.

    `pointers`: code addresses that stand in data (image/pointers.py); those inside a function are the
    targets of its jump tables.

    A function returns when a return, or a tail call to a function that returns, is reachable; what follows a
    call to one that does not is not executed. Starting from "all return", functions found not to are taken
    back until nothing changes (the greatest fixpoint).
    """
    functions = code.functions
    rows, count = len(code), len(functions)
    instructions = code.instructions
    first = code.first[:-1].astype(np.int32)
    roles = function_roles(functions)
    marks, extra_row, extra_to, next_row, next_to = _special_rows(code, tables, pointers)
    visitor = np.full(rows, -1, np.int32)
    depth = np.zeros(rows, np.int32)
    stack = np.zeros(rows, np.uint8)
    per_function = {
        name: np.zeros(count, np.int32) for name in ("frame", "compiler_frame", "summary", "reached", "allocation")
    }
    no_return = np.zeros(count, np.uint8)
    work = np.flatnonzero((functions.parent < 0) & ~functions.piece).astype(np.int32)
    state, states, pending = np.zeros(64, np.int32), np.zeros(4096 * 64, np.int32), np.zeros(4096, np.int32)
    branches = int(np.isin(instructions.operation, _LEAVING).sum())
    capacity = 2 * branches + 4096
    sites: list[NDArray[np.void]] = []
    owner_of_sites: list[NDArray[np.int32]] = []
    while work.size:
        arrays = [np.zeros(capacity, kind) for kind in (np.int32, np.int32, np.int32, np.int32, np.uint8, np.uint8, np.int32)]
        made = track_functions(
            work, code.machine.word,
            instructions.operation, instructions.width, instructions.register, instructions.base,
            instructions.index, instructions.scale, instructions.flags, instructions.clobbers,
            instructions.displacement, instructions.immediate, code.address.view(np.int64),
            instructions.length, code.target, code.function, first,
            functions.parent, functions.piece.view(np.uint8), functions.synthetic.view(np.uint8), roles, no_return,
            marks, extra_row, extra_to, next_row, next_to, visitor, depth, stack,
            state, states, pending, *arrays, 0,
            per_function["frame"], per_function["compiler_frame"], per_function["summary"],
            per_function["reached"], per_function["allocation"],
        )  # fmt: skip
        if made < 0:
            capacity *= 2
            visitor[np.isin(visitor, work)] = -1
            continue
        round_sites = _unique_sites(arrays, made)
        redone = np.zeros(count, np.bool_)
        redone[work] = True
        sites = [part[~redone[part["function"]]] for part in sites] + [round_sites]
        summary = per_function["summary"]
        found = np.flatnonzero((no_return == 0) & (summary & (Summary.RETURNS | Summary.TOO_COMPLEX) == 0))
        found = found[(functions.parent[found] < 0) & ~functions.piece[found]]
        if not found.size:
            break
        no_return[found] = 1
        all_sites = np.concatenate(sites)
        calls = np.isin(all_sites["callee"], found) & (all_sites["kind"] <= SiteKind.TAIL)
        work = np.unique(all_sites["function"][calls]).astype(np.int32)
        # Walk the callers afresh, or their earlier, deeper visits would stop the walk.
        again = np.isin(visitor, work)
        visitor[again] = -1
        stack[again] = 0
    table = np.concatenate(sites) if sites else np.empty(0, _SITE)
    table = table[np.lexsort((table["kind"], table["row"], table["function"]))]
    return Frames(
        depth=depth,
        stack=stack,
        visitor=visitor,
        no_return=no_return.astype(np.bool_),
        site_function=np.ascontiguousarray(table["function"]),
        site_row=np.ascontiguousarray(table["row"]),
        site_callee=np.ascontiguousarray(table["callee"]),
        site_depth=np.ascontiguousarray(table["depth"]),
        site_kind=np.ascontiguousarray(table["kind"]),
        site_stack=np.ascontiguousarray(table["stack"]),
        site_under=np.ascontiguousarray(table["under"]),
        **per_function,
    )


_LEAVING = (
    Operation.CALL,
    Operation.CALL_INDIRECT,
    Operation.JUMP,
    Operation.JUMP_INDIRECT,
    Operation.JUMP_CONDITIONAL,
)
_SITE = np.dtype(
    [("function", "<i4"), ("row", "<i4"), ("callee", "<i4"), ("depth", "<i4"), ("kind", "u1"), ("stack", "u1"), ("under", "<i4")]
)


def _unique_sites(arrays: list[NDArray[np.generic]], made: int) -> NDArray[np.void]:
    """One record per (function, row, callee): a place that was reached twice keeps its greatest depth."""
    table = np.zeros(made, _SITE)
    for name, array in zip(("function", "row", "callee", "depth", "kind", "stack", "under"), arrays, strict=True):
        table[name] = array[:made]
    table = table[np.lexsort((-table["depth"], table["callee"], table["row"], table["function"]))]
    if made > 1:
        same = np.ones(made, np.bool_)
        for name in ("function", "row", "callee"):
            same[1:] &= table[name][1:] == table[name][:-1]
        same[0] = False
        table = table[~same]
    return table


def _special_rows(
    code: Code, tables: Tables, pointers: NDArray[np.uint64]
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Rows with more successors than their instruction says, as the tracker wants them.

    Returns (marks, extra_row, extra_to, next_row, next_to): bit 1 of `marks`: `extra_to` holds further
    successors; bit 2: the next row is `next_to`; bit 4: execution goes on after this ud2.
    """
    marks = np.zeros(len(code), np.uint8)
    key_row = code.rows_at(tables.static_keys.place)
    pairs = [
        (key_row, code.rows_at(tables.static_keys.target)),
        # A key that is true in the image has a jmp there: patched to a nop, execution falls through.
        (key_row, np.where((key_row >= 0) & (key_row + 1 < len(code)), key_row + 1, -1)),
        (code.rows_at(tables.exceptions.place), code.rows_at(tables.exceptions.fixup)),
    ]
    alternatives = tables.alternatives
    replaced = alternatives.replacement_length > 0
    place, replacement = alternatives.place[replaced], alternatives.replacement[replaced]
    place_row, replacement_row = code.rows_at(place), code.rows_at(replacement)
    pairs.append((place_row, replacement_row))
    # The last instruction of a replacement goes on behind the code that it replaces.
    end = replacement + alternatives.replacement_length[replaced].astype(np.uint64)
    last_row = np.searchsorted(code.address, end) - 1
    behind_row = code.rows_at(place + alternatives.length[replaced].astype(np.uint64))
    good = (replacement_row >= 0) & (behind_row >= 0) & (place_row >= 0) & (last_row >= replacement_row)
    order = np.argsort(last_row[good], kind="stable")
    next_row = last_row[good][order].astype(np.int32)
    next_to = behind_row[good][order].astype(np.int32)
    # One replacement per place; where a place has several, each has its own code.
    keep = np.append(True, next_row[1:] != next_row[:-1]) if next_row.size else np.empty(0, np.bool_)
    next_row, next_to = next_row[keep], next_to[keep]
    pairs.append(_jump_tables(code, pointers))
    extra_row = np.concatenate([row for row, _ in pairs])
    extra_to = np.concatenate([to for _, to in pairs])
    good = (extra_row >= 0) & (extra_to >= 0)
    order = np.lexsort((extra_to[good], extra_row[good]))
    extra_row = extra_row[good][order].astype(np.int32)
    extra_to = extra_to[good][order].astype(np.int32)
    marks[extra_row] |= 1
    marks[next_row] |= 2
    warning = code.rows_at(tables.bugs.place[tables.bugs.warning])
    marks[warning[warning >= 0]] |= 4
    return marks, extra_row, extra_to, next_row, next_to


def _jump_tables(code: Code, pointers: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indirect jump, target) rows: a pointer in data to the middle of a function is a target of each of
    the indirect jumps in that function (switch tables, computed goto as in the BPF interpreter)."""
    functions, instructions = code.functions, code.instructions
    target = code.rows_at(pointers)
    target = target[target >= 0]
    inside = target[code.address[target] != functions.address[code.function[target]]]
    inside = inside[~functions.piece[code.function[inside]]]
    operation = instructions.operation
    thunk = np.flatnonzero(function_roles(functions) == ROLE_INDIRECT_THUNK)
    through_thunk = (operation == Operation.JUMP) & (code.target >= 0)
    through_thunk[through_thunk] = np.isin(code.function[code.target[through_thunk]], thunk)
    jump = np.flatnonzero((operation == Operation.JUMP_INDIRECT) | through_thunk)
    rows, targets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    jump_owner = code.function[jump]
    for function in np.intersect1d(code.function[inside], jump_owner).tolist():
        own_targets = inside[code.function[inside] == function]
        own_jumps = jump[jump_owner == function]
        rows.append(np.repeat(own_jumps, own_targets.size))
        targets.append(np.tile(own_targets, own_jumps.size))
    return np.concatenate(rows), np.concatenate(targets)
