# cython: boundscheck=True, wraparound=False, cdivision=True
"""Arm decoder, A32 and T32 (Thumb, Thumb-2): bytes to effect arrays (Arm ARM DDI 0406C, chapters A5 and A6;
ARMv7-M ARM DDI 0403E, chapter A5).

Only what moves the stack pointer, frame addresses, constants or control is told apart; of everything else the
general registers that it writes are noted. Literals are read from the code. An instruction that is executed
conditionally keeps its meaning where it moves control or the stack pointer (FLAG_CONDITIONAL); any other then
only makes the registers that it writes unknown. `scale` of a multiple store says which of r0 to r7 it
stores. Compiled by Cython; the same file runs as plain Python.
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
        COMPARE,
        COMPARE_IMMEDIATE,
        CONDITIONAL,
        DATA,
        FLOATING,
        INSERT_IMMEDIATE,
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
        MOVE_CONDITIONAL,
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
        THUMB,
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
@cython.inline
def _ones(value: cython.longlong) -> cython.int:
    """How many bits are set."""
    count: cython.int = 0
    while value:
        value &= value - 1
        count += 1
    return count


@cython.cfunc
@cython.inline
def _rotated(value: cython.longlong, by: cython.longlong) -> cython.longlong:
    """32 bits rotated right."""
    by &= 31
    return (value >> by | value << (32 - by)) & 0xFFFFFFFF if by else value


@cython.cfunc
def _thumb_immediate(imm12: cython.longlong) -> cython.longlong:
    """ThumbExpandImm (DDI 0406C, A6.3.2)."""
    low: cython.longlong = imm12 & 0xFF
    if imm12 >> 10 == 0:
        if imm12 >> 8 & 3 == 0:
            return low
        if imm12 >> 8 & 3 == 1:
            return low << 16 | low
        if imm12 >> 8 & 3 == 2:
            return low << 24 | low << 8
        return low << 24 | low << 16 | low << 8 | low
    return _rotated(imm12 & 0x7F | 0x80, imm12 >> 7)


@cython.cfunc
def _word_at(code: cython.const[cython.uchar][::1], at: cython.longlong) -> cython.longlong:
    """The 32-bit number at that offset, -1 outside the code."""
    if at < 0 or at + 4 > code.shape[0]:
        return -1
    return (
        code[at] | code[at + 1] << 8 | code[at + 2] << 16 | cython.cast(cython.longlong, code[at + 3]) << 24
    )


@cython.cfunc
@cython.inline
def _half_at(code: cython.const[cython.uchar][::1], at: cython.longlong) -> cython.int:
    """The 16-bit number at that offset, -1 outside the code."""
    if at < 0 or at + 2 > code.shape[0]:
        return -1
    return code[at] | code[at + 1] << 8


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

    Regions by ascending offset: what each holds (CODE is A32, THUMB, DATA), and its address less its offset
    (bytes). Returns (next byte, instructions written so far); stops early when the outputs are full, to be
    called again with larger ones. `word` is not used (it is 4).
    """
    size: cython.longlong = code.shape[0]
    capacity: cython.longlong = offset_out.shape[0]
    position: cython.longlong = resume
    region: cython.longlong = 0
    regions: cython.longlong = region_start.shape[0]
    limit: cython.longlong
    shift: cython.longlong
    pc: cython.longlong
    w: cython.longlong
    h: cython.int
    h2: cython.int
    i: cython.longlong
    value: cython.longlong
    length: cython.int
    condition: cython.int
    it_state: cython.int = 0  # conditions of the instructions to come in an IT block
    rd: cython.int
    rn: cython.int
    rm: cython.int
    rt: cython.int
    op: cython.int
    # A load or store, put together at the end: 0 none, 1 load, 2 store.
    access: cython.int
    registers: cython.int  # low ones that a double store names, as bits
    pre: cython.int
    up: cython.int
    writeback: cython.int
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
    # An add or subtract, put together at the end: 0 none, 1 of an immediate, 2 of a register.
    sum_form: cython.int
    subtract: cython.int

    while position < size:
        if count >= capacity:
            break
        while region + 1 < regions and region_start[region + 1] <= position:
            region += 1
            it_state = 0
        limit = region_start[region + 1] if region + 1 < regions else size
        shift = region_shift[region]
        operation = OTHER
        length = 4
        width = 4
        register = NONE
        base = NONE
        index = NONE
        scale = 0
        flags = 0
        clobbers = 0
        displacement = 0
        immediate = 0
        condition = 14
        access = 0
        registers = 0
        pre = 1
        up = 1
        writeback = 0
        sum_form = 0
        subtract = 0
        rd = 0
        rn = 0
        rm = 0
        rt = 0
        value = 0
        if region_kind[region] == DATA or limit - position < (2 if region_kind[region] == THUMB else 4):
            operation = BAD
            length = cython.cast(cython.int, min(limit - position, 0xFFFC))
            # BUG() of Linux and Xen is an undefined instruction that they write as data.
            if length >= 4 and _word_at(code, position) & 0xFFF000F0 == 0xE7F000F0:
                operation = UNDEFINED
                length = 4
        elif region_kind[region] == THUMB:
            h = code[position] | code[position + 1] << 8
            length = 2 if h >> 11 < 0x1D else 4
            h2 = 0
            if length == 4:
                if limit - position < 4:
                    length = 2
                    h = -1
                else:
                    h2 = code[position + 2] | code[position + 3] << 8
            if it_state & 15:
                condition = it_state >> 4
                it_state = (it_state & 0xE0) | (it_state << 1 & 0x1F)
                if it_state & 15 == 0:
                    it_state = 0
            else:
                it_state = 0
            pc = position + 4
            if h < 0:
                operation = BAD
            elif length == 2:
                op = h >> 11
                rd = h & 7
                rn = h >> 3 & 7
                if op == 0:
                    clobbers = 1 << rd
                    if h >> 6 & 31 == 0:
                        operation = MOVE
                        register = rd
                        base = rn
                    elif rd == rn:
                        operation = SHIFT_LEFT
                        register = rd
                        immediate = h >> 6 & 31
                    elif h >> 6 & 31 < 7:
                        operation = LEA
                        register = rd
                        index = rn
                        scale = 1 << (h >> 6 & 31)
                elif op == 1:
                    clobbers = 1 << rd
                    if rd == rn and h >> 6 & 31:
                        operation = SHIFT_RIGHT
                        register = rd
                        immediate = h >> 6 & 31
                elif op == 2:
                    clobbers = 1 << rd
                elif op == 3:
                    subtract = h >> 9 & 1
                    sum_form = 1 if h >> 10 & 1 else 2
                    rm = h >> 6 & 7
                    value = rm if sum_form == 1 else 0
                elif op == 4:
                    operation = MOVE_IMMEDIATE
                    register = h >> 8 & 7
                    clobbers = 1 << register
                    immediate = h & 0xFF
                elif op == 5:
                    operation = COMPARE_IMMEDIATE
                    register = h >> 8 & 7
                    immediate = h & 0xFF
                elif op == 6 or op == 7:
                    rd = rn = h >> 8 & 7
                    subtract = op & 1
                    sum_form = 1
                    value = h & 0xFF
                elif h >> 10 == 0x10:  # data processing of low registers
                    op = h >> 6 & 15
                    if op in (8, 10, 11):
                        operation = COMPARE
                    else:
                        clobbers = 1 << rd
                elif h >> 10 == 0x11:  # high registers, bx
                    op = h >> 8 & 3
                    rd |= h >> 4 & 8
                    rm = h >> 3 & 15
                    if op == 0:
                        if rd == 15:
                            operation = JUMP_INDIRECT
                            base = NONE
                        else:
                            sum_form = 2
                            rn = rd
                    elif op == 1:
                        operation = COMPARE
                    elif op == 2:
                        if rd == 15:
                            operation = RETURN if rm == 14 else JUMP_INDIRECT
                            base = rm
                        else:
                            clobbers = 1 << rd
                            if rm == 15:
                                operation = MOVE_IMMEDIATE
                                immediate = pc + shift
                            else:
                                operation = MOVE
                                base = rm
                            register = rd
                    elif h & 0x80:
                        operation = CALL_INDIRECT
                        base = rm
                    elif rm == 15:
                        operation = JUMP
                        immediate = (pc + shift & ~3) - shift
                    else:
                        operation = RETURN if rm == 14 else JUMP_INDIRECT
                        base = rm
                elif op == 9:  # ldr literal
                    rt = h >> 8 & 7
                    rn = 15
                    access = 1
                    value = (h & 0xFF) << 2
                elif op == 10 or op == 11:  # register offset
                    rt = h & 7
                    op = h >> 9 & 7
                    rm = h >> 6 & 7
                    index = rm
                    access = 2 if op < 3 else 1
                    width = (4, 2, 1, 1, 4, 2, 1, 2)[op]
                    if op == 3 or op == 7:
                        operation = LOAD_MULTIPLE
                elif 12 <= op <= 17:  # immediate offset
                    rt = h & 7
                    access = 1 if op & 1 else 2
                    width = 4 if op < 14 else 1 if op < 16 else 2
                    value = (h >> 6 & 31) * width
                elif op == 18 or op == 19:
                    rt = h >> 8 & 7
                    rn = 13
                    access = 1 if op & 1 else 2
                    value = (h & 0xFF) << 2
                elif op == 20 or op == 21:  # adr, add sp
                    rd = h >> 8 & 7
                    rn = 15 if op == 20 else 13
                    sum_form = 1
                    value = (h & 0xFF) << 2
                elif h >> 8 == 0xB0:
                    rd = rn = 13
                    sum_form = 1
                    subtract = h >> 7 & 1
                    value = (h & 0x7F) << 2
                elif h & 0xF500 == 0xB100:  # cbz, cbnz
                    operation = JUMP_CONDITIONAL
                    register = h >> 11 & 1
                    immediate = pc + ((h >> 9 & 1) << 6 | (h >> 3 & 31) << 1)
                elif h >> 8 == 0xB2:  # extends
                    clobbers = 1 << rd
                    if h & 0x80:
                        operation = LOAD_NARROW
                        register = rd
                        base = rn
                        width = 1 if h & 0x40 else 2
                elif h & 0xFE00 == 0xB400:  # push
                    i = h & 0xFF | (0x4000 if h & 0x100 else 0)
                    operation = STORE_MULTIPLE
                    width = 4 * _ones(i)
                    register = base = 13
                    scale = h & 0xFF
                    immediate = displacement = -width
                    clobbers = 1 << 13
                elif h & 0xFE00 == 0xBC00:  # pop
                    i = h & 0xFF
                    immediate = 4 * _ones(h & 0x1FF)
                    clobbers = i | 1 << 13
                    if h & 0x100:
                        operation = RETURN
                        displacement = immediate
                        immediate = 0
                    else:
                        operation = LOAD_MULTIPLE
                        register = base = 13
                        flags = MEMORY
                elif h >> 8 == 0xBA:
                    clobbers = 1 << rd
                    if h >> 6 & 3 == 2:  # hlt
                        clobbers = 1
                elif h >> 8 == 0xBE:  # bkpt; semihosting answers in r0
                    clobbers = 1
                elif h >> 8 == 0xBF:
                    if h & 15:
                        it_state = h & 0xFF
                    elif h & 0xFF == 0:
                        operation = NOP
                elif op == 24 or op == 25:  # stm, ldm
                    rn = h >> 8 & 7
                    base = rn
                    i = h & 0xFF
                    width = 4 * _ones(i)
                    flags = MEMORY
                    operation = STORE_MULTIPLE
                    scale = h & 0xFF
                    if op == 25:
                        operation = LOAD_MULTIPLE
                        clobbers = i
                    if op == 24 or not i >> rn & 1:
                        register = rn
                        immediate = width
                        clobbers |= 1 << rn
                elif op == 26 or op == 27:
                    if h >> 8 & 15 == 14:
                        operation = UNDEFINED
                    elif h >> 8 & 15 == 15:
                        operation = SYSTEM_CALL
                        clobbers = 0x100F
                    else:
                        operation = JUMP_CONDITIONAL
                        register = h >> 8 & 15
                        immediate = pc + (_signed(h & 0xFF, 8) << 1)
                elif op == 28:
                    operation = JUMP
                    immediate = pc + (_signed(h & 0x7FF, 11) << 1)
            else:
                w = cython.cast(cython.longlong, h) << 16 | h2
                rn = h & 15
                rd = h2 >> 8 & 15
                rm = h2 & 15
                rt = h2 >> 12
                if h & 0xFE40 == 0xE800:  # ldm, stm, rfe, srs
                    op = h >> 7 & 3
                    if op == 0 or op == 3:
                        operation = INTERRUPT_RETURN if h & 0x10 else OTHER
                    else:
                        operation, register, base, displacement, width, clobbers, immediate = _multiple(
                            rn, h2, h >> 4 & 1, h >> 5 & 1, op == 2, op == 1
                        )
                        scale = h2 & 0xFF
                        flags = MEMORY
                elif h & 0xFE40 == 0xE840:
                    pre = h >> 8 & 1
                    up = h >> 7 & 1
                    writeback = h >> 5 & 1
                    if pre or writeback:  # ldrd, strd
                        access = 1 if h & 0x10 else 2
                        width = 8
                        value = (h2 & 0xFF) << 2
                        operation = LOAD_MULTIPLE if access == 1 else STORE_MULTIPLE
                        clobbers = 1 << rt | 1 << rd if access == 1 else 0
                        registers = (1 << rt | 1 << rd) & 0xFF
                    elif h & 0x10 and h & 0x80 and h2 >> 4 & 15 < 2:  # tbb, tbh
                        operation = JUMP_INDIRECT
                        base = rn
                        index = rm
                        flags = MEMORY
                        width = 1 + (h2 >> 4 & 1)
                    elif h & 0x10:  # exclusive and ordered loads
                        operation = OTHER
                        clobbers = 1 << rt
                        if h & 0x80 and h2 >> 4 & 3 == 3:
                            clobbers |= 1 << rd
                    else:
                        operation = OTHER
                        base = NONE
                        if not h & 0x80:
                            clobbers = 1 << rd
                        elif h2 >> 4 & 15 not in (8, 9, 10):
                            clobbers = 1 << rm
                elif h & 0xFE00 == 0xEA00:  # data processing, shifted register
                    op = h >> 5 & 15
                    i = (h2 >> 10 & 0x1C) | (h2 >> 6 & 3)
                    scale = h2 >> 4 & 3
                    if rd == 15 and op in (0, 4, 8, 13):
                        operation = COMPARE
                    elif op == 8 or op == 13:
                        subtract = op == 13
                        sum_form = 2
                        value = i if scale == 0 else 99
                    elif op == 2 and rn == 15:
                        clobbers = 1 << rd
                        if scale == 0 and i == 0:
                            operation = MOVE
                            register = rd
                            base = rm
                        elif scale < 2 and rd == rm and i:
                            operation = SHIFT_RIGHT if scale else SHIFT_LEFT
                            register = rd
                            immediate = i
                    else:
                        clobbers = 1 << rd
                    scale = 0
                elif h & 0xEC00 == 0xEC00:  # coprocessors, floating point, vectors
                    operation, register, base, displacement, width, clobbers, immediate = _coprocessor(w, 14)
                    if operation in (LOAD_MULTIPLE, STORE_MULTIPLE):
                        flags = MEMORY
                    if w >> 8 & 14 == 10:
                        flags |= FLOATING
                elif h & 0xF800 == 0xF000 and not h2 & 0x8000:
                    i = (h & 0x400) << 1 | (h2 >> 4 & 0x700) | (h2 & 0xFF)
                    if not h & 0x200:  # modified immediate
                        op = h >> 5 & 15
                        value = _thumb_immediate(i)
                        if rd == 15 and op in (0, 4, 8, 13):
                            operation = COMPARE
                            if op == 13:
                                operation = COMPARE_IMMEDIATE
                                register = rn
                                immediate = value
                        else:
                            clobbers = 1 << rd
                            if op == 0 or op == 1:
                                operation = ALIGN
                                register = rd
                                base = rn
                                immediate = _signed(value if op == 0 else ~value & 0xFFFFFFFF, 32)
                            elif op == 2 and rn == 15:
                                operation = MOVE_IMMEDIATE
                                register = rd
                                immediate = value
                            elif op == 3 and rn == 15:
                                operation = MOVE_IMMEDIATE
                                register = rd
                                immediate = ~value & 0xFFFFFFFF
                            elif op == 8 or op == 13:
                                sum_form = 1
                                subtract = op == 13
                    else:
                        op = h >> 4 & 31
                        if op == 0 or op == 10:
                            sum_form = 1
                            subtract = op == 10
                            value = i
                        elif op == 4 or op == 12:
                            clobbers = 1 << rd
                            register = rd
                            immediate = i | (h & 15) << 12
                            operation = MOVE_IMMEDIATE
                            if op == 12:
                                operation = INSERT_IMMEDIATE
                                scale = 16
                        else:
                            clobbers = 1 << rd
                elif h & 0xF800 == 0xF000:  # branches, system
                    op = h2 >> 12 & 5
                    if op == 0 and h & 0x380 != 0x380:  # conditional
                        i = (h >> 10 & 1) << 20 | (h2 >> 11 & 1) << 19 | (h2 >> 13 & 1) << 18
                        i |= (h & 0x3F) << 12 | (h2 & 0x7FF) << 1
                        operation = JUMP_CONDITIONAL
                        register = h >> 6 & 15
                        immediate = pc + _signed(i, 21)
                    elif op:
                        i = (h >> 10 & 1) << 24 | (~(h2 >> 13 ^ h >> 10) & 1) << 23
                        i |= (~(h2 >> 11 ^ h >> 10) & 1) << 22 | (h & 0x3FF) << 12 | (h2 & 0x7FF) << 1
                        operation = JUMP if op == 1 else CALL
                        immediate = pc + _signed(i, 25)
                        if op == 4:  # blx
                            immediate = (pc + shift & ~3) - shift + _signed(i & ~3, 25)
                    elif h & 0xFFE0 == 0xF3E0:  # mrs
                        clobbers = 1 << rd
                        operation = READ_SPECIAL
                        register = rd
                        immediate = h2 & 0xFF
                    elif h & 0xFFE0 == 0xF380:  # msr
                        operation = WRITE_SPECIAL
                        base = rn
                        immediate = h2 & 0xFF
                    elif h == 0xF3DE:
                        operation = INTERRUPT_RETURN
                    elif h & 0xFFF0 == 0xF7F0 and h2 >> 12 == 0xA:
                        operation = UNDEFINED
                    elif h == 0xF3AF and h2 == 0x8000:
                        operation = NOP
                    elif h & 0xFFF0 == 0xF3C0:  # bxj
                        operation = RETURN if rn == 14 else JUMP_INDIRECT
                        base = rn
                    elif h & 0xFFE0 == 0xF7E0:  # hvc, smc
                        clobbers = 0x100F
                elif h & 0xFE00 == 0xF800 and h & 0xFF10 != 0xF900:  # single loads and stores
                    op = h >> 5 & 3
                    width = 1 << op
                    access = 1 if h & 0x10 else 2
                    if op == 3:
                        operation = BAD
                        access = 0
                    elif rn == 15:
                        up = h >> 7 & 1
                        value = h2 & 0xFFF
                    elif h & 0x80:
                        value = h2 & 0xFFF
                    elif h2 & 0x800:
                        pre = h2 >> 10 & 1
                        up = h2 >> 9 & 1
                        writeback = h2 >> 8 & 1
                        value = h2 & 0xFF
                        if pre and up and not writeback:  # unprivileged
                            pre = 1
                    else:
                        index = rm
                        scale = h2 >> 4 & 3
                    if access == 1 and op < 2 and rt == 15:  # preload hints
                        access = 0
                        index = NONE
                        operation = OTHER
                    elif access == 1 and h & 0x100:
                        operation = LOAD_MULTIPLE
                elif h & 0xFF10 == 0xF900:  # vector structures
                    operation = LOAD_MULTIPLE if h & 0x20 else STORE_MULTIPLE
                    operation, register, base, immediate, clobbers = _vector_structure(operation, rn, rm, w)
                    width = 32
                    flags = MEMORY
                elif h & 0xFF00 == 0xFA00 or h & 0xFF80 == 0xFB00:
                    clobbers = 1 << rd
                elif h & 0xFF80 == 0xFB80:
                    clobbers = 1 << rd
                    if not (h & 0x50 == 0x10 and h2 >> 4 & 15 == 15):  # not a division
                        clobbers |= 1 << rt
                else:
                    operation = BAD
        else:
            w = code[position] | code[position + 1] << 8 | code[position + 2] << 16
            w |= cython.cast(cython.longlong, code[position + 3]) << 24
            condition = cython.cast(cython.int, w >> 28)
            pc = position + 8
            rn = w >> 16 & 15
            rd = w >> 12 & 15
            rt = rd
            rm = w & 15
            op = w >> 25 & 7
            if condition == 15:
                condition = 14
                if op == 5:  # blx
                    operation = CALL
                    immediate = pc + (_signed(w & 0xFFFFFF, 24) << 2) + (w >> 23 & 2)
                elif op == 4:
                    operation = INTERRUPT_RETURN if w >> 20 & 1 else OTHER
                elif op >= 6:
                    operation, register, base, displacement, width, clobbers, immediate = _coprocessor(w, 15)
                    if operation in (LOAD_MULTIPLE, STORE_MULTIPLE):
                        flags = MEMORY
                elif w >> 24 & 15 == 4 and not w >> 20 & 1:  # vector structures
                    operation = LOAD_MULTIPLE if w >> 21 & 1 else STORE_MULTIPLE
                    operation, register, base, immediate, clobbers = _vector_structure(operation, rn, rm, w)
                    width = 32
                    flags = MEMORY
            elif op <= 1:
                op = w >> 21 & 15
                if not w >> 25 & 1 and w & 0x90 == 0x90:  # multiplies, half words, doubles, exclusive
                    i = w >> 5 & 3
                    if i == 0:
                        if w >> 24 & 1:  # swp, exclusive
                            clobbers = 1 << rd
                            if w >> 20 & 15 == 11:
                                clobbers |= 1 << (rd + 1 & 15)
                        else:
                            clobbers = 1 << rn
                            if op >= 4 or w >> 23 & 1:
                                clobbers |= 1 << rd
                    else:
                        pre = w >> 24 & 1
                        up = w >> 23 & 1
                        writeback = 1 if not pre else w >> 21 & 1
                        width = 2
                        if w >> 22 & 1:
                            value = (w >> 4 & 0xF0) | (w & 15)
                        else:
                            index = rm
                        if w >> 20 & 1:
                            access = 1
                            if i == 2:
                                width = 1
                            if i > 1:
                                operation = LOAD_MULTIPLE
                        elif i == 1:
                            access = 2
                        else:
                            access = 1 if i == 2 else 2
                            width = 8
                            operation = LOAD_MULTIPLE if i == 2 else STORE_MULTIPLE
                            clobbers = 1 << rd | 1 << (rd + 1 & 15) if i == 2 else 0
                elif op & 12 == 8 and not w >> 20 & 1:  # miscellaneous; movw, movt, msr
                    if w >> 25 & 1:
                        if op == 8 or op == 10:
                            operation = MOVE_IMMEDIATE if op == 8 else INSERT_IMMEDIATE
                            register = rd
                            clobbers = 1 << rd
                            immediate = rn << 12 | (w & 0xFFF)
                            scale = 16 if op == 10 else 0
                    elif w & 0x80:  # signed multiplies
                        clobbers = 1 << rn
                        if op == 10:
                            clobbers |= 1 << rd
                    else:
                        i = w >> 4 & 7
                        if i == 0:
                            if not w >> 21 & 1:
                                clobbers = 1 << rd  # mrs
                        elif (i == 1 and op == 9) or i == 2:
                            operation = RETURN if rm == 14 else JUMP_INDIRECT
                            base = rm
                        elif i == 1 and op == 11:
                            clobbers = 1 << rd  # clz
                        elif i == 3 and op == 9:
                            operation = CALL_INDIRECT
                            base = rm
                        elif i == 5:
                            clobbers = 1 << rd
                        elif i == 6:
                            operation = INTERRUPT_RETURN
                        elif i == 7 and op == 11:
                            clobbers = 0x100F  # smc
                        elif i == 7 and op == 9:
                            clobbers = 1  # bkpt
                elif op & 12 == 8:
                    operation = COMPARE
                    if w >> 25 & 1 and op == 10:
                        operation = COMPARE_IMMEDIATE
                        register = rn
                        immediate = _rotated(w & 0xFF, (w >> 8 & 15) << 1)
                else:
                    clobbers = 1 << rd
                    if w >> 25 & 1:
                        value = _rotated(w & 0xFF, (w >> 8 & 15) << 1)
                        if op == 4 or op == 2:
                            sum_form = 1
                            subtract = op == 2
                        elif op == 13 or op == 15:
                            operation = MOVE_IMMEDIATE
                            register = rd
                            immediate = value if op == 13 else ~value & 0xFFFFFFFF
                        elif op == 0 or op == 14:
                            operation = ALIGN
                            register = rd
                            base = rn
                            immediate = _signed(value if op == 0 else ~value & 0xFFFFFFFF, 32)
                    else:
                        i = w >> 7 & 31
                        if op == 4 or op == 2:
                            sum_form = 2
                            subtract = op == 2
                            value = i if w & 0x70 == 0 else 99
                        elif op == 13 and w & 0xFF0 == 0:
                            operation = MOVE
                            register = rd
                            base = rm
                        elif op == 13 and w & 0x50 == 0 and rd == rm and i:
                            operation = SHIFT_RIGHT if w & 0x20 else SHIFT_LEFT
                            register = rd
                            immediate = i
                    if rd == 15:
                        base = rm
                        if w >> 20 & 1:  # movs pc, lr; subs pc, lr, #4
                            operation = INTERRUPT_RETURN
                        elif operation == MOVE and rm == 14:
                            operation = RETURN
                        else:
                            operation = JUMP_INDIRECT
                            if sum_form:
                                base = NONE
                        register = NONE
                        sum_form = 0
            elif op == 2 or (op == 3 and not w & 16):  # single words and bytes
                access = 1 if w >> 20 & 1 else 2
                width = 1 if w >> 22 & 1 else 4
                pre = w >> 24 & 1
                up = w >> 23 & 1
                writeback = 1 if not pre else w >> 21 & 1
                if op == 2:
                    value = w & 0xFFF
                else:
                    index = rm
                    scale = w >> 7 & 31 if w & 0x60 == 0 else 31
            elif op == 3:  # media
                if w & 0xF000F0 == 0xF000F0 and w >> 24 & 15 == 7:
                    operation = UNDEFINED
                elif w >> 23 & 3 == 2:  # multiplies and divisions
                    clobbers = 1 << rn
                    if w >> 22 & 1 and w & 0xE0 == 0:
                        clobbers |= 1 << rd
                elif w & 0x1F000D0 == 0x1800010:  # usad8
                    clobbers = 1 << rn
                else:
                    clobbers = 1 << rd
            elif op == 4:  # ldm, stm
                i = w & 0xFFFF
                operation, register, base, displacement, width, clobbers, immediate = _multiple(
                    rn, cython.cast(cython.int, i), w >> 20 & 1, w >> 21 & 1, not w >> 23 & 1, not w >> 24 & 1
                )
                scale = cython.cast(cython.int, i & 0xFF)
                if w >> 24 & 1 == w >> 23 & 1 and base != NONE:  # ib, da
                    displacement += 4 if w >> 23 & 1 else 0
                    if not w >> 23 & 1:
                        displacement += 4
                flags = MEMORY
                if w >> 22 & 1:  # user registers, or with pc: return from an exception
                    clobbers &= 1 << rn
                    if w >> 20 & 1 and i & 0x8000:
                        operation = INTERRUPT_RETURN
            elif op == 5:
                operation = CALL if w >> 24 & 1 else JUMP
                immediate = pc + (_signed(w & 0xFFFFFF, 24) << 2)
            elif w >> 24 & 15 == 15:
                operation = SYSTEM_CALL
                clobbers = 0x100F
            else:
                operation, register, base, displacement, width, clobbers, immediate = _coprocessor(w, 14)
                if operation in (LOAD_MULTIPLE, STORE_MULTIPLE):
                    flags = MEMORY
                if w >> 8 & 14 == 10:
                    flags |= FLOATING
        # --- Sums: of the stack pointer and of others, in the form that tells most.
        if sum_form:
            clobbers = 1 << rd
            if rn == 15:  # adr; the pc is aligned in T32 and A32 alike
                if sum_form == 1:
                    operation = MOVE_IMMEDIATE
                    register = rd
                    immediate = (pc + shift & ~3) + (-value if subtract else value)
            elif sum_form == 1:
                if subtract:
                    value = -value
                if value >> 31 == 1:
                    value -= 1 << 32
                register = rd
                if rd == rn:
                    operation = ADD_IMMEDIATE
                    immediate = value
                elif value == 0:
                    operation = MOVE
                    base = rn
                else:
                    operation = LEA
                    base = rn
                    displacement = value if -(1 << 31) <= value < 1 << 31 else 0
                    if displacement != value:
                        operation = OTHER
            else:
                register = rd
                if rd == rn and (rm != 13 or rn == 13) and (value == 0 or subtract):
                    operation = SUBTRACT if subtract else ADD
                    base = rm if value == 0 else NONE
                elif subtract and value == 0:
                    operation = SUBTRACT_REGISTERS
                    base = rn
                    index = rm
                elif subtract:
                    operation = OTHER
                    register = NONE
                elif rm == 13 and value == 0:
                    operation = LEA
                    base = rm
                    index = rn
                    scale = 1
                elif value < 7:
                    operation = LEA
                    base = rn
                    index = rm
                    scale = 1 << value
                else:
                    operation = OTHER
                    register = NONE
        # --- Loads and stores.
        if access:
            flags |= MEMORY
            base = rn
            if not up:
                value = -value
            if index == NONE or scale > 6 or not up:
                scale = 0
            else:
                scale = 1 << scale
            displacement = value if pre else 0
            if access == 1:
                if width < 8:
                    clobbers = 1 << rt
                if rt == 15 and width == 4:
                    operation = JUMP_INDIRECT
                    clobbers = 0
                    if rn == 13 and writeback and not pre and index == NONE:
                        operation = RETURN
                        displacement = value
                        flags = 0
                        base = NONE
                        writeback = 0
                    elif rn == 15 and index == NONE:
                        i = _word_at(code, (pc + shift & ~3) - shift + value)
                        if i >= 0:  # a veneer
                            operation = JUMP
                            flags = 0
                            base = NONE
                            displacement = 0
                            immediate = (i & ~1) - shift
                elif rn == 15 and index == NONE and width == 4:
                    i = _word_at(code, (pc + shift & ~3) - shift + value)
                    if i >= 0:
                        operation = MOVE_IMMEDIATE
                        register = rt
                        immediate = i
                        flags = 0
                        base = NONE
                        displacement = 0
                elif operation != LOAD_MULTIPLE:
                    operation = LOAD if width == 4 else LOAD_NARROW
                    register = rt
            elif operation != STORE_MULTIPLE:
                operation = STORE if width == 4 else STORE_MULTIPLE
                register = rt if width == 4 else NONE
            if writeback and rn != 15:
                clobbers |= 1 << rn
                if operation in (LOAD, LOAD_NARROW, STORE):
                    operation = STORE_MULTIPLE if access == 2 else LOAD_MULTIPLE
                if operation in (LOAD_MULTIPLE, STORE_MULTIPLE):
                    register = rn
                    immediate = value
                    if index != NONE:
                        register = NONE  # by a register: the base is unknown then
            if operation in (LOAD_MULTIPLE, STORE_MULTIPLE) and width == 8 and not writeback:
                immediate = rt | (rd if region_kind[region] == THUMB else rt + 1) << 8  # ldrd, strd: both
            if operation == STORE_MULTIPLE and width < 4 and not writeback:
                immediate = rt
            if operation == STORE_MULTIPLE and index == NONE:
                scale = registers if width == 8 else 1 << rt & 0xFF if width == 4 else 0
        # --- Realigned frames in T32: lsrs rX, #n; lsls rX, #n.
        if operation == SHIFT_RIGHT and length == 2 and region_kind[region] == THUMB:
            h2 = _half_at(code, position + 2)
            if h2 >> 11 == 0 and h2 & 0x7FF == h & 0x7FF and position + 4 <= limit:
                operation = ALIGN
                base = register
                immediate = -(cython.cast(cython.longlong, 1) << immediate)
        # --- A return by a register that was popped just before: pop {r3}; add sp, #16; bx r3.
        if operation == JUMP_INDIRECT and base < 13 and not flags & MEMORY:
            i = count - 1
            while i >= 0 and i >= count - 3 and offset_out[i] + length_out[i] > 0:
                if (
                    operation_out[i] == LOAD_MULTIPLE
                    and register_out[i] == 13
                    and clobbers_out[i] >> base & 1
                    and clobbers_out[i] & 0x1FFF == 1 << base
                ):
                    operation = RETURN
                    break
                if operation_out[i] != ADD_IMMEDIATE or register_out[i] != 13:
                    break
                i -= 1
        if condition != 14 and operation not in (JUMP_CONDITIONAL, BAD):
            if operation == JUMP:
                operation = JUMP_CONDITIONAL
                register = condition
            elif operation in (
                CALL, CALL_INDIRECT, JUMP_INDIRECT, RETURN, INTERRUPT_RETURN, UNDEFINED, SYSTEM_CALL,
            ) or (clobbers >> 13 & 1) or (operation == STORE_MULTIPLE and register != NONE):  # fmt: skip
                flags |= CONDITIONAL
            elif operation in (STORE, STORE_MULTIPLE) and clobbers == 0:
                if operation == STORE:
                    immediate = register
                operation = STORE_MULTIPLE
                register = NONE
                flags |= CONDITIONAL
            elif operation == MOVE:
                operation = MOVE_CONDITIONAL
            else:
                operation = OTHER
                register = NONE
        offset_out[count] = position
        length_out[count] = length
        operation_out[count] = operation
        width_out[count] = width if width < 256 else 255
        register_out[count] = register
        base_out[count] = base
        index_out[count] = index
        scale_out[count] = scale
        flags_out[count] = flags
        clobbers_out[count] = clobbers & 0xFFFF
        displacement_out[count] = cython.cast(cython.int, displacement)
        immediate_out[count] = immediate
        count += 1
        position += length
    return position, count


