"""The x86 decoder against iced-x86 and capstone: lengths, stack effects, registers written, branches.

Known differences, all towards accepting more or on forms that no compiler emits:

- Encodings that the manual reserves (and LOCK where it is not allowed) are decoded as OTHER: nothing depends
  on them, and a decoder that knows fewer instructions than the CPU would lose the code behind a new one.
- AMD's XOP (dropped in 2017) is BAD.
- Branches, calls and returns with an operand-size prefix in 32-bit code (they cut eip to 16 bits), and far
  calls (they push two words), count as the ordinary form.
- A run of int3 is one instruction.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolchain
from stackfit.image.elf import read_elf
from stackfit.image.link import link
from stackfit.image.model import Machine
from stackfit.isa import x86, x86_decode
from stackfit.isa.code import decode_program
from stackfit.isa.effects import FLAG_MEMORY, NO_REGISTER, RIP, Instructions, Operation

iced = pytest.importorskip("iced_x86")
capstone = pytest.importorskip("capstone")

CELL = 16  # bytes a case is padded to: more than the longest instruction
NO_STARTS = np.empty(0, np.uint32)
MODES = pytest.mark.parametrize("bits", [64, 32])
CODE_NAMES = {
    value: name
    for name, value in vars(iced.Code).items()
    if not name.startswith("_") and isinstance(value, int)
}
WRITES = (
    iced.OpAccess.WRITE,
    iced.OpAccess.READ_WRITE,
    iced.OpAccess.COND_WRITE,
    iced.OpAccess.READ_COND_WRITE,
)


@given(
    st.sets(st.integers(0, 400), max_size=60),
    st.lists(st.integers(-40, 440) | st.sampled_from([-(1 << 40), 1 << 40]), max_size=60),
)
def test_rows_of_branch_targets_are_those_of_a_search(starts: set[int], targets: list[int]) -> None:
    ordered = sorted(starts)
    rows = x86.rows_at_offsets(np.array(ordered, np.uint32), np.array(targets, np.int64))
    assert rows.tolist() == [ordered.index(at) if at in starts else -1 for at in targets]


def cells(cases: list[bytes]) -> bytes:
    return b"".join(case.ljust(CELL, b"\x90")[:CELL] for case in cases)


def decode_cells(bits: int, cases: list[bytes]) -> tuple[Instructions, list[int]]:
    """The decoded cells, and the index of each cell's first instruction."""
    code = np.frombuffer(cells(cases), np.uint8)
    found = x86.decode(code, bits == 64, np.arange(0, code.size, CELL, dtype=np.uint32))
    first = np.flatnonzero(found.offset % CELL == 0).tolist()
    assert len(first) == len(cases)
    return found, first


def oracle(bits: int, case: bytes) -> Any:
    return iced.Decoder(bits, case.ljust(CELL, b"\x90")[:CELL]).decode()


def general(register: int) -> int | None:
    """Number of the general register that holds `register`, or None."""
    whole = iced.RegisterExt.full_register(register)
    return whole - iced.Register.RAX if iced.Register.RAX <= whole <= iced.Register.R15 else None


def is_int3_run(case: bytes) -> bool:
    return case[:1] == b"\xcc"


# ---------------------------------------------------------------- the cases

TAIL = bytes.fromhex("24112233445566770102")
MODRMS = sorted(
    {
        0x04,
        0x05,
        0x44,
        0x45,
        0x84,
        0x80,
        0xC0,
        0xC4,
        0xE1,
        0xF8,
        *(group << 3 for group in range(8)),
        *(0xC1 | group << 3 for group in range(8)),
        *(0x40 | group << 3 for group in range(8)),
    }
)


