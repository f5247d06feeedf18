# cython: boundscheck=True, wraparound=False, cdivision=True
"""RISC-V decoder, 32- and 64-bit with compressed instructions: bytes to effect arrays.

Encodings: The RISC-V Instruction Set Manual volume I, chapters 2 (RV32I), 16 (C), the opcode map of chapter
24, and Zcmp 1.0. Only what moves the stack pointer, frame addresses, constants or control is told apart; of
everything else the general register that it writes is noted. Compiled by Cython; also plain Python.
"""

from __future__ import annotations

import cython

__all__ = ["decode_into"]

if not cython.compiled:
    from stackfit.isa.constants import (
        ADD,
        ADD_IMMEDIATE,
        ALIGN,
        BAD,
        CALL,
        CALL_INDIRECT,
        COMPACT,
        DATA,
        INTERRUPT_RETURN,
        JUMP,
        JUMP_CONDITIONAL,
        JUMP_INDIRECT,
        LEA,
        LOAD,
        LOAD_MULTIPLE,
        LOAD_NARROW,
        MEMORY,
        MOVE,
        MOVE_IMMEDIATE,
        NONE,
        NOP,
        OTHER,
        READ_SPECIAL,
        RETURN,
        SHIFT_LEFT,
        SHIFT_RIGHT,
        STORE,
        STORE_MULTIPLE,
        SUBTRACT,
        SUBTRACT_REGISTERS,
        SYSTEM_CALL,
        UNDEFINED,
        WRITE_SPECIAL,
    )


@cython.cfunc
@cython.inline
def _signed(value: cython.longlong, bits: cython.int) -> cython.longlong:
    """A two's complement number of so many bits."""
    if value >> (bits - 1) & 1:
        return value - (cython.cast(cython.longlong, 1) << bits)
    return value


