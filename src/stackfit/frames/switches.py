"""Switch statements where no relocation lists their tables: indirect jumps whose targets the code itself
gives.

On Arm, AArch64 and RISC-V a compiler dispatches through a table next to the code or in read-only data. Its
address, the size of its entries and their number are computed just before the jump; they are evaluated here.
A jump that is not understood keeps its site; code of its function that nothing else leads to is walked as one
of its targets, so that its depths are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine, Program
from stackfit.isa.code import Code
from stackfit.isa.effects import FLAG_CONDITIONAL, FLAG_MEMORY, NO_REGISTER, Operation

__all__ = ["NO_SWITCHES", "Switches", "TableReader", "find_switches"]

_LOOK_BACK = 24  # instructions evaluated before a jump
_MOST_ENTRIES = 4096  # what seems longer is no table of a switch: it is not understood, and open
_LESS, _NOT_LESS = 6, 7  # RISC-V's bltu, bgeu
_PC = 15  # Arm's program counter as a base register
# libgcc's helpers of Thumb-1 code (config/arm/lib1funcs.S): bytes and halves count instructions.
_HELPERS = {
    "__gnu_thumb1_case_sqi": (1, True),
    "__gnu_thumb1_case_uqi": (1, False),
    "__gnu_thumb1_case_shi": (2, True),
    "__gnu_thumb1_case_uhi": (2, False),
    "__gnu_thumb1_case_si": (4, True),
}


@dataclass(frozen=True, eq=False)
class Switches:
    """`jump`: rows that stay in their function, all of whose targets are known. (`row`, `to`): successors."""

    jump: NDArray[np.int64]
    row: NDArray[np.int64]
    to: NDArray[np.int64]


NO_SWITCHES = Switches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class _Value:
    """base + entry << shift, where entry is an unknown index (`load` 0) times `scale`, or the number of
    `load` bytes (`signed`) found at `table` + index × `scale`. A constant has scale 0."""

    base: int
    scale: int = 0
    load: int = 0
    signed: bool = False
    table: int = 0
    shift: int = 0


def find_switches(program: Program, code: Code) -> Switches:
    """Empty on x86, whose images list the pointers in their tables."""
    if code.machine.x86:
        return NO_SWITCHES
    reader = TableReader(program, code)
    table = code.instructions
    helpers = {
        function: _HELPERS[name]
        for name in _HELPERS
        for function in code.functions.named(name)
        if code.machine is Machine.ARM
    }
    known: list[int] = []
    pairs: list[tuple[int, int]] = []
    doubtful: list[int] = []
    for row in np.flatnonzero(table.operation == Operation.JUMP_INDIRECT).tolist():
        targets = reader.targets(row)
        if targets:
            known.append(row)
            pairs.extend((row, to) for to in targets)
        else:
            doubtful.append(row)
    outside = {at: _HELPERS[name] for at, name in program.undefined.items() if name in _HELPERS}
    for row in np.flatnonzero(table.operation == Operation.CALL).tolist() if helpers or outside else ():
        to = int(code.target[row])
        helper = helpers.get(int(code.function[to])) if to >= 0 else outside.get(int(table.immediate[row]))
        if helper is not None:
            behind = int(code.address[row]) + int(table.length[row])
            if helper[0] == 4:
                behind = behind + 2 & ~3
            found = reader.entries(
                row, behind, *helper, _Value(behind, shift=0 if helper[0] == 4 else 1), None
            )
            if found:
                known.append(row)
                pairs.extend((row, to) for to in found)
    pairs.extend(_detached(code, doubtful, {to for _, to in pairs}))
    array = np.array(sorted(set(pairs)), np.int64).reshape(-1, 2)
    return Switches(np.array(known, np.int64), array[:, 0], array[:, 1])


def _detached(code: Code, jumps: list[int], reached: set[int]) -> Iterator[tuple[int, int]]:
    """(jump, row): code of the jump's function behind an end of control flow, which no branch leads to."""
    if not jumps:
        return
    ends = _ends(code)
    joined = np.zeros(len(code) + 1, np.bool_)
    joined[code.target[code.target >= 0]] = True
    joined[list(reached)] = True
    idle = code.padding()
    for jump in jumps:
        function = int(code.function[jump])
        rows = np.arange(int(code.first[function]) + 1, int(code.first[function + 1]))
        for row in rows[ends[rows - 1] & ~joined[rows] & ~idle[rows]].tolist():
            yield jump, row


def _ends(code: Code) -> NDArray[np.bool_]:
    """Rows behind which control does not go on."""
    table = code.instructions
    last = np.isin(
        table.operation,
        (
            Operation.RETURN,
            Operation.JUMP,
            Operation.JUMP_INDIRECT,
            Operation.UNDEFINED,
            Operation.BAD,
            Operation.INTERRUPT_RETURN,
        ),
    )
    return np.asarray(last & (table.flags & FLAG_CONDITIONAL == 0), np.bool_)


