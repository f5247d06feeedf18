#!/usr/bin/env python3
"""Holds the Arm, AArch64 and RISC-V decoders against capstone: lengths, written registers, the stack pointer.

    compare_decoders.py FILE…      ELF images, archives of objects, Linux kernels as they are shipped

Each distinct encoding is compared once; what is printed counts instructions. Compared are the length, the
general registers that an instruction writes, and by how many bytes it moves the stack pointer where it states
that. What capstone 5 is known to leave out or to say wrong is listed in EXCEPTIONS with the reason; the exit
status is 1 where anything else differs.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import capstone
import numpy as np

from stackfit.frames.analyse import analyse_frames
from stackfit.frames.switches import find_switches
from stackfit.image.load import load_program
from stackfit.image.model import InputError, Machine, Program
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import Code, decode_program
from stackfit.isa.constants import THUMB
from stackfit.isa.effects import Operation
from stackfit.isa.machines import CONVENTIONS
from stackfit.isa.regions import find_regions

__all__ = ["EXCEPTIONS", "Comparison", "compare", "main"]

_RISCV = (
    "ecall: what the call convention lets change is ours; jal, jalr of a save routine that the file does not"
    " define: what it does is ours"
)
# Mnemonics whose written registers capstone 5.0 does not tell, or tells wrongly, by machine.
EXCEPTIONS: dict[Machine, tuple[tuple[str, ...], str]] = {
    Machine.ARM: (
        ("vpush", "vpop", "vldm", "vstm", "stm", "mrc", "mrrc", "mcrr", "svc", "smc", "hvc", "bkpt",
         "cmp", "cmn", "tst", "teq"),
        "vpush, vpop, vldm, vstm, stm: no base register written; mrc, mrrc: no result; svc, smc, hvc: what"
        " the call convention lets change is ours; comparisons: the first operand called written",
    ),
    Machine.AARCH64: (
        ("svc", "smc", "hvc", "hlt", "brk", "cmp", "cmn", "tst", "ccmp", "ccmn", "adds", "subs", "ands",
         "cas", "swp", "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin",
         "ldg", "paciasp", "pacibsp", "autiasp", "autibsp", "xpaclri"),
        "svc, smc, hvc: what the call convention lets change is ours; comparisons: the first operand called"
        " written; atomic operations and ldg: no result; signing the return address leaves it the same to us",
    ),
    Machine.RISCV32: (("ecall",), _RISCV),
    Machine.RISCV64: (("ecall",), _RISCV),
}  # fmt: skip
_ARM_NAMES = {"sp": 13, "lr": 14, "sb": 9, "sl": 10, "fp": 11, "ip": 12}
_ARM64_NAMES = {"sp": 31, "wsp": 31, "fp": 29, "lr": 30}
_RISCV_NAMES = {
    "zero": 0, "ra": 1, "sp": 2, "gp": 3, "tp": 4, "t0": 5, "t1": 6, "t2": 7, "s0": 8, "fp": 8, "s1": 9,
    **{f"a{n}": 10 + n for n in range(8)}, **{f"s{n}": 16 + n for n in range(2, 12)},
    **{f"t{n}": 25 + n for n in range(3, 7)},
}  # fmt: skip
# RISC-V instructions whose first operand is not a destination: stores, branches, jumps, fences, traps.
_RISCV_NO_RESULT = re.compile(
    r"(c\.)?(s[bhwd]|fs[wd]|s[wd]sp|fs[wd]sp|b\w+|j|jr|fence\S*|sfence\S*|ecall|ebreak|[msu]ret|wfi|nop|unimp|ret)$"
)


@dataclass
class Comparison:
    """What was compared, in instructions; `differences`: what differs and is no exception."""

    instructions: int = 0
    compared: int = 0  # by length
    effects: int = 0  # by registers written
    moves: int = 0  # of the stack pointer, by bytes
    unknown: Counter[str] = field(default_factory=Counter)  # not decoded by one of the two: how we call it
    excepted: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


def reader_for(machine: Machine, thumb: bool) -> Any:
    if machine is Machine.ARM:
        mode = capstone.CS_MODE_THUMB if thumb else capstone.CS_MODE_ARM
        found = capstone.Cs(capstone.CS_ARCH_ARM, mode)
    elif machine is Machine.AARCH64:
        found = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    else:
        width = capstone.CS_MODE_RISCV64 if machine is Machine.RISCV64 else capstone.CS_MODE_RISCV32
        found = capstone.Cs(capstone.CS_ARCH_RISCV, width | capstone.CS_MODE_RISCVC)
    found.detail = True
    return found


@functools.cache
def m_profile() -> Any:
    """T32 with the special registers of Cortex-M."""
    found = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    found.detail = True
    return found


def _number(name: str, machine: Machine) -> int | None:
    names = {Machine.ARM: _ARM_NAMES, Machine.AARCH64: _ARM64_NAMES}.get(machine, _RISCV_NAMES)
    if name in names:
        return names[name]
    if machine is Machine.ARM and name[:1] == "r" and name[1:].isdigit():
        return int(name[1:])
    if machine is Machine.AARCH64 and name[:1] in "xw" and name[1:].isdigit():
        return int(name[1:])
    return None


def written(instruction: Any, machine: Machine) -> int:
    """The general registers that capstone says are written, as bits; not the pc, nor a register of zero."""
    if machine in (Machine.RISCV32, Machine.RISCV64):  # capstone 5 lists no accesses there
        if _RISCV_NO_RESULT.match(instruction.mnemonic):
            return 0
        if instruction.mnemonic in ("c.jalr", "jalr") and "," not in instruction.op_str:
            return 1 << 1  # ra; the operand is where it leads to
        operands = [one.strip() for one in instruction.op_str.split(",")]
        if instruction.mnemonic in ("mv", "c.mv") and operands[0] == operands[1]:
            return 0  # nothing changes
        if instruction.mnemonic in ("fscsr", "fsrm", "fsflags") and len(operands) == 1:
            return 0  # the operand is what is written there
        number = _number(instruction.op_str.split(",")[0].strip(), machine)
        return 0 if not number else 1 << number
    bits = 0
    for register in instruction.regs_access()[1]:
        number = _number(instruction.reg_name(register), machine)
        if number is not None:
            bits |= 1 << number
    return bits & (0x7FFF if machine is Machine.ARM else 0xFFFFFFFF)


def moved(instruction: Any, machine: Machine) -> int | None:
    """Bytes added to the stack pointer, where the text states them."""
    name, text = instruction.mnemonic.split(".")[0], instruction.op_str
    if machine in (Machine.RISCV32, Machine.RISCV64):
        found = re.fullmatch(r"sp, (?:sp, )?(-?(?:0x)?[0-9a-f]+)", text)
        return int(found[1], 0) if found and instruction.mnemonic.startswith(("addi", "c.addi")) else None
    if found := re.fullmatch(r"sp, (?:sp, )?#(-?(?:0x)?[0-9a-f]+)(?:, lsl #(\d+))?", text):
        amount = int(found[1], 0) << int(found[2] or 0)
        return {"add": amount, "addw": amount, "sub": -amount, "subw": -amount}.get(name)
    if found := re.search(r"\[sp, #(-?(?:0x)?[0-9a-f]+)\]!$", text) or re.search(
        r"\[sp\], #(-?(?:0x)?[0-9a-f]+)$", text
    ):
        return int(found[1], 0)
    if name in ("push", "pop", "vpush", "vpop") and machine is Machine.ARM:
        registers = re.findall(r"[a-z]+\d*", text.split("{")[1])
        size = 8 if registers[0].startswith("d") else 4
        return size * len(registers) * (1 if name.endswith("pop") else -1)
    return None


def _ours(code: Code, row: int, pointer: int) -> int | None:
    table = code.instructions
    operation = int(table.operation[row])
    if int(table.register[row]) == pointer and operation in (
        Operation.ADD_IMMEDIATE,
        Operation.LOAD_MULTIPLE,
        Operation.STORE_MULTIPLE,
    ):
        return int(table.immediate[row])
    if operation == Operation.RETURN:
        return int(table.displacement[row])
    return None


def compare(program: Program, code: Code, every: int = 1, reached: Any = None) -> Comparison:
    """Compare all rows, or every n-th distinct encoding. `reached`: bool by row, where data amid code has no
    mark: only what control reaches is surely code."""
    result = Comparison()
    machine = code.machine
    table = code.instructions
    pointer = CONVENTIONS[machine].stack_pointer
    excepted = EXCEPTIONS.get(machine, ((), ""))[0]
    readers = {
        thumb: reader_for(machine, thumb) for thumb in ((False, True) if machine is Machine.ARM else (False,))
    }
    sizes = np.array([one.section.data.size for one in code.sections], np.uint64)
    piece = np.cumsum(sizes) - sizes
    regions = find_regions(program, code.sections, piece, code.functions)
    for section, begin in zip(code.sections, piece.tolist(), strict=True):
        start, stop = np.searchsorted(code.address, [section.section.address, section.section.end]).tolist()
        rows = np.arange(start, stop)
        rows = rows[table.operation[rows] != Operation.BAD]
        if reached is not None:
            rows = rows[reached[rows]]
        if not rows.size:
            continue
        result.instructions += rows.size
        offset = (code.address[rows] - np.uint64(section.section.address)).astype(np.int64)
        raw = section.section.data
        length = table.length[rows].astype(np.int64)
        word = np.zeros(rows.size, np.int64)
        for byte in range(4):
            at = np.minimum(offset + byte, raw.size - 1)
            word |= np.where(byte < length, raw[at].astype(np.int64), 0) << 8 * byte
        place = np.searchsorted(regions.start, (offset + begin).astype(np.uint32), "right") - 1
        thumb = regions.kind[place] == THUMB
        key = word << 4 | length << 1 | thumb
        _, first, count = np.unique(key, return_index=True, return_counts=True)
        for index, times in list(zip(first.tolist(), count.tolist(), strict=True))[::every]:
            row, at = int(rows[index]), int(offset[index])
            reader = readers[bool(thumb[index])]
            _one(result, code, reader, row, raw[at : at + 4].tobytes(), times, pointer, excepted)
    return result


def _one(
    result: Comparison, code: Code, reader: Any, row: int, raw: bytes, times: int, pointer: int,
    excepted: tuple[str, ...],
) -> None:  # fmt: skip
    table, machine = code.instructions, code.machine
    operation = Operation(int(table.operation[row]))
    instruction = next(reader.disasm(raw, int(code.address[row]), 1), None)
    if instruction is None and machine is Machine.ARM:
        instruction = next(m_profile().disasm(raw, int(code.address[row]), 1), None)
    if instruction is None:
        result.unknown[operation.name] += times
        return
    encoding = raw[: int(table.length[row])].hex()
    text = f"{int(code.address[row]):#x} {encoding} {instruction.mnemonic} {instruction.op_str}"

    def differs(kind: str) -> None:
        result.differences[f"{kind} {instruction.mnemonic}"] += times
        result.examples.setdefault(f"{kind} {instruction.mnemonic}", text)

    result.compared += times
    if instruction.size != int(table.length[row]):
        differs("length")
        return
    want, got = moved(instruction, machine), _ours(code, row, pointer)
    if want is not None and operation != Operation.MOVE_IMMEDIATE:  # an address made of two instructions
        result.moves += times
        if want != got:
            differs(f"stack pointer ({got}, not {want})")
    routine = operation in (Operation.STORE_MULTIPLE, Operation.SUBTRACT) and instruction.mnemonic in (
        "jal",
        "jalr",
    )
    if routine or (instruction.mnemonic.startswith(excepted) if excepted else False):
        result.excepted[instruction.mnemonic] += times
        return
    want, got = written(instruction, machine), int(table.clobbers[row])
    if machine is Machine.ARM:
        got &= 0x7FFF  # a pc that is written is a branch
    if operation in (Operation.CALL, Operation.CALL_INDIRECT):  # the link register is the call's
        link = 1 << {Machine.ARM: 14, Machine.AARCH64: 30}.get(machine, 1)
        want, got = want & ~link, got & ~link
    if operation == Operation.RETURN:
        want, got = want & ~(1 << pointer), got & ~(1 << pointer)
    result.effects += times
    if got != want:
        differs(f"registers ({got:#x}, not {want:#x})")


def reached_rows(program: Program, code: Code) -> Any:
    """bool by row: whether tracking the stack gets there."""
    switches = find_switches(program, code)
    frames = analyse_frames(code, read_tables(program), code_pointers(program), switches=switches)
    return frames.visitor >= 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compare_decoders.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", nargs="+", type=Path)
    parser.add_argument(
        "--reached", action="store_true", help="only what control reaches (no mapping symbols)"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each n-th distinct encoding only")
    options = parser.parse_args(arguments)
    status = 0
    total: Counter[str] = Counter()
    for path in options.file:
        try:
            program = load_program([path])
            code = decode_program(program)
        except InputError as error:
            print(error, file=sys.stderr)
            status = 2
            continue
        reached = reached_rows(program, code) if options.reached else None
        found = compare(program, code, options.every, reached)
        numbers = {
            "instructions": found.instructions, "lengths": found.compared, "registers": found.effects,
            "moves": found.moves, "exceptions": sum(found.excepted.values()),
            "unknown": sum(found.unknown.values()), "different": sum(found.differences.values()),
        }  # fmt: skip
        total.update(numbers)
        print(
            f"{path} ({code.machine.value}): "
            + ", ".join(f"{count} {name}" for name, count in numbers.items())
        )
        for kind, count in found.differences.most_common(40):
            print(f"  {count} times {kind}: {found.examples[kind]}")
            status = max(status, 1)
    if len(options.file) > 1:
        print("all: " + ", ".join(f"{count} {name}" for name, count in total.items()))
    return status


if __name__ == "__main__":
    sys.exit(main())
