"""A program's code, decoded: one row per instruction over all images, with functions and branch targets.

The rows of all executable sections stand in one set of arrays by ascending address, so that kernel and
modules are one program from here on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stackfit.image.functions import CodeSection, Functions, code_sections, cold_parent_name, find_functions
from stackfit.image.model import ImageKind, Machine, Program
from stackfit.isa.effects import FLAG_LOCK_OR_REP, NO_REGISTER, Instructions, Operation
from stackfit.isa.x86 import decode

__all__ = ["Code", "decode_program"]

_BRANCHES = (Operation.CALL, Operation.JUMP, Operation.JUMP_CONDITIONAL)
# A call over a few bytes into its own function pushes its own address (retpolines, return stack stuffing,
# position-independent code). Longer than this, in code without symbols, it calls another function.
_SHORT_CALL = 16
# Pointers in these sections describe code and are not taken by the program itself.
_METADATA = ("__bug_table", ".orc_", "__ex_table", ".altinstructions", "__jump_table", ".smp_locks", ".return_sites",
             ".retpoline_sites", ".static_call_sites", ".parainstructions", ".discard", "__kcrctab")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Code:
    """Decoded instructions; all arrays have one length, rows ascend by address."""

    machine: Machine
    functions: Functions
    sections: list[CodeSection]
    address: NDArray[np.uint64]
    instructions: Instructions  # `immediate` of branches: the target's link address as int64
    target: NDArray[np.int32]  # row of a branch's target, -1 when it is no row
    function: NDArray[np.int32]  # row → function
    first: NDArray[np.int64]  # function → its first row (len + 1 entries; the last is the number of rows)

    def __len__(self) -> int:
        return len(self.address)

    def padding(self) -> NDArray[np.bool_]:
        """Rows that do nothing: alignment between blocks and functions, and bytes that are no instruction."""
        table = self.instructions
        operation = table.operation
        idle = np.isin(operation, (Operation.BREAKPOINT, Operation.NOP, Operation.BAD))
        same = table.register == table.base
        idle |= (operation == Operation.LEA) & same & (table.displacement == 0) & (table.index == NO_REGISTER)
        idle |= (operation == Operation.MOVE) & same
        return np.asarray(idle, np.bool_)

    def row_at(self, address: int) -> int:
        """The row of the instruction that starts at that address, or -1."""
        row = int(np.searchsorted(self.address, np.uint64(address)))
        return row if row < len(self.address) and int(self.address[row]) == address else -1

    def rows_at(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of the instructions that start at these addresses; -1 where none does."""
        if not len(self.address):
            return np.full(addresses.shape, -1, np.int64)
        rows = np.minimum(np.searchsorted(self.address, addresses), len(self.address) - 1)
        return np.where(self.address[rows] == addresses, rows, -1)


def decode_program(program: Program) -> Code:
    """Decode every executable section and find the program's functions.

    Entries come from symbols; from pointers in the data of modules (a stripped module has no other sign of
    its static functions); and from direct calls into code that no symbol names.
    """
    sections = code_sections(program)
    more = _entries_by_pointer(program, sections)
    while True:
        functions = find_functions(program, sections, more)
        code = _decode(program, sections, functions)
        found = sorted({*_entries_by_call(code), *_entries_by_fentry(code)})
        if not found:
            break
        for address in found:
            section = int(functions.section[functions.containing(address)])
            more.setdefault(section, []).append(address)
    return replace(code, functions=replace(functions, parent=_cold_parents(code)))


def _decode(program: Program, sections: list[CodeSection], functions: Functions) -> Code:
    bits64 = program.machine is Machine.X86_64
    mask = np.uint64(0xFFFF_FFFF_FFFF_FFFF if bits64 else 0xFFFF_FFFF)
    bounds = np.searchsorted(functions.section, np.arange(len(sections) + 1))
    parts: list[Instructions] = []
    addresses: list[NDArray[np.uint64]] = []
    for number, code in enumerate(sections):
        base = np.uint64(code.section.address)
        starts = (functions.address[bounds[number] : bounds[number + 1]] - base).astype(np.uint32)
        part = decode(code.section.data, bits64, starts)
        branch = np.flatnonzero(np.isin(part.operation, _BRANCHES))
        target = (part.immediate[branch].astype(np.uint64) + base) & mask
        part.immediate[branch] = target.astype(np.int64)
        parts.append(part)
        addresses.append(part.offset + base)
    names = Instructions.__dataclass_fields__
    instructions = Instructions(
        **{name: _joined([getattr(part, name) for part in parts]) for name in names}
    )
    address = _joined(addresses) if addresses else np.empty(0, np.uint64)
    target_row = np.full(len(address), -1, np.int32)
    if len(address):
        branch = np.flatnonzero(np.isin(instructions.operation, _BRANCHES))
        wanted = instructions.immediate[branch].astype(np.uint64)
        rows = np.minimum(np.searchsorted(address, wanted), len(address) - 1)
        target_row[branch] = np.where(address[rows] == wanted, rows, -1)
    first = np.append(np.searchsorted(address, functions.address), len(address))
    function = np.repeat(np.arange(len(functions), dtype=np.int32), np.diff(first))
    return Code(program.machine, functions, sections, address, instructions, target_row, function, first)


