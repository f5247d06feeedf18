"""From frames to the call graph: kinds of sites, candidates where they are certain, open where not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stackfit.assumptions import AssumptionSet
from stackfit.assumptions.model import Candidates
from stackfit.calls.constant_tables import table_candidates
from stackfit.calls.constants import branch_targets, constant_before
from stackfit.calls.handed import handed_switches
from stackfit.calls.held import Held
from stackfit.calls.inline_thunks import inline_thunks
from stackfit.calls.kcfi import checked_classes
from stackfit.calls.long_jumps import long_jumps
from stackfit.calls.model import CallKind, Calls, EdgeKind, Edges, Evidence, Reason, Rung
from stackfit.calls.paravirt import Hypervisor
from stackfit.calls.registers import thunk_registers
from stackfit.calls.resolve import Resolution, Resolved
from stackfit.calls.root_handlers import root_handlers
from stackfit.calls.static_calls import STATIC_CALL_PREFIX, Updated, static_call_updates
from stackfit.calls.vectors import SYNCHRONOUS, Vector, entry_bytes
from stackfit.frames.model import Frames, SiteKind, StackKind
from stackfit.image.model import InputError, Program
from stackfit.image.tables import Tables
from stackfit.isa.code import Code
from stackfit.isa.effects import ABSOLUTE, FLAG_MEMORY, FLAG_SEGMENT, NO_REGISTER, RIP, Operation
from stackfit.isa.machines import CONVENTIONS
from stackfit.text import near_text

__all__ = ["build_calls", "build_edges"]

_NOTHING = Resolution()
_NO_POINTERS = np.empty(0, np.uint64)
_STATIC_CALL_TEXT = ".static_call.text"  # include/asm-generic/vmlinux.lds.h
_PAGE_FAULT, _GENERAL_PROTECTION, _INVALID_OPCODE, _BREAKPOINT = 14, 13, 6, 3
# arch/x86/include/asm/extable_fixup_types.h: these guard instructions that raise #GP, all others memory
# accesses. Before 5.16 (type -1) nearly all entries are accesses.
_GENERAL_PROTECTION_TYPES = (5, 6, 8, 9, 10, 11, 12, 13, 16)

_ANY_HYPERVISOR = (
    "hypervisor: pv_ops hold what the image has, or what guest code of any hypervisor is seen to put there"
)
_INDIRECT = (Reason.INDIRECT, Reason.UNFILLED, Reason.UNTYPED)
# Rungs whose candidates are what code with types puts into a place of that type.
_BY_TYPE = (Rung.FIELD, Rung.CONTAINER, Rung.PARAMETER, Rung.SIGNATURE)

_SITE = np.dtype(
    [("function", "<i4"), ("address", "<u8"), ("return_address", "<u8"), ("depth", "<i4"), ("under", "<i4"),
     ("kind", "u1"), ("tail", "?"), ("rung", "u1"), ("evidence", "u1"), ("reason", "u1"),
     ("candidates", "<i4"), ("name", "<i4"), ("charge", "<i4"), ("assumption", "<i4")]
)  # fmt: skip


class _Sets:
    """Candidate sets, each stored once."""

    def __init__(self) -> None:
        self.sets: list[tuple[int, ...]] = []
        self._index: dict[tuple[int, ...], int] = {}

    def add(self, members: tuple[int, ...]) -> int:
        index = self._index.get(members)
        if index is None:
            index = self._index[members] = len(self.sets)
            self.sets.append(members)
        return index


def build_calls(
    program: Program,
    code: Code,
    tables: Tables,
    frames: Frames,
    vectors: list[Vector],
    assumptions: AssumptionSet | None = None,
    resolution: Resolution = _NOTHING,
    hypervisor: Hypervisor = Hypervisor.NONE,
    pointers: NDArray[np.uint64] = _NO_POINTERS,
) -> Calls:
    """All call sites of a program; `resolution` and then `[[candidates]]` of the assumptions fill sites that
    stay open. `hypervisor`: what pv_ops hold. `pointers`: code addresses that stand in data.

    Raises InputError for candidates that name a function which the program does not have.
    """
    sets, names = _Sets(), list[str]()
    updates = static_call_updates(code, frames, resolution.updates, resolution.hooks, pointers)
    sites = np.concatenate(
        [
            _transfer_sites(program, code, tables, frames, resolution.sites, sets, names),
            _updated_sites(code, updates, sets),
            _exception_sites(code, tables, frames, vectors, sets),
        ]
    )
    handed = handed_switches(code, sites, sets.sets, sets.add, thunk_registers(code.functions))
    sites = np.concatenate([sites, handed])
    sites = sites[~long_jumps(code.functions, sites["function"], sites["kind"])]
    sites["assumption"] = -1
    texts = list[str]()
    if hypervisor is Hypervisor.ANY:
        _add_overrides(program, code, sites, sets, resolution.paravirt)
        sites["assumption"][sites["rung"] == Rung.PARAVIRT] = 0
        texts.append(_ANY_HYPERVISOR)
    if resolution.strangers:
        sites["reason"][np.isin(sites["rung"], _BY_TYPE) & (sites["candidates"] >= 0)] = Reason.UNTYPED
    if assumptions is not None and assumptions.candidates:
        _annotate(code, sites, sets, names, texts, assumptions, resolution.held)
    sites = _merge_alternatives(code, tables, sites, sets)
    sites = np.concatenate([sites, _thunk_sites(code, tables, sites)])
    sites = sites[np.lexsort((sites["kind"], sites["address"], sites["function"]))]
    return Calls(
        **{name: np.ascontiguousarray(sites[name]) for name in _SITE.names or ()},
        candidate_sets=sets.sets,
        names=names,
        assumptions=texts,
    )


def _transfer_sites(
    program: Program,
    code: Code,
    tables: Tables,
    frames: Frames,
    resolved: Mapping[int, Resolved],
    sets: _Sets,
    names: list[str],
) -> NDArray[np.void]:
    """Calls and jumps that leave a function."""
    functions, instructions = code.functions, code.instructions
    count = len(frames.site_row)
    sites = np.zeros(count, _SITE)
    row = frames.site_row
    sites["function"] = frames.site_function
    sites["address"] = code.address[row]
    sites["depth"] = frames.site_depth
    sites["under"] = -1
    sites["candidates"] = -1
    sites["name"] = -1
    is_tail = np.isin(frames.site_kind, (SiteKind.TAIL, SiteKind.INDIRECT_TAIL))
    sites["tail"] = is_tail
    sites["return_address"] = np.where(is_tail, 0, code.address[row] + instructions.length[row])

    callee = frames.site_callee
    known = callee >= 0
    called = np.zeros(len(functions), np.bool_)
    called[callee[known]] = True
    unique = np.flatnonzero(called)
    set_of = np.full(len(functions), -1, np.int32)
    for function in unique.tolist():
        set_of[function] = sets.add((function,))
    sites["candidates"][known] = set_of[callee[known]]
    sites["kind"] = np.where(is_tail, CallKind.TAIL, CallKind.DIRECT)
    sites["rung"][known] = Rung.ENCODED
    static = np.zeros(len(functions), np.bool_)
    # A module's trampolines are known by their section too: a stripped one has no names for them.
    trampoline = np.array([part.section.name == _STATIC_CALL_TEXT for part in code.sections], np.bool_)
    static[unique] = trampoline[functions.section[unique]]
    static[[index for index in unique.tolist() if functions.names[index].startswith(STATIC_CALL_PREFIX)]] = (
        True
    )
    static_site = np.flatnonzero(known)[static[callee[known]]]
    sites["kind"][static_site] = CallKind.STATIC_CALL
    sites["rung"][static_site] = Rung.STATIC_CALL
    sites["evidence"][static_site] = Evidence.ASSUMED

    indirect = np.isin(frames.site_kind, (SiteKind.INDIRECT, SiteKind.INDIRECT_TAIL))
    sites["kind"][indirect] = np.where(is_tail[indirect], CallKind.INDIRECT_TAIL, CallKind.INDIRECT)
    _resolve_certain(program, code, tables, row, np.flatnonzero(indirect), sites, sets)
    unknown = indirect & (sites["candidates"] < 0)
    tables_of = table_candidates(program, code, row[unknown].tolist())
    tables_of = {**tables_of, **root_handlers(code, row[unknown].tolist())}
    for site in np.flatnonzero(unknown).tolist() if tables_of else ():
        members = tables_of.get(int(row[site]))
        if members is not None:
            sites["candidates"][site] = sets.add(members)
            sites["rung"][site] = Rung.GLOBAL
            sites["evidence"][site] = Evidence.ASSUMED
            unknown[site] = False
    sites["reason"][unknown] = Reason.INDIRECT
    sites["evidence"][unknown] = Evidence.OPEN
    _fill(np.flatnonzero(unknown), row, resolved, sites, sets, names)
    _fill_checked(program, code, np.flatnonzero(unknown), row, sites, sets)

    outside = np.flatnonzero(~known & ~indirect)
    for site in outside.tolist():
        target = int(instructions.immediate[row[site]]) & 0xFFFF_FFFF_FFFF_FFFF
        name = program.undefined.get(target)
        sites["evidence"][site] = Evidence.OPEN
        sites["reason"][site] = Reason.UNDEFINED if name is not None else Reason.OUTSIDE
        sites["name"][site] = len(names)
        names.append(name if name is not None else f"{target:#x}")

    switched = (frames.site_stack == StackKind.OTHER_STACK) & (frames.site_under >= 0)
    sites["kind"][switched] = CallKind.STACK_SWITCH
    sites["under"][switched] = frames.site_under[switched]
    return sites


def _updated_sites(code: Code, updates: Mapping[int, Updated], sets: _Sets) -> NDArray[np.void]:
    """Tail jumps that the kernel writes into trampolines of static calls, at the trampoline's first byte."""
    sites = np.zeros(len(updates), _SITE)
    for site, (trampoline, updated) in zip(sites, sorted(updates.items()), strict=True):
        site["function"] = trampoline
        site["address"] = code.functions.address[trampoline]
        site["depth"] = code.machine.return_bytes
        site["under"] = site["name"] = -1
        site["kind"] = CallKind.TAIL
        site["tail"] = True
        site["rung"] = Rung.STATIC_CALL
        site["candidates"] = sets.add(updated.functions) if updated.functions else -1
        site["evidence"] = Evidence.OPEN if updated.open else Evidence.ASSUMED
        site["reason"] = Reason.UPDATED if updated.open else Reason.NONE
    return sites[(sites["candidates"] >= 0) | (sites["reason"] > 0)]


