"""A program's code, decoded: one row per instruction over all images, with functions and branch targets.

The rows of all executable sections stand in one set of arrays by ascending address, so that kernel and
modules are one program from here on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackfit.image.attributes import read_arm_attributes
from stackfit.image.entries import outside_entries
from stackfit.image.functions import (
    CodeSection,
    Functions,
    code_sections,
    cold_parent_name,
    find_functions,
    symbol_entries,
)
from stackfit.image.model import Image, ImageKind, InputError, Machine, Program
from stackfit.image.pointers import METADATA, absolute_targets, code_pointers, distinct
from stackfit.isa.effects import FLAG_CONDITIONAL, FLAG_LOCK_OR_REP, NO_REGISTER, Instructions, Operation
from stackfit.isa.reduced import decode as decode_reduced
from stackfit.isa.regions import find_regions, is_thumb
from stackfit.isa.save_routines import stand_in_for_save_routines
from stackfit.isa.stripped import built_addresses, literals, plausible, prologues
from stackfit.isa.x86 import decode, rows_at_offsets

__all__ = ["GLOBAL_POINTER", "Code", "decode_program"]


def _among(*operations: Operation) -> NDArray[np.bool_]:
    """A table to index with an array of operations: which are among these."""
    table = np.zeros(256, np.bool_)
    table[list(operations)] = True
    return table


_BRANCHES = _among(Operation.CALL, Operation.JUMP, Operation.JUMP_CONDITIONAL)
_JUMPS = _among(Operation.JUMP, Operation.JUMP_CONDITIONAL)
_IDLE = _among(Operation.BREAKPOINT, Operation.NOP, Operation.BAD)
# Nothing runs on from these into the next instruction.
_ENDS = _among(
    Operation.RETURN,
    Operation.JUMP,
    Operation.JUMP_INDIRECT,
    Operation.UNDEFINED,
    Operation.BREAKPOINT,
    Operation.NOP,
)
# A call over a few bytes into its own function pushes its own address (retpolines, return stack stuffing,
# position-independent code). Longer than this, in code without symbols, it calls another function.
_SHORT_CALL = 16
_ENDBR = (b"\xf3\x0f\x1e\xfa", b"\xf3\x0f\x1e\xfb")  # endbr64, endbr32
GLOBAL_POINTER = 3  # register of RISC-V (psABI 1.1)
_GLOBAL_SYMBOL = "__global_pointer$"  # psABI 8.4.11
_COLD_SECTION = ".text.unlikely"  # where gcc puts the pieces that it splits off


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
    global_pointer: int | None = None  # what RISC-V code that the linker relaxed has in gp

    def __len__(self) -> int:
        return len(self.address)

    def padding(self) -> NDArray[np.bool_]:
        """Rows that do nothing: alignment between blocks and functions, and bytes that are no instruction."""
        table = self.instructions
        operation = table.operation
        idle = _IDLE[operation]
        same = table.register == table.base
        idle |= (operation == Operation.LEA) & same & (table.displacement == 0) & (table.index == NO_REGISTER)
        idle |= (operation == Operation.MOVE) & same
        return idle

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

    Entries come from symbols; from pointers in the data and code of modules (a stripped module has no other
    sign of its static functions); and from direct calls and jumps into code that no symbol names.
    """
    sections = code_sections(program)
    symbols = symbol_entries(program, sections)
    taken = _addresses_taken_by_code(program)
    more = np.concatenate([_addresses_in_data(program), outside_entries(program)])
    sized = _symbol_ends(program)
    fentry = [
        at for at, names in zip(symbols.address.tolist(), symbols.names, strict=True) if "__fentry__" in names
    ]
    # A linker's map names functions, and says nothing of data amid code.
    by_map = any(image.symbol_source == "map" for image in program.images)
    stripped = not program.machine.x86 and (not len(symbols.names) or by_map)
    held = code_pointers(program) if stripped else np.empty(0, np.uint64)
    functions = find_functions(sections, symbols, more)
    data = np.empty(0, np.uint64)  # words amid code that are none
    code = _decode(program, sections, functions, data)
    while True:
        if stripped and program.machine is Machine.ARM:
            words = distinct(np.concatenate([data, _literals(program, code)]))
            if words.size > data.size:
                data = words
                code = _decode(program, sections, functions, data)
        found = np.unique(
            np.concatenate(
                [
                    _entries_by_call(code, sized, stripped and _far_by_call(program)),
                    _entries_by_fentry(code, fentry),
                    _entries_by_immediate(code, taken),
                    _entries_by_jump(code),
                    _entries_of_stripped(code, held) if stripped else held,
                ]
            )
        )
        if not found.size:
            break
        more = np.concatenate([more, found])
        functions = find_functions(sections, symbols, more)
        if bool((code.rows_at(found) >= 0).all()):
            code = replace(code, functions=functions, **_rows_of(functions, code.address))
        else:  # an entry amid what was taken for an instruction: decode afresh from it on
            code = _decode(program, sections, functions, data)
    stand_in_for_save_routines(program, code.instructions)
    functions = replace(functions, parent=_cold_parents(code, more))
    return replace(code, functions=functions, global_pointer=_global_pointer(program))