class TableReader:
    """Evaluates what leads to a jump, and reads tables."""

    def __init__(self, program: Program, code: Code) -> None:
        self.code = code
        self.table = code.instructions
        self.word = code.machine.word
        self.mask = code.machine.mask
        self.ends = _ends(code)
        branches = np.flatnonzero(code.target >= 0)
        self.branches = branches[np.argsort(code.target[branches], kind="stable")]
        self.goals = code.target[self.branches]
        self.sections = sorted(
            (section.address, section.end, section.data)
            for image in program.images
            for section in image.sections
            if section.allocated and section.data.size
        )

    def targets(self, row: int) -> tuple[int, ...]:
        """Rows that the jump leads to; none: not understood."""
        table = self.table
        base, index, memory = int(table.base[row]), int(table.index[row]), int(table.flags[row]) & FLAG_MEMORY
        values, bound = self._evaluate(row)
        address = int(self.code.address[row])
        if memory and base == _PC and index != NO_REGISTER and int(table.scale[row]) == 0:  # tbb, tbh
            width = int(table.width[row])
            behind = address + int(table.length[row])
            return self.entries(row, behind, width, False, _Value(behind, shift=1), bound)
        if memory and index != NO_REGISTER:  # ldr pc, [base, index, lsl #2]
            place = _Value(address + 8) if base == _PC else values.get(base)
            if place is None or place.scale or int(table.scale[row]) != self.word:
                return ()
            return self.entries(row, place.base, self.word, False, _Value(0), bound)
        value = values.get(base)
        if value is None or not value.load or not value.scale:
            return ()
        if bound is None and value.load < self.word:  # where a table of offsets ends, nothing shows
            return ()
        return self.entries(row, value.table, value.load, value.signed, value, bound, value.scale)

    def place(self, row: int, register: int) -> tuple[int, int, int] | None:
        """(address, stride, bytes of an entry) of the table from which a register was loaded; None: of
        none."""
        value = self._evaluate(row)[0].get(register)
        if value is None or not value.load or not value.scale or value.base or value.shift:
            return None
        return value.table, value.scale, value.load

    def entries(
        self,
        row: int,
        place: int,
        width: int,
        signed: bool,
        value: _Value,
        bound: int | None,
        stride: int | None = None,
    ) -> tuple[int, ...]:
        """Targets of a table's entries, up to the bound, or to the first that is no code of the function;
        nothing where the table is longer than it can be, or ends before its bound: a part is not all."""
        code = self.code
        function = int(code.function[row])
        found: list[int] = []
        if bound is not None and bound >= _MOST_ENTRIES:
            return ()
        for number in range(_MOST_ENTRIES + 1 if bound is None else bound + 1):
            entry = self._number(place + number * (stride or width), width, signed)
            if entry is None:
                if bound is not None:
                    return ()
                break
            at = code.row_at(code.machine.code_address(value.base + (entry << value.shift) & self.mask))
            owner = int(code.function[at]) if at >= 0 else -1
            if owner != function and (owner < 0 or int(code.functions.parent[owner]) != function):
                if bound is not None:
                    return ()
                break
            if int(self.table.operation[at]) == Operation.BAD:
                if bound is not None:
                    return ()
                break
            found.append(at)
        if len(found) > _MOST_ENTRIES:
            return ()
        return tuple(dict.fromkeys(found))

    def _number(self, address: int, width: int, signed: bool) -> int | None:
        for start, end, data in self.sections:
            if start <= address and address + width <= min(end, start + data.size):
                raw = data[address - start : address - start + width].tobytes()
                return int.from_bytes(raw, "little", signed=signed)
        return None

    def _evaluate(self, jump: int) -> tuple[dict[int, _Value], int | None]:
        """What registers hold before the jump, and the greatest number that the last comparison lets by."""
        table = self.table
        values: dict[int, _Value] = {}
        compared: int | None = None
        bound: int | None = None
        for row, joined in self._before(jump):
            if joined:  # on another way here they may hold something else
                values.clear()
                bound = compared = None
            operation = int(table.operation[row])
            register = int(table.register[row])
            written = int(table.clobbers[row])
            if operation in (Operation.CALL, Operation.CALL_INDIRECT, Operation.RETURN):
                values.clear()
                bound = compared = None
                continue
            if operation == Operation.COMPARE_IMMEDIATE:
                bound = compared = int(table.immediate[row])
                continue
            if operation == Operation.JUMP_CONDITIONAL:
                found = self._branch(row, register, values, compared)
                bound = bound if found is None else found
                continue
            value = self._value(row, operation, values)
            for known in [one for one in values if written >> one & 1]:
                del values[known]
            if value is not None and register != NO_REGISTER:
                values[register] = value
            elif value is not None:  # a load of less than a register, by what it writes
                values[written.bit_length() - 1] = value
        return values, bound

    def _before(self, jump: int) -> list[tuple[int, bool]]:
        """The rows executed before the jump, first to last, and whether other ways lead to each: as far back
        as one branch at most has to be followed at a time."""
        code = self.code
        first = int(code.first[int(code.function[jump])])
        rows: list[tuple[int, bool]] = []
        at = jump
        if self._entered(at) > self.ends[at - 1]:
            return rows
        while len(rows) < _LOOK_BACK and at > first:
            if self.ends[at - 1]:
                low, high = np.searchsorted(self.goals, [at, at + 1])
                if high - low != 1:
                    break
                at = int(self.branches[low])
                if int(code.function[at]) != int(code.function[jump]):
                    break
            else:
                at -= 1
            rows.append((at, self._entered(at) > int(self.ends[max(at - 1, 0)])))
        return rows[::-1]

    def _entered(self, row: int) -> int:
        """How many branches lead to a row."""
        low, high = np.searchsorted(self.goals, [row, row + 1])
        return int(high - low)

    def _branch(
        self, row: int, condition: int, values: dict[int, _Value], compared: int | None
    ) -> int | None:
        """The greatest number that an unsigned comparison lets by to the table."""
        if self.code.machine in (Machine.RISCV32, Machine.RISCV64):
            left, right = (values.get(int(column[row])) for column in (self.table.base, self.table.index))
            if condition == _LESS and left is not None and not left.scale:
                return left.base
            if condition == _NOT_LESS and right is not None and not right.scale:
                return right.base - 1
            return None
        if compared is not None and condition in (2, 3):  # hs, lo
            return compared - 1
        return None

    def _value(self, row: int, operation: int, values: dict[int, _Value]) -> _Value | None:
        table = self.table
        register, base, index = int(table.register[row]), int(table.base[row]), int(table.index[row])
        scale, displacement = int(table.scale[row]), int(table.displacement[row])
        if operation == Operation.MOVE_IMMEDIATE:
            return _Value(int(table.immediate[row]) & self.mask)
        if operation == Operation.INSERT_IMMEDIATE:
            value = values.get(register)
            if value is None or value.scale:
                return None
            return _Value(value.base & ~(0xFFFF << scale) | int(table.immediate[row]) << scale)
        if operation == Operation.MOVE:
            return values.get(base)
        if operation == Operation.ADD_IMMEDIATE:
            return self._moved(values.get(register), int(table.immediate[row]))
        if operation == Operation.SHIFT_LEFT:
            value = values.get(register)
            amount = int(table.immediate[row])
            if value is None:
                return _Value(0, 1 << amount) if amount < 4 else None
            if value.load and not value.base:
                return _Value(0, value.scale, value.load, value.signed, value.table, value.shift + amount)
            return None
        if operation == Operation.LEA and base == NO_REGISTER and index != NO_REGISTER:
            entry = values.get(index)
            if entry is None or not entry.load or entry.load == self.word:  # any number
                return _Value(0, scale) if scale else None
        if operation in (Operation.ADD, Operation.LEA) and (
            operation == Operation.ADD or index != NO_REGISTER
        ):
            left, right, factor = (register, base, 1) if operation == Operation.ADD else (base, index, scale)
            return self._sum(values.get(left), values.get(right), factor, int(table.width[row]), row)
        if operation == Operation.LEA:
            return self._moved(values.get(base), displacement)
        loads = operation in (Operation.LOAD, Operation.LOAD_NARROW, Operation.LOAD_MULTIPLE)
        if loads and int(table.flags[row]) & FLAG_MEMORY and int(table.width[row]) <= self.word:
            place = values.get(base)
            if place is None:
                return None
            width = int(table.width[row])
            signed = operation != Operation.LOAD_NARROW
            if index != NO_REGISTER and not place.scale and index not in values:
                return _Value(0, scale, width, signed, place.base + displacement)
            other = values.get(index)
            if place.scale and other is not None and not other.scale and scale == 1:
                place, other = other, place
            if other is not None and other.scale and not other.load and not place.scale and scale == 1:
                return _Value(0, other.scale, width, signed, place.base + other.base)
            if index == NO_REGISTER and place.scale and not place.load:
                return _Value(0, place.scale, width, signed, place.base + displacement)
        return None

    def _moved(self, value: _Value | None, by: int) -> _Value | None:
        if value is None:
            return None
        return _Value(
            value.base + by & self.mask, value.scale, value.load, value.signed, value.table, value.shift
        )

    def _sum(
        self, left: _Value | None, right: _Value | None, factor: int, width: int, row: int
    ) -> _Value | None:
        """left + right × factor, of which one is an address and the other an index or a table's entry."""
        if left is not None and left.scale and (right is None or not right.scale) and factor == 1:
            left, right = right, left
        if left is None or left.scale:
            return None
        if right is None:
            return _Value(left.base, factor) if factor else None
        if not right.scale:
            return _Value(left.base + right.base * factor & self.mask)
        if not right.load:
            return _Value(left.base + right.base * factor & self.mask, right.scale * factor)
        shift = right.shift + factor.bit_length() - 1
        signed = right.signed or width < self.word  # AArch64: sxtb, sxth, sxtw
        return _Value(left.base + right.base & self.mask, right.scale, right.load, signed, right.table, shift)