def _fill(
    unknown: NDArray[np.int64],
    row: NDArray[np.int32],
    resolved: Mapping[int, Resolved],
    sites: NDArray[np.void],
    sets: _Sets,
    names: list[str],
) -> None:
    """Candidates of indirect sites as resolved; a place that nothing fills stays open, and is named."""
    places: dict[str, int] = {}
    for site in unknown.tolist():
        found = resolved.get(int(row[site]))
        if found is None:
            continue
        sites["rung"][site] = found.rung
        if found.place:
            if found.place not in places:
                places[found.place] = len(names)
                names.append(found.place)
            sites["name"][site] = places[found.place]
        if found.candidates:
            sites["candidates"][site] = sets.add(found.candidates)
            sites["reason"][site] = Reason.NONE
            sites["evidence"][site] = Evidence.ASSUMED
        else:
            sites["reason"][site] = Reason.UNFILLED


def _fill_checked(
    program: Program,
    code: Code,
    unknown: NDArray[np.int64],
    row: NDArray[np.int32],
    sites: NDArray[np.void],
    sets: _Sets,
) -> None:
    """Candidates of indirect sites with a kCFI check, where no place tells better."""
    left = unknown[(sites["candidates"][unknown] < 0) | (sites["rung"][unknown] == Rung.SIGNATURE)]
    classes = checked_classes(program, code, row[left].tolist())
    for site in left.tolist():
        members = classes.get(int(row[site]), ())
        if members:
            sites["candidates"][site] = sets.add(members)
            sites["rung"][site] = Rung.KCFI
            sites["evidence"][site] = Evidence.ASSUMED
            sites["reason"][site] = Reason.NONE


