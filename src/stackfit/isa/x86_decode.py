# cython: boundscheck=True, wraparound=False, cdivision=True
"""x86 decoder, 32- and 64-bit: bytes to effect arrays (Intel SDM volume 2, appendix A opcode maps).

One pass, table driven: prefixes, REX, opcode map, ModRM/SIB, displacement, immediate; VEX and EVEX for their
lengths and general-register results. Compiled by Cython; the same file runs as plain Python.
"""

from __future__ import annotations

import cython
import numpy as np

__all__ = ["MAPS", "decode_into", "find_starts"]

if not cython.compiled:
    from stackfit.isa.constants import (
        ADD,
        ADD_IMMEDIATE,
        AND_IMMEDIATE,
        BAD,
        BREAKPOINT,
        CALL,
        CALL_INDIRECT,
        COMPARE,
        COMPARE_IMMEDIATE,
        COPY,
        CX,
        ENTER,
        EXCHANGE,
        FAR_JUMP,
        HALT,
        HAS_MODRM,
        IMM8,
        IMMZ,
        INTERRUPT,
        INTERRUPT_RETURN,
        JUMP,
        JUMP_CONDITIONAL,
        JUMP_INDIRECT,
        LEA,
        LEAVE,
        LOAD,
        LOAD_NARROW,
        MOVE,
        MOVE_CONDITIONAL,
        MOVE_IMMEDIATE,
        NONE,
        NOP,
        OTHER,
        POP,
        POP_ALL,
        POP_FLAGS,
        PUSH,
        PUSH_ALL,
        PUSH_FLAGS,
        R11,
        RESERVED,
        RESERVED_64,
        RETURN,
        RIP,
        SHIFT_LEFT,
        SHIFT_RIGHT,
        STORE,
        STORE_IMMEDIATE,
        SUBTRACT,
        SYSTEM_CALL,
        SYSTEM_RETURN,
        TEST,
        TO_REG,
        TO_RM,
        UNDEFINED,
        VECTOR,
    )


def _build_maps() -> np.ndarray:  # type: ignore[type-arg]
    """The four opcode maps (one byte, 0F, 0F38, 0F3A) as attribute bytes: shape (1024,), uint8."""
    one = [0] * 256
    for group in range(0, 0x40, 8):
        compare = group == 0x38
        one[group] = one[group + 1] = HAS_MODRM | (0 if compare else TO_RM)
        one[group + 2] = one[group + 3] = HAS_MODRM | (0 if compare else TO_REG)
        one[group + 4], one[group + 5] = IMM8, IMMZ
    for code in (
        0x06,
        0x07,
        0x0E,
        0x16,
        0x17,
        0x1E,
        0x1F,
        0x27,
        0x2F,
        0x37,
        0x3F,
        0x60,
        0x61,
        0x82,
        0x9A,
        0xCE,
        0xD4,
        0xD5,
        0xD6,
        0xEA,
    ):
        one[code] |= RESERVED_64
    one[0xD4] |= IMM8
    one[0xD5] |= IMM8
    one[0x63] = HAS_MODRM | TO_REG
    one[0x68] = IMMZ
    one[0x69] = HAS_MODRM | IMMZ | TO_REG
    one[0x6A] = IMM8
    one[0x6B] = HAS_MODRM | IMM8 | TO_REG
    one[0x80] = one[0x83] = HAS_MODRM | IMM8 | TO_RM
    one[0x82] |= HAS_MODRM | IMM8 | TO_RM
    one[0x81] = HAS_MODRM | IMMZ | TO_RM
    one[0x84] = one[0x85] = HAS_MODRM
    one[0x86] = one[0x87] = HAS_MODRM | TO_REG | TO_RM
    one[0x88] = one[0x89] = HAS_MODRM | TO_RM
    one[0x8A] = one[0x8B] = HAS_MODRM | TO_REG
    one[0x8C] = HAS_MODRM | TO_RM
    one[0x8D] = HAS_MODRM | TO_REG
    one[0x8E] = HAS_MODRM
    one[0x8F] = HAS_MODRM | TO_RM
    one[0xA8], one[0xA9] = IMM8, IMMZ
    for code in range(0xB0, 0xB8):
        one[code] = IMM8
    one[0xC0] = one[0xC1] = HAS_MODRM | IMM8 | TO_RM
    one[0xC6], one[0xC7] = HAS_MODRM | IMM8 | TO_RM, HAS_MODRM | IMMZ | TO_RM
    one[0xCD] = IMM8
    for code in range(0xD0, 0xD4):
        one[code] = HAS_MODRM | TO_RM
    for code in range(0xD8, 0xE0):
        one[code] = HAS_MODRM
    for code in range(0xE4, 0xE8):
        one[code] = IMM8
    one[0x62] = HAS_MODRM  # bound; without memory operand, and in 64-bit mode, the EVEX prefix
    one[0xC4] = one[0xC5] = HAS_MODRM | TO_REG  # les, lds; or VEX
    one[0xF6] = one[0xF7] = one[0xFE] = one[0xFF] = HAS_MODRM

    two = [0] * 256
    for code in (
        *range(0x00, 0x04),
        0x0D,
        *range(0x10, 0x30),
        *range(0x40, 0x77),
        *range(0x78, 0x80),
        *range(0x90, 0xA0),
    ):
        two[code] = HAS_MODRM
    for code in (*range(0xA3, 0xA8), *range(0xAB, 0xC8), *range(0xD0, 0x100)):
        two[code] = HAS_MODRM
    for code in (
        0x04,
        0x0A,
        0x0C,
        0x24,
        0x25,
        0x26,
        0x27,
        0x36,
        0x39,
        0x3B,
        0x3C,
        0x3D,
        0x3E,
        0x3F,
        0x7A,
        0x7B,
    ):
        two[code] = RESERVED
    two[0x0F] = HAS_MODRM | IMM8
    for code in (0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6):
        two[code] = HAS_MODRM | IMM8
    for code in (
        0x02,
        0x03,
        0xAF,
        *range(0x40, 0x50),
        0xB6,
        0xB7,
        0xB8,
        0xBC,
        0xBD,
        0xBE,
        0xBF,
        0xB2,
        0xB4,
        0xB5,
    ):
        two[code] |= TO_REG
    for code in (0x50, 0xD7, 0xC5):
        two[code] |= TO_REG
    for code in (*range(0x90, 0xA0), 0xA4, 0xA5, 0xAB, 0xAC, 0xAD, 0xB0, 0xB1, 0xB3, 0xBB, 0x78):
        two[code] |= TO_RM
    two[0xC0] = two[0xC1] = HAS_MODRM | TO_REG | TO_RM

    three38 = [HAS_MODRM] * 256
    three3a = [HAS_MODRM | IMM8] * 256
    for code in (0xF0, 0xF1, 0xF6):
        three38[code] |= TO_REG
    for code in (0x14, 0x15, 0x16, 0x17):
        three3a[code] |= TO_RM
    return np.array(one + two + three38 + three3a, np.uint8)