@cython.cfunc
def _multiple(
    rn: cython.int,
    registers: cython.int,
    load: cython.int,
    writeback: cython.int,
    down: cython.bint,
    ia: cython.bint,
) -> tuple[cython.int, cython.int, cython.int, cython.longlong, cython.int, cython.longlong, cython.longlong]:
    """(operation, register, base, displacement, width, clobbers, immediate) of ldm and stm.

    A list with the pc in it, loaded from the stack, is a return.
    """
    width: cython.int = 4 * _ones(registers)
    moved: cython.longlong = -width if down else width
    clobbers: cython.longlong = 0
    if load:
        clobbers = registers & 0x7FFF
    if writeback:
        clobbers |= 1 << rn
    if load and registers & 0x8000:
        if rn == 13:
            return RETURN, NONE, NONE, moved if writeback else 0, width, clobbers, 0
        return INTERRUPT_RETURN, NONE, NONE, 0, width, clobbers, 0
    if load and registers >> rn & 1:
        writeback = 0
    return (
        LOAD_MULTIPLE if load else STORE_MULTIPLE,
        rn if writeback else NONE,
        rn,
        moved if down else 0,
        width,
        clobbers,
        moved if writeback else 0,
    )


@cython.cfunc
def _coprocessor(
    w: cython.longlong, condition: cython.int
) -> tuple[cython.int, cython.int, cython.int, cython.longlong, cython.int, cython.longlong, cython.longlong]:
    """(operation, register, base, displacement, width, clobbers, immediate) of the coprocessor space, in
    which A32 and T32 agree: floating point, vectors, system registers."""
    rn: cython.int = w >> 16 & 15
    rt: cython.int = w >> 12 & 15
    coprocessor: cython.int = w >> 8 & 15
    load: cython.int = w >> 20 & 1
    width: cython.int
    moved: cython.longlong
    if (
        w >> 28 & 1 and condition == 14 and w >> 29 == 7
    ):  # T32 0xFC.. to 0xFF..: no core registers but for mrc2
        condition = 15
    if w >> 24 & 15 == 14 or w >> 24 & 15 == 15:
        if w & 0x10 and load and w >> 24 & 15 == 14 and (coprocessor not in (10, 11) or condition != 15):
            return OTHER, NONE, NONE, 0, 4, 0 if rt == 15 else 1 << rt, 0  # mrc, vmov to a core register
        return OTHER, NONE, NONE, 0, 4, 0, 0
    if w >> 21 & 15 == 2:  # mrrc, mcrr, vmov of two
        return OTHER, NONE, NONE, 0, 4, (1 << rt | 1 << rn) if load else 0, 0
    if coprocessor in (10, 11) and condition != 15:
        if w >> 24 & 1 and not w >> 21 & 1:  # vldr, vstr
            moved = (w & 0xFF) << 2
            if not w >> 23 & 1:
                moved = -moved
            width = 8 if coprocessor == 11 else 4
            return LOAD_MULTIPLE if load else STORE_MULTIPLE, NONE, rn, moved, width, 0, 0
        moved = (w & 0xFF) << 2
        width = cython.cast(cython.int, moved)
        if not w >> 23 & 1:
            moved = -moved
        if w >> 21 & 1:
            return (
                LOAD_MULTIPLE if load else STORE_MULTIPLE, rn, rn, moved if moved < 0 else 0, width, 1 << rn,
                moved,
            )  # fmt: skip
        return LOAD_MULTIPLE if load else STORE_MULTIPLE, NONE, rn, 0, width, 0, 0
    if w >> 21 & 1:  # ldc, stc with writeback
        return OTHER, NONE, NONE, 0, 4, 1 << rn, 0
    return OTHER, NONE, NONE, 0, 4, 0, 0


@cython.cfunc
def _vector_structure(
    operation: cython.int, rn: cython.int, rm: cython.int, w: cython.longlong
) -> tuple[cython.int, cython.int, cython.int, cython.longlong, cython.longlong]:
    """(operation, register, base, immediate, clobbers) of vld1..vld4 and vst1..vst4."""
    kind: cython.int
    registers: cython.int
    moved: cython.longlong
    if rm == 15:
        return operation, NONE, rn, 0, 0
    if rm != 13:  # by a register
        return operation, NONE, rn, 0, 1 << rn
    kind = w >> 8 & 15
    if not w >> 23 & 1:  # multiple structures
        registers = 1
        if kind in (2, 0, 1):
            registers = 4
        elif kind in (6, 4, 5):
            registers = 3
        elif kind in (10, 8, 9):
            registers = 2
        if kind == 3:
            registers = 4
        moved = 8 * registers
    else:
        registers = (kind & 3) + 1
        if kind >= 12:  # to all lanes
            moved = registers << (w >> 6 & 3)
        else:
            moved = registers << (kind >> 2)
    return operation, rn, rn, moved, 1 << rn