def _resolve_certain(
    program: Program,
    code: Code,
    tables: Tables,
    row: NDArray[np.int32],
    indirect: NDArray[np.int64],
    sites: NDArray[np.void],
    sets: _Sets,
) -> None:
    """Indirect sites whose target the image itself settles: constants just loaded, and pv_ops."""
    functions, instructions = code.functions, code.instructions
    joins = branch_targets(code)
    for table in (tables.static_keys.target, tables.exceptions.fixup):
        rows = code.rows_at(table)
        joins[rows[rows >= 0]] = True
    thunks = thunk_registers(functions)
    paravirt = np.isin(code.address[row[indirect]], tables.paravirt)
    operands = _Operands(program, code)
    for site, patched in zip(indirect.tolist(), paravirt.tolist(), strict=True):
        at = int(row[site])
        operation = int(instructions.operation[at])
        if operation in (Operation.CALL_INDIRECT, Operation.JUMP_INDIRECT):
            if int(instructions.flags[at]) & FLAG_MEMORY:
                if patched:
                    target = operands.target(at)
                    if target >= 0:
                        sites["candidates"][site] = sets.add((target,))
                        sites["rung"][site] = Rung.PARAVIRT
                        sites["evidence"][site] = Evidence.ASSUMED
                continue
            register = int(instructions.base[at])
        else:
            register = int(thunks[code.function[int(code.target[at])]])
        if not 0 <= register < CONVENTIONS[code.machine].registers:
            continue
        target = constant_before(code, at, register, joins)
        if target >= 0:
            sites["candidates"][site] = sets.add((target,))
            sites["rung"][site] = Rung.CONSTANT
            sites["evidence"][site] = Evidence.PROVED