def _joined(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    return np.concatenate(arrays) if len(arrays) != 1 else arrays[0]


def _entries_by_pointer(program: Program, sections: list[CodeSection]) -> dict[int, list[int]]:
    """Code addresses that stand in a module's data, by code section."""
    starts = np.array([code.section.address for code in sections], np.uint64)
    ends = np.array([code.section.end for code in sections], np.uint64)
    found: dict[int, list[int]] = {}
    for image in program.images:
        if image.kind is not ImageKind.MODULE:
            continue
        pointer = 1  # R_X86_64_64 and R_386_32
        for index, table in image.relocations.items():
            section = image.sections[index]
            if section.executable or section.name.startswith(_METADATA):
                continue
            absolute = table[table["type"] == pointer]
            if not len(absolute):
                continue
            targets = image.symbols.records["address"][absolute["symbol"]] + absolute["addend"].astype(np.uint64)
            where = np.searchsorted(starts, targets, "right") - 1
            inside = (where >= 0) & (targets < ends[np.maximum(where, 0)])
            for number, target in zip(where[inside].tolist(), targets[inside].tolist(), strict=True):
                found.setdefault(number, []).append(target)
    return found


def _entries_by_call(code: Code) -> list[int]:
    """Targets of direct calls that are no function's entry yet, but for calls over a few bytes."""
    functions, instructions = code.functions, code.instructions
    call = np.flatnonzero(instructions.operation == Operation.CALL)
    if not call.size:
        return []
    target = instructions.immediate[call].astype(np.uint64)
    owner = np.searchsorted(functions.address, target, "right") - 1
    known = (owner >= 0) & (functions.address[np.maximum(owner, 0)] == target)
    inside = (owner >= 0) & (target < functions.end[np.maximum(owner, 0)]) & ~functions.piece[np.maximum(owner, 0)]
    after = code.address[call] + instructions.length[call]
    own = owner == code.function[call]
    # Inside a function with a name of its own there are no further entries; in code without symbols only
    # a call over a few bytes is surely none.
    short = own & (~functions.synthetic[code.function[call]] | ((target >= after) & (target - after <= _SHORT_CALL)))
    wild = functions.piece[code.function[call]]  # replacement code: its displacement is relative to the patched place
    return sorted(set(target[inside & ~known & ~short & ~wild].tolist()))


def _entries_by_fentry(code: Code) -> list[int]:
    """Functions without a symbol that call `__fentry__` first, as every traceable function does.

    In a linked kernel these are weak functions that another definition replaced: their code stays, their
    symbol goes. In a stripped module they are its static functions.
    """
    functions, instructions = code.functions, code.instructions
    fentry = functions.named("__fentry__")
    if not fentry:
        return []
    call = np.flatnonzero(
        (instructions.operation == Operation.CALL)
        & (instructions.immediate.astype(np.uint64) == functions.address[fentry[0]])
    )
    before = call - 1
    endbr = (
        (before >= 0)
        & (instructions.operation[before] == Operation.NOP)
        & (instructions.length[before] == 4)
        & (instructions.flags[before] == FLAG_LOCK_OR_REP)
        & (code.function[before] == code.function[call])
    )
    entry = code.address[np.where(endbr, before, call)]
    at_start = entry == functions.address[code.function[call]]
    return entry[~at_start & ~functions.piece[code.function[call]]].tolist()


def _cold_parents(code: Code) -> NDArray[np.int32]:
    """For each `.cold` piece the function that jumps into it (names alone are ambiguous: many are static)."""
    functions, instructions = code.functions, code.instructions
    parent = np.full(len(functions), -1, np.int32)
    wanted = {index: name for index, text in enumerate(functions.names) if (name := cold_parent_name(text)) is not None}
    if not wanted:
        return parent
    is_cold = np.zeros(len(functions), np.bool_)
    is_cold[list(wanted)] = True
    jump = np.flatnonzero(np.isin(instructions.operation, (Operation.JUMP, Operation.JUMP_CONDITIONAL)) & (code.target >= 0))
    source, target = code.function[jump], code.function[code.target[jump]]
    into = is_cold[target] & (source != target)
    for caller, cold in zip(source[into].tolist(), target[into].tolist(), strict=True):
        if wanted[cold] == functions.names[caller] or wanted[cold] in functions.aliases[caller]:
            parent[cold] = caller
    for cold, name in wanted.items():
        if parent[cold] < 0:  # entered by a table or a fallthrough: a unique name decides
            same = [index for index in functions.named(name) if functions.image[index] == functions.image[cold]]
            if len(same) == 1:
                parent[cold] = same[0]
    return parent
