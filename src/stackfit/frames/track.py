# cython: boundscheck=True, wraparound=False, cdivision=True
"""Follows the stack pointer through each function's control-flow graph (compiled; runs uncompiled too).

The abstract state says what each general register is known to hold: nothing, an address in this frame, a
bounded unsigned number, an address on another stack, an address below an allocation of unknown size, or (on
machines whose compilers build frame sizes in registers) a constant; and up to eight stack slots into which
such values were saved. Depths are bytes from just before the call that entered the function, so the return
address is in them.

Where paths meet, what they disagree on is joined: of two depths the deeper holds, of two numbers the greater;
anything else is then unknown. A place is walked again until its state stays the same; numbers that keep
growing become unknown, depths that keep growing unbounded, so every walk ends.

Compiler idioms, each named where its code is: frame pointers, realigned frames, bounded and unbounded alloca,
stack switches, internal calls.
"""

from __future__ import annotations

import cython

__all__ = ["track_functions"]

if not cython.compiled:
    from stackfit.frames.constants import (
        ALLOCATION_LIMIT,
        BELOW,
        BOUNDED,
        CONFLICT,
        CONSTANT,
        CONTINUES,
        DEPTH_LIMIT,
        EXTRA,
        FRAME,
        GROWS,
        INDIRECT_THUNK,
        JOIN,
        JOINS,
        LEAVES,
        NEXT,
        NEXT_SLOT,
        NUMBER,
        REALIGNED,
        RETURN_THUNK,
        RETURNS,
        RUNTIME_NOP,
        SITE_CALL,
        SITE_INDIRECT,
        SITE_INDIRECT_TAIL,
        SITE_TAIL,
        SLOT_COUNT,
        SLOTS,
        STATE_LIMIT,
        STATE_SIZE,
        SWITCH,
        SWITCH_KIND,
        SWITCH_VALUE,
        SWITCHED,
        SWITCHES,
        TOO_COMPLEX,
        UNBALANCED,
        UNBOUNDED,
        UNDECODED,
        UNKNOWN,
        VALUES,
        WAITING_LIMIT,
        WIDEN_DEPTH,
        WIDEN_NUMBERS,
    )

if not cython.compiled:
    from stackfit.isa.constants import (
        ADD,
        ADD_IMMEDIATE,
        ALIGN,
        AND_IMMEDIATE,
        BAD,
        BREAKPOINT,
        CALL,
        CALL_INDIRECT,
        CONDITIONAL,
        CX,
        ENTER,
        EXCHANGE,
        FAR_JUMP,
        INSERT_IMMEDIATE,
        INTERRUPT_RETURN,
        JUMP,
        JUMP_CONDITIONAL,
        JUMP_INDIRECT,
        LEA,
        LEAVE,
        LOAD,
        LOAD_MULTIPLE,
        LOAD_NARROW,
        MOVE,
        MOVE_IMMEDIATE,
        NONE,
        POP,
        POP_ALL,
        POP_FLAGS,
        PUSH,
        PUSH_ALL,
        PUSH_FLAGS,
        RETURN,
        SHIFT_LEFT,
        SHIFT_RIGHT,
        STORE,
        STORE_MULTIPLE,
        SUBTRACT,
        SUBTRACT_REGISTERS,
        SYSTEM_RETURN,
        UNDEFINED,
    )


@cython.cfunc
@cython.inline
def _find(table: cython.const[cython.int][::1], row: cython.int) -> cython.int:
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


@cython.cfunc
@cython.inline
def _slot_key(kind: cython.int, depth: cython.int) -> cython.int:
    """Names the stack slot at that depth (which lies within ±DEPTH_LIMIT = 2**28)."""
    return kind * 0x10000000 + depth


@cython.cfunc
@cython.inline
def _load_slot(state: cython.int[::1], key: cython.int) -> cython.int:
    """Index into `state` of the slot with that key, or -1."""
    at: cython.int
    for at in range(SLOTS, SLOTS + 3 * SLOT_COUNT, 3):
        if state[at] == key and state[at + 1] != UNKNOWN:
            return at
    return -1


@cython.cfunc
@cython.inline
def _save_slot(state: cython.int[::1], key: cython.int, kind: cython.int, value: cython.int) -> cython.void:
    """Remember what a slot holds; an unknown value forgets the slot; the oldest makes room."""
    at: cython.int = _load_slot(state, key)
    if at < 0:
        if kind in (UNKNOWN, NUMBER, CONSTANT):
            return
        at = SLOTS + 3 * (state[NEXT_SLOT] & (SLOT_COUNT - 1))
        state[NEXT_SLOT] += 1
    state[at] = key
    state[at + 1] = kind
    state[at + 2] = value


@cython.cfunc
@cython.inline
def _set_stack_pointer(
    state: cython.int[::1], sp: cython.int, kind: cython.int, value: cython.int
) -> cython.int:
    """The stack pointer becomes a known address, or else the start of another stack; returns summary bits."""
    if kind in (FRAME, BELOW, SWITCHED):
        state[sp] = kind
        state[VALUES + sp] = value
        return 0
    if state[sp] != SWITCHED:
        state[SWITCH_KIND] = state[sp]
        state[SWITCH_VALUE] = state[VALUES + sp]
    state[sp] = SWITCHED
    state[VALUES + sp] = 0
    return SWITCHES


