"""The Arm, AArch64 and RISC-V decoders against capstone: lengths, and which general registers are written."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import cross
from conftest import KernelFiles, load_script
from stackfit.image.load import load_program
from stackfit.image.model import Machine
from stackfit.isa.code import decode_program
from stackfit.isa.constants import CODE, COMPACT, DATA, THUMB
from stackfit.isa.effects import Instructions, Operation
from stackfit.isa.machines import CONVENTIONS
from stackfit.isa.reduced import decode
from stackfit.isa.regions import Regions

pytest.importorskip("capstone")
decoders = load_script("compare_decoders")
FIRMWARE = Path(__file__).resolve().parents[2] / "fixtures" / "firmware"


def one_region(kind: int, address: int = 0x8000) -> Regions:
    return Regions(np.array([0], np.uint32), np.array([kind], np.uint8), np.array([address], np.int64))


def decoded(code: bytes, machine: Machine, kind: int = CODE) -> Instructions:
    return decode(np.frombuffer(code, np.uint8), machine, one_region(kind))


@pytest.mark.parametrize("name", sorted(path.stem for path in FIRMWARE.glob("*.elf")))
def test_our_firmware_instruction_by_instruction(name: str) -> None:
    tracked = cross.track(FIRMWARE / f"{name}.elf")
    # Constants amid RISC-V code have no mapping symbols: only what is reached is surely code.
    found = decoders.compare(tracked.program, tracked.code, reached=tracked.frames.visitor >= 0)
    assert not found.differences, found.examples
    assert found.compared > 100 and found.moves > 10 and not found.unknown


@pytest.mark.kernel
def test_a_shipped_kernel_and_library_for_arm64(arm64_kernel: KernelFiles, arm64_libc: Path) -> None:
    """Each so-many-th distinct encoding; scripts/compare_decoders.py does all, and more files."""
    for path, every, least in ((arm64_kernel.vmlinuz, 100, 20_000), (arm64_libc, 20, 5_000)):
        program = load_program([path])
        found = decoders.compare(program, decode_program(program), every)
        assert not found.differences, found.examples
        assert found.compared > least and found.moves > 10
        assert sum(found.unknown.values()) < found.compared // 1000


@pytest.mark.parametrize(
    ("machine", "kind"),
    [(Machine.AARCH64, CODE), (Machine.RISCV32, CODE), (Machine.RISCV64, COMPACT), (Machine.ARM, CODE),
     (Machine.ARM, THUMB)],
)  # fmt: skip
def test_any_bytes_decode(machine: Machine, kind: int) -> None:
    """Whatever the bytes, rows follow one another to the end and name registers that there are."""
    code = random.Random(8).randbytes(20_000)
    table = decoded(code, machine, kind)
    assert int(table.offset[0]) == 0
    assert (table.offset[1:] == table.offset[:-1] + table.length[:-1]).all()
    assert int(table.offset[-1]) + int(table.length[-1]) == len(code)
    registers = CONVENTIONS[machine].registers
    for column in (table.register, table.base):
        assert (
            (column < registers) | (column == 255) | (table.operation == Operation.JUMP_CONDITIONAL)
        ).all()


@pytest.mark.parametrize(
    ("machine", "kind", "code", "moved"),
    [
        (Machine.ARM, THUMB, "80b5", -8),  # push {r7, lr}
        (Machine.ARM, THUMB, "2ded108a", -64),  # vpush {s16-s31}
        (Machine.ARM, THUMB, "adf2fc7d", -2044),  # subw sp, sp, #2044
        (Machine.ARM, THUMB, "5df808ed", None),  # ldr.w lr, [sp, #-8]!: not what a compiler writes
        (Machine.ARM, CODE, "30402de9", -12),  # push {r4, r5, lr}
        (Machine.ARM, CODE, "01da4de2", -4096),  # sub sp, sp, #4096
        (Machine.AARCH64, CODE, "fd7bbda9", -48),  # stp x29, x30, [sp, #-48]!
        (Machine.AARCH64, CODE, "ff0740d1", -4096),  # sub sp, sp, #1, lsl #12
        (Machine.AARCH64, CODE, "fd7bc3a8", 48),  # ldp x29, x30, [sp], #48
        (Machine.RISCV32, CODE, "0111", -32),  # c.addi sp, sp, -32
        (Machine.RISCV64, CODE, "3971", -64),  # c.addi16sp sp, -64
        (Machine.RISCV32, COMPACT, "52b8", -16),  # cm.push {ra, s0}, -16
        (Machine.RISCV32, COMPACT, "56ba", 32),  # cm.pop {ra, s0}, 32
    ],
)
def test_what_moves_the_stack_pointer(machine: Machine, kind: int, code: str, moved: int | None) -> None:
    table = decoded(bytes.fromhex(code), machine, kind)
    stack_pointer = CONVENTIONS[machine].stack_pointer
    assert len(table) == 1 and int(table.clobbers[0]) >> stack_pointer & 1
    if moved is not None:
        assert int(table.register[0]) == stack_pointer and int(table.immediate[0]) == moved


@pytest.mark.parametrize(
    ("machine", "kind", "code", "bytes_popped"),
    [
        (Machine.ARM, THUMB, "7047", 0),  # bx lr
        (Machine.ARM, THUMB, "80bd", 8),  # pop {r7, pc}
        (Machine.ARM, THUMB, "5df804fb", 4),  # ldr pc, [sp], #4
        (Machine.ARM, CODE, "3080bde8", 12),  # pop {r4, r5, pc}
        (Machine.ARM, CODE, "0ef0a0e1", 0),  # mov pc, lr
        (Machine.AARCH64, CODE, "c0035fd6", 0),  # ret
        (Machine.AARCH64, CODE, "ff0b5fd6", 0),  # retaa
        (Machine.RISCV64, CODE, "8280", 0),  # c.jr ra
        (Machine.RISCV32, COMPACT, "52be", 16),  # cm.popret {ra, s0}, 16
    ],
)
def test_returns(machine: Machine, kind: int, code: str, bytes_popped: int) -> None:
    table = decoded(bytes.fromhex(code), machine, kind)
    assert table.operation.tolist() == [Operation.RETURN]
    assert table.displacement.tolist() == [bytes_popped]


def test_popping_the_return_address_into_a_register_is_a_return() -> None:
    """pop {r3}; add sp, #16; bx r3: functions with variable arguments on Cortex-M0; bx r3 alone is a call."""
    assert (
        decoded(bytes.fromhex("08bc04b01847"), Machine.ARM, THUMB).operation.tolist()[-1] == Operation.RETURN
    )
    assert decoded(bytes.fromhex("1847"), Machine.ARM, THUMB).operation.tolist() == [Operation.JUMP_INDIRECT]


