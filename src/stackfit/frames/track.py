# cython: boundscheck=True, wraparound=False, cdivision=True
"""Follows the stack pointer through one function's control-flow graph (compiled; runs uncompiled too).

The abstract state is what each general register is known to hold: nothing, an address in this frame, a
bounded unsigned number, an address on another stack, or an address below an allocation of unknown size;
and up to eight stack slots into which such values were saved. Depths are bytes from just before the call
that entered the function, so the return address is in them.

Compiler idioms, in the order in which they are handled below, each named where its code is:
frame pointers, realigned frames, bounded and unbounded alloca, stack switches, internal calls.
"""

from __future__ import annotations

import cython

__all__ = ["track_functions"]

# Numbers used below, in words (plain literals keep the compiled code free of global look-ups):
#   what a register or slot holds: 0 nothing known · 1 frame address, value = depth · 2 unsigned number,
#     value = its greatest · 3 address on another stack, value = depth from its top · 4 frame address below
#     an allocation of unknown size, value = depth without it
#   state: 64 ints: [0:16] kinds and [16:32] values of the general registers (4 = sp, 5 = bp), [32:56] eight
#     slots of (key, kind, value), [56:58] the stack pointer before a switch, [58] next slot to reuse
#   operations: isa/effects.py, Operation; site kinds and summary bits: frames/model.py