@cython.cfunc
@cython.inline
def _add_constant(
    state: cython.int[::1], sp: cython.int, reg: cython.int, number: cython.longlong
) -> cython.int:
    """A known number is added to a register: to an address, which is so much less deep, or to a constant;
    returns summary bits."""
    total: cython.longlong = state[VALUES + reg] + (number if state[reg] == CONSTANT else -number)
    if state[reg] not in (UNKNOWN, NUMBER) and -DEPTH_LIMIT < total < DEPTH_LIMIT:
        state[VALUES + reg] = cython.cast(cython.int, total)
    elif reg == sp:
        return _set_stack_pointer(state, sp, UNKNOWN, 0)
    else:
        state[reg] = UNKNOWN
    return 0


@cython.cfunc
@cython.inline
def _put_off(
    state: cython.int[::1],
    waiting_states: cython.int[::1],
    waiting_rows: cython.int[::1],
    waiting: cython.int,
    row: cython.int,
) -> cython.int:
    """Put a path off, to be walked later; returns the number of paths put off, -1 when there are too many."""
    i: cython.int
    if waiting >= WAITING_LIMIT:
        return -1
    waiting_rows[waiting] = row
    for i in range(STATE_SIZE):
        waiting_states[waiting * STATE_SIZE + i] = state[i]
    return waiting + 1


@cython.cfunc
@cython.inline
def _add_site(
    sites: cython.int[:, ::1],
    count: cython.int,
    function: cython.int,
    row: cython.int,
    callee: cython.int,
    kind: cython.int,
    state: cython.int[::1],
    sp: cython.int,
) -> cython.int:
    """Record that control leaves the function; the columns are those of SITE_FIELDS in analyse.py."""
    sites[count, 0] = function
    sites[count, 1] = row
    sites[count, 2] = callee
    sites[count, 3] = state[VALUES + sp]
    sites[count, 4] = kind
    sites[count, 5] = state[sp]
    sites[count, 6] = state[SWITCH_VALUE] if state[sp] == SWITCHED and state[SWITCH_KIND] != UNKNOWN else -1
    return count + 1


@cython.cfunc
def _join(
    states: cython.int[::1],
    start: cython.int,
    state: cython.int[::1],
    registers: cython.int,
    sp: cython.int,
) -> cython.int:
    """Join `state` with the one remembered at `start`: both become what holds on either path.

    Returns 0 when nothing new was learned, else 1 | summary bits << 1.
    """
    i: cython.int
    j: cython.int
    k: cython.int
    kind: cython.int
    value: cython.int
    other: cython.int
    bits: cython.int = 0
    changed: cython.int = 0
    joins: cython.int = states[start + JOINS]
    for i in range(registers):
        kind = states[start + i]
        value = states[start + VALUES + i]
        other = state[i]
        if kind == other:
            if kind == CONSTANT:
                if state[VALUES + i] != value:
                    kind = UNKNOWN
            elif kind != UNKNOWN and state[VALUES + i] > value:
                value = state[VALUES + i]
                if kind == NUMBER and joins > WIDEN_NUMBERS:
                    kind = UNKNOWN
                elif joins > WIDEN_DEPTH and i == sp:
                    bits |= GROWS
                    if kind != FRAME:
                        value = states[start + VALUES + i]
                    kind = BELOW if kind == FRAME else kind
                elif joins > WIDEN_DEPTH:
                    kind = UNKNOWN
        elif (kind in (FRAME, BELOW)) and (other in (FRAME, BELOW)):
            kind = BELOW
            if state[VALUES + i] > value and joins <= WIDEN_DEPTH:
                value = state[VALUES + i]
        elif i == sp:
            bits |= CONFLICT  # on one path another stack: the first one found is followed
        else:
            kind = UNKNOWN
        if kind == UNKNOWN:
            value = 0
        if kind != states[start + i] or value != states[start + VALUES + i]:
            changed = 1
            states[start + i] = kind
            states[start + VALUES + i] = value
    for i in range(SLOTS, SLOTS + 3 * SLOT_COUNT, 3):
        kind = states[start + i + 1]
        if kind == UNKNOWN:
            continue
        j = _load_slot(state, states[start + i])
        if j < 0 or state[j + 1] != kind or state[j + 2] != states[start + i + 2]:
            if j >= 0 and state[j + 1] == kind and kind != NUMBER and joins <= WIDEN_DEPTH:
                if state[j + 2] > states[start + i + 2]:
                    states[start + i + 2] = state[j + 2]
                    changed = 1
            else:
                states[start + i + 1] = UNKNOWN
                changed = 1
    if (
        state[SWITCH_KIND] != UNKNOWN
        and (states[start + SWITCH_KIND] == UNKNOWN or state[SWITCH_VALUE] > states[start + SWITCH_VALUE])
        and (states[start + SWITCH_KIND] == UNKNOWN or joins <= WIDEN_DEPTH)
    ):
        states[start + SWITCH_KIND] = state[SWITCH_KIND]
        states[start + SWITCH_VALUE] = state[SWITCH_VALUE]
        changed = 1
    if changed:
        states[start + JOINS] = joins + 1
        for k in range(STATE_SIZE):
            state[k] = states[start + k]
    return changed | bits << 1


