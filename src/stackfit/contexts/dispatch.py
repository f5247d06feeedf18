"""System call dispatch: which function each number reaches, read from the dispatcher's own code.

Two forms: a compare tree (`x64_sys_call`, since 6.1.84 and 6.9), walked once per number with that number in
its register; and a table of pointers (`sys_call_table`), found by the instruction that indexes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from stackfit.image.model import Machine, Program
from stackfit.isa.code import Code
from stackfit.isa.effects import ABSOLUTE, FLAG_MEMORY, NO_REGISTER, Operation

__all__ = ["Dispatched", "dispatch_table", "dispatch_tree"]

NUMBERS = 1024  # no x86 system call number is greater (x32 starts at 512)
_STEPS = 400  # instructions followed for one number
_NO_SUCH_NUMBER = 0xFFFF


@dataclass(frozen=True)
class Dispatched:
    number: int
    row: int  # of the call or jump that leaves the dispatcher
    callee: int  # function


def dispatch_tree(code: Code, dispatcher: int) -> list[Dispatched]:
    """Each number's function by a compare tree; numbers that the tree refuses are left out."""
    register = _number_register(code, dispatcher)
    if register < 0:
        return []
    refused = _follow(code, dispatcher, register, _NO_SUCH_NUMBER)
    found: list[Dispatched] = []
    for number in range(NUMBERS):
        row = _follow(code, dispatcher, register, number)
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


def _follow(code: Code, dispatcher: int, register: int, number: int) -> int:
    """The row at which control leaves for that number's function; -1: it returns, or cannot be followed."""
    table = code.instructions
    row = int(code.first[dispatcher])
    values = {register: number}
    flags: tuple[int, int] | None = None
    for _ in range(_STEPS):
        operation, target = int(table.operation[row]), int(code.target[row])
        subject = int(table.register[row])
        if operation == Operation.JUMP_CONDITIONAL:
            if flags is None:
                return -1
            row = target if _condition(int(table.register[row]), *flags) else row + 1
            if row < 0:
                return -1
            continue
        if operation == Operation.JUMP:
            if target < 0:
                return -1
            owner = int(code.function[target])
            if owner == dispatcher or int(code.functions.parent[owner]) == dispatcher:
                row = target
                continue
            return row if _is_entry(code, target) else -1
        if operation == Operation.CALL:
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
        elif operation == Operation.COMPARE_IMMEDIATE:
            known = not int(table.flags[row]) & FLAG_MEMORY and subject in values
            flags = (values[subject], int(table.immediate[row])) if known else None
        elif operation == Operation.TEST:
            same = subject in values and int(table.base[row]) == subject
            flags = (values[subject], 0) if same else None
        elif operation == Operation.MOVE and int(table.base[row]) in values:
            values[subject] = values[int(table.base[row])]
        elif operation == Operation.ADD_IMMEDIATE and subject in values:
            change = int(table.immediate[row])
            flags = (values[subject], -change)
            values[subject] = (values[subject] + change) & 0xFFFF_FFFF
        else:
            written = int(table.clobbers[row])
            for known_register in [one for one in values if written & (1 << one)]:
                del values[known_register]
        row += 1
        if row >= len(code) or int(code.function[row]) != dispatcher:
            return -1
    return -1


def _is_entry(code: Code, row: int) -> bool:
    return int(code.first[int(code.function[row])]) == row


def _condition(code: int, left: int, right: int) -> bool:
    """Whether the condition holds after a 32-bit `cmp right, left` (Intel SDM 1, appendix B)."""
    unsigned_left, unsigned_right = left & 0xFFFF_FFFF, right & 0xFFFF_FFFF
    signed_left = unsigned_left - (unsigned_left >> 31 << 32)
    signed_right = unsigned_right - (unsigned_right >> 31 << 32)
    difference = (unsigned_left - unsigned_right) & 0xFFFF_FFFF
    holds = {
        1: signed_left - signed_right not in range(-(1 << 31), 1 << 31),  # overflow
        2: unsigned_left < unsigned_right,
        4: unsigned_left == unsigned_right,
        6: unsigned_left <= unsigned_right,
        8: bool(difference >> 31),
        10: bin(difference & 0xFF).count("1") % 2 == 0,
        12: signed_left < signed_right,
        14: signed_left <= signed_right,
    }
    if code == 0:
        return holds[1]
    if code == 1:
        return not holds[1]
    return holds[code & ~1] != bool(code & 1)


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
        mask = 0xFFFF_FFFF if code.machine is Machine.I386 else 0xFFFF_FFFF_FFFF_FFFF
        found = _read_table(program, code, int(table.displacement[row]) & mask, row)
        if len(found) >= 100:  # a jump table of another kind is much shorter
            return found
    return []


def _read_table(program: Program, code: Code, address: int, row: int) -> list[Dispatched]:
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
