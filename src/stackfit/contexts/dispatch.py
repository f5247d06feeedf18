"""System call dispatch: which function each number reaches, read from the dispatcher's own code.

Two forms: a compare tree (`x64_sys_call`, since 6.1.84 and 6.9), walked once per number with that number in
its register; and a table of pointers (`sys_call_table`), found by the instruction that indexes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.image.model import Program
from stackfit.isa.code import Code
from stackfit.isa.effects import ABSOLUTE, FLAG_MEMORY, NO_REGISTER, Operation

__all__ = ["Dispatched", "dispatch_table", "dispatch_tree", "read_table"]

NUMBERS = 1024  # no x86 system call number is greater (x32 starts at 512)
_STEPS = 400  # instructions followed for one number
_NO_SUCH_NUMBER = 0xFFFF
# What a tree is made of, as plain integers: an enumeration's members are slow to look up.
_COMPARE_IMMEDIATE, _JUMP_CONDITIONAL = int(Operation.COMPARE_IMMEDIATE), int(Operation.JUMP_CONDITIONAL)


@dataclass(frozen=True)
class Dispatched:
    number: int
    row: int  # of the call or jump that leaves the dispatcher
    callee: int  # function


_Row = tuple[int, int, int, int, int, int, int, int]


class _Rows(dict[int, _Row]):
    """Rows as plain integers, each read once: a tree is walked a thousand times.

    Operation, target, register, base, flags, immediate, clobbers, function.
    """

    def __init__(self, code: Code) -> None:
        super().__init__()
        table = code.instructions
        self._columns = (
            table.operation, code.target, table.register, table.base, table.flags, table.immediate,
            table.clobbers, code.function,
        )  # fmt: skip

    def __missing__(self, row: int) -> _Row:
        operation, target, register, base, flags, immediate, clobbers, function = self._columns
        found = self[row] = (
            int(operation[row]), int(target[row]), int(register[row]), int(base[row]), int(flags[row]),
            int(immediate[row]), int(clobbers[row]), int(function[row]),
        )  # fmt: skip
        return found


def dispatch_tree(code: Code, dispatcher: int) -> list[Dispatched]:
    """Each number's function by a compare tree; numbers that the tree refuses are left out."""
    register = _number_register(code, dispatcher)
    if register < 0:
        return []
    rows = _Rows(code)
    refused = _follow(code, rows, dispatcher, register, _NO_SUCH_NUMBER)
    found: list[Dispatched] = []
    for number in range(NUMBERS):
        row = _follow(code, rows, dispatcher, register, number)
        if row < 0:
            continue
        callee = int(code.function[int(code.target[row])])
        if refused >= 0 and callee == int(code.function[int(code.target[refused])]):
            continue  # sys_ni_syscall
        found.append(Dispatched(number, row, callee))
    return found


def _number_register(code: Code, dispatcher: int) -> int:
    """The register that the tree compares first."""
    table = code.instructions
    for row in range(int(code.first[dispatcher]), int(code.first[dispatcher + 1])):
        if (
            int(table.operation[row]) == Operation.COMPARE_IMMEDIATE
            and not int(table.flags[row]) & FLAG_MEMORY
        ):
            return int(table.register[row])
    return -1