@cython.cfunc
def _expand(h: cython.longlong, word: cython.int) -> cython.longlong:
    """The 32-bit instruction that a compressed one stands for (chapter 16); 0: none, or reserved."""
    op: cython.longlong = h & 3
    f3: cython.longlong = h >> 13 & 7
    rd: cython.longlong = h >> 7 & 31
    rs2: cython.longlong = h >> 2 & 31
    rdp: cython.longlong = (h >> 2 & 7) + 8
    rsp: cython.longlong = (h >> 7 & 7) + 8
    i: cython.longlong
    if op == 0:
        if f3 == 0:  # c.addi4spn
            i = (h >> 7 & 15) << 6 | (h >> 11 & 3) << 4 | (h >> 5 & 1) << 3 | (h >> 6 & 1) << 2
            return i << 20 | 2 << 15 | rdp << 7 | 0x13 if i else 0
        if f3 == 1 or f3 == 5 or ((f3 == 3 or f3 == 7) and word == 8):  # 8 bytes
            i = (h >> 10 & 7) << 3 | (h >> 5 & 3) << 6
            if f3 < 4:
                return i << 20 | rsp << 15 | 3 << 12 | rdp << 7 | (0x07 if f3 == 1 else 0x03)
            return (
                (i >> 5) << 25 | rdp << 20 | rsp << 15 | 3 << 12 | (i & 31) << 7 | (0x27 if f3 == 5 else 0x23)
            )
        if f3 == 4:  # Zcb: byte and half-word loads and stores
            i = h >> 10 & 7
            if i == 0:
                return rsp << 15 | 4 << 12 | rdp << 7 | 0x03
            if i == 1:
                return rsp << 15 | 5 << 12 | rdp << 7 | 0x03
            if i == 2 or i == 3:
                return rdp << 20 | rsp << 15 | (i - 2) << 12 | 0x23
            return 0
        i = (h >> 10 & 7) << 3 | (h >> 6 & 1) << 2 | (h >> 5 & 1) << 6
        if f3 < 4:
            return i << 20 | rsp << 15 | 2 << 12 | rdp << 7 | (0x07 if f3 == 3 else 0x03)
        return (i >> 5) << 25 | rdp << 20 | rsp << 15 | 2 << 12 | (i & 31) << 7 | (0x27 if f3 == 7 else 0x23)
    if op == 1:
        i = _signed((h >> 12 & 1) << 5 | (h >> 2 & 31), 6)
        if f3 == 0:  # c.addi, c.nop
            return (i & 0xFFF) << 20 | rd << 15 | rd << 7 | 0x13
        if f3 == 1 and word == 8:  # c.addiw
            return (i & 0xFFF) << 20 | rd << 15 | rd << 7 | 0x1B if rd else 0
        if f3 == 1 or f3 == 5:  # c.jal (32-bit only), c.j
            i = (h >> 12 & 1) << 11 | (h >> 11 & 1) << 4 | (h >> 9 & 3) << 8 | (h >> 8 & 1) << 10
            i |= (h >> 7 & 1) << 6 | (h >> 6 & 1) << 7 | (h >> 3 & 7) << 1 | (h >> 2 & 1) << 5
            i = _signed(i, 12)
            i = (i >> 20 & 1) << 31 | (i >> 1 & 0x3FF) << 21 | (i >> 11 & 1) << 20 | (i >> 12 & 0xFF) << 12
            return i | (1 if f3 == 1 else 0) << 7 | 0x6F
        if f3 == 2:  # c.li
            return (i & 0xFFF) << 20 | rd << 7 | 0x13
        if f3 == 3:
            if rd == 2:  # c.addi16sp
                i = (h >> 12 & 1) << 9 | (h >> 6 & 1) << 4 | (h >> 5 & 1) << 6 | (h >> 3 & 3) << 7
                i = _signed(i | (h >> 2 & 1) << 5, 10)
                return (i & 0xFFF) << 20 | 2 << 15 | 2 << 7 | 0x13 if i else 0
            return (i & 0xFFFFF) << 12 | rd << 7 | 0x37 if i else 0
        if f3 == 4:
            op = h >> 10 & 3
            if op == 0 or op == 1:  # c.srli, c.srai
                return op << 30 | (i & 63) << 20 | rsp << 15 | 5 << 12 | rsp << 7 | 0x13
            if op == 2:
                return (i & 0xFFF) << 20 | rsp << 15 | 7 << 12 | rsp << 7 | 0x13
            op = h >> 5 & 3
            if h >> 12 & 1:
                if op >= 2:  # Zcb: c.mul and unary operations: anything that writes the register
                    return rsp << 15 | 4 << 12 | rsp << 7 | 0x13
                if word != 8:
                    return 0
                return (0 if op else 0x20) << 25 | rdp << 20 | rsp << 15 | rsp << 7 | 0x3B
            if op == 0:  # c.sub
                return 0x20 << 25 | rdp << 20 | rsp << 15 | rsp << 7 | 0x33
            return rdp << 20 | rsp << 15 | (4 if op == 1 else op + 4) << 12 | rsp << 7 | 0x33
        # c.beqz, c.bnez
        i = (
            (h >> 12 & 1) << 8
            | (h >> 10 & 3) << 3
            | (h >> 5 & 3) << 6
            | (h >> 3 & 3) << 1
            | (h >> 2 & 1) << 5
        )
        i = _signed(i, 9)
        i = (i >> 12 & 1) << 31 | (i >> 5 & 63) << 25 | (i >> 1 & 15) << 8 | (i >> 11 & 1) << 7
        return i | rsp << 15 | (f3 - 6) << 12 | 0x63
    if f3 == 0:  # c.slli
        return ((h >> 12 & 1) << 5 | rs2) << 20 | rd << 15 | 1 << 12 | rd << 7 | 0x13
    if f3 == 1 or (f3 == 3 and word == 8):  # c.fldsp, c.ldsp
        i = (h >> 12 & 1) << 5 | (h >> 5 & 3) << 3 | (h >> 2 & 7) << 6
        return i << 20 | 2 << 15 | 3 << 12 | rd << 7 | (0x07 if f3 == 1 else 0x03)
    if f3 == 2 or f3 == 3:  # c.lwsp, c.flwsp
        i = (h >> 12 & 1) << 5 | (h >> 4 & 7) << 2 | (h >> 2 & 3) << 6
        return i << 20 | 2 << 15 | 2 << 12 | rd << 7 | (0x07 if f3 == 3 else 0x03)
    if f3 == 4:
        if h >> 12 & 1:
            if rs2:
                return rs2 << 20 | rd << 15 | rd << 7 | 0x33  # c.add
            return rd << 15 | 1 << 7 | 0x67 if rd else 0x100073  # c.jalr, c.ebreak
        if rs2:
            return rs2 << 20 | rd << 7 | 0x33  # c.mv
        return rd << 15 | 0x67 if rd else 0  # c.jr
    if f3 == 5 or (f3 == 7 and word == 8):  # c.fsdsp, c.sdsp
        i = (h >> 10 & 7) << 3 | (h >> 7 & 7) << 6
        return (i >> 5) << 25 | rs2 << 20 | 2 << 15 | 3 << 12 | (i & 31) << 7 | (0x27 if f3 == 5 else 0x23)
    i = (h >> 9 & 15) << 2 | (h >> 7 & 3) << 6
    return (i >> 5) << 25 | rs2 << 20 | 2 << 15 | 2 << 12 | (i & 31) << 7 | (0x27 if f3 == 7 else 0x23)