def opcodes(bits: int) -> Iterator[bytes]:
    """Every opcode of the one-byte and 0F maps × prefixes × a sample of ModRM; 0F38, 0F3A, VEX, EVEX."""
    prefixes = [b"", b"\x66", b"\xf3", b"\xf2", b"\x67"]
    prefixes += (
        [b"\x48", b"\x66\x48", b"\x41", b"\xf3\x48", b"\x45", b"\x48\x66"] if bits == 64 else [b"\x26"]
    )
    for prefix in prefixes:
        for opcode in range(256):
            for modrm in MODRMS:
                yield prefix + bytes([opcode, modrm]) + TAIL
                yield prefix + bytes([0x0F, opcode, modrm]) + TAIL
        for opcode in range(256):
            for modrm in (0x05, 0x44, 0xC1):
                yield prefix + bytes([0x0F, 0x38, opcode, modrm]) + TAIL
                yield prefix + bytes([0x0F, 0x3A, opcode, modrm]) + TAIL
    for modrm in range(256):  # groups that ModRM alone tells apart
        for opcode in (0x00, 0x01, 0xA6, 0xA7, 0xAE, 0xC7):
            for prefix in (b"", b"\x66", b"\xf3", b"\xf2"):
                yield prefix + bytes([0x0F, opcode, modrm]) + TAIL
    for opcode in range(256):
        for modrm in (0x05, 0x44, 0xC1):
            for last in (0x78, 0x79, 0x7A, 0x7B, 0x7D, 0xF8, 0xFB):
                yield bytes([0xC5, last | 0x80, opcode, modrm]) + TAIL
                for number in (1, 2, 3):
                    yield bytes([0xC4, 0xE0 | number, last, opcode, modrm]) + TAIL
            for last in (0x7C, 0x7D, 0x7E, 0x7F, 0xFD):
                for number in (1, 2, 3, 5, 6):
                    yield bytes([0x62, 0xF0 | number, last, 0x48, opcode, modrm]) + TAIL
                    yield bytes([0x62, 0xF0 | number, last, 0x08, opcode, modrm]) + TAIL


@pytest.fixture(scope="module", params=[64, 32])
def valid(request: pytest.FixtureRequest) -> tuple[int, list[bytes], Instructions, list[int], list[Any]]:
    """(bits, cases, decoded, index of each case, iced's instructions): every case that iced accepts."""
    bits = request.param
    cases = [case for case in dict.fromkeys(opcodes(bits)) if not is_int3_run(case)]
    wanted = [oracle(bits, case) for case in cases]
    keep = [i for i, one in enumerate(wanted) if one.code != iced.Code.INVALID]
    assert len(keep) > 50_000
    cases, wanted = [cases[i] for i in keep], [wanted[i] for i in keep]
    found, first = decode_cells(bits, cases)
    return bits, cases, found, first, wanted


Valid = tuple[int, list[bytes], Instructions, list[int], list[Any]]


def report(problems: dict[str, list[str]]) -> str:
    return "\n".join(f"{key}: {len(cases)}, e.g. {cases[:3]}" for key, cases in sorted(problems.items()))


# ---------------------------------------------------------------- lengths


def test_every_opcode_has_the_length_that_iced_says(valid: Valid) -> None:
    _, cases, found, first, wanted = valid
    problems: dict[str, list[str]] = {}
    for case, index, instruction in zip(cases, first, wanted, strict=True):
        length = 0 if found.operation[index] == Operation.BAD else int(found.length[index])
        if length != instruction.len:
            key = f"{CODE_NAMES[instruction.code]}: {instruction.len}, not {length}"
            problems.setdefault(key, []).append(case.hex())
    assert not problems, report(problems)