def _global_pointer(program: Program) -> int | None:
    if program.machine not in (Machine.RISCV32, Machine.RISCV64):
        return None
    for image in program.images:
        for index, name in enumerate(image.symbols.names):
            if name == _GLOBAL_SYMBOL:
                return int(image.symbols.records["address"][index])
    return None


def _decode(
    program: Program, sections: list[CodeSection], functions: Functions, data: NDArray[np.uint64]
) -> Code:
    """Decode all sections as one piece of code, in which every function's entry is a start. `data`: addresses
    of words that are no code, where no symbols say so."""
    machine = program.machine
    sizes = np.array([code.section.data.size for code in sections], np.uint64)
    if int(sizes.sum()) >> 32:
        raise InputError(program.images[0].path, "more than 4 GiB of code")
    text = np.concatenate([code.section.data for code in sections] or [np.empty(0, np.uint8)])
    base = np.array([code.section.address for code in sections], np.uint64)
    piece = np.cumsum(sizes) - sizes  # where each section begins in `text`
    shift = base - piece  # modulo 2**64
    if machine.x86:
        bits64 = machine is Machine.X86_64
        instructions = decode(text, bits64, (functions.address - shift[functions.section]).astype(np.uint32))
    else:
        instructions = decode_reduced(text, machine, find_regions(program, sections, piece, functions, data))
    del text
    rows = np.diff(np.append(np.searchsorted(instructions.offset, piece), len(instructions)))
    address = np.repeat(shift, rows)
    branch = np.flatnonzero(_BRANCHES[instructions.operation])
    mask = np.uint64(machine.mask)
    goal = (instructions.immediate[branch].astype(np.uint64) + address[branch]) & mask
    instructions.immediate[branch] = goal.astype(np.int64)
    address += instructions.offset
    target = np.full(len(address), -1, np.int32)
    target[branch] = rows_at_offsets(instructions.offset, _offsets_in_text(goal, base, piece, sizes))
    return Code(
        program.machine, functions, sections, address, instructions, target, **_rows_of(functions, address)
    )