def track_functions(
    work: cython.const[cython.int][::1],
    word: cython.int,
    entry: cython.int,
    registers: cython.int,
    sp: cython.int,
    fp: cython.int,
    exact: cython.bint,
    operation: cython.const[cython.uchar][::1],
    width: cython.const[cython.uchar][::1],
    register: cython.const[cython.uchar][::1],
    base: cython.const[cython.uchar][::1],
    index: cython.const[cython.uchar][::1],
    scale: cython.const[cython.uchar][::1],
    flags: cython.const[cython.uchar][::1],
    clobbers: cython.const[cython.uint][::1],
    displacement: cython.const[cython.int][::1],
    immediate: cython.const[cython.longlong][::1],
    address: cython.const[cython.longlong][::1],
    length: cython.const[cython.ushort][::1],
    target: cython.const[cython.int][::1],
    owner: cython.const[cython.int][::1],
    marks: cython.const[cython.uchar][::1],
    first: cython.const[cython.int][::1],
    parent: cython.const[cython.int][::1],
    is_piece: cython.const[cython.uchar][::1],
    synthetic: cython.const[cython.uchar][::1],
    role: cython.const[cython.uchar][::1],
    allocates: cython.const[cython.uchar][::1],
    pops: cython.const[cython.int][::1],
    lost: cython.const[cython.uint][::1],
    no_return: cython.const[cython.uchar][::1],
    extra_row: cython.const[cython.int][::1],
    extra_to: cython.const[cython.int][::1],
    next_row: cython.const[cython.int][::1],
    next_to: cython.const[cython.int][::1],
    visitor: cython.int[::1],
    depth: cython.int[::1],
    stack_kind: cython.uchar[::1],
    frame_pointer: cython.int[::1],
    remembered: cython.int[::1],
    state: cython.int[::1],
    states: cython.int[::1],
    waiting_states: cython.int[::1],
    waiting_rows: cython.int[::1],
    sites: cython.int[:, ::1],
    frame_out: cython.int[::1],
    compiler_frame_out: cython.int[::1],
    summary_out: cython.int[::1],
    reached_out: cython.int[::1],
    allocation_out: cython.int[::1],
) -> int:
    """Track every function in `work`; returns the number of sites written (-1: `sites` has too few rows).

    `word`: bytes of a register. `entry`: depth at a function's entry (the return address, where calls push
    it). `registers` are tracked, `sp` and `fp` are the stack and frame pointer. `exact`: constants are
    followed.

    Per row, in: `operation` … `target`, `owner` (row → function), `marks`. Per function, in: `first` (its
    first row), `parent`, `is_piece`, `synthetic`, `role`, `allocates` (it subtracts a register from the stack
    pointer: only there numbers are followed), `pops` (bytes of its arguments that it pops), `lost` (bit r
    set: register r does not survive a call to it; one more at the end for a function not known), `no_return`.
    Sorted by their first column: (`extra_row`, `extra_to`) further successors, (`next_row`, `next_to`) what
    is executed next. Per row, out: `visitor`, `depth`, `stack_kind`, and unless it is empty `frame_pointer`
    (depth that the frame pointer's register holds, -1: none). Scratch: `remembered` (per row), `state`
    (STATE_SIZE), `states` (STATE_LIMIT states), `waiting_states` and `waiting_rows` (WAITING_LIMIT). Per
    function, out: frame and compiler frame in bytes, summary bits, rows reached, depth of the allocation of
    unknown size.
    """
    n: cython.int = cython.cast(cython.int, operation.shape[0])
    capacity: cython.int = cython.cast(cython.int, sites.shape[0])
    site_count: cython.int = 0
    waiting: cython.int
    known_states: cython.int
    number: cython.int
    row: cython.int
    op: cython.int
    reg: cython.int
    b: cython.int
    w: cython.int
    i: cython.int
    s: cython.int
    t: cython.int
    g: cython.int
    kind: cython.int
    value: cython.int
    new_kind: cython.int
    new_value: cython.int
    mask: cython.uint
    mark: cython.int
    align: cython.int
    frame: cython.int
    compiler_frame: cython.int
    summary: cython.int
    reached: cython.int
    allocation_depth: cython.int
    after: cython.int
    going: cython.bint
    transient: cython.bint
    big: cython.longlong
    function: cython.int
    position: cython.Py_ssize_t

    for position in range(work.shape[0]):
        function = work[position]
        frame = entry
        compiler_frame = entry
        summary = 0
        reached = 0
        allocation_depth = 0
        known_states = 0
        number = NUMBER if allocates[function] else UNKNOWN
        for i in range(STATE_SIZE):
            state[i] = 0
        state[sp] = FRAME
        state[VALUES + sp] = entry
        waiting = _put_off(state, waiting_states, waiting_rows, 0, first[function])

        while waiting > 0:
            waiting -= 1
            row = waiting_rows[waiting]
            for i in range(STATE_SIZE):
                state[i] = waiting_states[waiting * STATE_SIZE + i]
            going = True
            while going:
                if row < 0 or row >= n:
                    break
                if site_count + 2 > capacity:
                    return -1
                mark = marks[row]
                # --- Been here? Go on only with something new.
                if visitor[row] != function:
                    visitor[row] = function
                    reached += 1
                    if mark & JOIN:
                        if known_states >= STATE_LIMIT:
                            summary |= TOO_COMPLEX
                            break
                        remembered[row] = known_states
                        for i in range(STATE_SIZE):
                            states[known_states * STATE_SIZE + i] = state[i]
                        states[known_states * STATE_SIZE + JOINS] = 0
                        known_states += 1
                elif mark & JOIN:
                    i = _join(states, remembered[row] * STATE_SIZE, state, registers, sp)
                    summary |= i >> 1
                    if not i & 1:
                        break
                kind = state[sp]
                value = state[VALUES + sp]
                depth[row] = value
                stack_kind[row] = kind
                if frame_pointer.shape[0]:
                    frame_pointer[row] = state[VALUES + fp] if state[fp] == FRAME else -1
                if (kind in (FRAME, BELOW)) and value > frame:
                    frame = value
                op = operation[row]
                reg = register[row]
                b = base[row]
                w = width[row]
                transient = False
                # --- Extra successors: static keys, exception fixups, alternatives, jump tables.
                if mark & EXTRA:
                    i = _find(extra_row, row)
                    while i < extra_row.shape[0] and extra_row[i] == row:
                        t = _put_off(state, waiting_states, waiting_rows, waiting, extra_to[i])
                        if t < 0:
                            summary |= TOO_COMPLEX
                            break
                        waiting = t
                        i += 1
                after = row + 1
                if mark & NEXT:
                    after = next_to[_find(next_row, row)]

                # --- A conditional change of the stack pointer: the path on which it does not happen.
                if flags[row] & CONDITIONAL and clobbers[row] >> sp & 1 and op != RETURN:
                    t = _put_off(state, waiting_states, waiting_rows, waiting, after)
                    if t < 0:
                        summary |= TOO_COMPLEX
                    else:
                        waiting = t

                # --- Effects on the stack pointer and on copies of it.
                if op in (PUSH, PUSH_FLAGS, PUSH_ALL):
                    state[VALUES + sp] = value + w * (8 if op == PUSH_ALL else 1)
                    # The value saved, where it matters: realigned frames save r10 (ecx on i386) this way.
                    new_kind = UNKNOWN
                    new_value = 0
                    if op == PUSH and reg < registers and w == word and not (flags[row] & 1):
                        new_kind = state[reg]
                        new_value = value if reg == sp else state[VALUES + reg]
                    if kind in (FRAME, BELOW):
                        _save_slot(state, _slot_key(kind, state[VALUES + sp]), new_kind, new_value)
                    # pushf; pop reg (any push popped at once) is inline assembly, not the compiler's frame.
                    transient = op == PUSH_FLAGS or (
                        after < n and (operation[after] == POP or operation[after] == POP_FLAGS)
                    )
                elif op in (POP, POP_FLAGS, POP_ALL):
                    new_kind = UNKNOWN
                    new_value = 0
                    if kind in (FRAME, BELOW):
                        s = _load_slot(state, _slot_key(kind, value))
                        if s >= 0:
                            new_kind = state[s + 1]
                            new_value = state[s + 2]
                    state[VALUES + sp] = value - w * (8 if op == POP_ALL else 1)
                    if op == POP_ALL:
                        for i in range(8):
                            if i != sp:
                                state[i] = UNKNOWN
                    elif op == POP and reg == sp:
                        # pop %rsp: back from another stack; call_on_irqstack() has put the old pointer there.
                        if kind == SWITCHED and state[SWITCH_KIND] != UNKNOWN:
                            state[sp] = state[SWITCH_KIND]
                            state[VALUES + sp] = state[SWITCH_VALUE]
                        else:
                            summary |= _set_stack_pointer(state, sp, new_kind, new_value)
                    elif op == POP and reg < registers:
                        state[reg] = new_kind if w == word else UNKNOWN
                        state[VALUES + reg] = new_value
                elif op == ADD_IMMEDIATE:  # sub too
                    if reg < registers:
                        big = immediate[row]
                        if state[reg] == NUMBER:
                            if big >= 0 and big + state[VALUES + reg] < ALLOCATION_LIMIT:
                                state[VALUES + reg] += cython.cast(cython.int, big)
                            else:
                                state[reg] = UNKNOWN
                        elif state[reg] == CONSTANT:
                            big += state[VALUES + reg]
                            if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                                state[VALUES + reg] = cython.cast(cython.int, big)
                            else:
                                state[reg] = UNKNOWN
                        elif state[reg] != UNKNOWN:
                            big = state[VALUES + reg] - big
                            if -DEPTH_LIMIT < big < DEPTH_LIMIT and w == word:
                                state[VALUES + reg] = cython.cast(cython.int, big)
                            elif reg == sp:
                                summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                            else:
                                state[reg] = UNKNOWN
                elif op == MOVE:
                    new_kind = UNKNOWN
                    new_value = 0
                    if w == word or (w == 4 and state[b] == NUMBER):
                        new_kind = state[b]
                        new_value = state[VALUES + b]
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, new_kind, new_value)
                    else:
                        state[reg] = new_kind
                        state[VALUES + reg] = new_value
                elif op == LEA:
                    new_kind = UNKNOWN
                    new_value = 0
                    if b < registers and index[row] == NONE:
                        if state[b] == NUMBER:
                            if 0 <= displacement[row] < ALLOCATION_LIMIT - state[VALUES + b]:
                                new_kind = NUMBER
                                new_value = state[VALUES + b] + displacement[row]
                        elif state[b] != UNKNOWN and w == word:
                            big = state[VALUES + b]
                            if state[b] == CONSTANT:
                                big += displacement[row]
                            else:
                                big -= displacement[row]
                            if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                                new_kind = state[b]
                                new_value = cython.cast(cython.int, big)
                    elif (
                        exact
                        and b < registers
                        and index[row] < registers
                        and displacement[row] == 0
                        and w == word
                    ):
                        # A sum of two registers: of a constant, and a frame address or a constant.
                        i = index[row]
                        s = b
                        big = scale[row]
                        if state[b] == CONSTANT and state[i] in (FRAME, BELOW) and big == 1:
                            i = b
                            s = index[row]
                        if state[i] == CONSTANT and state[s] in (FRAME, BELOW, CONSTANT):
                            big *= state[VALUES + i]
                            if state[s] == CONSTANT:
                                big = -big
                            big = state[VALUES + s] - big
                            if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                                new_kind = state[s]
                                new_value = cython.cast(cython.int, big)
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, new_kind, new_value)
                    elif reg < registers:
                        state[reg] = new_kind
                        state[VALUES + reg] = new_value
                elif op == AND_IMMEDIATE:
                    if reg < registers:
                        big = immediate[row]
                        if state[reg] == FRAME or state[reg] == BELOW:
                            # Realigned frame: at its worst the whole alignment less one word is lost.
                            if -4096 <= big < 0 and w == word:
                                align = cython.cast(cython.int, -big)
                                if align > word:
                                    state[VALUES + reg] += align - word
                                    if reg == sp:
                                        summary |= REALIGNED
                            elif reg == sp:
                                summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                            else:
                                # and $~(THREAD_SIZE-1): the address of the stack's base, no frame address.
                                state[reg] = UNKNOWN
                                if 0 <= big < ALLOCATION_LIMIT:
                                    state[reg] = number
                                    state[VALUES + reg] = cython.cast(cython.int, big)
                        elif state[reg] == SWITCHED:
                            if reg != sp:
                                state[reg] = UNKNOWN
                        elif 0 <= big < ALLOCATION_LIMIT:
                            if state[reg] != NUMBER or state[VALUES + reg] > big:
                                state[VALUES + reg] = cython.cast(cython.int, big)
                            elif big > 0:  # the result is a multiple of the mask's lowest bit
                                align = cython.cast(cython.int, big & -big)
                                state[VALUES + reg] -= state[VALUES + reg] % align
                            state[reg] = number
                        # A number that is masked with more bits than it has keeps its bound.
                elif op == ALIGN:
                    new_kind = UNKNOWN
                    new_value = 0
                    big = immediate[row]
                    if b < registers and state[b] in (FRAME, BELOW):
                        if -4096 <= big < 0 and w == word:  # a realigned frame, as above
                            align = cython.cast(cython.int, -big)
                            new_kind = state[b]
                            new_value = state[VALUES + b]
                            if align > word:
                                new_value += align - word
                                summary |= REALIGNED
                    elif 0 <= big < ALLOCATION_LIMIT:
                        new_kind = number
                        new_value = cython.cast(cython.int, big)
                        if b < registers and state[b] == NUMBER and state[VALUES + b] < new_value:
                            align = cython.cast(cython.int, big & -big)  # of which it is a multiple
                            new_value = state[VALUES + b] - state[VALUES + b] % align
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, new_kind, new_value)
                    elif reg < registers:
                        state[reg] = new_kind
                        state[VALUES + reg] = new_value
                elif op == SUBTRACT_REGISTERS:  # a frame address less a size: alloca
                    new_kind = UNKNOWN
                    new_value = 0
                    i = index[row]
                    if b < registers and state[b] in (FRAME, BELOW, CONSTANT):
                        new_value = state[VALUES + b]
                        if i < registers and state[i] == CONSTANT:
                            big = state[VALUES + i]
                            if state[b] == CONSTANT:
                                big = -big
                            big += new_value
                            if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                                new_kind = state[b]
                                new_value = cython.cast(cython.int, big)
                        elif i < registers and state[i] == NUMBER and state[b] != CONSTANT:
                            new_kind = state[b]
                            new_value += state[VALUES + i]
                            summary |= BOUNDED
                        elif state[b] != CONSTANT:
                            new_kind = BELOW
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, new_kind, new_value)
                    elif reg < registers:
                        state[reg] = new_kind
                        state[VALUES + reg] = new_value
                elif op == SUBTRACT:
                    if exact and reg < registers and b < registers and state[b] == CONSTANT:
                        summary |= _add_constant(
                            state, sp, reg, -cython.cast(cython.longlong, state[VALUES + b])
                        )
                    elif reg == sp:
                        # alloca: bounded when the size is.
                        if b < registers and not (flags[row] & 1) and state[b] == NUMBER and kind != SWITCHED:
                            state[VALUES + sp] += state[VALUES + b]
                            summary |= BOUNDED
                        elif kind != SWITCHED:
                            state[sp] = BELOW
                            summary |= UNBOUNDED
                            if value > allocation_depth:
                                allocation_depth = value
                    elif reg < registers:
                        if exact and state[reg] in (FRAME, BELOW):
                            state[reg] = BELOW
                        else:
                            state[reg] = UNKNOWN
                elif op == ADD:
                    if exact and reg < registers and b < registers and state[b] == CONSTANT:
                        summary |= _add_constant(state, sp, reg, state[VALUES + b])
                    elif reg == sp:
                        if kind != SWITCHED:
                            state[sp] = BELOW
                            summary |= UNBOUNDED
                            if value > allocation_depth:
                                allocation_depth = value
                    elif reg < registers:
                        if (
                            b < registers
                            and not (flags[row] & 1)
                            and state[reg] == NUMBER
                            and state[b] == NUMBER
                            and state[VALUES + reg] + state[VALUES + b] < ALLOCATION_LIMIT
                        ):
                            state[VALUES + reg] += state[VALUES + b]
                        else:
                            state[reg] = UNKNOWN
                elif op == LOAD_NARROW:  # zero-extended, from memory or a register
                    new_kind = UNKNOWN
                    new_value = 0
                    if w <= 2:
                        new_kind = number
                        new_value = 0xFF if w == 1 else 0xFFFF
                        # b < 4: what is said of a register holds of its low byte, not of ah, ch, dh, bh.
                        if (
                            b < (registers if word == 8 or w == 2 else 4)
                            and not (flags[row] & 1)
                            and state[b] == NUMBER
                            and state[VALUES + b] < new_value
                        ):
                            new_value = state[VALUES + b]
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                    elif reg < registers:
                        state[reg] = new_kind
                        state[VALUES + reg] = new_value
                elif op == MOVE_IMMEDIATE:
                    big = immediate[row]
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                    elif reg < registers:
                        state[reg] = UNKNOWN
                        if exact:
                            if word == 4 and big >> 31 == 1:
                                big -= 0x100000000
                            if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                                state[reg] = CONSTANT
                                state[VALUES + reg] = cython.cast(cython.int, big)
                        elif 0 <= big < ALLOCATION_LIMIT:
                            state[reg] = number
                            state[VALUES + reg] = cython.cast(cython.int, big)
                elif op == INSERT_IMMEDIATE:
                    if reg < registers and reg != sp:
                        big = 0xFFFF
                        big = ~(big << scale[row])
                        big = (state[VALUES + reg] & big) | immediate[row] << scale[row]
                        if word == 4 and big >> 31 == 1:
                            big -= 0x100000000
                        if state[reg] == CONSTANT and -DEPTH_LIMIT < big < DEPTH_LIMIT:
                            state[VALUES + reg] = cython.cast(cython.int, big)
                        else:
                            state[reg] = UNKNOWN
                elif op in (SHIFT_LEFT, SHIFT_RIGHT):
                    big = immediate[row] & (63 if w == 8 else 31)
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                    elif reg < registers:
                        if state[reg] == CONSTANT and op == SHIFT_LEFT and big < 28:
                            big = cython.cast(cython.longlong, state[VALUES + reg]) << big
                            if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                                state[VALUES + reg] = cython.cast(cython.int, big)
                            else:
                                state[reg] = UNKNOWN
                        elif state[reg] == NUMBER and op == SHIFT_RIGHT:
                            state[VALUES + reg] = state[VALUES + reg] >> big if big < 31 else 0
                        elif (
                            state[reg] == NUMBER
                            and big < 20
                            and state[VALUES + reg] < (ALLOCATION_LIMIT >> big)
                        ):
                            state[VALUES + reg] <<= cython.cast(cython.int, big)
                        else:
                            state[reg] = UNKNOWN
                elif op == LOAD:  # a saved value comes back
                    new_kind = UNKNOWN
                    new_value = 0
                    if (
                        b < registers
                        and index[row] == NONE
                        and (state[b] == FRAME or state[b] == BELOW)
                        and not (flags[row] & 2)
                    ):
                        big = state[VALUES + b]
                        big -= displacement[row]
                        if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                            s = _load_slot(state, _slot_key(state[b], cython.cast(cython.int, big)))
                            if s >= 0:
                                new_kind = state[s + 1]
                                new_value = state[s + 2]
                    if reg == sp:
                        summary |= _set_stack_pointer(state, sp, new_kind, new_value)
                    elif reg < registers:
                        state[reg] = new_kind
                        state[VALUES + reg] = new_value
                elif op == STORE:  # remember a saved copy
                    if (
                        b < registers
                        and index[row] == NONE
                        and (state[b] == FRAME or state[b] == BELOW)
                        and reg < registers
                        and not (flags[row] & 2)
                    ):
                        big = state[VALUES + b]
                        big -= displacement[row]
                        if -DEPTH_LIMIT < big < DEPTH_LIMIT:
                            s = _slot_key(state[b], cython.cast(cython.int, big))
                            _save_slot(state, s, state[reg], state[VALUES + reg])
                elif op in (LOAD_MULTIPLE, STORE_MULTIPLE):
                    if op == STORE_MULTIPLE and b < registers and state[b] in (FRAME, BELOW):
                        # What the slots held is gone.
                        big = state[VALUES + b]
                        big -= displacement[row]
                        if index[row] == NONE and -DEPTH_LIMIT < big < DEPTH_LIMIT:
                            t = _slot_key(state[b], cython.cast(cython.int, big))
                            for i in range(SLOTS, SLOTS + 3 * SLOT_COUNT, 3):
                                if t - w < state[i] <= t:
                                    state[i + 1] = UNKNOWN
                    mask = clobbers[row]
                    if reg < registers:
                        mask &= ~(cython.cast(cython.uint, 1) << reg)
                    if mask >> sp & 1:
                        summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                    if mask:
                        for i in range(registers):
                            if mask >> i & 1 and i != sp:
                                state[i] = UNKNOWN
                    if reg < registers and state[reg] != UNKNOWN:
                        big = state[VALUES + reg] - immediate[row]
                        if reg != sp and flags[row] & CONDITIONAL:
                            state[reg] = UNKNOWN
                        elif (
                            state[reg] != NUMBER
                            and state[reg] != CONSTANT
                            and -DEPTH_LIMIT < big < DEPTH_LIMIT
                        ):
                            state[VALUES + reg] = cython.cast(cython.int, big)
                        elif reg == sp:
                            summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                        else:
                            state[reg] = UNKNOWN
                elif op == LEAVE:
                    summary |= _set_stack_pointer(state, sp, state[fp], state[VALUES + fp])
                    # The saved frame pointer is popped: the caller's value, or one that was saved here.
                    s = _load_slot(state, _slot_key(state[sp], state[VALUES + sp]))
                    state[fp] = state[s + 1] if s >= 0 else UNKNOWN
                    state[VALUES + fp] = state[s + 2] if s >= 0 else 0
                    state[VALUES + sp] -= word
                elif op == ENTER:  # immediate: bytes, and above them the nesting level
                    state[fp] = kind
                    state[VALUES + fp] = value + word
                    state[VALUES + sp] += cython.cast(
                        cython.int, word + (immediate[row] & 0xFFFF) + word * (immediate[row] >> 16 & 31)
                    )
                elif op == EXCHANGE:
                    if reg < registers and b < registers:
                        i = reg if b == sp else b  # the one that is not the stack pointer, if either is
                        s = sp if b == sp else reg
                        new_kind = state[i]
                        new_value = state[VALUES + i]
                        # i386 call_on_stack: xchg %ebx,%esp leaves the old pointer in the register.
                        state[i] = state[s]
                        state[VALUES + i] = state[VALUES + s]
                        if s == sp:
                            summary |= _set_stack_pointer(state, sp, new_kind, new_value)
                        else:
                            state[s] = new_kind
                            state[VALUES + s] = new_value
                elif op in (CALL, CALL_INDIRECT):
                    t = target[row] if op == CALL else -1
                    g = owner[t] if t >= 0 else -1
                    if t >= 0 and role[g] == RUNTIME_NOP and first[g] == t:
                        # call __fentry__: a nop unless tracing is on; on Arm what takes off the register that
                        # was pushed for it.
                        state[VALUES + sp] -= pops[g]
                    elif t >= 0 and first[g] != t and (g == function or parent[g] == function or is_piece[g]):
                        # Internal call: return-stack stuffing, retpolines, clear_bhb_loop. It pushes its own
                        # return address; both ways are followed. (T32 without far branches jumps like this.)
                        state[VALUES + sp] += entry
                        i = _put_off(state, waiting_states, waiting_rows, waiting, t)
                        state[VALUES + sp] -= entry
                        if i < 0:
                            summary |= TOO_COMPLEX
                        else:
                            waiting = i
                        if after < n and operation[after] in (BREAKPOINT, BAD):
                            # int3 or data behind the call: it never returns here (return-stack stuffing)
                            going = False
                    else:
                        if op == CALL_INDIRECT or (t >= 0 and role[g] == INDIRECT_THUNK):
                            site_count = _add_site(
                                sites, site_count, function, row, -1, SITE_INDIRECT, state, sp
                            )
                        else:
                            site_count = _add_site(sites, site_count, function, row, g, SITE_CALL, state, sp)
                        if t >= 0 and first[g] == t:
                            state[VALUES + sp] -= pops[g]  # ret $N
                            going = not no_return[g]
                        # Caller-saved registers do not survive.
                        mask = lost[g] if t >= 0 and first[g] == t else lost[lost.shape[0] - 1]
                        for i in range(registers):
                            if mask >> i & 1:
                                state[i] = UNKNOWN
                        if flags[row] & CONDITIONAL:
                            going = True
                        elif mark & SWITCH:  # a helper that goes on at an entry of the table behind the call
                            going = False
                elif op in (JUMP, JUMP_CONDITIONAL):
                    t = target[row]
                    g = owner[t] if t >= 0 else -1
                    if t >= 0 and role[g] == RETURN_THUNK and first[g] == t:
                        # jmp __x86_return_thunk is a return.
                        going = op == JUMP_CONDITIONAL
                        summary |= RETURNS
                        if kind == FRAME and value != entry:
                            summary |= UNBALANCED
                    elif t >= 0 and role[g] == INDIRECT_THUNK:
                        site_count = _add_site(
                            sites, site_count, function, row, -1, SITE_INDIRECT_TAIL, state, sp
                        )
                        summary |= RETURNS
                        going = op == JUMP_CONDITIONAL
                    elif t < 0 or (
                        first[g] == t
                        and g != function
                        and parent[g] != function
                        and not is_piece[g]
                        and not (synthetic[g] and value != entry)
                    ):
                        site_count = _add_site(sites, site_count, function, row, g, SITE_TAIL, state, sp)
                        if t < 0 or not no_return[g]:
                            summary |= RETURNS
                        going = op == JUMP_CONDITIONAL
                    elif op == JUMP:
                        row = t
                        continue
                    else:
                        i = _put_off(state, waiting_states, waiting_rows, waiting, t)
                        if i < 0:
                            summary |= TOO_COMPLEX
                        else:
                            waiting = i
                elif op == JUMP_INDIRECT and mark & SWITCH:  # its targets are extra successors
                    going = flags[row] & CONDITIONAL != 0
                elif op == JUMP_INDIRECT:  # a tail call through a pointer, or a jump table
                    site_count = _add_site(
                        sites, site_count, function, row, -1, SITE_INDIRECT_TAIL, state, sp
                    )
                    summary |= RETURNS
                    going = flags[row] & CONDITIONAL != 0
                elif op == RETURN:
                    summary |= RETURNS
                    if kind == FRAME and value - displacement[row] != entry:
                        summary |= UNBALANCED
                    going = flags[row] & CONDITIONAL != 0
                elif (
                    op == INTERRUPT_RETURN
                    and row > 0
                    and after < n
                    and operation[row - 1] == PUSH
                    and register[row - 1] == NONE
                    and not (flags[row - 1] & 1)
                    and immediate[row - 1] == address[after]
                ):
                    # sync_core(): an iret to the next instruction, whose frame was pushed just before.
                    state[VALUES + sp] = value - word * (5 if word == 8 else 3)
                elif op in (INTERRUPT_RETURN, SYSTEM_RETURN, FAR_JUMP):
                    summary |= LEAVES
                    going = flags[row] & CONDITIONAL != 0
                elif op == UNDEFINED:  # ud2: WARN goes on, BUG does not
                    going = mark & CONTINUES != 0 or flags[row] & CONDITIONAL != 0
                elif op == BREAKPOINT:
                    # Padding is a run of int3, or ends the function; a single one amid code is meant to be
                    # executed (int3_selftest), and its handler returns.
                    going = length[row] == 1 and after < n and owner[after] == owner[row]
                elif op == BAD:
                    summary |= UNDECODED
                    going = False
                else:
                    # --- Every other register that the instruction writes is no longer known.
                    mask = clobbers[row]
                    if mask:
                        if mask >> sp & 1:
                            summary |= _set_stack_pointer(state, sp, UNKNOWN, 0)
                        for i in range(registers):
                            if mask >> i & 1 and i != sp:
                                state[i] = UNKNOWN
                if op == JUMP_CONDITIONAL and clobbers[row]:
                    state[CX] = UNKNOWN  # loop

                if exact and state[sp] == BELOW and kind == FRAME:
                    summary |= UNBOUNDED
                    if value > allocation_depth:
                        allocation_depth = value

                # --- What the instruction itself pushed or allocated is in the frame.
                new_value = state[VALUES + sp]
                if (state[sp] == FRAME or state[sp] == BELOW) and new_value > value:
                    if new_value > frame:
                        frame = new_value
                    if new_value > compiler_frame and not transient:
                        compiler_frame = new_value
                    if new_value >= DEPTH_LIMIT:
                        summary |= _set_stack_pointer(state, sp, UNKNOWN, 0) | GROWS
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
                        and operation[after] != BREAKPOINT
                    ):
                        site_count = _add_site(sites, site_count, function, row, g, SITE_TAIL, state, sp)
                        if not no_return[g]:
                            summary |= RETURNS
                        break
                row = after
        frame_out[function] = frame
        compiler_frame_out[function] = compiler_frame
        summary_out[function] = summary
        reached_out[function] = reached
        allocation_out[function] = allocation_depth
    return site_count