@cython.cfunc
@cython.inline
def _find(table: cython.int[::1], row: cython.int) -> cython.int:
    """First index in an ascending table whose entry is `row` (the caller knows that it is there)."""
    low: cython.int = 0
    high: cython.int = cython.cast(cython.int, table.shape[0])
    middle: cython.int
    while low < high:
        middle = (low + high) // 2
        if table[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low


def track_functions(
    work: cython.int[::1],
    word: cython.int,
    operation: cython.uchar[::1],
    width: cython.uchar[::1],
    register: cython.uchar[::1],
    base: cython.uchar[::1],
    index: cython.uchar[::1],
    scale: cython.uchar[::1],
    flags: cython.uchar[::1],
    clobbers: cython.ushort[::1],
    displacement: cython.int[::1],
    immediate: cython.longlong[::1],
    address: cython.longlong[::1],
    length: cython.ushort[::1],
    target: cython.int[::1],
    owner: cython.int[::1],
    first: cython.int[::1],
    parent: cython.int[::1],
    is_piece: cython.uchar[::1],
    synthetic: cython.uchar[::1],
    role: cython.uchar[::1],
    no_return: cython.uchar[::1],
    marks: cython.uchar[::1],
    extra_row: cython.int[::1],
    extra_to: cython.int[::1],
    next_row: cython.int[::1],
    next_to: cython.int[::1],
    visitor: cython.int[::1],
    depth: cython.int[::1],
    stack_kind: cython.uchar[::1],
    state: cython.int[::1],
    states: cython.int[::1],
    pending: cython.int[::1],
    site_function: cython.int[::1],
    site_row: cython.int[::1],
    site_callee: cython.int[::1],
    site_depth: cython.int[::1],
    site_kind: cython.uchar[::1],
    site_stack: cython.uchar[::1],
    site_under: cython.int[::1],
    site_count: cython.int,
    frame_out: cython.int[::1],
    compiler_frame_out: cython.int[::1],
    summary_out: cython.int[::1],
    reached_out: cython.int[::1],
    allocation_out: cython.int[::1],
) -> int:
    """Track every function in `work`; returns the new number of sites (-1: the site arrays are full).

    Rows: `operation` … `target`, `owner` (row → function), `marks` (1 extra successors, 2 next row is not
    the following one, 4 execution goes on after this ud2), `visitor`, `depth`, `stack_kind` (all per row).
    Functions: `first`, `parent`, `is_piece`, `synthetic`, `role` (1 return thunk, 2 indirect-branch thunk,
    3 nop at run time), `no_return`. `state` (64), `states` (4096 × 64), `pending` (4096): scratch. Per
    function, out: frame and compiler frame in bytes, summary bits, rows reached, depth of the allocation of
    unknown size.
    """
    n: cython.int = cython.cast(cython.int, operation.shape[0])
    waiting: cython.int = 0
    row: cython.int
    op: cython.int
    reg: cython.int
    b: cython.int
    w: cython.int
    i: cython.int
    s: cython.int
    at: cython.int
    t: cython.int
    g: cython.int
    kind: cython.int
    value: cython.int
    new_kind: cython.int
    new_value: cython.int
    mask: cython.int
    mark: cython.int
    frame: cython.int = word
    compiler_frame: cython.int = word
    summary: cython.int = 0
    reached: cython.int = 0
    returns_again: cython.int = 0
    after: cython.int
    going: cython.bint
    big: cython.longlong
    slot_depth: cython.int
    transient: cython.bint
    align: cython.int
    capacity: cython.int = cython.cast(cython.int, site_row.shape[0])
    allocation_depth: cython.int = 0
    function: cython.int
    position: cython.Py_ssize_t

    for position in range(work.shape[0]):
        function = work[position]
        frame = word
        compiler_frame = word
        summary = 0
        reached = 0
        returns_again = 0
        allocation_depth = 0
        for i in range(64):
            state[i] = 0
        state[4] = 1
        state[16 + 4] = word
        for i in range(64):
            states[i] = state[i]
        pending[0] = first[function]
        waiting = 1

        while waiting > 0:
            waiting -= 1
            row = pending[waiting]
            for i in range(64):
                state[i] = states[waiting * 64 + i]
            going = True
            while going:
                if row < 0 or row >= n:
                    break
                g = owner[row]
                kind = state[4]
                value = state[20]
                # --- Been here? Go on only when this way is deeper.
                if visitor[row] == function:
                    if stack_kind[row] == kind and depth[row] == value:
                        break
                    if stack_kind[row] != kind:
                        # A join of known and unknown depth is unknown; of two stacks, a conflict.
                        if kind == 4 and stack_kind[row] == 1:
                            pass
                        elif kind == 1 and stack_kind[row] == 4:
                            break
                        else:
                            summary |= 32
                            break
                    elif value <= depth[row]:
                        if kind == 3:
                            break
                        break
                    returns_again += 1
                    if returns_again > 64:
                        summary |= 64
                        break
                else:
                    visitor[row] = function
                    reached += 1
                depth[row] = value
                stack_kind[row] = kind
                op = operation[row]
                mark = marks[row]
                reg = register[row]
                b = base[row]
                w = width[row]
                transient = False
                if kind == 1 or kind == 4:
                    if value > frame:
                        frame = value
                # --- Extra successors: static keys, exception fixups, alternatives.
                if mark & 1:
                    i = _find(extra_row, row)
                    while i < extra_row.shape[0] and extra_row[i] == row:
                        if waiting < 4096:
                            pending[waiting] = extra_to[i]
                            for s in range(64):
                                states[waiting * 64 + s] = state[s]
                            waiting += 1
                        else:
                            summary |= 256
                        i += 1
                after = row + 1
                if mark & 2:
                    after = next_to[_find(next_row, row)]

                # --- Effects on the stack pointer and on copies of it.
                if op == 1 or op == 26 or op == 24:  # push, pushf, pusha
                    slot_depth = value + w * (8 if op == 24 else 1)
                    state[20] = slot_depth
                    # The value saved, where it matters: realigned frames save r10 (ecx on i386) this way.
                    new_kind = 0
                    new_value = 0
                    if op == 1 and reg < 16 and not (flags[row] & 1):
                        new_kind = state[reg]
                        new_value = state[16 + reg]
                        if reg == 4:
                            new_value = value
                    if kind == 1 or kind == 4:
                        _save_slot(state, kind * 0x1000000 + slot_depth, new_kind, new_value)
                    # pushf; pop reg — and any push popped at once — is inline assembly, not the compiler's frame.
                    if after < n and (operation[after] == 2 or operation[after] == 27):
                        transient = True
                    if op == 26:
                        transient = True
                    if kind == 1 or kind == 4:
                        if slot_depth > frame:
                            frame = slot_depth
                        if not transient and slot_depth > compiler_frame:
                            compiler_frame = slot_depth
                elif op == 2 or op == 27 or op == 25:  # pop, popf, popa
                    new_kind = 0
                    new_value = 0
                    if kind == 1 or kind == 4:
                        s = _load_slot(state, kind * 0x1000000 + value)
                        if s >= 0:
                            new_kind = state[32 + s * 3 + 1]
                            new_value = state[32 + s * 3 + 2]
                    state[20] = value - w * (8 if op == 25 else 1)
                    if op == 25:
                        for i in range(16):
                            if i != 4:
                                state[i] = 0
                    elif op == 2 and reg == 4:
                        # pop %rsp: back from another stack (call_on_irqstack keeps the old pointer at its top).
                        if kind == 3 and state[56] != 0:
                            state[4] = state[56]
                            state[20] = state[57]
                        elif new_kind == 1 or new_kind == 4:
                            state[4] = new_kind
                            state[20] = new_value
                        else:
                            state[56] = kind
                            state[57] = value
                            state[4] = 3
                            state[20] = 0
                            summary |= 16
                    elif op == 2 and reg < 16:
                        state[reg] = new_kind
                        state[16 + reg] = new_value
                elif op == 3:  # add or sub immediate
                    if reg < 16:
                        big = immediate[row]
                        if state[reg] == 2:
                            if w >= 4 and big >= 0 and big + state[16 + reg] < 0x40000000:
                                state[16 + reg] += cython.cast(cython.int, big)
                            else:
                                state[reg] = 0
                        elif state[reg] != 0:
                            if -0x10000000 < big < 0x10000000 and w == word:
                                state[16 + reg] -= cython.cast(cython.int, big)
                            elif reg != 4:
                                state[reg] = 0
                        if reg == 4 and state[4] != 3 and state[20] > compiler_frame:
                            compiler_frame = state[20]
                        if reg == 4 and state[4] != 3 and state[20] > frame:
                            frame = state[20]
                elif op == 4:  # mov reg, reg
                    if w == word or (w == 4 and b < 16 and state[b] == 2):
                        new_kind = state[b]
                        new_value = state[16 + b]
                    else:
                        new_kind = 0
                        new_value = 0
                    if reg == 4:
                        _set_stack_pointer(state, new_kind, new_value)
                        if new_kind != 1 and new_kind != 4 and new_kind != 3:
                            summary |= 16
                    else:
                        state[reg] = new_kind
                        state[16 + reg] = new_value
                elif op == 5:  # lea
                    new_kind = 0
                    new_value = 0
                    if w == word and b < 16 and index[row] == 255 and state[b] != 2 and state[b] != 0:
                        new_kind = state[b]
                        new_value = state[16 + b] - displacement[row]
                    elif b < 16 and index[row] == 255 and state[b] == 2 and 0 <= displacement[row] < 0x100000:
                        new_kind = 2
                        new_value = state[16 + b] + displacement[row]
                    if reg == 4:
                        _set_stack_pointer(state, new_kind, new_value)
                        if new_kind == 0:
                            summary |= 16
                        elif new_kind != 3:
                            if new_value > frame:
                                frame = new_value
                            if new_value > compiler_frame:
                                compiler_frame = new_value
                    elif reg < 16:
                        state[reg] = new_kind
                        state[16 + reg] = new_value
                elif op == 6:  # and immediate
                    if reg < 16:
                        big = immediate[row]
                        if state[reg] == 1 or state[reg] == 4:
                            # Realignment: at its worst the whole alignment less one word is lost.
                            if big < 0 and -big <= 4096:
                                align = cython.cast(cython.int, -big)
                                if align > word:
                                    state[16 + reg] += align - word
                                    if reg == 4:
                                        summary |= 2
                                        if state[20] > frame:
                                            frame = state[20]
                                        if state[20] > compiler_frame:
                                            compiler_frame = state[20]
                            elif reg != 4:
                                # and $~(THREAD_SIZE-1): the address of the stack's base, no frame address.
                                state[reg] = 0
                                if big >= 0 and big < 0x40000000:
                                    state[reg] = 2
                                    state[16 + reg] = cython.cast(cython.int, big)
                            else:
                                state[4] = 3
                                state[20] = 0
                                summary |= 16
                        elif state[reg] == 3:
                            pass
                        elif big >= 0 and big < 0x40000000:
                            if state[reg] != 2 or state[16 + reg] > big:
                                state[16 + reg] = cython.cast(cython.int, big)
                            elif big > 0:  # the result is a multiple of the mask's lowest bit
                                align = cython.cast(cython.int, big & -big)
                                state[16 + reg] -= state[16 + reg] % align
                            state[reg] = 2
                        elif state[reg] != 2:
                            state[reg] = 0
                elif op == 29:  # sub reg, reg
                    if reg == 4:
                        # alloca: bounded when the size is.
                        if b < 16 and state[b] == 2:
                            state[20] += state[16 + b]
                            summary |= 4
                            if state[4] != 3:
                                if state[20] > frame:
                                    frame = state[20]
                                if state[20] > compiler_frame:
                                    compiler_frame = state[20]
                        else:
                            if state[4] != 3:
                                state[4] = 4
                                summary |= 8
                                if value > allocation_depth:
                                    allocation_depth = value
                    elif reg < 16:
                        state[reg] = 0
                elif op == 33:  # add reg, reg
                    if reg == 4:
                        if state[4] != 3:
                            state[4] = 4
                            summary |= 8
                    elif reg < 16:
                        if b < 16 and state[reg] == 2 and state[b] == 2 and state[16 + reg] + state[16 + b] < 0x40000000:
                            state[16 + reg] += state[16 + b]
                        else:
                            state[reg] = 0
                elif op == 35:  # zero-extending load or move
                    if reg < 16:
                        new_kind = 0
                        new_value = 0
                        if w <= 2:
                            new_kind = 2
                            new_value = 255 if w == 1 else 65535
                            if b < 16 and not (flags[row] & 1) and state[b] == 2 and state[16 + b] < new_value:
                                new_value = state[16 + b]
                        if reg == 4:
                            _set_stack_pointer(state, 0, 0)
                            summary |= 16
                        else:
                            state[reg] = new_kind
                            state[16 + reg] = new_value
                elif op == 31:  # mov immediate
                    if reg < 16:
                        big = immediate[row]
                        if reg == 4:
                            _set_stack_pointer(state, 0, 0)
                            summary |= 16
                        elif 0 <= big < 0x40000000:
                            state[reg] = 2
                            state[16 + reg] = cython.cast(cython.int, big)
                        else:
                            state[reg] = 0
                elif op == 36 or op == 37:  # shifts of bounded numbers
                    if reg < 16:
                        big = immediate[row] & 63
                        if reg == 4:
                            _set_stack_pointer(state, 0, 0)
                            summary |= 16
                        elif state[reg] == 2 and op == 36 and big < 16 and state[16 + reg] < (1 << 14):
                            state[16 + reg] <<= cython.cast(cython.int, big)
                        elif state[reg] == 2 and op == 37 and big < 31:
                            state[16 + reg] >>= cython.cast(cython.int, big)
                        else:
                            state[reg] = 0
                elif op == 7:  # load: a saved value comes back
                    new_kind = 0
                    new_value = 0
                    if b < 16 and index[row] == 255 and (state[b] == 1 or state[b] == 4) and not (flags[row] & 2):
                        s = _load_slot(state, state[b] * 0x1000000 + state[16 + b] - displacement[row])
                        if s >= 0:
                            new_kind = state[32 + s * 3 + 1]
                            new_value = state[32 + s * 3 + 2]
                    if reg == 4:
                        _set_stack_pointer(state, new_kind, new_value)
                        if new_kind == 0 or new_kind == 2:
                            summary |= 16
                    elif reg < 16:
                        state[reg] = new_kind
                        state[16 + reg] = new_value
                elif op == 8:  # store: remember a saved copy
                    if b < 16 and index[row] == 255 and (state[b] == 1 or state[b] == 4) and reg < 16 and not (flags[row] & 2):
                        _save_slot(state, state[b] * 0x1000000 + state[16 + b] - displacement[row], state[reg], state[16 + reg])
                elif op == 22:  # leave
                    if state[5] == 1 or state[5] == 4 or state[5] == 3:
                        _set_stack_pointer(state, state[5], state[21])
                        # The saved frame pointer is popped: the caller's value, or one that was saved here.
                        new_kind = 0
                        new_value = 0
                        s = _load_slot(state, state[4] * 0x1000000 + state[20])
                        if s >= 0:
                            new_kind = state[32 + s * 3 + 1]
                            new_value = state[32 + s * 3 + 2]
                        state[20] -= word
                        state[5] = new_kind
                        state[21] = new_value
                    else:
                        _set_stack_pointer(state, 0, 0)
                        summary |= 16
                        state[5] = 0
                elif op == 23:  # enter
                    state[20] += word + cython.cast(cython.int, immediate[row] & 0xFFFF)
                    state[5] = kind
                    state[21] = value + word
                    if state[4] != 3 and state[20] > frame:
                        frame = state[20]
                    if state[4] != 3 and state[20] > compiler_frame:
                        compiler_frame = state[20]
                elif op == 28:  # xchg
                    if reg < 16 and b < 16:
                        new_kind = state[b]
                        new_value = state[16 + b]
                        if b == 4:
                            new_kind = state[reg]
                            new_value = state[16 + reg]
                            i = reg
                        else:
                            i = b
                        if reg == 4 or b == 4:
                            # i386 call_on_stack: xchg %ebx,%esp leaves the old pointer in the register.
                            state[i] = kind
                            state[16 + i] = value
                            _set_stack_pointer(state, new_kind, new_value)
                            if new_kind == 0 or new_kind == 2:
                                summary |= 16
                        else:
                            state[b] = state[reg]
                            state[16 + b] = state[16 + reg]
                            state[reg] = new_kind
                            state[16 + reg] = new_value
                elif op == 9 or op == 10:  # calls
                    t = target[row] if op == 9 else -1
                    g = owner[t] if t >= 0 else -1
                    if t >= 0 and role[g] == 3 and first[g] == t:
                        pass  # call __fentry__: a nop unless tracing is on
                    elif t >= 0 and first[g] != t and (g == function or parent[g] == function or is_piece[g]):
                        # Internal call: return-stack stuffing, retpolines, clear_bhb_loop. It pushes its own
                        # return address; both ways are followed.
                        if waiting < 4096:
                            pending[waiting] = t
                            for s in range(64):
                                states[waiting * 64 + s] = state[s]
                            states[waiting * 64 + 20] += word
                            waiting += 1
                        else:
                            summary |= 256
                        if after < n and operation[after] == 17:
                            going = False  # int3 behind the call: it never returns here (return-stack stuffing)
                    else:
                        if site_count >= capacity:
                            return -1
                        site_function[site_count] = function
                        site_row[site_count] = row
                        site_callee[site_count] = g
                        site_depth[site_count] = value
                        site_kind[site_count] = 0
                        site_stack[site_count] = kind
                        site_under[site_count] = state[57] if kind == 3 and state[56] != 0 else -1
                        if op == 10 or (t >= 0 and role[g] == 2):
                            site_kind[site_count] = 2
                            site_callee[site_count] = -1
                        site_count += 1
                        if t >= 0 and first[g] == t and no_return[g]:
                            going = False
                        # Caller-saved registers do not survive (the ABI's, both kernels): ax, cx, dx; on x86-64
                        # also si, di, r8 to r11.
                        mask = 0x0FC7 if word == 8 else 0x07
                        for i in range(12):
                            if mask & (1 << i):
                                state[i] = 0
                elif op == 11 or op == 13:  # jumps
                    t = target[row]
                    g = owner[t] if t >= 0 else -1
                    if t >= 0 and role[g] == 1 and first[g] == t:
                        # jmp __x86_return_thunk is a return.
                        if op == 11:
                            going = False
                        summary |= 1
                        if kind == 1 and value != word:
                            summary |= 128
                    elif t >= 0 and role[g] == 2:
                        if site_count >= capacity:
                            return -1
                        site_function[site_count] = function
                        site_row[site_count] = row
                        site_callee[site_count] = -1
                        site_depth[site_count] = value
                        site_kind[site_count] = 3
                        site_stack[site_count] = kind
                        site_under[site_count] = state[57] if kind == 3 and state[56] != 0 else -1
                        site_count += 1
                        summary |= 1
                        going = op == 13
                    elif t < 0 or (
                        first[g] == t
                        and g != function
                        and parent[g] != function
                        and not is_piece[g]
                        and not (synthetic[g] and value != word)
                    ):
                        if site_count >= capacity:
                            return -1
                        site_function[site_count] = function
                        site_row[site_count] = row
                        site_callee[site_count] = g
                        site_depth[site_count] = value
                        site_kind[site_count] = 1
                        site_stack[site_count] = kind
                        site_under[site_count] = state[57] if kind == 3 and state[56] != 0 else -1
                        site_count += 1
                        if t < 0 or not no_return[g]:
                            summary |= 1
                        if op == 11:
                            going = False
                    else:
                        if op == 11:
                            row = t
                            continue
                        if waiting < 4096:
                            pending[waiting] = t
                            for s in range(64):
                                states[waiting * 64 + s] = state[s]
                            waiting += 1
                        else:
                            summary |= 256
                elif op == 12:  # jmp *: a tail call through a pointer, or a jump table
                    if site_count >= capacity:
                        return -1
                    site_function[site_count] = function
                    site_row[site_count] = row
                    site_callee[site_count] = -1
                    site_depth[site_count] = value
                    site_kind[site_count] = 3
                    site_stack[site_count] = kind
                    site_under[site_count] = state[57] if kind == 3 and state[56] != 0 else -1
                    site_count += 1
                    summary |= 1
                    going = False
                elif op == 14:  # ret
                    summary |= 1
                    if kind == 1 and value != word:
                        summary |= 128
                    going = False
                elif (
                    op == 15
                    and row > 0
                    and after < n
                    and operation[row - 1] == 1
                    and register[row - 1] == 255
                    and not (flags[row - 1] & 1)
                    and immediate[row - 1] == address[after]
                ):
                    # sync_core(): an iret to the next instruction, whose frame was pushed just before.
                    state[20] = value - word * (5 if word == 8 else 3)
                elif op == 15 or op == 21 or op == 38:  # iret, sysret, far jumps: leaves for good
                    summary |= 512
                    going = False
                elif op == 16:  # ud2: WARN goes on, BUG does not
                    if not mark & 4:
                        going = False
                elif op == 17:
                    # Padding is a run of int3, or ends the function; a single one amid code is meant to be
                    # executed (int3_selftest), and its handler returns.
                    if length[row] > 1 or after >= n or owner[after] != owner[row]:
                        going = False
                elif op == 40:  # no instruction
                    going = False
                elif op == 19:  # hlt
                    pass
                # --- Every other register that the instruction writes is no longer known.
                mask = clobbers[row]
                if mask and (op == 0 or op == 20 or op == 18 or op == 32 or op == 30 or op == 34 or op == 41 or op == 39 or op == 13):
                    for i in range(16):
                        if mask & (1 << i):
                            if i == 4:
                                _set_stack_pointer(state, 0, 0)
                                summary |= 16
                            else:
                                state[i] = 0
                if not going:
                    break
                # --- Falling into the next function is a tail call.
                if after < n:
                    g = owner[after]
                    if (
                        first[g] == after
                        and g != function
                        and owner[row] != g
                        and parent[g] != function
                        and not is_piece[g]
                        and operation[after] != 17
                    ):
                        if site_count >= capacity:
                            return -1
                        site_function[site_count] = function
                        site_row[site_count] = row
                        site_callee[site_count] = g
                        site_depth[site_count] = state[20]
                        site_kind[site_count] = 1
                        site_stack[site_count] = state[4]
                        site_under[site_count] = state[57] if state[4] == 3 and state[56] != 0 else -1
                        site_count += 1
                        if not no_return[g]:
                            summary |= 1
                        break
                row = after
        frame_out[function] = frame
        compiler_frame_out[function] = compiler_frame
        summary_out[function] = summary
        reached_out[function] = reached
        allocation_out[function] = allocation_depth
    return site_count


@cython.cfunc
@cython.inline
def _set_stack_pointer(state: cython.int[::1], kind: cython.int, value: cython.int) -> cython.void:
    """rsp = a known frame address, or the start of another stack."""
    if kind == 1 or kind == 4 or kind == 3:
        state[4] = kind
        state[20] = value
    else:
        if state[4] != 3:
            state[56] = state[4]
            state[57] = state[20]
        state[4] = 3
        state[20] = 0


@cython.cfunc
@cython.inline
def _load_slot(state: cython.int[::1], key: cython.int) -> cython.int:
    """Index of the slot with that key, or -1."""
    i: cython.int
    for i in range(8):
        if state[32 + i * 3] == key and state[32 + i * 3 + 1] != 0:
            return i
    return -1


@cython.cfunc
@cython.inline
def _save_slot(state: cython.int[::1], key: cython.int, kind: cython.int, value: cython.int) -> cython.void:
    """Remember what a slot holds; an unknown value forgets the slot; the oldest makes room."""
    i: cython.int
    for i in range(8):
        if state[32 + i * 3] == key and state[32 + i * 3 + 1] != 0:
            state[32 + i * 3 + 1] = kind
            state[32 + i * 3 + 2] = value
            return
    if kind == 0 or kind == 2:
        return
    i = state[58] & 7
    state[32 + i * 3] = key
    state[32 + i * 3 + 1] = kind
    state[32 + i * 3 + 2] = value
    state[58] = i + 1