def _offsets_in_text(
    addresses: NDArray[np.uint64],
    base: NDArray[np.uint64],
    piece: NDArray[np.uint64],
    size: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Where addresses lie in the sections' joined code, -1 outside.

    Of each section, by ascending address: its address, offset in the joined code, and size.
    """
    if not base.size:
        return np.full(addresses.shape, -1, np.int64)
    section = np.searchsorted(base, addresses, "right") - 1  # -1: below all, far beyond the last one's size
    within = addresses - base[section]
    return np.where(within < size[section], (piece[section] + within).view(np.int64), -1)


def _rows_of(functions: Functions, address: NDArray[np.uint64]) -> dict[str, Any]:
    """The fields `first` and `function` of a Code."""
    first = np.append(np.searchsorted(address, functions.address), len(address))
    return {"first": first, "function": np.repeat(np.arange(len(functions), dtype=np.int32), np.diff(first))}


def _addresses_in_data(program: Program) -> NDArray[np.uint64]:
    """Addresses that stand in a module's data, but for what lies within a function whose symbol has a size.

    Those are entries in a stripped module (which has no other sign of its static functions); in one with
    symbols they are targets of a switch table.
    """
    parts = [np.empty(0, np.uint64)]
    for image in program.images:
        if image.kind is not ImageKind.MODULE:
            continue
        own = [
            _listed_entries(image, index)
            for index in image.relocations
            if not image.sections[index].executable and not image.sections[index].name.startswith(METADATA)
        ]
        if own:
            targets = _code_addresses(program.machine, np.concatenate(own))
            parts.append(_outside_sized_functions(image, distinct(targets)))
    return np.concatenate(parts)


def _listed_entries(image: Image, index: int) -> NDArray[np.uint64]:
    """Addresses that stand in one section of a module: pointers, exports, calls to `__fentry__`."""
    section, found = image.sections[index], absolute_targets(image, index)
    if section.name == "__mcount_loc":  # the call stands at the entry, or behind an endbr there
        for code in image.sections:
            if code.executable:
                inside = np.flatnonzero((found >= code.address + 4) & (found < code.end))
                places = (found[inside] - np.uint64(code.address)).astype(np.int64)
                endbr = [code.data[place - 4 : place].tobytes() in _ENDBR for place in places.tolist()]
                found[inside[np.array(endbr, np.bool_)]] -= np.uint64(4)
    elif section.name.startswith("__ksymtab"):  # its entries are relative to the place
        table = image.relocations[index]
        offset = table["offset"][table["type"] == 2].astype(np.int64)  # R_X86_64_PC32, R_386_PC32
        offset = offset[offset <= section.data.size - 4]
        if offset.size:
            word = section.data[offset[:, None] + np.arange(4)].view("<i4").ravel().astype(np.int64)
            mask = np.uint64(image.machine.mask)
            target = (np.uint64(section.address) + (offset + word).astype(np.uint64)) & mask
            found = np.concatenate([found, target])
    return found


def _symbol_ends(program: Program) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Functions (STT_FUNC) whose symbols have a size, by ascending address, and where each ends."""
    tables = [image.symbols.records for image in program.images]
    parts = [table[(table["section"] >= 0) & (table["type"] == 2) & (table["size"] > 0)] for table in tables]
    start = np.concatenate([table["address"] for table in parts])
    end = start + np.concatenate([table["size"] for table in parts])
    order = np.lexsort((end, start))
    start, end = start[order], end[order]
    last = np.append(start[1:] != start[:-1], True) if start.size else np.empty(0, np.bool_)
    return start[last], end[last]


def _outside_sized_functions(image: Image, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
    records = image.symbols.records
    sized = records[(records["section"] >= 0) & (records["type"] == 2) & (records["size"] > 0)]  # STT_FUNC
    if not len(sized) or not addresses.size:
        return addresses
    sized = sized[np.argsort(sized["address"], kind="stable")]
    before = np.searchsorted(sized["address"], addresses, "right") - 1
    start, size = sized["address"][before], sized["size"][before]
    outside = (before < 0) | (addresses == start) | (addresses - start >= size)
    return np.asarray(addresses[outside], np.uint64)


def _far_by_call(program: Program) -> bool:
    """Whether T32 code has no branch that reaches far, so that compilers jump by `bl`: before Thumb-2."""
    attributes = read_arm_attributes(program.images[0]) if program.machine is Machine.ARM else None
    return attributes is not None and attributes.architecture in _WITHOUT_FAR_BRANCHES


# Tag_CPU_arch (AAELF32 addenda, 3.3.5.2): v4T to v6K but for v6T2, v6-M, v6S-M.
_WITHOUT_FAR_BRANCHES = (2, 3, 4, 5, 6, 7, 9, 11, 12)


def _jumps(code: Code, call: NDArray[np.int64], target: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Calls that look like far jumps: the code before their target runs on into it; or what stands behind the
    call is no code, or led to by a branch, and their target does not begin as a function does."""
    operation = code.instructions.operation
    row = np.maximum(code.rows_at(target), 0)
    before = operation[np.maximum(row - 1, 0)]
    into = (row > 0) & ~_ENDS[before] & (before != Operation.CALL) & (before != Operation.BAD)
    joined = np.zeros(len(code) + 1, np.bool_)
    joined[code.target[_JUMPS[operation] & (code.target >= 0)]] = True
    joined[:-1] |= operation == Operation.BAD
    begins = prologues(code.machine, code.instructions, _first_words(code))
    return np.asarray(into | joined[call + 1] & ~begins[row], np.bool_)


def _addresses_taken_by_code(program: Program) -> NDArray[np.uint64]:
    """Addresses that stand in instructions of modules: ascending, distinct."""
    parts = [
        absolute_targets(image, index)
        for image in program.images
        if image.kind is ImageKind.MODULE
        for index in image.relocations
        if image.sections[index].executable
    ]
    return distinct(_code_addresses(program.machine, np.concatenate([np.empty(0, np.uint64), *parts])))


def _code_addresses(machine: Machine, pointers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Where pointers to code lead: see Machine.code_address."""
    return pointers & ~np.uint64(1) if machine is Machine.ARM else pointers


def _entries_by_call(
    code: Code, sized: tuple[NDArray[np.uint64], NDArray[np.uint64]], far_by_call: bool
) -> NDArray[np.uint64]:
    """Targets of direct calls that are no function's entry yet, but for calls over a few bytes.

    `sized`: where the functions of known size start and end. `far_by_call`: some calls may be jumps.
    """
    functions, instructions = code.functions, code.instructions
    call = np.flatnonzero(instructions.operation == Operation.CALL)
    if code.machine is Machine.ARM:
        call = call[_runs_on(code)[call]]
    target = instructions.immediate[call].astype(np.uint64)
    owner = np.searchsorted(functions.address, target, "right") - 1
    known = (owner >= 0) & (functions.address[np.maximum(owner, 0)] == target)
    inside = (
        (owner >= 0) & (target < functions.end[np.maximum(owner, 0)]) & ~functions.piece[np.maximum(owner, 0)]
    )
    after = code.address[call] + instructions.length[call]
    own = owner == code.function[call]
    # Inside a function with a name of its own there are no further entries (what follows its end is another's
    # that lost its name); in code without symbols only a call over a few bytes is surely none.
    caller = functions.address[code.function[call]]
    start, end = sized
    place = np.minimum(np.searchsorted(start, caller), max(start.size - 1, 0))
    behind = (
        (start[place] == caller) & (target >= end[place]) if start.size else np.zeros(call.size, np.bool_)
    )
    within = ~functions.synthetic[code.function[call]] | ((target >= after) & (target - after <= _SHORT_CALL))
    short = own & within & ~behind
    if far_by_call:
        short |= own & _jumps(code, call, target)
    wild = functions.piece[
        code.function[call]
    ]  # replacement code: its displacement is relative to the patched place
    return distinct(target[inside & ~known & ~short & ~wild])


def _runs_on(code: Code) -> NDArray[np.bool_]:
    """Rows that an entry, a branch or the row before leads to. On Arm what others look like need be no
    instructions: constants behind a function, where no mapping symbols are left."""
    table = code.instructions
    rows = np.arange(len(code))
    start = np.zeros(len(code), np.bool_)
    start[code.first[:-1]] = True
    start[code.target[code.target >= 0]] = True
    behind = np.zeros(len(code), np.bool_)
    behind[1:] = (_ENDS[table.operation] & (table.operation != Operation.NOP))[:-1]
    behind[1:] &= (table.flags & FLAG_CONDITIONAL == 0)[:-1]
    last_start = np.maximum.accumulate(np.where(start, rows, -1))
    last_behind = np.maximum.accumulate(np.where(behind, rows, -1))
    return np.asarray(last_start >= last_behind, np.bool_)


def _entries_by_immediate(code: Code, taken: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Addresses that the code of a stripped module takes of its own code (`request_irq(n, handler, …)`).

    Only where its own function does not lead: a label within a function (`_THIS_IP_`) is no entry.
    """
    functions = code.functions
    row = code.rows_at(taken)
    target, row = taken[row > 0], row[row > 0]
    owner = code.function[row]
    new = functions.synthetic[owner] & (functions.address[owner] != target)
    return np.asarray(target[new & _detached(code, row)], np.uint64)


def _entries_of_stripped(code: Code, held: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Entries in an image without symbols that no branch shows; `held`: code addresses in its data."""
    machine, functions = code.machine, code.functions
    if machine is Machine.ARM:
        held = held[held & np.uint64(1) == 1] & ~np.uint64(1)
    # Pointers in data to code of a function that jumps through a table are its table's.
    owner = code.function[np.maximum(code.rows_at(held), 0)]
    jumps = np.zeros(len(functions), np.bool_)
    jumps[code.function[code.instructions.operation == Operation.JUMP_INDIRECT]] = True
    held = held[~jumps[owner]]
    rows = code.rows_at(distinct(np.concatenate([held, built_addresses(machine, code.instructions)])))
    starting = np.flatnonzero(prologues(machine, code.instructions, _first_words(code)))
    rows = np.unique(np.concatenate([rows[rows > 0], starting[starting > 0]]))
    rows = rows[(code.first[code.function[rows]] != rows) & functions.synthetic[code.function[rows]]]
    rows = rows[plausible(code.instructions)[rows]]
    return np.asarray(code.address[rows[_detached(code, rows, behind_data=True)]], np.uint64)


def _literals(program: Program, code: Code) -> NDArray[np.uint64]:
    """See stripped.literals()."""
    thumb = np.array([is_thumb(program, part) for part in code.sections], np.bool_)
    return literals(
        code.instructions,
        code.address,
        code.target,
        code.first[:-1],
        _first_words(code),
        thumb[code.functions.section[code.function]],
    )


def _first_words(code: Code) -> NDArray[np.uint32]:
    """The first four bytes of each row, as far as its section has them."""
    found = np.zeros(len(code), np.uint32)
    for part in code.sections:
        section = part.section
        first, last = np.searchsorted(code.address, np.array([section.address, section.end], np.uint64))
        offset = (code.address[first:last] - np.uint64(section.address)).astype(np.int64)
        padded = np.concatenate([section.data, np.zeros(4, np.uint8)])
        found[first:last] = padded[offset[:, None] + np.arange(4)].view("<u4").ravel()
    return found


def _entries_by_jump(code: Code) -> NDArray[np.uint64]:
    """Where code without symbols is entered by jumps from other functions alone: it is only tail-called.

    Not to or from cold pieces: those jumps stay within a function.
    """
    functions = code.functions
    jump = np.flatnonzero(_JUMPS[code.instructions.operation] & (code.target >= 0))
    row = code.target[jump].astype(np.int64)
    source, owner = code.function[jump], code.function[row]
    cold = _in_cold_section(code)
    new = (source != owner) & functions.synthetic[owner] & (row > code.first[owner])
    for function in (source, owner):
        new &= ~functions.piece[function] & ~cold[function]
    row = np.unique(row[new])
    return code.address[row[_detached(code, row)]]


def _in_cold_section(code: Code) -> NDArray[np.bool_]:
    """By function."""
    cold = np.array([part.section.name.startswith(_COLD_SECTION) for part in code.sections], np.bool_)
    return np.asarray(cold[code.functions.section], np.bool_)


def _detached(code: Code, rows: NDArray[np.int64], behind_data: bool = False) -> NDArray[np.bool_]:
    """Whether nothing in their own function leads to these rows: no jump, and no instruction that runs on.

    `behind_data`: what is no instruction does not run on, either.
    """
    jump = np.flatnonzero(_JUMPS[code.instructions.operation] & (code.target >= 0))
    target = code.target[jump]
    joined = np.zeros(len(code), np.bool_)
    joined[target[code.function[jump] == code.function[target]]] = True
    before = np.maximum(rows - 1, 0)
    operation = code.instructions.operation[before]
    ends = _ENDS[operation] | behind_data & (operation == Operation.BAD)
    ends &= code.function[before] == code.function[rows]
    return np.asarray(~joined[rows] & ends, np.bool_)


def _entries_by_fentry(code: Code, fentry: list[int]) -> NDArray[np.uint64]:
    """Functions without a symbol that call `__fentry__` first, as every traceable function does.

    In a linked kernel these are weak functions that another definition replaced: their code stays, their
    symbol goes. In a stripped module they are its static functions.
    """
    functions, instructions = code.functions, code.instructions
    call = np.flatnonzero(instructions.operation == Operation.CALL)
    call = call[np.isin(instructions.immediate[call].view(np.uint64), np.array(fentry, np.uint64))]
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
    return np.asarray(entry[~at_start & ~functions.piece[code.function[call]]], np.uint64)


def _cold_parents(code: Code, entered: NDArray[np.uint64]) -> NDArray[np.int32]:
    """For each `.cold` piece the function that jumps into it (names alone are ambiguous: many are static).

    `entered`: addresses known to be entries of functions without a symbol.
    """
    functions, instructions = code.functions, code.instructions
    parent = np.full(len(functions), -1, np.int32)
    _nameless_cold(code, entered, parent)
    wanted = {
        index: name
        for index, text in enumerate(functions.names)
        if ".cold" in text and (name := cold_parent_name(text)) is not None
    }
    if not wanted:
        return parent
    is_cold = np.zeros(len(functions), np.bool_)
    is_cold[list(wanted)] = True
    jump = np.flatnonzero(_JUMPS[instructions.operation] & (code.target >= 0))
    source, target = code.function[jump], code.function[code.target[jump]]
    into = is_cold[target] & (source != target)
    for caller, cold in zip(source[into].tolist(), target[into].tolist(), strict=True):
        if wanted[cold] == functions.names[caller] or wanted[cold] in functions.aliases[caller]:
            parent[cold] = caller
    by_name: dict[tuple[str, int], list[int]] = {
        (name, int(functions.image[cold])): [] for cold, name in wanted.items() if parent[cold] < 0
    }
    for index, (name, aliases, image) in enumerate(
        zip(functions.names, functions.aliases, functions.image.tolist(), strict=True) if by_name else ()
    ):
        for one in (name, *aliases):
            if (one, image) in by_name:
                by_name[one, image].append(index)
    for cold, name in wanted.items():
        if parent[cold] < 0:  # entered by a table or a fallthrough: a unique name decides
            same = by_name[name, int(functions.image[cold])]
            if len(same) == 1:
                parent[cold] = same[0]
    return parent


def _nameless_cold(code: Code, entered: NDArray[np.uint64], parent: NDArray[np.int32]) -> None:
    """The first of the pieces that lost their symbols looks like a function: its section begins there.

    It is none when the jumps of one function enter it and nothing else does.
    """
    functions = code.functions
    doubtful = functions.synthetic & _in_cold_section(code) & ~np.isin(functions.address, entered)
    if not doubtful.any():
        return
    branch = np.flatnonzero(code.target >= 0)
    goal = code.function[code.target[branch]]
    at_start = doubtful[goal] & (code.target[branch] == code.first[goal]) & (code.function[branch] != goal)
    branch, goal = branch[at_start], goal[at_start]
    is_call = code.instructions.operation[branch] == Operation.CALL
    for index in np.unique(goal).tolist():
        owners = np.unique(code.function[branch[goal == index]])
        if owners.size == 1 and not is_call[goal == index].any():
            parent[index] = owners[0]