MAPS = _build_maps()


@cython.cfunc
@cython.inline
def _signed(code: cython.const[cython.uchar][::1], at: cython.longlong, size: cython.int) -> cython.longlong:
    """The signed little-endian number of 1 to 8 bytes at `at`."""
    i: cython.int
    one: cython.longlong = 1
    value: cython.longlong = code[at + size - 1]
    if value >= 128:
        value -= 256
    value *= one << (8 * (size - 1))
    for i in range(size - 1):
        value += code[at + i] * (one << (8 * i))
    return value


def decode_into(
    code: cython.const[cython.uchar][::1],
    bits64: cython.bint,
    resume: cython.longlong,
    count: cython.longlong,
    starts: cython.const[cython.uint][::1],
    maps: cython.const[cython.uchar][::1],
    offset_out: cython.uint[::1],
    length_out: cython.ushort[::1],
    operation_out: cython.uchar[::1],
    width_out: cython.uchar[::1],
    register_out: cython.uchar[::1],
    base_out: cython.uchar[::1],
    index_out: cython.uchar[::1],
    scale_out: cython.uchar[::1],
    flags_out: cython.uchar[::1],
    clobbers_out: cython.ushort[::1],
    displacement_out: cython.int[::1],
    immediate_out: cython.longlong[::1],
) -> tuple[int, int]:
    """Decode `code` from byte `resume` on, filling the output arrays from index `count`.

    Decoding starts afresh at every offset in `starts` (ascending), so that data before a function cannot
    shift it. Returns (next byte, instructions written so far); stops early when the outputs are full, to be
    called again with larger ones. A byte that starts no instruction is one BAD instruction of length 1.
    """
    size: cython.longlong = code.shape[0]
    capacity: cython.longlong = offset_out.shape[0]
    position: cython.longlong = resume
    next_start: cython.longlong = 0
    start_count: cython.longlong = starts.shape[0]
    limit: cython.longlong
    p: cython.longlong
    b: cython.int
    rex: cython.int
    operand16: cython.bint
    address_override: cython.bint
    repeat: cython.int
    segment: cython.bint
    lock: cython.bint
    attributes: cython.int
    opmap: cython.int
    modrm: cython.int
    mod: cython.int
    reg: cython.int
    rm: cython.int
    sib: cython.int
    base: cython.int
    index: cython.int
    scale: cython.int
    displacement: cython.longlong
    displacement_size: cython.int
    immediate: cython.longlong
    immediate_size: cython.int
    width: cython.int
    operation: cython.int
    register: cython.int
    source: cython.int
    clobbers: cython.int
    memory: cython.bint
    vex: cython.bint
    has_modrm: cython.bint
    i: cython.int
    stack_width: cython.int = 8 if bits64 else 4
    full_width: cython.int = stack_width
    operation_code: cython.int
    byte_rm: cython.int
    push_width: cython.int
    byte_reg: cython.int
    vvvv: cython.int
    vex_pp: cython.int
    evex_map: cython.int
    alu: cython.int

    while next_start < start_count and starts[next_start] <= position:
        next_start += 1
    while position < size:
        if count >= capacity:
            return position, count
        while next_start < start_count and starts[next_start] <= position:
            next_start += 1
        limit = starts[next_start] if next_start < start_count else size
        if limit > size:
            limit = size
        b = code[position]
        if b == 0xCC:  # a run of int3 is padding: one instruction
            p = position + 1
            while p < limit and p - position < 60000 and code[p] == 0xCC:
                p += 1
            offset_out[count] = position
            length_out[count] = p - position
            operation_out[count] = BREAKPOINT
            width_out[count] = 0
            register_out[count] = NONE
            base_out[count] = NONE
            index_out[count] = NONE
            scale_out[count] = 0
            flags_out[count] = 0
            clobbers_out[count] = 0
            displacement_out[count] = 0
            immediate_out[count] = 0
            count += 1
            position = p
            continue
        if limit - position > 15:
            limit = position + 15
        p = position
        rex = 0
        operand16 = False
        address_override = False
        repeat = 0
        segment = False
        lock = False
        operation = BAD  # BAD until an opcode has been understood
        attributes = 0
        opmap = 0
        vex = False
        vvvv = 255
        vex_pp = 0
        evex_map = 0
        # Legacy prefixes and REX; a REX that does not stand right before the opcode is ignored.
        while p < limit:
            b = code[p]
            if bits64 and (b & 0xF0) == 0x40:
                rex = b
                p += 1
                continue
            if b == 0x66:
                operand16 = True
            elif b == 0x67:
                address_override = True
            elif b == 0xF2 or b == 0xF3:
                repeat = b
            elif b == 0xF0:
                lock = True
            elif b == 0x64 or b == 0x65:
                segment = True
            elif b == 0x2E or b == 0x36 or b == 0x3E or b == 0x26:
                pass
            else:
                break
            rex = 0
            p += 1
        modrm = 0
        mod = 3
        reg = 0
        rm = 0
        base = NONE
        index = NONE
        scale = 0
        displacement = 0
        immediate = 0
        immediate_size = 0
        register = NONE
        clobbers = 0
        memory = False
        has_modrm = False
        width = 4
        if p < limit:
            operation = OTHER
            b = code[p]
            p += 1
            if (b == 0xC4 or b == 0xC5 or b == 0x62) and (bits64 or (p < limit and (code[p] & 0xC0) == 0xC0)):
                vex = True
                if b == 0xC5:
                    if p + 1 >= limit:
                        operation = BAD
                    else:
                        i = code[p]
                        rex = 0x44 if not (i & 0x80) else 0x40
                        vvvv = ~(i >> 3) & 15
                        vex_pp = i & 3
                        opmap = 1
                        p += 1
                elif b == 0xC4:
                    if p + 2 >= limit:
                        operation = BAD
                    else:
                        i = code[p]
                        opmap = i & 31
                        rex = 0x40 | ((~(i >> 5)) & 7)
                        i = code[p + 1]
                        if i & 0x80:
                            rex |= 8
                        vvvv = ~(i >> 3) & 15
                        vex_pp = i & 3
                        p += 2
                else:
                    if p + 3 >= limit:
                        operation = BAD
                    else:
                        i = code[p]
                        opmap = i & 7
                        rex = 0x40 | ((~(i >> 5)) & 7)
                        if code[p + 1] & 0x80:
                            rex |= 8
                        vex_pp = code[p + 1] & 3
                        p += 3
                if not bits64:
                    rex &= 0x48
                if operation != BAD:
                    if opmap < 1 or opmap > 3:
                        if b == 0x62 and (opmap == 5 or opmap == 6):
                            evex_map = opmap
                            opmap = 2  # FP16 maps: ModRM, no immediate (map 5 keeps a few; lengths as in 0F)
                        else:
                            operation = BAD
                            opmap = 1
                    if b == 0x62:
                        attributes = VECTOR  # EVEX: vector registers only, but for lengths
                    b = code[p]
                    p += 1
            elif b == 0x0F:
                if p >= limit:
                    operation = BAD
                else:
                    b = code[p]
                    p += 1
                    opmap = 1
                    if b == 0x38 or b == 0x3A:
                        opmap = 2 if b == 0x38 else 3
                        if p >= limit:
                            operation = BAD
                        else:
                            b = code[p]
                            p += 1
        if operation != BAD:
            if rex & 8:
                width = 8
            elif operand16:
                width = 2
            if vex and attributes == VECTOR:  # EVEX
                attributes = HAS_MODRM | VECTOR
                if opmap == 3 or (opmap == 1 and (0x70 <= b <= 0x73 or b == 0xC2 or 0xC4 <= b <= 0xC6)):
                    attributes |= IMM8
                # The few that write a general register: conversions, vmovd, vpextr; vcvtsh2si, vmovw (map 5).
                if opmap == 1 or evex_map == 5:
                    if vex_pp >= 2 and (0x2C <= b <= 0x2D or 0x78 <= b <= 0x79):
                        attributes |= TO_REG
                    elif vex_pp == 1 and b == 0x7E:
                        attributes |= TO_RM
                if opmap == 1 and b == 0xC5:
                    attributes |= TO_REG
                elif opmap == 3 and 0x14 <= b <= 0x17:
                    attributes |= TO_RM
            else:
                attributes = maps[opmap * 256 + b]
                if vex:
                    attributes &= ~(TO_REG | TO_RM)
                    attributes |= HAS_MODRM
                    if opmap == 1 and b == 0x77:
                        attributes = 0  # vzeroupper
                    # The few VEX instructions that write a general register.
                    if opmap == 1 and (
                        b == 0x50 or b == 0xD7 or b == 0xC5 or ((b == 0x2C or b == 0x2D) and vex_pp >= 2)
                    ):
                        attributes |= TO_REG
                    if opmap == 1 and (b == 0x92 or b == 0x93):
                        attributes |= TO_REG if b == 0x93 else 0
                    if opmap == 2 and (b == 0xF2 or b == 0xF5 or b == 0xF6 or b == 0xF7 or 0xE0 <= b <= 0xEF):
                        attributes |= TO_REG  # bit manipulation, cmpccxadd
                    if opmap == 3 and b == 0xF0:
                        attributes |= TO_REG
                    if opmap == 3 and 0x14 <= b <= 0x17:
                        attributes |= TO_RM
                    if opmap == 1 and b == 0x7E and vex_pp < 2:
                        attributes |= TO_RM
            if (attributes & RESERVED) or ((attributes & RESERVED_64) and bits64 and opmap == 0):
                operation = BAD
            has_modrm = (attributes & HAS_MODRM) != 0
        if operation != BAD and has_modrm:
            if p >= limit:
                operation = BAD
            else:
                modrm = code[p]
                p += 1
                mod = modrm >> 6
                reg = ((modrm >> 3) & 7) | ((rex & 4) << 1)
                rm = (modrm & 7) | ((rex & 1) << 3)
                if opmap == 1 and 0x20 <= b <= 0x23 and not vex:
                    mod = 3  # mov to and from control and debug registers ignore mod
                if mod != 3:
                    memory = True
                    displacement_size = 0
                    if not bits64 and address_override:  # 16-bit addressing
                        base = NONE
                        if mod == 1:
                            displacement_size = 1
                        elif mod == 2 or (modrm & 7) == 6:
                            displacement_size = 2
                    else:
                        base = rm
                        if (modrm & 7) == 4:
                            if p >= limit:
                                operation = BAD
                            else:
                                sib = code[p]
                                p += 1
                                base = (sib & 7) | ((rex & 1) << 3)
                                index = ((sib >> 3) & 7) | ((rex & 2) << 2)
                                scale = 1 << (sib >> 6)
                                if index == 4:
                                    index = NONE
                                    scale = 0
                                if (sib & 7) == 5 and mod == 0:
                                    base = NONE
                                    displacement_size = 4
                        elif (modrm & 7) == 5 and mod == 0:
                            base = RIP if bits64 else NONE
                            displacement_size = 4
                        if mod == 1:
                            displacement_size = 1
                        elif mod == 2:
                            displacement_size = 4
                    if displacement_size:
                        if p + displacement_size > limit:
                            operation = BAD
                        else:
                            displacement = _signed(code, p, displacement_size)
                            p += displacement_size
        if operation != BAD:
            # Size of the immediate.
            if attributes & IMM8:
                immediate_size = 1
            elif attributes & IMMZ:
                immediate_size = 2 if operand16 and not (rex & 8) else 4
            if opmap == 0 and not vex:
                if b == 0xF6 and (modrm & 0x30) == 0:
                    immediate_size = 1
                elif b == 0xF7 and (modrm & 0x30) == 0:
                    immediate_size = 2 if operand16 and not (rex & 8) else 4
                elif 0xB8 <= b <= 0xBF:
                    immediate_size = 8 if rex & 8 else (2 if operand16 else 4)
                elif 0xA0 <= b <= 0xA3:
                    immediate_size = (
                        (4 if address_override else 8) if bits64 else (2 if address_override else 4)
                    )
                elif 0x70 <= b <= 0x7F or 0xE0 <= b <= 0xE3 or b == 0xEB:
                    immediate_size = 1
                elif b == 0xE8 or b == 0xE9:
                    immediate_size = 4 if bits64 or not operand16 else 2
                elif b == 0xC2 or b == 0xCA:
                    immediate_size = 2
                elif b == 0xC8:
                    immediate_size = 3
                elif b == 0x9A or b == 0xEA:
                    immediate_size = 4 if operand16 else 6
            elif opmap == 1 and not vex and 0x80 <= b <= 0x8F:
                immediate_size = 4 if bits64 or not operand16 else 2
            elif opmap == 1 and not vex and b == 0x78 and (operand16 or repeat == 0xF2):
                immediate_size = 2  # SSE4a extrq/insertq
            if immediate_size:
                if p + immediate_size > limit:
                    operation = BAD
                else:
                    immediate = _signed(code, p, immediate_size)
                    p += immediate_size
        if operation == BAD:
            p = position + 1
            base = NONE
            index = NONE
            memory = False
            immediate = 0
            displacement = 0
            segment = False
        else:
            # Registers written, then the class.
            source = NONE
            push_width = 2 if operand16 and not rex & 8 else stack_width
            byte_rm = rm if rex or rm < 4 else rm & 3  # without REX, byte registers 4 to 7 are ah, ch, dh, bh
            byte_reg = reg if rex or reg < 4 else reg & 3
            if attributes & TO_REG:
                clobbers |= 1 << reg
            if (attributes & TO_RM) and mod == 3:
                clobbers |= 1 << rm
            if vex:
                if opmap == 2 and b == 0xF3 and not attributes & VECTOR:
                    if vvvv < 16:
                        clobbers |= 1 << vvvv  # blsr, blsmsk, blsi
                elif opmap == 2 and b == 0xF6 and vvvv < 16:
                    clobbers |= 1 << vvvv  # mulx
                elif opmap == 3 and (b == 0x61 or b == 0x63):
                    clobbers |= 2  # vpcmpestri, vpcmpistri
            elif opmap == 0:
                if b < 0x40:
                    alu = b >> 3
                    operation_code = b & 7
                    if operation_code <= 3:
                        if operation_code == 0 or operation_code == 2:
                            width = 1
                            if clobbers:
                                clobbers = 1 << (byte_rm if operation_code == 0 else byte_reg)
                        elif mod == 3:
                            register = rm if operation_code == 1 else reg
                            source = reg if operation_code == 1 else rm
                            if alu == 6 and register == source and width >= 4:
                                operation = MOVE_IMMEDIATE  # xor r,r
                                immediate = 0
                            elif width == full_width and alu == 0:
                                operation = ADD
                            elif width == full_width and alu == 5:
                                operation = SUBTRACT
                            elif alu == 7:
                                operation = COMPARE
                        else:
                            register = reg
                            if alu == 7:
                                operation = COMPARE
                            elif operation_code == 3 and width == full_width and alu == 0:
                                operation = ADD
                            elif operation_code == 3 and width == full_width and alu == 5:
                                operation = SUBTRACT
                        if operation in (ADD, SUBTRACT, COMPARE) and mod == 3:
                            base = source
                    elif operation_code <= 5:
                        if operation_code == 4:
                            width = 1
                        if alu != 7:
                            clobbers |= 1
                        register = 0
                        if width >= 4:
                            if alu == 7:
                                operation = COMPARE_IMMEDIATE
                            elif alu == 0:
                                operation = ADD_IMMEDIATE
                            elif alu == 5:
                                operation = ADD_IMMEDIATE
                                immediate = -immediate
                            elif alu == 4:
                                operation = AND_IMMEDIATE
                    elif b == 0x06 or b == 0x0E or b == 0x16 or b == 0x1E:
                        operation = PUSH
                        width = push_width
                    elif b == 0x07 or b == 0x17 or b == 0x1F:
                        operation = POP
                        width = push_width
                    else:
                        clobbers |= 1  # daa, das, aaa, aas
                elif b < 0x50:  # inc and dec, 32-bit only
                    register = b & 7
                    clobbers |= 1 << register
                    if width == 4:
                        operation = ADD_IMMEDIATE
                        immediate = 1 if b < 0x48 else -1
                elif b < 0x60:
                    register = (b & 7) | ((rex & 1) << 3)
                    operation = PUSH if b < 0x58 else POP
                    width = push_width
                    if operation == POP:
                        clobbers |= 1 << register
                elif b == 0x60 or b == 0x61:
                    operation = PUSH_ALL if b == 0x60 else POP_ALL
                    width = 2 if operand16 else 4
                    if b == 0x61:
                        clobbers = 0xEF
                elif b == 0x63 and not bits64:
                    clobbers = 1 << rm if mod == 3 else 0  # arpl
                elif b == 0x68 or b == 0x6A:
                    operation = PUSH
                    width = push_width
                elif 0x6C <= b <= 0x6F:
                    clobbers |= (1 << 7 if b < 0x6E else 1 << 6) | (1 << 1 if repeat else 0)
                elif 0x70 <= b <= 0x7F:
                    operation = JUMP_CONDITIONAL
                    register = b & 15
                    immediate += p
                elif 0x80 <= b <= 0x83:
                    alu = (modrm >> 3) & 7
                    if b == 0x80 or b == 0x82:
                        width = 1
                        if clobbers:
                            clobbers = 1 << byte_rm
                    if alu == 7:
                        clobbers = 0
                    if mod == 3:
                        register = rm
                        if width >= 4:
                            if alu == 7:
                                operation = COMPARE_IMMEDIATE
                            elif alu == 0:
                                operation = ADD_IMMEDIATE
                            elif alu == 5:
                                operation = ADD_IMMEDIATE
                                immediate = -immediate
                            elif alu == 4:
                                operation = AND_IMMEDIATE
                    elif alu == 7:
                        operation = COMPARE_IMMEDIATE
                elif b == 0x84 or b == 0x85:
                    operation = TEST
                    if b == 0x84:
                        width = 1
                    register = reg
                    if mod == 3:
                        base = rm
                elif b == 0x86 or b == 0x87:
                    if b == 0x86:
                        width = 1
                        clobbers = (1 << byte_reg) | (1 << byte_rm if mod == 3 else 0)
                    elif mod == 3 and width == full_width:
                        operation = EXCHANGE
                        register = reg
                        base = rm
                elif b == 0x88 or b == 0x89:
                    register = reg
                    if b == 0x88:
                        width = 1
                        if mod == 3:
                            clobbers = 1 << byte_rm
                    elif mod == 3:
                        register = rm
                        base = reg
                        if width == full_width or width == 4:
                            operation = MOVE
                    elif width == full_width:
                        operation = STORE
                elif b == 0x8A or b == 0x8B:
                    register = reg
                    if b == 0x8A:
                        width = 1
                        clobbers = 1 << byte_reg
                    elif mod == 3:
                        base = rm
                        if width == full_width or width == 4:
                            operation = MOVE
                    elif width == full_width:
                        operation = LOAD
                    elif width == 4:
                        operation = LOAD_NARROW
                elif b == 0x8D:
                    register = reg
                    if mod == 3:
                        operation = BAD
                    elif width >= 4 and not address_override:
                        operation = LEA
                elif b == 0x8F:
                    if (modrm >> 3) & 7:
                        operation = BAD  # XOP
                    else:
                        operation = POP
                        width = push_width
                        if mod == 3:
                            register = rm
                elif b == 0x90 and not (rex & 1):
                    operation = NOP
                elif 0x90 <= b <= 0x97:
                    operation = EXCHANGE
                    register = 0
                    base = (b & 7) | ((rex & 1) << 3)
                    clobbers |= 1 | (1 << base)
                    if width != full_width:
                        operation = OTHER
                elif b == 0x98:
                    clobbers |= 1
                elif b == 0x99:
                    clobbers |= 4
                elif b == 0x9A:
                    operation = CALL_INDIRECT
                elif b == 0x9C or b == 0x9D:
                    operation = PUSH_FLAGS if b == 0x9C else POP_FLAGS
                    width = push_width
                elif b == 0x9F:
                    clobbers |= 1
                elif b == 0xA0 or b == 0xA1:
                    clobbers |= 1
                    register = 0
                    memory = True
                    displacement = immediate
                    if b == 0xA1 and width == full_width:
                        operation = LOAD
                    if b == 0xA0:
                        width = 1
                elif b == 0xA2 or b == 0xA3:
                    register = 0
                    memory = True
                    displacement = immediate
                    if b == 0xA3 and width == full_width:
                        operation = STORE
                elif b == 0xA4 or b == 0xA5:
                    operation = COPY
                    if b == 0xA4:
                        width = 1
                    clobbers |= 0xC0 | (2 if repeat else 0)
                elif b == 0xA6 or b == 0xA7:
                    clobbers |= 0xC0 | (2 if repeat else 0)
                elif b == 0xA8 or b == 0xA9:
                    operation = OTHER
                elif b == 0xAA or b == 0xAB or b == 0xAE or b == 0xAF:
                    clobbers |= 0x80 | (2 if repeat else 0)
                elif b == 0xAC or b == 0xAD:
                    clobbers |= 0x41 | (2 if repeat else 0)
                elif 0xB0 <= b <= 0xB7:
                    width = 1
                    i = (b & 7) | ((rex & 1) << 3)
                    clobbers |= 1 << (i if rex or i < 4 else i & 3)
                elif 0xB8 <= b <= 0xBF:
                    register = (b & 7) | ((rex & 1) << 3)
                    clobbers |= 1 << register
                    if width >= 4:
                        operation = MOVE_IMMEDIATE
                        if width == 4:
                            immediate &= 0xFFFFFFFF
                elif b == 0xC0 or b == 0xC1 or (0xD0 <= b <= 0xD3):
                    if not b & 1:
                        width = 1
                        if clobbers:
                            clobbers = 1 << byte_rm
                    elif mod == 3 and width >= 4 and b != 0xD3:
                        register = rm
                        if b == 0xD1:
                            immediate = 1
                        alu = (modrm >> 3) & 7
                        if alu == 4:
                            operation = SHIFT_LEFT
                        elif alu == 5:
                            operation = SHIFT_RIGHT
                elif b == 0xC2 or b == 0xC3:
                    operation = RETURN
                    width = stack_width
                    immediate &= 0xFFFF
                elif b == 0xC6 or b == 0xC7:
                    if (modrm >> 3) & 7:
                        # xabort imm8 / xbegin rel32 have ModRM f8
                        operation = OTHER if modrm == 0xF8 else BAD
                        clobbers = 1
                    else:
                        if b == 0xC6:
                            width = 1
                            if mod == 3:
                                clobbers = 1 << byte_rm
                        if mod != 3:
                            operation = STORE_IMMEDIATE
                        elif width >= 4:
                            operation = MOVE_IMMEDIATE
                            register = rm
                elif b == 0xC8:
                    operation = ENTER
                    width = stack_width
                    clobbers |= 1 << 5
                    immediate &= 0xFFFFFF
                elif b == 0xC9:
                    operation = LEAVE
                    width = stack_width
                    clobbers |= 1 << 5
                elif b == 0xCA or b == 0xCB or b == 0xEA:
                    operation = FAR_JUMP
                elif b == 0xCC:  # behind a prefix
                    operation = BREAKPOINT
                elif b == 0xCD:
                    operation = INTERRUPT
                    clobbers |= 1
                    immediate &= 255
                elif b == 0xCE or b == 0xF1:
                    operation = INTERRUPT
                    immediate = 4 if b == 0xCE else 1
                elif b == 0xCF:
                    operation = INTERRUPT_RETURN
                elif b == 0xD4 or b == 0xD5 or b == 0xD6 or b == 0xD7:
                    clobbers |= 1
                elif b == 0xDF and modrm == 0xE0:
                    clobbers |= 1  # fnstsw %ax
                elif 0xE0 <= b <= 0xE3:
                    operation = JUMP_CONDITIONAL
                    register = 16
                    immediate += p
                    if b != 0xE3:
                        clobbers |= 2
                elif b == 0xE4 or b == 0xE5 or b == 0xEC or b == 0xED:
                    clobbers |= 1
                elif b == 0xE8:
                    operation = CALL
                    width = stack_width
                    immediate += p
                elif b == 0xE9 or b == 0xEB:
                    operation = JUMP
                    immediate += p
                elif b == 0xF4:
                    operation = HALT
                elif b == 0xF6 or b == 0xF7:
                    alu = (modrm >> 3) & 7
                    if b == 0xF6:
                        width = 1
                    if alu >= 4:
                        clobbers |= 1 if b == 0xF6 else 5
                    elif alu >= 2 and mod == 3:
                        clobbers |= 1 << (byte_rm if b == 0xF6 else rm)
                    elif alu < 2:
                        operation = OTHER
                elif b == 0xFE:
                    width = 1
                    if (modrm >> 3) & 7 > 1:
                        operation = BAD
                    elif mod == 3:
                        clobbers |= 1 << byte_rm
                elif b == 0xFF:
                    alu = (modrm >> 3) & 7
                    if alu <= 1:
                        if mod == 3:
                            clobbers |= 1 << rm
                            register = rm
                            if width == full_width:
                                operation = ADD_IMMEDIATE
                                immediate = 1 if alu == 0 else -1
                    elif alu == 2 or alu == 3:
                        operation = CALL_INDIRECT
                        width = stack_width
                        if mod == 3:
                            if alu == 3:
                                operation = BAD
                            base = rm
                    elif alu == 4:
                        operation = JUMP_INDIRECT
                        width = stack_width
                        if mod == 3:
                            base = rm
                    elif alu == 5:
                        operation = FAR_JUMP if mod != 3 else BAD
                    elif alu == 6:
                        operation = PUSH
                        width = push_width
                        if mod == 3:
                            register = rm
                    else:
                        operation = BAD
            elif opmap == 1:
                if b == 0x05 or b == 0x34:
                    operation = SYSTEM_CALL
                    clobbers |= 1 | (1 << CX) | (1 << R11 if bits64 else 0)
                elif b == 0x07 or b == 0x35:
                    operation = SYSTEM_RETURN
                elif b == 0x0B or b == 0xB9 or b == 0xFF:
                    operation = UNDEFINED
                elif 0x18 <= b <= 0x1F:
                    operation = NOP
                    if b == 0x1E and mod == 3 and repeat == 0xF3 and ((modrm >> 3) & 7) == 1:
                        clobbers |= 1 << rm  # rdssp
                        operation = OTHER
                elif b == 0x00 or b == 0x01:
                    alu = (modrm >> 3) & 7
                    if b == 0x00 and alu <= 1 and mod == 3:
                        clobbers |= 1 << rm
                    elif b == 0x01 and alu == 4 and mod == 3:
                        clobbers |= 1 << rm  # smsw
                    elif modrm == 0xCA and b == 0x01 and repeat:
                        operation = INTERRUPT_RETURN  # eretu, erets
                    elif modrm == 0xDE and b == 0x01:
                        clobbers |= 0xFFEF if bits64 else 0xEF  # skinit
                    elif b == 0x01 and mod == 3 and modrm != 0xCA and modrm != 0xCB:  # clac, stac
                        clobbers |= 0xF  # xgetbv, rdtscp, vmcall, encls and the like return in ax, bx, cx, dx
                elif b == 0x20 or b == 0x21:
                    clobbers |= 1 << rm
                elif (b == 0x2C or b == 0x2D) and repeat:  # cvtss2si and the like
                    clobbers |= 1 << reg
                elif b == 0x31 or b == 0x32 or b == 0x33:
                    clobbers |= 5
                elif b == 0x7E and repeat != 0xF3 and mod == 3:
                    clobbers |= 1 << rm
                elif b == 0x78 and (operand16 or repeat == 0xF2):
                    clobbers = 0  # extrq, insertq
                elif 0x40 <= b <= 0x4F:
                    operation = MOVE_CONDITIONAL
                    register = reg
                    if mod == 3:
                        base = rm
                elif 0x80 <= b <= 0x8F:
                    operation = JUMP_CONDITIONAL
                    register = b & 15
                    immediate += p
                elif 0x90 <= b <= 0x9F:
                    width = 1
                    if mod == 3 and not rex and rm >= 4:
                        clobbers = 1 << (rm & 3)
                elif b == 0xA0 or b == 0xA8:
                    operation = PUSH
                    width = push_width
                elif b == 0xA1 or b == 0xA9:
                    operation = POP
                    width = push_width
                elif b == 0xA2:
                    clobbers |= 15
                elif b == 0xA6 or b == 0xA7:
                    clobbers |= 0xC7  # VIA PadLock: ax, cx, dx, si, di
                elif b == 0xAA:
                    operation = FAR_JUMP  # rsm
                elif b == 0xAE:
                    alu = (modrm >> 3) & 7
                    if mod == 3 and repeat == 0xF3 and alu <= 1:
                        clobbers |= 1 << rm
                elif b == 0xB0 or b == 0xB1:  # cmpxchg
                    if b == 0xB0 and mod == 3:
                        clobbers = 1 << byte_rm
                    clobbers |= 1
                elif b == 0xC0:  # xadd
                    clobbers = (1 << byte_reg) | (1 << byte_rm if mod == 3 else 0)
                elif b == 0xB6 or b == 0xB7:
                    register = reg
                    if width >= 4:  # a 16-bit result keeps the upper bits
                        operation = LOAD_NARROW
                    if mod == 3:
                        base = rm
                    width = 1 if b == 0xB6 else 2
                elif b == 0xBA:
                    alu = (modrm >> 3) & 7
                    if alu < 4:
                        operation = BAD
                    elif alu > 4 and mod == 3:
                        clobbers |= 1 << rm
                elif b == 0xC7:
                    alu = (modrm >> 3) & 7
                    if alu == 1:
                        clobbers |= 5
                    elif mod == 3 and (alu == 7 or (alu == 6 and not repeat)):  # rdrand, rdseed, rdpid
                        clobbers |= 1 << rm
                elif 0xC8 <= b <= 0xCF:
                    register = (b & 7) | ((rex & 1) << 3)
                    clobbers |= 1 << register
            elif opmap == 2 and b == 0xF1:
                if repeat != 0xF2:  # movbe to memory; crc32 writes ModRM.reg
                    clobbers = 0
            elif opmap == 2 and b == 0xF6 and not operand16 and not repeat:
                clobbers = 0  # wrss writes memory
            elif opmap == 2 and (b == 0xFA or b == 0xFB) and repeat == 0xF3:
                clobbers |= 1 << reg  # encodekey
            elif opmap == 3 and (b == 0x61 or b == 0x63):
                clobbers |= 2  # pcmpestri, pcmpistri
            if operation == BAD:
                p = position + 1
                clobbers = 0
                memory = False
                base = NONE
                index = NONE
                register = NONE
                immediate = 0
                displacement = 0
                segment = False
        offset_out[count] = position
        length_out[count] = p - position
        operation_out[count] = operation
        width_out[count] = width
        register_out[count] = register
        base_out[count] = base
        index_out[count] = index
        scale_out[count] = scale
        flags_out[count] = (1 if memory else 0) | (2 if segment else 0) | (4 if lock or repeat else 0)
        clobbers_out[count] = clobbers
        displacement_out[count] = (
            cython.cast(cython.int, displacement) if -2147483648 <= displacement <= 2147483647 else 0
        )
        immediate_out[count] = immediate
        count += 1
        position = p
    return position, count


def find_starts(
    starts: cython.const[cython.uint][::1],
    offsets: cython.const[cython.longlong][::1],
    blocks: cython.int[::1],
    rows: cython.int[::1],
) -> None:
    """Write to `rows` the index in `starts` (ascending) of each offset, -1 where it is not among them.

    `blocks`: scratch, one entry for every 16 bytes up to the last start: branch targets are in no order, and
    a binary search would miss the cache at each of its steps.
    """
    n: cython.int = cython.cast(cython.int, starts.shape[0])
    filled: cython.Py_ssize_t = 0
    block: cython.Py_ssize_t
    i: cython.Py_ssize_t
    row: cython.int
    offset: cython.longlong
    for row in range(n):
        block = starts[row] >> 4
        while filled <= block:
            blocks[filled] = row
            filled += 1
    for i in range(offsets.shape[0]):
        offset = offsets[i]
        rows[i] = -1
        if offset < 0 or offset >> 4 >= filled:
            continue
        row = blocks[offset >> 4]
        while row < n and starts[row] < offset:
            row += 1
        if row < n and starts[row] == offset:
            rows[i] = row