def _follow(code: Code, rows: _Rows, dispatcher: int, register: int, number: int) -> int:
    """The row at which control leaves for that number's function; -1: it returns, or cannot be followed."""
    row, last = int(code.first[dispatcher]), len(code) - 1
    values = {register: number}
    flags: tuple[int, int] | None = None
    for _ in range(_STEPS):
        operation, target, subject, base, bits, immediate, written, _ = rows[row]
        if operation == _JUMP_CONDITIONAL:
            if flags is None or subject > 15:  # loop, jcxz
                return -1
            row = target if _condition(subject, *flags) else row + 1
            if not 0 <= row <= last:
                return -1
            continue
        if operation == _COMPARE_IMMEDIATE:
            known = not bits & FLAG_MEMORY and subject in values
            flags = (values[subject], immediate) if known else None
        elif operation == Operation.JUMP:
            if target < 0:
                return -1
            owner = int(code.function[target])
            if owner == dispatcher or int(code.functions.parent[owner]) == dispatcher:
                row = target
                continue
            return row if _is_entry(code, target) else -1
        elif operation == Operation.CALL:
            if target < 0 or not _is_entry(code, target):
                return -1
            if code.functions.names[int(code.function[target])] != "__fentry__":
                return row
        elif operation in (
            Operation.RETURN,
            Operation.JUMP_INDIRECT,
            Operation.CALL_INDIRECT,
            Operation.UNDEFINED,
        ):
            return -1
        elif operation == Operation.TEST:
            same = subject in values and base == subject
            flags = (values[subject], 0) if same else None
        elif operation == Operation.MOVE and base in values:
            values[subject] = values[base]
        elif operation == Operation.ADD_IMMEDIATE and subject in values:
            change = immediate
            flags = (values[subject], -change)
            values[subject] = (values[subject] + change) & 0xFFFF_FFFF
        else:
            for known_register in [one for one in values if written & (1 << one)]:
                del values[known_register]
        row += 1
        if row > last or rows[row][7] != dispatcher:
            return -1
    return -1


def _is_entry(code: Code, row: int) -> bool:
    return int(code.first[int(code.function[row])]) == row


def _condition(code: int, left: int, right: int) -> bool:
    """Whether the condition holds after a 32-bit `cmp right, left` (Intel SDM 1, appendix B)."""
    left, right = left & 0xFFFF_FFFF, right & 0xFFFF_FFFF
    kind = code >> 1
    if kind == 1:
        holds = left < right
    elif kind == 2:
        holds = left == right
    elif kind == 3:
        holds = left <= right
    elif kind == 4:
        holds = bool((left - right) >> 31 & 1)
    elif kind == 5:
        holds = ((left - right) & 0xFF).bit_count() % 2 == 0
    else:
        signed_left, signed_right = left - (left >> 31 << 32), right - (right >> 31 << 32)
        if kind == 6:
            holds = signed_left < signed_right
        elif kind == 7:
            holds = signed_left <= signed_right
        else:  # overflow
            holds = not -(1 << 31) <= signed_left - signed_right < 1 << 31
    return holds != bool(code & 1)


def dispatch_table(program: Program, code: Code, function: int) -> list[Dispatched]:
    """Each number's function by a table that `function` indexes with the number."""
    table = code.instructions
    word = code.machine.word
    for row in range(int(code.first[function]), int(code.first[function + 1])):
        operation = int(table.operation[row])
        if operation not in (Operation.LOAD, Operation.CALL_INDIRECT):
            continue
        indexed = (
            int(table.flags[row]) & FLAG_MEMORY
            and int(table.base[row]) == ABSOLUTE
            and int(table.index[row]) != NO_REGISTER
            and int(table.scale[row]) == word
        )
        if not indexed:
            continue
        found = read_table(program, code, int(table.displacement[row]) & code.machine.mask, row)
        if len(found) >= 100:  # a jump table of another kind is much shorter
            return found
    return []


def read_table(program: Program, code: Code, address: int, row: int) -> list[Dispatched]:
    """Each number's function by the pointers that stand at that address; `row`: of what indexes them."""
    word = code.machine.word
    for image in program.images:
        for section in image.sections:
            if not section.allocated or not section.address <= address < section.address + section.data.size:
                continue
            found: list[Dispatched] = []
            for number in range(NUMBERS):
                at = address - section.address + number * word
                callee = code.functions.at(int.from_bytes(section.data[at : at + word].tobytes(), "little"))
                if callee < 0:
                    break
                found.append(Dispatched(number, row, callee))
            return [one for one in found if "ni_syscall" not in code.functions.names[one.callee]]
    return []