def _add_overrides(
    program: Program,
    code: Code,
    sites: NDArray[np.void],
    sets: _Sets,
    overrides: Mapping[int, tuple[int, ...]] | None,
) -> None:
    """Candidates of paravirt calls besides what the image has; open where something unknown may be there."""
    operands = _Operands(program, code)
    for site in np.flatnonzero(sites["rung"] == Rung.PARAVIRT).tolist():
        row = code.row_at(int(sites["address"][site]))
        members = (-1,) if overrides is None else overrides.get(operands.address(row), ())
        native = sets.sets[int(sites["candidates"][site])]
        known = tuple(sorted({*native, *(one for one in members if one >= 0)}))
        sites["candidates"][site] = sets.add(known)
        if -1 in members:
            sites["reason"][site] = Reason.INDIRECT
            sites["evidence"][site] = Evidence.OPEN


class _Operands:
    """What constant memory operands hold in the image; each address is looked up once (pv_ops has few)."""

    def __init__(self, program: Program, code: Code) -> None:
        self._code = code
        self._sections = [
            section for image in program.images for section in image.sections if section.allocated
        ]
        self._functions: dict[int, int] = {}

    def target(self, row: int) -> int:
        """The function that an indirect call's memory operand points to, or -1."""
        address = self.address(row)
        if address < 0:
            return -1
        if address not in self._functions:
            word = self._word(address, self._code.machine.word)
            self._functions[address] = self._code.functions.at(word)
        return self._functions[address]

    def address(self, row: int) -> int:
        """The constant address of an instruction's memory operand, or -1."""
        table = self._code.instructions
        if int(table.index[row]) != NO_REGISTER or int(table.flags[row]) & FLAG_SEGMENT:
            return -1
        base, displacement = int(table.base[row]), int(table.displacement[row])
        if base == RIP:
            end = int(self._code.address[row]) + int(table.length[row])
            return (end + displacement) & 0xFFFF_FFFF_FFFF_FFFF
        if base == ABSOLUTE:
            return displacement & self._code.machine.mask
        return -1

    def _word(self, address: int, word: int) -> int:
        """The pointer at that address, 0 where the image has no data."""
        for section in self._sections:
            offset = address - section.address
            if 0 <= offset <= section.data.size - word:
                return int.from_bytes(section.data[offset : offset + word].tobytes(), "little")
        return 0


def _exception_sites(
    code: Code, tables: Tables, frames: Frames, vectors: list[Vector], sets: _Sets
) -> NDArray[np.void]:
    """Instructions that may fault in kernel mode; BUG()'s ud2 is left out: after it the verdict is moot."""
    table = code.instructions
    handler = {vector.number: vector.handler for vector in vectors if vector.kind == "exception"}
    synchronous = next((vector.handler for vector in vectors if vector.name == SYNCHRONOUS), None)
    general = np.isin(tables.exceptions.type, _GENERAL_PROTECTION_TYPES)
    groups = [
        (_PAGE_FAULT, code.rows_at(tables.exceptions.place[~general])),
        (_GENERAL_PROTECTION, code.rows_at(tables.exceptions.place[general])),
        (_INVALID_OPCODE, code.rows_at(tables.bugs.place[tables.bugs.warning])),
        (_BREAKPOINT, np.flatnonzero((table.operation == Operation.BREAKPOINT) & (table.length == 1))),
    ]  # fmt: skip
    parts = []
    for number, rows in groups:
        rows = np.unique(rows[rows >= 0])
        rows = rows[
            (frames.visitor[rows] >= 0)
            & np.isin(frames.stack[rows], (StackKind.FRAME, StackKind.BELOW_ALLOCATION))
        ]
        if number == _BREAKPOINT:  # padding of one byte is reached by nothing
            behind = np.minimum(rows + 1, len(code) - 1)
            rows = rows[(code.function[behind] == code.function[rows])]
        sites = np.zeros(rows.size, _SITE)
        sites["function"] = frames.visitor[rows]
        sites["address"] = code.address[rows]
        sites["depth"] = frames.depth[rows]
        sites["under"] = -1
        sites["name"] = -1
        sites["kind"] = CallKind.EXCEPTION
        sites["rung"] = Rung.VECTOR
        target = handler.get(number, synchronous)
        if target is None:
            sites["candidates"] = -1
            sites["evidence"] = Evidence.OPEN
            sites["reason"] = Reason.NO_HANDLER
        else:
            sites["candidates"] = sets.add((target,))
            sites["evidence"] = Evidence.PROVED
        parts.append(sites)
    return np.concatenate(parts)