@cython.cfunc
@cython.inline
def _zcmp_registers(rlist: cython.int) -> cython.int:
    """How many registers a Zcmp list names: ra, then s0 on; list 15 has s10 and s11 both."""
    return 13 if rlist == 15 else rlist - 3


@cython.cfunc
def _zcmp_mask(rlist: cython.int) -> cython.longlong:
    """The registers of a Zcmp list as bits: ra, s0, s1, s2 (18) on."""
    mask: cython.longlong = 2
    number: cython.int
    for number in range(_zcmp_registers(rlist) - 1):
        mask |= cython.cast(cython.longlong, 1) << (8 + number if number < 2 else 16 + number)
    return mask


def decode_into(
    code: cython.const[cython.uchar][::1],
    resume: cython.longlong,
    count: cython.longlong,
    region_start: cython.const[cython.uint][::1],
    region_kind: cython.const[cython.uchar][::1],
    region_shift: cython.const[cython.longlong][::1],
    word: cython.int,
    offset_out: cython.uint[::1],
    length_out: cython.ushort[::1],
    operation_out: cython.uchar[::1],
    width_out: cython.uchar[::1],
    register_out: cython.uchar[::1],
    base_out: cython.uchar[::1],
    index_out: cython.uchar[::1],
    scale_out: cython.uchar[::1],
    flags_out: cython.uchar[::1],
    clobbers_out: cython.uint[::1],
    displacement_out: cython.int[::1],
    immediate_out: cython.longlong[::1],
) -> tuple[int, int]:
    """Decode `code` from byte `resume` on, filling the output arrays from index `count`.

    Regions by ascending offset: what each holds (CODE, COMPACT, DATA), and its address less its offset
    (bytes). `word`: 4 or 8, the register's bytes. Returns (next byte, instructions written so far); stops
    early when the outputs are full, to be called again with larger ones. A call with another link register
    than ra (`jal t0`: the compiler's save routines, psABI) has that register in `register`.
    """
    size: cython.longlong = code.shape[0]
    capacity: cython.longlong = offset_out.shape[0]
    position: cython.longlong = resume
    region: cython.longlong = 0
    regions: cython.longlong = region_start.shape[0]
    limit: cython.longlong
    address: cython.longlong
    w: cython.longlong
    value: cython.longlong
    i: cython.longlong
    # The last auipc: its register, its value, the offset of the instruction behind it.
    upper: cython.int = 0
    upper_value: cython.longlong = 0
    upper_behind: cython.longlong = -1
    length: cython.int
    opcode: cython.int
    f3: cython.int
    f7: cython.int
    op: cython.int
    rd: cython.int
    rs1: cython.int
    rs2: cython.int
    operation: cython.int
    width: cython.int
    register: cython.int
    base: cython.int
    index: cython.int
    scale: cython.int
    flags: cython.int
    clobbers: cython.longlong
    displacement: cython.longlong
    immediate: cython.longlong

    while position < size:
        if count >= capacity:
            break
        while region + 1 < regions and region_start[region + 1] <= position:
            region += 1
        limit = region_start[region + 1] if region + 1 < regions else size
        operation = OTHER
        width = word
        register = NONE
        base = NONE
        index = NONE
        scale = 0
        flags = 0
        clobbers = 0
        displacement = 0
        immediate = 0
        length = 2
        w = 0
        if region_kind[region] == DATA or limit - position < 2:
            length = cython.cast(cython.int, min(limit - position, 0xFFFC))
            operation = BAD
        else:
            w = code[position] | code[position + 1] << 8
            if w & 3 == 3:
                length = 4
                if w & 0x1F == 0x1F or limit - position < 4:  # instructions longer than 32 bits
                    operation = BAD
                    length = 2
                else:
                    w |= code[position + 2] << 16 | cython.cast(cython.longlong, code[position + 3]) << 24
            elif region_kind[region] == COMPACT and w & 0xF803 == 0xB802:  # Zcmp
                i = w >> 4 & 15
                if i < 4:
                    operation = BAD
                else:
                    value = (_zcmp_registers(i) * word + 15 & ~15) + (w >> 2 & 3) * 16
                    register = 2
                    clobbers = 4
                    base = 2
                    flags = MEMORY
                    op = w >> 8 & 7
                    if op == 0:  # cm.push
                        operation = STORE_MULTIPLE
                        immediate = -value
                        displacement = -value
                        width = cython.cast(cython.int, value)
                    elif op == 2:  # cm.pop
                        operation = LOAD_MULTIPLE
                        immediate = value
                        clobbers |= _zcmp_mask(i)
                    elif op == 4 or op == 6:  # cm.popretz, cm.popret
                        operation = RETURN
                        displacement = value
                        register = NONE
                        base = NONE
                        flags = 0
                    else:
                        operation = BAD
                w = 0
            elif region_kind[region] == COMPACT and w & 0xFC23 == 0xAC22:  # cm.mvsa01, cm.mva01s
                clobbers = 0xFFC0300 if w & 0x40 == 0 else 0xC00
                w = 0
            else:
                i = _expand(w, word)
                if i == 0 and w != 0 and w & 3 == 2 and w >> 13 & 7 == 0:
                    operation = OTHER
                elif i == 0:
                    operation = UNDEFINED if w == 0 else BAD
                w = i
        if operation == OTHER and w:
            address = position + region_shift[region]
            opcode = w & 0x7F
            rd = w >> 7 & 31
            f3 = w >> 12 & 7
            rs1 = w >> 15 & 31
            rs2 = w >> 20 & 31
            f7 = w >> 25
            value = _signed(w >> 20, 12)
            if opcode == 0x13 or opcode == 0x1B:  # operations with an immediate
                if opcode == 0x1B:
                    width = 4
                clobbers = 1 << rd
                register = rd
                base = rs1
                if f3 == 0:
                    if rs1 == 0:
                        operation = MOVE_IMMEDIATE
                        immediate = value
                        base = NONE
                        if rd == 0:
                            operation = NOP
                    elif value == 0 and rd != rs1:
                        operation = MOVE
                    elif rd == rs1:
                        operation = ADD_IMMEDIATE if rd else NOP
                        immediate = value
                        base = NONE
                        if rd and value == 0 and opcode == 0x13:
                            operation = NOP
                            clobbers = 0
                    else:
                        operation = LEA
                        displacement = value
                    # auipc and addi: an address, where one follows the other.
                    if operation in (ADD_IMMEDIATE, LEA) and position == upper_behind and rs1 == upper:
                        operation = MOVE_IMMEDIATE
                        immediate = upper_value + value
                        displacement = 0
                        base = NONE
                elif f3 == 7:
                    operation = ALIGN
                    immediate = value
                elif f3 == 1 and rd == rs1 and (f7 & 0x7E) == 0:
                    operation = SHIFT_LEFT
                    immediate = w >> 20 & 63
                    base = NONE
                elif f3 == 5 and rd == rs1 and (f7 & 0x7E) == 0:
                    operation = SHIFT_RIGHT
                    immediate = w >> 20 & 63
                    base = NONE
                elif f3 == 1 and (f7 & 0x7E) == 0 and w >> 20 & 63 < 7:
                    operation = LEA
                    index = rs1
                    scale = 1 << (w >> 20 & 63)
                    base = NONE
                else:
                    operation = OTHER
                    register = NONE
                    base = NONE
            elif opcode == 0x37 or opcode == 0x17:  # lui, auipc
                operation = MOVE_IMMEDIATE
                clobbers = 1 << rd
                register = rd
                immediate = _signed(w & 0xFFFFF000, 32)
                if opcode == 0x17:
                    immediate += address
                    upper = rd
                    upper_value = immediate
                    upper_behind = position + length
            elif opcode == 0x33 or opcode == 0x3B:  # operations on registers
                clobbers = 1 << rd
                if opcode == 0x3B:
                    width = 4
                if f3 == 0 and f7 == 0:
                    if rs1 == 0:
                        operation = MOVE
                        register = rd
                        base = rs2
                        if rs2 == 0:
                            operation = MOVE_IMMEDIATE
                            base = NONE
                    elif rd == rs1:
                        operation = ADD
                        register = rd
                        base = rs2
                    elif rd == rs2:
                        operation = ADD
                        register = rd
                        base = rs1
                        if rd != 2:  # rs1 may be the frame address: as a sum of both
                            operation = LEA
                            index = rs2
                            scale = 1
                    else:
                        operation = LEA
                        register = rd
                        base = rs1
                        index = rs2
                        scale = 1
                elif f3 == 0 and f7 == 0x20:
                    register = rd
                    if rd == rs1:
                        operation = SUBTRACT
                        base = rs2
                    else:
                        operation = SUBTRACT_REGISTERS
                        base = rs1
                        index = rs2
                elif f7 == 0x10 and f3 in (2, 4, 6):  # sh1add, sh2add, sh3add
                    operation = LEA
                    register = rd
                    base = rs2
                    index = rs1
                    scale = 1 << (f3 >> 1)
            elif opcode == 0x03:  # loads
                clobbers = 1 << rd
                register = rd
                base = rs1
                displacement = value
                flags = MEMORY
                width = 1 << (f3 & 3)
                if width == word:
                    operation = LOAD
                elif f3 == 4 or f3 == 5:
                    operation = LOAD_NARROW
                else:
                    operation = LOAD_MULTIPLE
                    register = NONE
            elif opcode == 0x23 or opcode == 0x27:  # stores
                displacement = _signed(f7 << 5 | rd, 12)
                base = rs1
                flags = MEMORY
                width = 1 << (f3 & 3)
                if opcode == 0x27:
                    operation = STORE_MULTIPLE
                    if f3 == 0 or f3 > 4:  # vector stores
                        displacement = 0
                        width = 64
                elif width == word:
                    operation = STORE
                    register = rs2
                else:
                    operation = STORE_MULTIPLE
            elif opcode == 0x6F:  # jal
                i = (
                    (w >> 31 & 1) << 20
                    | (w >> 12 & 0xFF) << 12
                    | (w >> 20 & 1) << 11
                    | (w >> 21 & 0x3FF) << 1
                )
                immediate = position + _signed(i, 21)
                operation = CALL if rd else JUMP
                if rd:
                    register = rd
                    clobbers = 1 << rd
            elif opcode == 0x67:  # jalr
                clobbers = 1 << rd
                if position == upper_behind and rs1 == upper:
                    immediate = (upper_value + value & ~1) - region_shift[region]
                    operation = CALL if rd else JUMP
                    register = rd if rd else NONE
                elif rd == 0:
                    base = rs1
                    operation = RETURN if rs1 == 1 or rs1 == 5 else JUMP_INDIRECT
                    if value:
                        operation = JUMP_INDIRECT
                else:
                    base = rs1
                    register = rd
                    operation = CALL_INDIRECT
                    if rs1 == 0:
                        base = NONE
            elif opcode == 0x63:  # branches
                i = (w >> 31 & 1) << 12 | (w >> 7 & 1) << 11 | (w >> 25 & 63) << 5 | (w >> 8 & 15) << 1
                immediate = position + _signed(i, 13)
                operation = JUMP_CONDITIONAL
                register = f3
                base = rs1
                index = rs2
            elif opcode == 0x73:  # system
                if f3 == 0:
                    if w == 0x00000073:  # ecall: results in a0, a1 (SBI and Linux)
                        operation = SYSTEM_CALL
                        clobbers = 0xC00
                    elif w == 0x00100073:  # ebreak; between two hints it calls a debugger, and comes back
                        operation = UNDEFINED
                        if position >= 4 and code[position - 4] | code[position - 3] << 8 == 0x1013:
                            operation = (
                                OTHER if code[position - 2] | code[position - 1] << 8 == 0x1F0 else UNDEFINED
                            )
                            clobbers = 0x400
                    elif w in (0x30200073, 0x10200073, 0x00200073, 0x7B200073):  # mret, sret, uret, dret
                        operation = INTERRUPT_RETURN
                elif f3 != 4:
                    # The trap entry swaps the stack pointer with a CSR; rd = 2 changes stacks.
                    clobbers = 1 << rd
                    immediate = w >> 20
                    if f3 & 3 == 1 and rd == 0:
                        operation = WRITE_SPECIAL
                        if f3 == 1:
                            base = rs1
                    elif rd:
                        operation = READ_SPECIAL
                        register = rd
                else:
                    clobbers = 1 << rd
            elif opcode == 0x2F:  # atomic
                operation = STORE_MULTIPLE
                base = rs1
                flags = MEMORY
                width = 8
                clobbers = 1 << rd
            elif opcode == 0x53:  # floating point: moves, comparisons and conversions to general registers
                if f7 >> 2 in (0x14, 0x18, 0x1C):
                    clobbers = 1 << rd
            elif opcode == 0x57:  # vectors: vsetvl and the few that write a general register
                if f3 == 7 or (f3 == 2 and w >> 26 == 0x10):
                    clobbers = 1 << rd
            elif opcode not in (0x07, 0x0F, 0x43, 0x47, 0x4B, 0x4F):
                operation = BAD if opcode not in (0x0B, 0x2B, 0x5B, 0x7B) else OTHER
                if operation == OTHER:  # custom: may write rd
                    clobbers = 1 << rd
        clobbers &= 0xFFFFFFFE
        if register == 0:
            register = NONE
            if operation in (
                MOVE, MOVE_IMMEDIATE, LEA, ADD, ADD_IMMEDIATE, SUBTRACT, SUBTRACT_REGISTERS, ALIGN,
                SHIFT_LEFT, SHIFT_RIGHT, LOAD, LOAD_NARROW,
            ):  # fmt: skip
                operation = OTHER
        offset_out[count] = position
        length_out[count] = length
        operation_out[count] = operation
        width_out[count] = width
        register_out[count] = register
        base_out[count] = base
        index_out[count] = index
        scale_out[count] = scale
        flags_out[count] = flags
        clobbers_out[count] = clobbers
        displacement_out[count] = cython.cast(cython.int, displacement)
        immediate_out[count] = immediate
        count += 1
        position += length
    return position, count
