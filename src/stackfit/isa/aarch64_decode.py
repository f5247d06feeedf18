# cython: boundscheck=True, wraparound=False, cdivision=True
"""AArch64 decoder: bytes to effect arrays (Arm ARM DDI 0487, chapter C4: the A64 encoding index).

Only what moves the stack pointer, frame addresses, constants or control is told apart; of everything else the
general registers that it writes are noted. Compiled by Cython; the same file runs as plain Python.
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
        DATA,
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
        UNDEFINED,
        WRITE_SPECIAL,
    )

_SP = cython.declare(cython.int, 31)


@cython.cfunc
@cython.inline
def _signed(value: cython.longlong, bits: cython.int) -> cython.longlong:
    """A two's complement number of so many bits."""
    if value >> (bits - 1) & 1:
        return value - (cython.cast(cython.longlong, 1) << bits)
    return value


@cython.cfunc
@cython.inline
def _general(number: cython.int) -> cython.int:
    """Number of a register operand in which 31 is the zero register."""
    return NONE if number == 31 else number


@cython.cfunc
def _bit_mask(n: cython.int, imms: cython.int, immr: cython.int, wide: cython.bint) -> cython.longlong:
    """The immediate of a logical instruction (DecodeBitMasks, DDI 0487 appendix J1); 0: reserved."""
    size: cython.int = 64
    low: cython.int
    ones: cython.int
    rotate: cython.int
    at: cython.int
    half: cython.longlong = 1
    value: cython.longlong = 0
    if not n:
        size = 32
        while size > 1 and (~imms & 0x3F) & size == 0:
            size >>= 1
        if size < 2:
            return 0
    low = size - 1
    ones = (imms & low) + 1
    if ones == size:
        return 0
    rotate = immr & low
    for at in range(63 if wide else 32):
        if (at + rotate) % size < ones:
            value |= half << at
    if wide and (63 + rotate) % size < ones:
        value -= half << 62
        value -= half << 62
    return value


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

    Regions by ascending offset: what each holds (CODE, DATA), and its address less its offset (bytes).
    Returns (next byte, instructions written so far); stops early when the outputs are full, to be called
    again with larger ones. `word` is not used (it is 8).
    """
    size: cython.longlong = code.shape[0]
    capacity: cython.longlong = offset_out.shape[0]
    position: cython.longlong = resume
    region: cython.longlong = 0
    regions: cython.longlong = region_start.shape[0]
    limit: cython.longlong
    address: cython.longlong
    i: cython.longlong
    w: cython.longlong
    value: cython.longlong
    length: cython.int
    rd: cython.int
    rn: cython.int
    rm: cython.int
    rt: cython.int
    op: cython.int
    scale: cython.int
    wide: cython.bint
    operation: cython.int
    width: cython.int
    register: cython.int
    base: cython.int
    index: cython.int
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
        length = 4
        width = 8
        register = NONE
        base = NONE
        index = NONE
        scale = 0
        flags = 0
        clobbers = 0
        displacement = 0
        immediate = 0
        if region_kind[region] == DATA or limit - position < 4:
            operation = BAD
            length = cython.cast(cython.int, min(limit - position, 0xFFFC))
        else:
            w = code[position] | code[position + 1] << 8 | code[position + 2] << 16
            w |= cython.cast(cython.longlong, code[position + 3]) << 24
            address = position + region_shift[region]
            rd = w & 31
            rn = w >> 5 & 31
            rm = w >> 16 & 31
            rt = w >> 10 & 31
            wide = w >> 31 & 1
            op = w >> 25 & 15
            if op == 0:
                operation = UNDEFINED if w >> 16 == 0 else BAD
            elif op == 8 or op == 9:  # data processing, immediate
                i = w >> 23 & 7
                clobbers = 1 << rd
                if i <= 1:  # adr, adrp
                    value = _signed((w >> 5 & 0x7FFFF) << 2 | (w >> 29 & 3), 21)
                    operation = MOVE_IMMEDIATE
                    register = _general(rd)
                    if w >> 31 & 1:
                        immediate = (address & ~0xFFF) + (value << 12)
                    else:
                        immediate = address + value
                elif i == 2:  # add, sub (31 is the stack pointer, but for the result of adds and subs)
                    value = w >> 10 & 0xFFF
                    if w >> 22 & 1:
                        value <<= 12
                    if w >> 30 & 1:
                        value = -value
                    width = 8 if wide else 4
                    if w >> 29 & 1 and rd == 31:
                        operation = COMPARE_IMMEDIATE
                        register = rn
                        immediate = -value
                        clobbers = 0
                    elif rd == rn:
                        operation = ADD_IMMEDIATE
                        register = rd
                        immediate = value
                    elif value == 0:
                        operation = MOVE
                        register = rd
                        base = rn
                    else:
                        operation = LEA
                        register = rd
                        base = rn
                        displacement = value
                elif i == 4:  # and, orr, eor, ands
                    value = _bit_mask(w >> 22 & 1, w >> 10 & 63, w >> 16 & 63, wide)
                    op = w >> 29 & 3
                    if op == 3:
                        operation = COMPARE if rd == 31 else OTHER
                        if rd == 31:
                            clobbers = 0
                    elif op == 0:
                        operation = ALIGN
                        width = 8 if wide else 4
                        register = rd
                        base = _general(rn)
                        immediate = value
                    elif op == 1 and rn == 31:
                        operation = MOVE_IMMEDIATE
                        register = rd
                        immediate = value
                elif i == 5:  # movn, movz, movk
                    scale = (w >> 21 & 3) << 4
                    value = w >> 5 & 0xFFFF
                    op = w >> 29 & 3
                    register = _general(rd)
                    if op == 3:
                        operation = INSERT_IMMEDIATE
                        immediate = value
                    elif op == 2:
                        operation = MOVE_IMMEDIATE
                        immediate = _signed(value, 16) << 48 if scale == 48 else value << scale
                        scale = 0
                    elif op == 0:
                        operation = MOVE_IMMEDIATE
                        immediate = ~(_signed(value, 16) << 48) if scale == 48 else ~(value << scale)
                        if not wide:
                            immediate &= 0xFFFFFFFF
                        scale = 0
                    else:
                        operation = BAD
                elif i == 6 and rd == rn:  # bit fields: ubfm as shifts
                    op = w >> 29 & 3
                    width = 8 if wide else 4
                    if op == 2 and (w >> 10 & 63) == (63 if wide else 31):
                        operation = SHIFT_RIGHT
                        register = rd
                        immediate = w >> 16 & 63
                    elif op == 2 and (w >> 10 & 63) + 1 == (w >> 16 & 63):
                        operation = SHIFT_LEFT
                        register = rd
                        immediate = (63 if wide else 31) - (w >> 10 & 63)
            elif op == 10 or op == 11:  # branches, exceptions, system
                op = w >> 29 & 7
                if op == 0 or op == 4:  # b, bl
                    operation = CALL if op == 4 else JUMP
                    immediate = position + (_signed(w & 0x3FFFFFF, 26) << 2)
                elif op & 3 == 1:  # cbz, cbnz, tbz, tbnz
                    operation = JUMP_CONDITIONAL
                    register = w >> 24 & 1
                    if w >> 25 & 1:
                        immediate = position + (_signed(w >> 5 & 0x3FFF, 14) << 2)
                    else:
                        immediate = position + (_signed(w >> 5 & 0x7FFFF, 19) << 2)
                elif op == 2:  # b.cond
                    operation = JUMP_CONDITIONAL if w & 15 < 14 else JUMP
                    register = w & 15
                    immediate = position + (_signed(w >> 5 & 0x7FFFF, 19) << 2)
                elif w >> 25 & 1:  # br, blr, ret, eret and their forms with pointer authentication
                    i = w >> 21 & 15
                    if i == 0 or i == 8:
                        operation = JUMP_INDIRECT
                        base = rn
                    elif i == 1 or i == 9:
                        operation = CALL_INDIRECT
                        base = rn
                    elif i == 2:
                        operation = RETURN
                    else:
                        operation = INTERRUPT_RETURN
                elif w >> 24 & 1 == 0:  # svc, hvc, smc, brk, hlt
                    if w & 0xFFE0001F == 0xD4000001:
                        operation = SYSTEM_CALL
                        clobbers = 1
                    elif w & 0xFFE0001C == 0xD4200000:  # brk
                        operation = UNDEFINED
                        immediate = w >> 5 & 0xFFFF
                    else:  # hvc, smc, hlt: come back, with x0 to x17 at most changed (SMCCC 2.6)
                        clobbers = 0x3FFFF
                elif w == 0xD503201F:
                    operation = NOP
                elif w & 0xFFF00000 == 0xD5300000 or w & 0xFFF80000 == 0xD5280000:  # mrs, sysl
                    clobbers = 1 << rd
                    operation = READ_SPECIAL
                    register = _general(rd)
                    immediate = w >> 5 & 0x7FFF
                elif w & 0xFFF00000 == 0xD5100000:  # msr
                    operation = WRITE_SPECIAL
                    base = _general(rd)
                    immediate = w >> 5 & 0x7FFF
                elif w & 0xFFFFFFDF == 0xD50320DF:  # xpaclri
                    pass
            elif op & 5 == 4:  # loads and stores
                i = w >> 28 & 3
                if i == 2:  # pairs: stnp/ldnp, post, offset, pre
                    scale = 2 if not w >> 31 and not w >> 26 & 1 else 3
                    if w >> 26 & 1:
                        scale = 2 + cython.cast(cython.int, w >> 30 & 3)
                    elif w >> 30 & 3 == 1:
                        scale = 2  # ldpsw
                    value = _signed(w >> 15 & 127, 7) << scale
                    width = 2 << scale
                    scale = 0
                    op = w >> 23 & 3
                    base = rn
                    displacement = 0 if op == 1 else value
                    operation = LOAD_MULTIPLE if w >> 22 & 1 else STORE_MULTIPLE
                    flags = MEMORY
                    if op & 1:
                        register = rn
                        immediate = value
                        clobbers = 1 << rn
                    elif width == 16 and not w >> 26 & 1:
                        immediate = rd | rt << 8  # both registers
                    if w >> 22 & 1 and not w >> 26 & 1:
                        clobbers |= cython.cast(cython.longlong, 1) << rd
                        clobbers |= cython.cast(cython.longlong, 1) << rt
                elif i == 3:  # single registers
                    scale = w >> 30 & 3
                    op = w >> 22 & 3
                    if w >> 26 & 1 and op & 2:
                        scale = 4
                    flags = MEMORY
                    base = rn
                    if w >> 24 & 1:  # unsigned offset
                        displacement = (w >> 10 & 0xFFF) << scale
                        i = 0
                    elif w >> 21 & 1 == 0:
                        displacement = _signed(w >> 12 & 0x1FF, 9)
                        i = w >> 10 & 3  # 0: unscaled, 1: post, 2: unprivileged, 3: pre
                        if i == 2:
                            i = 0
                    else:
                        i = w >> 10 & 3
                        if i == 2:  # register offset
                            index = _general(rm)
                            i = 0
                        elif i == 1 or i == 3:  # pointer authentication: ldraa, ldrab
                            value = _signed((w >> 22 & 1) << 9 | (w >> 12 & 0x1FF), 10) << 3
                            displacement = value
                            op = 1
                            scale = 3
                            i = 3 if w >> 11 & 1 else 0
                        else:  # atomic: old value to Rt
                            i = 4
                    width = 1 << scale
                    if i == 4:
                        operation = STORE_MULTIPLE
                        clobbers = (1 << rd) if rd < 31 else 0
                        base = NONE
                    elif w >> 26 & 1:  # vector register
                        operation = LOAD_MULTIPLE if op & 1 else STORE_MULTIPLE
                    elif scale == 3 and op == 2:
                        operation = NOP  # prfm
                        flags = 0
                        i = 0
                        length = 4
                        operation = OTHER
                    elif op == 0:
                        if width == 8 and i == 0:
                            operation = STORE
                            register = _general(rd)
                        else:
                            operation = STORE_MULTIPLE
                    else:
                        clobbers = (1 << rd) if rd < 31 else 0
                        if i == 0 and op == 1 and scale == 3:
                            operation = LOAD
                            register = _general(rd)
                        elif i == 0 and op == 1 and scale < 2:
                            operation = LOAD_NARROW
                            register = _general(rd)
                        else:
                            operation = LOAD_MULTIPLE
                    if i == 1 or i == 3:
                        register = rn
                        immediate = displacement
                        clobbers |= cython.cast(cython.longlong, 1) << rn
                        if i == 1:
                            displacement = 0
                    scale = 1 if index != NONE else 0
                    if scale and w >> 12 & 1:
                        scale = width if width < 128 else 0
                elif i == 1 and w >> 24 & 1 == 0 and not w >> 26 & 1:  # literal
                    flags = MEMORY
                    op = w >> 30 & 3
                    if op < 3:
                        clobbers = (1 << rd) if rd < 31 else 0
                        value = position + (_signed(w >> 5 & 0x7FFFF, 19) << 2)
                        if op < 2 and value >= 0 and value + (8 if op else 4) <= size and rd < 31:
                            operation = MOVE_IMMEDIATE
                            flags = 0
                            register = rd
                            for i in range(7 if op else 3, -1, -1):
                                immediate = immediate << 8 | code[value + i]
                                if op and i == 7:
                                    immediate = _signed(immediate, 8)
                elif w >> 24 == 0xD9 and w >> 21 & 1:  # memory tags: stg and its kin, ldg, ldgm
                    operation = STORE_MULTIPLE
                    op = w >> 10 & 3
                    if op == 0 and w >> 22 & 1:
                        clobbers = (1 << rd) if rd < 31 else 0
                    elif op & 1:
                        register = rn
                        immediate = _signed(w >> 12 & 0x1FF, 9) << 4
                        clobbers = 1 << rn
                elif i == 1 and w >> 26 & 1 == 0:  # ldapur, stlur, and memory copies (0x19..., 0x1d...)
                    operation = STORE_MULTIPLE
                    clobbers = (1 << rd) if rd < 31 else 0
                elif i == 0 and w >> 26 & 1 == 0:  # exclusive, ordered: status and values
                    operation = STORE_MULTIPLE
                    width = 16
                    base = rn
                    flags = MEMORY
                    # Loads; what compares and swaps (cas, casp) has its result where it compares with.
                    if w >> 22 & 1 and not (w >> 21 & 1 and (w >> 23 & 1 or not w >> 31)):
                        clobbers = (1 << rd) if rd < 31 else 0
                        if w >> 21 & 1 and rt < 31:
                            clobbers |= 1 << rt
                    if rm < 31 and not (w >> 22 & 1 and not w >> 21 & 1):
                        clobbers |= 1 << rm
                        if w >> 21 & 1 and not w >> 23 & 1 and not w >> 31:  # casp: a pair of registers
                            clobbers |= cython.cast(cython.longlong, 3) << rm
                elif i == 0:  # vector structures, with an optional change of the base
                    operation = LOAD_MULTIPLE if w >> 22 & 1 else STORE_MULTIPLE
                    flags = MEMORY
                    width = 64
                    base = rn
                    if w >> 23 & 1:
                        clobbers = cython.cast(cython.longlong, 1) << rn
                        if rm == 31:
                            immediate = _structure_bytes(w)
                            register = rn
            elif op & 7 == 5:  # data processing, registers
                clobbers = (1 << rd) if rd < 31 else 0
                if w & 0x3FE00000 == 0x3A400000:  # ccmp, ccmn
                    clobbers = 0
                op = w >> 24 & 31
                width = 8 if wide else 4
                if w & 0x7FE00C00 == 0x1A800000:  # csel
                    if rd < 31:
                        operation = MOVE_CONDITIONAL
                        register = rd
                        base = _general(rn)
                        index = _general(rm)
                elif op == 10:  # logical, shifted
                    op = w >> 29 & 3
                    if op == 1 and rn == 31 and w >> 21 & 7 == 0 and w >> 10 & 63 == 0 and rd < 31:
                        if rm == 31:
                            operation = MOVE_IMMEDIATE
                        else:
                            operation = MOVE
                            base = rm
                        register = rd
                    elif op == 3 and rd == 31:
                        operation = COMPARE
                elif op == 11:  # add, sub; shifted (31 is zero) or extended (31 is the stack pointer)
                    op = w >> 30 & 1
                    if w >> 29 & 1 and rd == 31:
                        operation = COMPARE
                        clobbers = 0
                    elif w >> 21 & 1:
                        clobbers = cython.cast(cython.longlong, 1) << rd
                        i = w >> 13 & 7  # uxtb, uxth, uxtw, uxtx, and signed
                        operation, register, base, index, scale = _sum(
                            op, rd, rn, _general(rm), w >> 10 & 7, True
                        )
                        if i & 3 != 3 and not (i == 2 and not wide):
                            if operation == ADD:
                                operation = LEA
                                index = base
                                base = rd
                                scale = 1
                            elif operation == SUBTRACT:
                                base = NONE
                            elif operation == SUBTRACT_REGISTERS:
                                index = NONE
                            width = 1 << (i & 3)
                    elif rd < 31:
                        operation, register, base, index, scale = _sum(
                            op, rd, _general(rn), _general(rm), w >> 10 & 63, w >> 22 & 3 == 0
                        )
            elif op & 7 == 7:  # floating point and vectors: those that write a general register
                if w & 0x7F20FC00 == 0x1E200000:  # fcvt*, fmov to general
                    i = w >> 16 & 7
                    if i in (0, 1, 4, 5) or (w >> 16 & 31) in (6, 14):
                        clobbers = (1 << rd) if rd < 31 else 0
                elif w & 0xBFE0DC00 == 0x0E000C00 and (w >> 11 & 15) in (5, 7):  # smov, umov
                    clobbers = (1 << rd) if rd < 31 else 0
        offset_out[count] = position
        length_out[count] = length
        operation_out[count] = operation
        width_out[count] = width
        register_out[count] = register
        base_out[count] = base
        index_out[count] = index
        scale_out[count] = scale
        flags_out[count] = flags
        clobbers_out[count] = clobbers & 0xFFFFFFFF
        displacement_out[count] = cython.cast(cython.int, displacement)
        immediate_out[count] = immediate
        count += 1
        position += length
    return position, count


@cython.cfunc
def _sum(
    subtract: cython.int,
    rd: cython.int,
    rn: cython.int,
    rm: cython.int,
    shift: cython.int,
    plain: cython.bint,
) -> tuple[cython.int, cython.int, cython.int, cython.int, cython.int]:
    """(operation, register, base, index, scale) of rd = rn ± (rm << shift); not `plain`: another shift."""
    if not plain or shift > 6 or (subtract and shift):
        if rd == rn and subtract:
            return SUBTRACT, rd, NONE, NONE, 0
        if subtract:
            return SUBTRACT_REGISTERS, rd, rn, NONE, 0
        return LEA, rd, NONE, rm, 0
    if rd == rn and not shift:
        return SUBTRACT if subtract else ADD, rd, rm, NONE, 0
    if subtract:
        return SUBTRACT_REGISTERS, rd, rn, rm, 0
    return LEA, rd, rn, rm, 1 << shift


@cython.cfunc
def _structure_bytes(w: cython.longlong) -> cython.longlong:
    """Bytes by which ld1..ld4, st1..st4 with an immediate post-index advance their base register."""
    op: cython.int
    registers: cython.int
    if w >> 24 & 1 == 0:  # multiple structures
        op = w >> 12 & 15
        registers = 1
        if op in (0, 2):
            registers = 4
        elif op in (4, 6):
            registers = 3
        elif op in (8, 10):
            registers = 2
        return registers * (16 if w >> 30 & 1 else 8)
    registers = ((w >> 13 & 1) << 1 | (w >> 21 & 1)) + 1
    op = w >> 14 & 3
    if op == 3:  # all lanes
        return registers << (w >> 10 & 3)
    if op == 2:
        return registers * (8 if w >> 10 & 1 else 4)
    return registers << op