def _annotate(
    code: Code,
    sites: NDArray[np.void],
    sets: _Sets,
    names: list[str],
    texts: list[str],
    assumptions: AssumptionSet,
    held: Mapping[str, Held],
) -> None:
    """Candidates that an assumption file gives for indirect calls: instead of none, or of those found by
    types. What is assumed of each is put into `texts`.

    A function's come first, then a field's, then a site's, which holds. An entry whose places the program
    does not have changes nothing."""
    functions = code.functions
    free = np.isin(sites["reason"], (*_INDIRECT, Reason.UPDATED)) | (sites["rung"] > Rung.ANNOTATION)
    order = ("function", "field", "site")
    for entry in sorted(assumptions.candidates, key=lambda one: order.index(one.selector)):
        at = _annotated(code, sites, names, entry, assumptions)
        at = at[free[at]]
        if not at.size or any(place not in held for place in entry.places):
            continue
        members: list[int] = []
        for name in entry.functions:
            found = functions.named(name)
            if not found and entry.match == "exact" and entry.versions == "":
                raise _unknown(assumptions, entry, "function", name, functions.names)
            members.extend(found)
        for place in entry.places:
            members.extend((*held[place].functions, *held[place].loose))
        if members or not entry.functions:
            sites["candidates"][at] = sets.add(tuple(sorted(set(members)))) if members else -1
            sites["rung"][at] = Rung.ANNOTATION
            sites["evidence"][at] = Evidence.ASSUMED
            sites["reason"][at] = Reason.NONE
            sites["charge"][at] = entry.charge
            sites["assumption"][at] = len(texts)
            title = f"{entry.name}: " if entry.name else f"candidates of {entry.subject}: "
            texts.append(title + entry.reason)


def _annotated(
    code: Code, sites: NDArray[np.void], names: list[str], entry: Candidates, assumptions: AssumptionSet
) -> NDArray[np.intp]:
    """Sites that an entry is about. InputError: a field that holds for all versions, and no site has it."""
    functions = code.functions
    if entry.selector == "field":
        numbers = [index for index, name in enumerate(names) if name == entry.field]
        if not numbers and entry.versions == "":
            raise _unknown(assumptions, entry, "field", entry.field or "", names)
        return np.flatnonzero(np.isin(sites["name"], numbers))
    if entry.selector == "site":
        name, _, text = (entry.site or "").rpartition("+")
        chosen = {int(functions.address[index]) + int(text, 16) for index in functions.named(name)}
        return np.flatnonzero(np.isin(sites["address"], np.array(sorted(chosen), np.uint64)))
    if entry.match == "glob":
        of = [
            index
            for index, name in enumerate(functions.names)
            if any(entry.covers(one) for one in (name, *functions.aliases[index]))
        ]
    else:
        of = functions.named(entry.function or "")
    return np.flatnonzero(np.isin(sites["function"], of))


def _unknown(
    assumptions: AssumptionSet, entry: Candidates, what: str, name: str, known: list[str]
) -> InputError:
    """Candidates that name what the program does not have."""
    hint = near_text(name, known)
    return InputError(
        assumptions.path or assumptions.name, f"candidates of {entry.subject}: no {what} {name}{hint}"
    )