def test_double_precision_stores_are_no_push() -> None:
    """c.fsdsp fs0, 56(sp) has an encoding of Zcmp: the region says which it is."""
    code = bytes.fromhex("22bc")
    assert decoded(code, Machine.RISCV64).operation.tolist() == [Operation.STORE_MULTIPLE]
    assert decoded(code, Machine.RISCV64).register.tolist() == [255]


def test_data_is_one_row() -> None:
    table = decoded(bytes(1000), Machine.ARM, DATA)
    assert table.operation.tolist() == [Operation.BAD] and table.length.tolist() == [1000]


def test_vector_structures_of_t32_are_no_single_loads() -> None:
    """vld1.64 {d16-d17}, [sp :64]; vst1.64 {d16-d17}, [r3]!; vst1.32 {d17[1]}, [sp]!; ldrsb beside them."""
    code = bytes.fromhex("6df9df0a 43f9cd0a cdf98d18 9df90100")
    table = decoded(code, Machine.ARM, THUMB)
    assert Operation.BAD not in table.operation.tolist() and table.length.tolist() == [4, 4, 4, 4]
    loads, stores = Operation.LOAD_MULTIPLE, Operation.STORE_MULTIPLE
    assert table.operation.tolist()[:3] == [loads, stores, stores]
    assert table.clobbers.tolist() == [0, 1 << 3, 1 << 13, 1]