def is_xop(case: bytes) -> bool:
    body = case.lstrip(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3" + bytes(range(0x40, 0x50)))
    return len(body) > 1 and body[0] == 0x8F and body[1] & 0x38 != 0


@MODES
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_random_bytes_have_the_length_that_iced_says(bits: int, data: st.DataObject) -> None:
    case = data.draw(st.binary(min_size=CELL, max_size=CELL))
    wanted = oracle(bits, case)
    if wanted.code == iced.Code.INVALID or is_int3_run(case) or is_xop(case):
        return
    found, _ = decode_cells(bits, [case])
    assert (Operation(found.operation[0]) is not Operation.BAD, int(found.length[0])) == (True, wanted.len)


@MODES
def test_many_random_bytes_have_the_length_that_iced_says(bits: int) -> None:
    raw = np.random.default_rng(bits).integers(0, 256, 60_000 * CELL, np.uint8).tobytes()
    cases = [raw[at : at + CELL] for at in range(0, len(raw), CELL)]
    found, first = decode_cells(bits, cases)
    compared, problems = 0, []
    for case, index in zip(cases, first, strict=True):
        wanted = oracle(bits, case)
        if wanted.code == iced.Code.INVALID or is_int3_run(case) or is_xop(case):
            continue
        compared += 1
        if found.operation[index] == Operation.BAD or found.length[index] != wanted.len:
            problems.append(f"{case.hex()} {wanted}: {wanted.len}, not {int(found.length[index])}")
    assert compared > 40_000
    assert not problems, "\n".join(problems[:20])


@MODES
@given(code=st.binary(max_size=200), starts=st.lists(st.integers(0, 250), max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_covered_without_gap_or_overlap(bits: int, code: bytes, starts: list[int]) -> None:
    given_starts = np.array(sorted(set(starts)), np.uint32)
    found = x86.decode(np.frombuffer(code, np.uint8), bits == 64, given_starts)
    ends = found.offset + found.length
    assert found.offset.tolist() == [0, *ends.tolist()][: len(found)]
    assert (ends[-1] if len(found) else 0) == len(code)
    # Decoding begins afresh at every start.
    assert set(given_starts[given_starts < len(code)].tolist()) <= set(found.offset.tolist())
    assert bool((found.length[found.operation != Operation.BREAKPOINT] <= 15).all())
    assert bool((found.length[found.operation == Operation.BAD] == 1).all())


def test_an_instruction_longer_than_15_bytes_is_none() -> None:
    for bits in (64, 32):
        long = np.frombuffer(b"\x66" * 14 + b"\x90" + b"\x66" * 15 + b"\x90", np.uint8)
        found = x86.decode(long, bits == 64, NO_STARTS)
        assert (found.length[0], found.operation[0]) == (15, Operation.NOP)
        assert (found.length[1], found.operation[1]) == (1, Operation.BAD)


def test_a_run_of_int3_is_one_instruction_up_to_the_next_start() -> None:
    code = np.frombuffer(b"\xcc" * 70_000 + b"\xc3", np.uint8)
    found = x86.decode(code, True, np.array([10], np.uint32))
    assert found.offset[:2].tolist() == [0, 10]
    assert set(found.operation[:-1].tolist()) == {Operation.BREAKPOINT}
    assert found.operation[-1] == Operation.RETURN
    assert int(found.length.sum(dtype=np.int64)) == code.size


# ---------------------------------------------------------------- effects


def stack_change(found: Instructions, index: int) -> int:
    """Bytes by which the decoded instruction moves the stack pointer up."""
    width, immediate = int(found.width[index]), int(found.immediate[index])
    match Operation(found.operation[index]):
        case Operation.PUSH | Operation.PUSH_FLAGS | Operation.CALL | Operation.CALL_INDIRECT:
            return -width
        case Operation.POP | Operation.POP_FLAGS:
            return width
        case Operation.PUSH_ALL:
            return -8 * width
        case Operation.POP_ALL:
            return 8 * width
        case Operation.RETURN:
            return width + immediate
    return 0


# The stack pointer is replaced, not moved: the tracker handles each by its operation.
REPLACED = (Operation.LEAVE, Operation.ENTER, Operation.INTERRUPT_RETURN, Operation.FAR_JUMP)
# Operand-size prefix on a branch in 32-bit code, far calls, uiret: see the top of this file.
EXOTIC = {
    "RETNW",
    "RETNW_IMM16",
    "CALL_REL16",
    "CALL_RM16",
    "CALL_PTR1616",
    "CALL_PTR1632",
    "CALL_M1616",
    "CALL_M1632",
    "CALL_M1664",
    "UIRET",
}


def test_pushes_pops_calls_and_returns_move_the_stack_pointer_as_iced_says(valid: Valid) -> None:
    _, cases, found, first, wanted = valid
    problems: dict[str, list[str]] = {}
    moving = 0
    for case, index, instruction in zip(cases, first, wanted, strict=True):
        name = CODE_NAMES[instruction.code]
        if name in EXOTIC or found.operation[index] in REPLACED:
            continue
        moving += instruction.stack_pointer_increment != 0
        if stack_change(found, index) != instruction.stack_pointer_increment:
            operation = Operation(found.operation[index]).name
            change = f"{instruction.stack_pointer_increment}, not {stack_change(found, index)}"
            key = f"{name} as {operation}: {change}"
            problems.setdefault(key, []).append(case.hex())
    assert moving > 3_000
    assert not problems, report(problems)


def test_no_write_to_a_general_register_is_missed(valid: Valid) -> None:
    bits, cases, found, first, wanted = valid
    factory = iced.InstructionInfoFactory()
    implicit = {Operation.SYSTEM_CALL, Operation.SYSTEM_RETURN, Operation.INTERRUPT, *REPLACED}
    problems: dict[str, list[str]] = {}
    for case, index, instruction in zip(cases, first, wanted, strict=True):
        name = CODE_NAMES[instruction.code]
        need = 0
        for used in factory.info(instruction).used_registers():
            number = general(used.register) if used.access in WRITES else None
            if number is not None and (bits == 64 or number < 8):
                need |= 1 << number
        have = int(found.clobbers[index])
        moves = instruction.stack_pointer_increment != 0 or found.operation[index] in implicit
        if moves or name == "SKINIT":
            need &= ~(1 << 4)
        if need & ~have:
            problems.setdefault(f"{name} misses {need & ~have:#x}", []).append(case.hex())
        # Writing too many is harmless, but for the stack pointer.
        if have & ~need & 1 << 4 and not moves:
            problems.setdefault(f"{name} does not write the stack pointer", []).append(case.hex())
    assert not problems, report(problems)


FLOW = {
    Operation.JUMP: iced.FlowControl.UNCONDITIONAL_BRANCH,
    Operation.JUMP_INDIRECT: iced.FlowControl.INDIRECT_BRANCH,
    Operation.JUMP_CONDITIONAL: iced.FlowControl.CONDITIONAL_BRANCH,
    Operation.RETURN: iced.FlowControl.RETURN,
    Operation.INTERRUPT_RETURN: iced.FlowControl.RETURN,
    Operation.SYSTEM_RETURN: iced.FlowControl.RETURN,
    Operation.CALL: iced.FlowControl.CALL,
    Operation.SYSTEM_CALL: iced.FlowControl.CALL,
    Operation.CALL_INDIRECT: iced.FlowControl.INDIRECT_CALL,
    Operation.INTERRUPT: iced.FlowControl.INTERRUPT,
    Operation.BREAKPOINT: iced.FlowControl.INTERRUPT,
    Operation.UNDEFINED: iced.FlowControl.EXCEPTION,
}
# To a hypervisor, an enclave or a secure monitor and back: on this stack nothing happens.
WORLD_SWITCHES = {
    "VMCALL",
    "VMMCALL",
    "VMLAUNCH",
    "VMRESUME",
    "VMRUND",
    "VMRUNQ",
    "VMRUNW",
    "VMGEXIT",
    "VMGEXIT_F2",
    "TDCALL",
    "SEAMCALL",
    "SEAMRET",
    "SKINIT",
    "UIRET",
}


def test_branches_have_the_kind_and_the_target_that_iced_says(valid: Valid) -> None:
    bits, cases, found, first, wanted = valid
    problems: dict[str, list[str]] = {}
    targets = 0
    for case, index, instruction in zip(cases, first, wanted, strict=True):
        name, flow = CODE_NAMES[instruction.code], instruction.flow_control
        operation = Operation(found.operation[index])
        if operation is Operation.FAR_JUMP:  # far jmp, far ret, rsm: no flow within the code
            expected = flow if name.startswith(("JMP_M16", "JMP_PTR16", "RETF", "RSM")) else -1
        elif name.startswith("CALL_PTR16"):
            expected = iced.FlowControl.CALL if operation is Operation.CALL_INDIRECT else -1
        elif name in WORLD_SWITCHES or flow == iced.FlowControl.XBEGIN_XABORT_XEND:
            expected = flow if operation is Operation.OTHER else -1
        else:
            expected = FLOW.get(operation, iced.FlowControl.NEXT)
        if expected != flow:
            problems.setdefault(f"{name} is {operation.name}", []).append(case.hex())
        if operation in (Operation.JUMP, Operation.JUMP_CONDITIONAL, Operation.CALL) and not name.endswith(
            ("REL8_16", "REL16", "REL8_16_ECX", "REL8_16_CX")
        ):
            targets += 1
            target = (int(found.immediate[index]) - int(found.offset[index])) & (1 << bits) - 1
            if target != instruction.near_branch_target:
                problems.setdefault(f"{name} goes elsewhere", []).append(case.hex())
    assert targets > 1_000
    assert not problems, report(problems)


CONDITIONAL_MOVES = {
    value for name, value in vars(iced.Mnemonic).items() if name.startswith("CMOV") and isinstance(value, int)
}


def memory_operand(found: Instructions, index: int) -> tuple[int, int, int, int]:
    return (
        int(found.base[index]),
        int(found.index[index]),
        int(found.scale[index]),
        int(found.displacement[index]),
    )


def iced_memory(instruction: Any, bits: int) -> tuple[int, int, int, int]:
    base = instruction.memory_base
    if base in (iced.Register.RIP, iced.Register.EIP):
        displacement = instruction.memory_displacement - instruction.len
    else:
        displacement = instruction.memory_displacement
    displacement = (displacement + (1 << 31)) % (1 << 32) - (1 << 31)
    number = {iced.Register.RIP: RIP, iced.Register.NONE: NO_REGISTER}.get(base, general(base))
    index = (
        NO_REGISTER if instruction.memory_index == iced.Register.NONE else general(instruction.memory_index)
    )
    assert number is not None and index is not None
    return number, index, instruction.memory_index_scale if index != NO_REGISTER else 0, displacement


def test_the_operations_that_stack_tracking_follows_name_the_right_operands(valid: Valid) -> None:
    bits, cases, found, first, wanted = valid
    full = bits // 8
    seen: dict[Operation, int] = {}
    problems: dict[str, list[str]] = {}
    for case, index, instruction in zip(cases, first, wanted, strict=True):
        operation = Operation(found.operation[index])
        register, base = int(found.register[index]), int(found.base[index])
        width, immediate = int(found.width[index]), int(found.immediate[index])
        in_memory = bool(found.flags[index] & FLAG_MEMORY)
        sized = {2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}.get(width, 0)
        mnemonic = instruction.mnemonic
        zero = general(instruction.op0_register) if instruction.op_count else None
        one = general(instruction.op1_register) if instruction.op_count > 1 else None
        good = True
        match operation:
            case Operation.PUSH | Operation.POP:
                is_register = instruction.op_kind(0) == iced.OpKind.REGISTER and zero is not None
                good = register == (zero if is_register else NO_REGISTER)
            case Operation.MOVE:
                good = (
                    mnemonic == iced.Mnemonic.MOV and (register, base) == (zero, one) and width in (4, full)
                )
            case Operation.EXCHANGE:
                good = mnemonic == iced.Mnemonic.XCHG and {register, base} == {zero, one}
                good |= mnemonic == iced.Mnemonic.PAUSE  # f3 41 90
            case Operation.ADD | Operation.SUBTRACT:
                expected = {Operation.ADD: iced.Mnemonic.ADD, Operation.SUBTRACT: iced.Mnemonic.SUB}[
                    operation
                ]
                good = mnemonic == expected and register == zero
                good &= (base == one) if not in_memory else instruction.op1_kind == iced.OpKind.MEMORY
            case Operation.ADD_IMMEDIATE:
                good = register == zero and not in_memory
                if mnemonic in (iced.Mnemonic.INC, iced.Mnemonic.DEC):
                    good &= immediate == (1 if mnemonic == iced.Mnemonic.INC else -1)
                else:
                    sign = {iced.Mnemonic.ADD: 1, iced.Mnemonic.SUB: -1}.get(mnemonic, 0)
                    good &= (sign * immediate) & sized == instruction.immediate(1) & sized
            case Operation.AND_IMMEDIATE:
                good = mnemonic == iced.Mnemonic.AND and register == zero and not in_memory
                good &= immediate & sized == instruction.immediate(1) & sized
            case Operation.MOVE_IMMEDIATE:
                good = register == zero
                if mnemonic == iced.Mnemonic.XOR:
                    good &= zero == one and immediate == 0
                else:
                    good &= (
                        mnemonic == iced.Mnemonic.MOV
                        and immediate & sized == instruction.immediate(1) & sized
                    )
            case Operation.LEA:
                good = mnemonic == iced.Mnemonic.LEA and register == zero
                good &= memory_operand(found, index) == iced_memory(instruction, bits)
            case Operation.LOAD | Operation.LOAD_NARROW:
                good = mnemonic in (iced.Mnemonic.MOV, iced.Mnemonic.MOVZX) and register == zero
                if instruction.op1_kind == iced.OpKind.REGISTER:
                    good &= operation is Operation.LOAD_NARROW
                elif 0x67 not in case[:3] and case[0] not in (0xA0, 0xA1):
                    good &= in_memory
                    if case.lstrip(b"\x66\xf2\xf3\x48\x45\x41")[:1] not in (b"\xa0", b"\xa1"):
                        good &= memory_operand(found, index) == iced_memory(instruction, bits)
            case Operation.MOVE_CONDITIONAL:
                good = mnemonic in CONDITIONAL_MOVES and register == zero and in_memory == (one is None)
                if one is not None:
                    good &= base == one
                elif 0x67 not in case[:3]:
                    good &= memory_operand(found, index) == iced_memory(instruction, bits)
            case Operation.STORE:
                good = mnemonic == iced.Mnemonic.MOV and register == one and width == full and in_memory
            case Operation.SHIFT_LEFT | Operation.SHIFT_RIGHT:
                left = operation is Operation.SHIFT_LEFT
                good = mnemonic == (iced.Mnemonic.SHL if left else iced.Mnemonic.SHR) and register == zero
                good &= immediate & 0xFF == instruction.immediate(1)
            case Operation.CALL_INDIRECT | Operation.JUMP_INDIRECT:
                if instruction.op_kind(0) == iced.OpKind.REGISTER:
                    good = base == zero
                elif instruction.op_kind(0) == iced.OpKind.MEMORY and 0x67 not in case[:3]:
                    good = memory_operand(found, index) == iced_memory(instruction, bits)
            case Operation.LEAVE:
                good = mnemonic == iced.Mnemonic.LEAVE
            case Operation.ENTER:
                good = mnemonic == iced.Mnemonic.ENTER
                good &= immediate == instruction.immediate(0) | instruction.immediate(1) << 16
            case _:
                continue
        seen[operation] = seen.get(operation, 0) + 1
        if not good:
            problems.setdefault(f"{CODE_NAMES[instruction.code]} as {operation.name}", []).append(case.hex())
    followed = {
        Operation.PUSH,
        Operation.POP,
        Operation.MOVE,
        Operation.ADD_IMMEDIATE,
        Operation.AND_IMMEDIATE,
        Operation.LEA,
        Operation.LOAD,
        Operation.STORE,
        Operation.EXCHANGE,
        Operation.LEAVE,
        Operation.ENTER,
        Operation.SUBTRACT,
        Operation.MOVE_IMMEDIATE,
        Operation.SHIFT_LEFT,
    }
    assert followed <= set(seen)
    assert not problems, report(problems)


# ---------------------------------------------------------------- capstone: a second opinion


@MODES
def test_compiled_code_is_cut_as_capstone_cuts_it(bits: int, tmp_path: Path) -> None:
    source = "\n".join(toolchain.generated_function(seed) for seed in range(150))
    image = toolchain.compiled(tmp_path, source, bits, "-O2")
    section = image.section(".text")
    assert section is not None
    code = section.data.tobytes()
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    theirs = [(at, size, name) for at, size, name, _ in machine.disasm_lite(code, 0)]
    starts = np.array([at for at, _, _ in theirs], np.uint32)
    found = x86.decode(np.frombuffer(code, np.uint8), bits == 64, NO_STARTS)
    runs = found.operation == Operation.BREAKPOINT
    missing = set(starts.tolist()) ^ set(found.offset[~runs].tolist())
    assert len(theirs) > 5_000 and theirs[-1][0] + theirs[-1][1] == len(code)
    assert not missing, sorted(missing)[:20]
    by_offset = {int(at): Operation(o) for at, o in zip(found.offset, found.operation, strict=True)}
    expected = {
        "call": (Operation.CALL, Operation.CALL_INDIRECT),
        "jmp": (Operation.JUMP, Operation.JUMP_INDIRECT),
        "ret": (Operation.RETURN,),
        "push": (Operation.PUSH,),
        "pop": (Operation.POP,),
        "leave": (Operation.LEAVE,),
        "lea": (Operation.LEA,),
        "ud2": (Operation.UNDEFINED,),
    }
    wrong = [
        (hex(at), name, by_offset[at].name)
        for at, _, name in theirs
        if name in expected and at in by_offset and by_offset[at] not in expected[name]
    ]
    assert not wrong, wrong[:20]


# ---------------------------------------------------------------- uncompiled


def uncompiled_decoder() -> Any:
    """x86_decode.py itself, whatever extension module stands beside it."""
    source = Path(x86.__file__).with_name("x86_decode.py")
    spec = importlib.util.spec_from_file_location("uncompiled_x86_decode", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_uncompiled_decoder_gives_the_same_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    module = uncompiled_decoder()
    assert np.array_equal(module.MAPS, x86_decode.MAPS)
    for bits in (64, 32):
        cases = list(dict.fromkeys(opcodes(bits)))[:: 97 if bits == 64 else 61]
        raw = np.random.default_rng(bits).integers(0, 256, 8_000, np.uint8).tobytes()
        code = np.frombuffer(cells(cases) + raw, np.uint8)
        starts = np.arange(0, len(cases) * CELL, CELL, dtype=np.uint32)
        monkeypatch.setattr(x86, "decode_into", x86_decode.decode_into)
        compiled = x86.decode(code, bits == 64, starts)
        monkeypatch.setattr(x86, "decode_into", module.decode_into)
        uncompiled = x86.decode(code, bits == 64, starts)
        for name in Instructions.__dataclass_fields__:
            assert np.array_equal(getattr(compiled, name), getattr(uncompiled, name)), name


# ---------------------------------------------------------------- kernels


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["amd64", "i386"])
def test_all_code_of_a_kernel_is_cut_as_iced_cuts_it(arch: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(f"{arch}_vmlinux")
    program = link([read_elf(str(path), np.memmap(path, np.uint8, "r").data)])
    code = decode_program(program)
    bits = 64 if program.machine is Machine.X86_64 else 32
    differences: list[str] = []
    total = 0
    for section in code.sections:
        low, high = np.searchsorted(code.address, [section.section.address, section.section.end])
        base = section.section.address
        offsets = (code.address[low:high] - np.uint64(base)).tolist()
        lengths = code.instructions.length[low:high].tolist()
        operations = code.instructions.operation[low:high].tolist()
        assert offsets == [0, *np.cumsum(lengths).tolist()][:-1]
        raw = section.section.data.tobytes()
        entries = (code.functions.address[code.function[low:high]] - np.uint64(base)).tolist()
        ends = (code.functions.end[code.function[low:high]] - np.uint64(base)).tolist()
        begin, one = -1, iced.Instruction()
        for at, length, operation, entry, end in zip(
            offsets, lengths, operations, entries, ends, strict=True
        ):
            total += 1
            if operation == Operation.BREAKPOINT:
                same = raw.count(b"\xcc", at, at + length) == length
            else:
                if begin != entry:  # no instruction reaches over the next function's entry
                    begin, decoder = entry, iced.Decoder(bits, raw[entry:end])
                decoder.position = at - entry
                decoder.decode_out(one)
                valid = one.code != iced.Code.INVALID
                same = valid and one.len == length if operation != Operation.BAD else not valid
            if not same:
                differences.append(f"{base + at:#x} {raw[at : at + 15].hex()}: {length}, iced {one}")
    assert total > 1_000_000
    assert not differences, f"{len(differences)} of {total}:\n" + "\n".join(differences[:50])