def _merge_alternatives(code: Code, tables: Tables, sites: NDArray[np.void], sets: _Sets) -> NDArray[np.void]:
    """Report calls in replacement code at the place that is patched, candidates merged with those there.

    Replacements that are written anew at boot, from the pointer of the call that they replace, are left out.
    """
    alternatives = tables.alternatives
    order = np.argsort(alternatives.replacement, kind="stable")
    start = alternatives.replacement[order]
    length = alternatives.replacement_length[order]
    start, order, length = start[length > 0], order[length > 0], length[length > 0]
    if start.size:
        index = np.searchsorted(start, sites["address"], "right") - 1
        offset = sites["address"] - start[np.maximum(index, 0)]
        inside = (index >= 0) & (offset < length[np.maximum(index, 0)].astype(np.uint64))
        never = inside & alternatives.direct[order][np.maximum(index, 0)]
        sites, offset, index, inside = sites[~never], offset[~never], index[~never], inside[~never]
        place = alternatives.place[order][np.maximum(index, 0)]
        moved = np.where(inside, place + offset, sites["address"])
        shift = moved - sites["address"]
        sites["return_address"] = np.where(sites["return_address"] > 0, sites["return_address"] + shift, 0)
        sites["address"] = moved
    # Sites of one function with one return address are one site.
    keyed = np.flatnonzero(sites["return_address"] > 0)
    order = keyed[np.lexsort((sites["return_address"][keyed], sites["function"][keyed]))]
    if order.size < 2:
        return sites
    same = (sites["function"][order][1:] == sites["function"][order][:-1]) & (
        sites["return_address"][order][1:] == sites["return_address"][order][:-1]
    )
    drop = np.zeros(len(sites), np.bool_)
    head = previous = -1
    for position in (np.flatnonzero(same) + 1).tolist():
        if previous != position - 1:
            head = int(order[position - 1])
        previous = position
        other = int(order[position])
        members = set[int]()
        for site in (head, other):
            if sites["candidates"][site] >= 0:
                members.update(sets.sets[int(sites["candidates"][site])])
        sites["candidates"][head] = sets.add(tuple(sorted(members))) if members else -1
        for name in ("evidence", "reason", "depth", "charge", "assumption"):
            sites[name][head] = max(sites[name][head], sites[name][other])
        drop[other] = True
    return sites[~drop]


def _thunk_sites(code: Code, tables: Tables, sites: NDArray[np.void]) -> NDArray[np.void]:
    """Indirect calls again, with the return address that a retpoline in their place leaves."""
    thunks = inline_thunks(code, tables.alternatives)
    here = np.flatnonzero(np.isin(sites["address"], np.array(sorted(thunks), np.uint64)))
    backs = [thunks[int(address)] for address in sites["address"][here].tolist()]
    found = sites[np.repeat(here, [len(back) for back in backs])].copy()
    found["return_address"] = np.array([one for back in backs for one in back], np.uint64)
    return found


def build_edges(code: Code, frames: Frames, calls: Calls) -> Edges:
    """Sites × candidates as the solver walks them, in order of the caller."""
    shared = code.machine.return_bytes
    sizes = np.array([len(members) for members in calls.candidate_sets], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    flat = np.array([member for members in calls.candidate_sets for member in members], np.int32)
    with_candidates = np.flatnonzero(calls.candidates >= 0)
    count = sizes[calls.candidates[with_candidates]]
    site = np.repeat(with_candidates, count)
    within = np.arange(site.size) - np.repeat(np.cumsum(count) - count, count)
    callee = flat[starts[calls.candidates[site]] + within] if site.size else np.empty(0, np.int32)
    frame, _ = entry_bytes(code, from_user=False)
    kind = calls.kind[site]
    weight = (calls.depth + calls.charge)[site].astype(np.int32)
    weight = np.where(calls.tail[site], weight - shared, weight)
    weight = np.where(kind == CallKind.EXCEPTION, weight + frame, weight)
    edge = np.full(site.size, EdgeKind.PLAIN, np.uint8)
    edge[kind == CallKind.EXCEPTION] = EdgeKind.EXCEPTION
    edge[kind == CallKind.STACK_SWITCH] = EdgeKind.SWITCH
    hop = np.isin(kind, (CallKind.INDIRECT, CallKind.INDIRECT_TAIL)) & ~np.isin(
        calls.rung[site], (Rung.CONSTANT, Rung.PARAVIRT)
    )
    edge[hop] = EdgeKind.HOP
    order = np.argsort(calls.function[site], kind="stable")
    first = np.searchsorted(calls.function[site][order], np.arange(len(code.functions) + 1))
    return Edges(
        first=first.astype(np.int64),
        callee=np.ascontiguousarray(callee[order]),
        weight=np.ascontiguousarray(weight[order].astype(np.int32)),
        kind=np.ascontiguousarray(edge[order]),
        site=np.ascontiguousarray(site[order].astype(np.int32)),
    )
