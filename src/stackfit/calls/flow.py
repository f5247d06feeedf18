# cython: boundscheck=True, wraparound=False, cdivision=True
"""Follows typed pointers through each function's control-flow graph (compiled; runs uncompiled too).

What a function's parameters point to is known from its prototype; a load from a typed object has the type of
the member there; a call's result that of the callee's prototype. So the target of an indirect call becomes a
*value*: the pointer in a field of a struct, in a global variable, in a parameter. And every function pointer
that goes into such a place does so on record. resolve.py puts both together.

Where paths meet, values that differ become unknown (null gives way to any). Addresses are numbers with the
sign of a word: those of a kernel are negative. Kinds of values and sinks: flow_constants.py.
"""

from __future__ import annotations

import cython

__all__ = ["follow_functions"]

if not cython.compiled:
    from stackfit.calls.flow_constants import (
        ARGUMENT,
        ARGUMENTS,
        BTF_ARRAY,
        BTF_FUNC_PROTO,
        BTF_PTR,
        BTF_STRUCT,
        BTF_UNION,
        CHANGED,
        CONSTANT,
        COPIED,
        EMBEDS,
        ESCAPED,
        FIELD,
        GLOBAL,
        HANDED,
        HERE,
        HOLDS,
        LOOSE,
        MARK_CONTINUES,
        MARK_EXTRA,
        MARK_JOIN,
        MARK_NEXT,
        MARK_SWITCH,
        MARK_TOLD,
        MERGED,
        MOST_ARGUMENTS,
        NEXT_SLOT,
        OBJECT,
        ORIGIN,
        OTHERS,
        OWN,
        PARAMETER,
        PASSED,
        PER_CPU,
        POINTER,
        PROTOTYPE,
        REGISTERS,
        RESULT,
        ROLE_INDIRECT,
        ROLE_NOP,
        ROLE_RETURN,
        ROLE_TRAMPOLINE,
        SITE,
        SLOT_COUNT,
        SLOTS,
        SMALL,
        STACK,
        STACK_KNOWN,
        STACKED,
        STATE_LIMIT,
        STATE_SIZE,
        TOLD_SLOT,
        TYPED,
        UNKNOWN,
    )
    from stackfit.isa.constants import (
        ADD,
        ADD_IMMEDIATE,
        AND_IMMEDIATE,
        BAD,
        BREAKPOINT,
        CALL,
        CALL_INDIRECT,
        CONDITIONAL,
        COPY,
        CX,
        DI,
        EXCHANGE,
        FAR_JUMP,
        INTERRUPT_RETURN,
        JUMP,
        JUMP_CONDITIONAL,
        JUMP_INDIRECT,
        LEA,
        LOAD,
        LOAD_MULTIPLE,
        MOVE,
        MOVE_CONDITIONAL,
        MOVE_IMMEDIATE,
        NONE,
        POP,
        PUSH,
        RETURN,
        SI,
        STORE,
        STORE_IMMEDIATE,
        STORE_MULTIPLE,
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
def _ends_open(
    type_id: cython.longlong,
    kind: cython.const[cython.uchar][::1],
    size: cython.const[cython.longlong][::1],
    part_first: cython.const[cython.longlong][::1],
    part_type: cython.const[cython.int][::1],
) -> cython.bint:
    """Whether a struct ends in an array of no size of its own."""
    last: cython.longlong = part_first[type_id + 1] - 1
    if kind[type_id] != BTF_STRUCT or last < part_first[type_id]:
        return False
    return kind[part_type[last]] == BTF_ARRAY and size[part_type[last]] == 0


@cython.cfunc
def _member(
    leaf: cython.longlong[::1],
    type_id: cython.longlong,
    offset: cython.longlong,
    kind: cython.const[cython.uchar][::1],
    named: cython.const[cython.uchar][::1],
    link: cython.const[cython.int][::1],
    size: cython.const[cython.longlong][::1],
    part_first: cython.const[cython.longlong][::1],
    part_at: cython.const[cython.longlong][::1],
    part_type: cython.const[cython.int][::1],
) -> cython.bint:
    """What lies at byte `offset` of an object of a type. `leaf`: its type (0: a union's members differ), the
    innermost struct with a name around it, the byte in that, the byte in the leaf; the last number: of a
    union whose members are function pointers all, how many differ. False: nothing does."""
    _steps: cython.int
    rest: cython.longlong
    length: cython.longlong
    part: cython.longlong
    begin: cython.longlong
    chosen: cython.longlong
    pointers: cython.int
    aggregates: cython.int
    others: cython.int
    member: cython.longlong
    leaf[1] = 0
    leaf[2] = 0
    leaf[7] = 0
    for _steps in range(32):
        if kind[type_id] == BTF_ARRAY:
            length = size[link[type_id]]
            if length <= 0 or offset < 0 or (size[type_id] > 0 and offset >= size[type_id]):
                return False
            rest = offset % length
            leaf[2] -= offset - rest
            offset = rest
            type_id = link[type_id]
        elif kind[type_id] == BTF_STRUCT or kind[type_id] == BTF_UNION:
            if offset < 0 or (
                offset >= size[type_id] and not _ends_open(type_id, kind, size, part_first, part_type)
            ):
                return False
            if named[type_id] or leaf[1] == 0:
                leaf[1] = type_id
                leaf[2] = offset
            begin = part_first[type_id]
            part = part_first[type_id + 1]
            chosen = -1
            if kind[type_id] == BTF_STRUCT:
                while part > begin:
                    part -= 1
                    # A flexible array at the end has no size of its own.
                    if part_at[part] >= 0 and part_at[part] <= offset:
                        if (
                            offset < part_at[part] + size[part_type[part]]
                            or kind[part_type[part]] == BTF_ARRAY
                        ):
                            chosen = part
                        break
            else:
                pointers = 0
                aggregates = 0
                others = 0
                while part > begin:
                    part -= 1
                    member = part_type[part]
                    if part_at[part] < 0 or offset >= size[member]:
                        continue
                    if kind[member] == BTF_PTR:
                        if kind[link[member]] != BTF_FUNC_PROTO:
                            others += 1
                        if chosen < 0 or kind[part_type[chosen]] != BTF_PTR:
                            chosen = part
                            pointers += 1
                        elif link[part_type[chosen]] != link[member]:
                            pointers += 1
                    elif kind[member] == BTF_ARRAY or kind[member] == BTF_STRUCT or kind[member] == BTF_UNION:
                        aggregates += 1
                        if chosen < 0:
                            chosen = part
                if pointers + aggregates != 1:
                    leaf[0] = 0
                    leaf[3] = 0
                    leaf[7] = pointers if aggregates + others == 0 else 0
                    return pointers + aggregates > 1
            if chosen < 0:
                return False
            offset -= part_at[chosen]
            type_id = part_type[chosen]
        else:
            leaf[0] = type_id
            leaf[3] = offset
            return True
    return False


@cython.cfunc
@cython.inline
def _slot(state: cython.longlong[::1], depth: cython.longlong) -> cython.int:
    """Where in the state the slot at that depth is, or -1."""
    at: cython.int
    for at in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
        if state[at] == depth and state[at + 1] != UNKNOWN:
            return at
    return -1


@cython.cfunc
@cython.inline
def _save(
    state: cython.longlong[::1],
    depth: cython.longlong,
    kind: cython.longlong,
    a: cython.longlong,
    b: cython.longlong,
) -> cython.void:
    at: cython.int = _slot(state, depth)
    if at < 0:
        if kind == UNKNOWN:
            return
        at = SLOTS + 4 * cython.cast(cython.int, state[NEXT_SLOT])
        state[NEXT_SLOT] = (state[NEXT_SLOT] + 1) % SLOT_COUNT
    state[at] = depth
    state[at + 1] = kind
    state[at + 2] = a
    state[at + 3] = b


@cython.cfunc
@cython.inline
def _may_be_code(kind: cython.longlong, a: cython.longlong) -> cython.bint:
    """Whether a value may be a function pointer that is worth following."""
    return FIELD <= kind <= RESULT or kind == MERGED or (kind == CONSTANT and a < 0)


@cython.cfunc
@cython.inline
def _meet_value(
    states: cython.longlong[::1],
    at: cython.int,
    kind: cython.longlong,
    a: cython.longlong,
    b: cython.longlong,
    row: cython.int,
    place: cython.longlong,
) -> cython.bint:
    """Make `states[at : at + 3]` what holds of it and of a value; whether it has become something else."""
    old: cython.longlong = states[at]
    if old == kind and (old == UNKNOWN or (states[at + 1] == a and states[at + 2] == b)):
        return False
    if old == MERGED and states[at + 1] == row:
        return False
    # Null gives way to a pointer; a number does not.
    if (
        kind == CONSTANT
        and a == 0
        and old not in (STACK, UNKNOWN)
        and (old != CONSTANT or states[at + 1] < 0)
    ):
        return False
    if old == POINTER and kind == CONSTANT and a < 0:
        return False
    if (
        old == CONSTANT
        and (states[at + 1] == 0 or (states[at + 1] < 0 and kind == POINTER))
        and kind not in (STACK, UNKNOWN)
        and (kind != CONSTANT or a < 0)
    ):
        states[at] = kind
        states[at + 1] = a
        states[at + 2] = b
        return True
    if _may_be_code(old, states[at + 1]) or _may_be_code(kind, a):
        states[at] = MERGED
        states[at + 1] = row
        states[at + 2] = place
        return True
    states[at] = UNKNOWN
    return old != UNKNOWN


@cython.cfunc
def _meet(
    states: cython.longlong[::1], start: cython.int, state: cython.longlong[::1], row: cython.int
) -> cython.bint:
    """Keep at `start` what holds on both paths that come to a row; whether that has changed."""
    at: cython.int
    other: cython.int
    changed: cython.bint = False
    if state[ESCAPED] > states[start + ESCAPED]:
        states[start + ESCAPED] = state[ESCAPED]
        changed = True
    for at in range(0, 3 * REGISTERS, 3):
        if _meet_value(states, start + at, state[at], state[at + 1], state[at + 2], row, at):
            changed = True
    for at in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
        if states[start + at + 1] == UNKNOWN:
            continue
        other = _slot(state, states[start + at])
        if other < 0:
            if _meet_value(states, start + at + 1, UNKNOWN, 0, 0, row, SLOTS + states[start + at]):
                changed = True
        elif _meet_value(
            states, start + at + 1, state[other + 1], state[other + 2], state[other + 3], row,
            SLOTS + states[start + at],
        ):  # fmt: skip
            changed = True
    return changed


@cython.cfunc
@cython.inline
def _record(
    records: cython.longlong[:, ::1],
    count: cython.int,
    row: cython.longlong,
    sink: cython.longlong,
    sink_a: cython.longlong,
    sink_b: cython.longlong,
    kind: cython.longlong,
    a: cython.longlong,
    b: cython.longlong,
) -> cython.int:
    if count < records.shape[0]:
        records[count, 0] = row
        records[count, 1] = sink
        records[count, 2] = sink_a
        records[count, 3] = sink_b
        records[count, 4] = kind
        records[count, 5] = a
        records[count, 6] = b
    return count + 1


@cython.cfunc
def _flow_into(
    records: cython.longlong[:, ::1],
    count: cython.int,
    row: cython.int,
    expected: cython.longlong,
    sink: cython.longlong,
    sink_a: cython.longlong,
    sink_b: cython.longlong,
    state: cython.longlong[::1],
    at: cython.int,
    kind: cython.const[cython.uchar][::1],
    link: cython.const[cython.int][::1],
    several: cython.longlong = 0,
) -> cython.int:
    """Record the value at `state[at]` going where type `expected` stands (0: not known what stands there;
    `several`: one of several function pointers of a union)."""
    value: cython.longlong = state[at]
    goal: cython.longlong = link[expected] if kind[expected] == BTF_PTR else 0
    if sink == FIELD and sink_a == 0:  # through a pointer to a pointer: in no struct that is known
        sink = LOOSE
    if kind[goal] == BTF_FUNC_PROTO or several:
        if value != CONSTANT or state[at + 1] < 0:
            return _record(records, count, row, sink, sink_a, sink_b, value, state[at + 1], state[at + 2])
    elif value == CONSTANT and state[at + 1] < 0:
        if kind[goal] == BTF_STRUCT or kind[goal] == BTF_UNION or kind[goal] == BTF_PTR:
            return _record(records, count, row, OBJECT, goal, 0, value, state[at + 1], 0)
        return _record(records, count, row, LOOSE, sink_a if sink == LOOSE else 0, 0, value, state[at + 1], 0)
    elif value == ORIGIN:
        if kind[goal] == BTF_STRUCT or kind[goal] == BTF_UNION:
            if state[at + 2] == 0:
                return _record(records, count, row, TYPED, goal, 0, value, state[at + 1], 0)
            return _record(records, count, row, EMBEDS, state[at + 1], state[at + 2], POINTER, goal, 0)
    elif value == GLOBAL and state[at + 2] == 0 and (kind[goal] == BTF_STRUCT or kind[goal] == BTF_UNION):
        return _record(records, count, row, TYPED, goal, 0, GLOBAL, state[at + 1], 0)
    elif value in (FIELD, GLOBAL, PARAMETER, RESULT, MERGED) and expected == 0:
        # A copy in a member or a parameter that is no function pointer (what is traced, say) is not called:
        # whatever is read from there again is unknown.
        return _record(
            records, count, row, LOOSE, sink_a if sink == LOOSE else 0, 0, value, state[at + 1], state[at + 2]
        )
    return count


@cython.cfunc
def _arrive(
    counts: cython.int[::1],
    remembered: cython.int[::1],
    states: cython.longlong[::1],
    queue: cython.int[::1],
    rows_of: cython.int[::1],
    queued: cython.int[::1],
    row: cython.int,
    state: cython.longlong[::1],
) -> cython.void:
    """A path comes to a row where paths meet: go on from there if that brings anything new.

    With too many such rows in one function the path ends: what lies behind has no record.
    """
    i: cython.int
    place: cython.int = remembered[row]
    if place < 0:
        place = counts[0]
        if place >= STATE_LIMIT:
            return
        counts[0] += 1
        remembered[row] = place
        rows_of[place] = row
        queued[place] = 0
        for i in range(STATE_SIZE):
            states[place * STATE_SIZE + i] = state[i]
    elif not _meet(states, place * STATE_SIZE, state, row):
        return
    if not queued[place]:
        queued[place] = 1
        queue[counts[1]] = place
        counts[1] += 1


@cython.cfunc
def _leave(
    records: cython.longlong[:, ::1],
    count: cython.int,
    remembered: cython.int[::1],
    states: cython.longlong[::1],
    row: cython.int,
    state: cython.longlong[::1],
) -> cython.int:
    """Record what goes into the values that are merged at a row."""
    start: cython.int = remembered[row] * STATE_SIZE
    at: cython.int
    other: cython.int
    if start < 0:
        return count
    for at in range(0, 3 * REGISTERS, 3):
        if states[start + at] == MERGED and states[start + at + 1] == row:
            if state[at] != MERGED or state[at + 1] != row:
                count = _record(
                    records, count, row, MERGED, row, states[start + at + 2], state[at], state[at + 1],
                    state[at + 2],
                )  # fmt: skip
    for at in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
        if states[start + at + 1] == MERGED and states[start + at + 2] == row:
            other = _slot(state, states[start + at])
            if other < 0:
                count = _record(records, count, row, MERGED, row, states[start + at + 3], UNKNOWN, 0, 0)
            elif state[other + 1] != MERGED or state[other + 2] != row:
                count = _record(
                    records, count, row, MERGED, row, states[start + at + 3], state[other + 1],
                    state[other + 2], state[other + 3],
                )  # fmt: skip
    return count


@cython.cfunc
@cython.inline
def _found(
    state: cython.longlong[::1], at: cython.int, origin: cython.int, types: cython.const[cython.int][::1]
) -> cython.void:
    """A pointer of unknown type turns up: its type is what its uses tell, or else it is an ORIGIN."""
    if types[origin] > 0:
        state[at] = POINTER
        state[at + 1] = types[origin]
    else:
        state[at] = ORIGIN
        state[at + 1] = origin
    state[at + 2] = 0


@cython.cfunc
@cython.inline
def _escape(state: cython.longlong[::1], depth: cython.longlong) -> cython.void:
    """The address of that depth is known elsewhere: what lies above it in memory may change in any call."""
    if depth > state[ESCAPED]:
        state[ESCAPED] = depth


@cython.cfunc
def _after_call(
    records: cython.longlong[:, ::1],
    count: cython.int,
    emit: cython.int,
    row: cython.int,
    state: cython.longlong[::1],
) -> cython.int:
    """Numbers and function pointers in objects whose address is known elsewhere may change in a call."""
    at: cython.int
    place: cython.longlong
    for at in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
        if state[at] > state[ESCAPED] or state[at + 1] in (UNKNOWN, POINTER, ORIGIN, STACK):
            continue
        if not _may_be_code(state[at + 1], state[at + 2]):
            state[at + 1] = UNKNOWN
            continue
        place = SLOTS + state[at]
        if emit:
            count = _record(
                records, count, row, MERGED, row, place, state[at + 1], state[at + 2], state[at + 3]
            )
            count = _record(records, count, row, MERGED, row, place, CHANGED, 0, 0)
        state[at + 1] = MERGED
        state[at + 2] = row
        state[at + 3] = place
    return count


@cython.cfunc
def _variable(table: cython.const[cython.longlong][::1], address: cython.longlong) -> cython.int:
    """The last entry of an ascending table that is not above the address, or -1."""
    low: cython.int = 0
    high: cython.int = cython.cast(cython.int, table.shape[0])
    middle: cython.int
    while low < high:
        middle = (low + high) // 2
        if table[middle] <= address:
            low = middle + 1
        else:
            high = middle
    return low - 1


@cython.cfunc
@cython.inline
def _in_variable(
    leaf: cython.longlong[::1],
    table: cython.const[cython.longlong][::1],
    types: cython.const[cython.int][::1],
    address: cython.longlong,
    kind: cython.const[cython.uchar][::1],
    named: cython.const[cython.uchar][::1],
    link: cython.const[cython.int][::1],
    size: cython.const[cython.longlong][::1],
    part_first: cython.const[cython.longlong][::1],
    part_at: cython.const[cython.longlong][::1],
    part_type: cython.const[cython.int][::1],
) -> cython.bint:
    """As `_member`, of the variable of an ascending table that lies at an address."""
    at: cython.int = _variable(table, address)
    return at >= 0 and _member(
        leaf, types[at], address - table[at], kind, named, link, size, part_first, part_at, part_type
    )


@cython.cfunc
def _load(
    leaf: cython.longlong[::1],
    state: cython.longlong[::1],
    address_kind: cython.longlong,
    address_a: cython.longlong,
    address_b: cython.longlong,
    kind: cython.const[cython.uchar][::1],
    named: cython.const[cython.uchar][::1],
    link: cython.const[cython.int][::1],
    size: cython.const[cython.longlong][::1],
    part_first: cython.const[cython.longlong][::1],
    part_at: cython.const[cython.longlong][::1],
    part_type: cython.const[cython.int][::1],
    variable_at: cython.const[cython.longlong][::1],
    variable_type: cython.const[cython.int][::1],
    per_cpu_at: cython.const[cython.longlong][::1],
    per_cpu_type: cython.const[cython.int][::1],
) -> cython.void:
    """What a word at an address holds: a value in `leaf[4:7]`."""
    at: cython.int
    found: cython.bint = False
    leaf[4] = UNKNOWN
    leaf[5] = 0
    leaf[6] = 0
    if address_kind == STACK:
        at = _slot(state, address_a)
        if at >= 0:
            leaf[4] = state[at + 1]
            leaf[5] = state[at + 2]
            leaf[6] = state[at + 3]
        return
    if address_kind == POINTER:
        if kind[address_a] == BTF_STRUCT and (
            address_b < 0
            or (address_b >= size[address_a] and not _ends_open(address_a, kind, size, part_first, part_type))
        ):
            # Outside the struct: in whatever it is embedded in.
            leaf[4] = FIELD
            leaf[5] = address_a
            leaf[6] = address_b
            return
        found = _member(leaf, address_a, address_b, kind, named, link, size, part_first, part_at, part_type)
    elif address_kind == PER_CPU:
        found = _in_variable(
            leaf, per_cpu_at, per_cpu_type, address_a, kind, named, link, size, part_first, part_at, part_type
        )
    elif address_kind == CONSTANT and (address_a < 0 or address_b):
        found = _in_variable(
            leaf, variable_at, variable_type, address_a, kind, named, link, size, part_first, part_at,
            part_type,
        )  # fmt: skip
        if (
            not found
            or leaf[3]
            or (kind[leaf[0]] == BTF_PTR and kind[link[leaf[0]]] == BTF_FUNC_PROTO and not leaf[1])
        ):
            leaf[4] = GLOBAL
            leaf[5] = address_a
            leaf[6] = address_b
            return
    if not found or leaf[3]:
        return
    if leaf[0] == 0:
        leaf[4] = FIELD
        leaf[5] = leaf[1]
        leaf[6] = leaf[2]
    elif kind[leaf[0]] == BTF_PTR:
        if kind[link[leaf[0]]] == BTF_FUNC_PROTO:
            if leaf[1]:
                leaf[4] = FIELD
                leaf[5] = leaf[1]
                leaf[6] = leaf[2]
            else:
                leaf[4] = PROTOTYPE
                leaf[5] = link[leaf[0]]
        elif link[leaf[0]]:
            leaf[4] = POINTER
            leaf[5] = link[leaf[0]]


@cython.cfunc
def _stacked(
    records: cython.longlong[:, ::1],
    count: cython.int,
    row: cython.int,
    goal: cython.longlong,
    state: cython.longlong[::1],
    at: cython.int,
    leaf: cython.longlong[::1],
    kind: cython.const[cython.uchar][::1],
    named: cython.const[cython.uchar][::1],
    link: cython.const[cython.int][::1],
    size: cython.const[cython.longlong][::1],
    part_first: cython.const[cython.longlong][::1],
    part_at: cython.const[cython.longlong][::1],
    part_type: cython.const[cython.int][::1],
) -> cython.int:
    """A call is handed an object of type `goal` on this stack: the pointers in its slots go into its
    fields."""
    slot: cython.int
    offset: cython.longlong
    merged: cython.bint
    if kind[goal] != BTF_STRUCT and kind[goal] != BTF_UNION:
        for slot in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
            if state[slot] <= state[at + 1] and _may_be_code(state[slot + 1], state[slot + 2]):
                count = _record(
                    records, count, row, LOOSE, 0, 0, state[slot + 1], state[slot + 2], state[slot + 3]
                )
        return count
    for slot in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
        offset = state[at + 1] - state[slot]
        if state[slot + 1] != UNKNOWN and 0 <= offset < size[goal]:
            if _member(leaf, goal, offset, kind, named, link, size, part_first, part_at, part_type):
                if leaf[3] == 0:
                    merged = state[slot + 1] == MERGED and (
                        leaf[7] or (kind[leaf[0]] == BTF_PTR and kind[link[leaf[0]]] == BTF_FUNC_PROTO)
                    )
                    if merged:
                        state[slot + 1] = OWN
                    count = _flow_into(
                        records, count, row, leaf[0], FIELD, leaf[1], leaf[2], state, slot + 1, kind, link,
                        leaf[7],
                    )  # fmt: skip
                    if merged:
                        state[slot + 1] = MERGED
    return count


@cython.cfunc
def _told(
    records: cython.longlong[:, ::1],
    count: cython.int,
    emit: cython.int,
    row: cython.int,
    state: cython.longlong[::1],
    told_row: cython.const[cython.int][::1],
    told_place: cython.const[cython.int][::1],
    told_type: cython.const[cython.int][::1],
    told_offset: cython.const[cython.longlong][::1],
    kind: cython.const[cython.uchar][::1],
    size: cython.const[cython.longlong][::1],
) -> cython.int:
    """Debug information says what local variables point to at a row: take its word where nothing is known,
    and where the object is a larger one than was known of."""
    i: cython.int = _find(told_row, row)
    at: cython.int
    goal: cython.longlong
    offset: cython.longlong
    new: cython.longlong
    while i < told_row.shape[0] and told_row[i] == row:
        goal = told_type[i]
        offset = told_offset[i]
        new = PROTOTYPE if kind[goal] == BTF_FUNC_PROTO else POINTER
        if told_place[i] < REGISTERS:
            at = 3 * told_place[i]
        else:
            at = _slot(state, told_place[i] - TOLD_SLOT) + 1
        i += 1
        if new == PROTOTYPE and offset:
            continue
        if told_place[i - 1] < REGISTERS or at > 0:
            if state[at] == ORIGIN:
                if emit and state[at + 2] == offset and kind[goal] in (BTF_STRUCT, BTF_UNION):
                    count = _record(records, count, row, TYPED, goal, 0, ORIGIN, state[at + 1], 0)
            elif state[at] == POINTER:
                if (
                    kind[goal] != BTF_STRUCT
                    or size[goal] <= size[state[at + 1]]
                    or offset < state[at + 2]
                    or kind[state[at + 1]] == BTF_FUNC_PROTO
                ):
                    continue
            elif state[at] == FIELD or state[at] == GLOBAL or state[at] == MERGED:
                # From a union, a struct around the one at hand, several places: it need not be a function's.
                if kind[goal] != BTF_STRUCT and kind[goal] != BTF_UNION:
                    continue
            elif state[at] != UNKNOWN:
                continue
            state[at] = new
            state[at + 1] = goal
            state[at + 2] = offset
        else:
            _save(state, told_place[i - 1] - TOLD_SLOT, new, goal, offset)
    return count


@cython.cfunc
@cython.inline
def _argument(
    state: cython.longlong[::1],
    order: cython.const[cython.int][::1],
    number: cython.int,
    depth: cython.longlong,
    word: cython.int,
    sp: cython.int,
) -> cython.int:
    """Where in the state an argument is: in a register, or on the stack, whose first one lies at `depth`.
    What is not known is where the stack pointer would be, of which nothing is ever kept."""
    at: cython.int
    registers: cython.int = cython.cast(cython.int, order.shape[0])
    if number < registers:
        return 3 * order[number]
    at = _slot(state, depth - word * (number - registers))
    return at + 1 if at >= 0 else 3 * sp


@cython.cfunc
def _stored(
    records: cython.longlong[:, ::1],
    count: cython.int,
    emit: cython.bint,
    row: cython.int,
    state: cython.longlong[::1],
    t: cython.int,
    address_kind: cython.longlong,
    address_a: cython.longlong,
    address_b: cython.longlong,
    leaf: cython.longlong[::1],
    kind: cython.const[cython.uchar][::1],
    named: cython.const[cython.uchar][::1],
    link: cython.const[cython.int][::1],
    size: cython.const[cython.longlong][::1],
    part_first: cython.const[cython.longlong][::1],
    part_at: cython.const[cython.longlong][::1],
    part_type: cython.const[cython.int][::1],
    variable_at: cython.const[cython.longlong][::1],
    variable_type: cython.const[cython.int][::1],
    per_cpu_at: cython.const[cython.longlong][::1],
    per_cpu_type: cython.const[cython.int][::1],
) -> cython.int:
    """A word goes to an address: the value at `state[t]`, or nothing that is known where `t` is negative."""
    found: cython.bint = False
    if t >= 0 and state[t] == STACK:
        _escape(state, state[t + 1])
    if address_kind == STACK:
        if t < 0:
            _save(state, address_a, UNKNOWN, 0, 0)
            return count
        _save(state, address_a, state[t], state[t + 1], state[t + 2])
        if emit and state[t] == CONSTANT and state[t + 1] < 0:
            return _record(records, count, row, STACKED, address_a, 0, CONSTANT, state[t + 1], 0)
        return count
    if not emit or t < 0:
        return count
    if address_kind == CONSTANT and address_a < 0:
        if state[t] == CONSTANT and state[t + 1] >= 0:
            return count
        if _in_variable(
            leaf, variable_at, variable_type, address_a, kind, named, link, size, part_first, part_at,
            part_type,
        ):  # fmt: skip
            if leaf[1] and leaf[3] == 0:
                count = _flow_into(
                    records, count, row, leaf[0], FIELD, leaf[1], leaf[2], state, t, kind, link, leaf[7]
                )
        return _record(
            records, count, row, GLOBAL, address_a, address_b, state[t], state[t + 1], state[t + 2]
        )
    if address_kind == POINTER:
        found = _member(leaf, address_a, address_b, kind, named, link, size, part_first, part_at, part_type)
        if (
            not found
            and _may_be_code(state[t], state[t + 1])
            and kind[address_a] == BTF_STRUCT
            and (address_b < 0 or address_b >= size[address_a])
        ):
            # Outside the struct: in whatever it is embedded in.
            return _record(
                records, count, row, FIELD, address_a, address_b, state[t], state[t + 1], state[t + 2]
            )
    elif address_kind == PER_CPU:
        found = _in_variable(
            leaf, per_cpu_at, per_cpu_type, address_a, kind, named, link, size, part_first, part_at, part_type
        )
    if found and leaf[3] == 0:
        return _flow_into(
            records, count, row, leaf[0], FIELD, leaf[1], leaf[2], state, t, kind, link, leaf[7]
        )
    count = _flow_into(records, count, row, 0, LOOSE, 0, 0, state, t, kind, link)
    if address_kind == ORIGIN and (
        (state[t] == POINTER and state[t + 2] == 0) or (state[t] == CONSTANT and state[t + 1] < 0)
    ):
        return _record(records, count, row, HOLDS, address_a, address_b, state[t], state[t + 1], 0)
    return count


def follow_functions(
    work: cython.const[cython.int][::1],
    begin: cython.int,
    operation: cython.const[cython.uchar][::1],
    width: cython.const[cython.uchar][::1],
    register: cython.const[cython.uchar][::1],
    base: cython.const[cython.uchar][::1],
    index: cython.const[cython.uchar][::1],
    flags: cython.const[cython.uchar][::1],
    clobbers: cython.const[cython.uint][::1],
    displacement: cython.const[cython.int][::1],
    immediate: cython.const[cython.longlong][::1],
    address: cython.const[cython.longlong][::1],
    length: cython.const[cython.ushort][::1],
    target: cython.const[cython.int][::1],
    owner: cython.const[cython.int][::1],
    depth: cython.const[cython.int][::1],
    stack_kind: cython.const[cython.uchar][::1],
    marks: cython.const[cython.uchar][::1],
    first: cython.const[cython.int][::1],
    parent: cython.const[cython.int][::1],
    is_piece: cython.const[cython.uchar][::1],
    role: cython.const[cython.uchar][::1],
    thunk: cython.const[cython.uchar][::1],
    no_return: cython.const[cython.uchar][::1],
    prototype: cython.const[cython.int][::1],
    in_register: cython.const[cython.int][:, ::1],
    arguments: cython.const[cython.longlong][:, :, ::1],
    extra_row: cython.const[cython.int][::1],
    extra_to: cython.const[cython.int][::1],
    next_row: cython.const[cython.int][::1],
    next_to: cython.const[cython.int][::1],
    kind: cython.const[cython.uchar][::1],
    named: cython.const[cython.uchar][::1],
    link: cython.const[cython.int][::1],
    size: cython.const[cython.longlong][::1],
    part_first: cython.const[cython.longlong][::1],
    part_at: cython.const[cython.longlong][::1],
    part_type: cython.const[cython.int][::1],
    variable_at: cython.const[cython.longlong][::1],
    variable_type: cython.const[cython.int][::1],
    per_cpu_at: cython.const[cython.longlong][::1],
    per_cpu_type: cython.const[cython.int][::1],
    origin_type: cython.const[cython.int][::1],
    told_row: cython.const[cython.int][::1],
    told_place: cython.const[cython.int][::1],
    told_type: cython.const[cython.int][::1],
    told_offset: cython.const[cython.longlong][::1],
    listed: cython.const[cython.longlong][::1],
    order: cython.const[cython.int][::1],
    machine: cython.const[cython.longlong][::1],
    remembered: cython.int[::1],
    scratch: cython.longlong[::1],
    states: cython.longlong[::1],
    waiting: cython.int[::1],
    ends: cython.int[::1],
    records: cython.longlong[:, ::1],
) -> tuple[int, int]:
    """Follow the functions `work[begin:]` until the records are full; returns how many were followed, and the
    number of records. The first function's records not fitting, that is more than there is room for.

    Rows and functions as in track_functions(). `thunk`: register that an indirect thunk jumps through.
    `prototype`: BTF prototype of each function, 0 unknown; `in_register` (types.py) what its arguments are.
    `arguments`: functions × 8 × 3, what the argument registers hold at its entry where no prototype says
    it. Types (types.py): `kind`, `named`, `link`, `size` (bytes) and parts of each. Variables of known
    type, ascending: `variable_at` (address), `per_cpu_at` (bytes from the start of the per-CPU area).
    Debug information: `told_place`, at `told_row`, ascending, points to byte `told_offset` of an object of
    `told_type`; a place is a register, or TOLD_SLOT and the depth of a slot. `order`: registers of the
    arguments, the others are on the stack. `listed`: of rows that load or store several registers at once (or
    change their base register), those by order of memory, a byte each from the lowest; OTHERS: any that may
    be there besides, NONE: no more. `machine`: bytes of a pointer, and of a return address on the stack; how
    many general registers; the number of the stack pointer and of a result's; bits of those that a call need
    not keep; whether conditional moves take one of two registers; a register that always has one value (NONE:
    none does), and that value. Scratch: `remembered` per row, all -1
    (and so again afterwards), `scratch` (8 + 3 × STATE_SIZE), `states` (STATE_LIMIT of them), `waiting`
    (2 + 3 × STATE_LIMIT). `ends`: result, the number of records after each function of `work`.
    """
    leaf: cython.longlong[::1] = scratch[:8]
    state: cython.longlong[::1] = scratch[8 : 8 + STATE_SIZE]
    entry: cython.longlong[::1] = scratch[8 + STATE_SIZE : 8 + 2 * STATE_SIZE]
    fetched: cython.longlong[::1] = scratch[8 + 2 * STATE_SIZE :]
    n: cython.int = cython.cast(cython.int, operation.shape[0])
    count: cython.int = 0
    before: cython.int
    position: cython.int
    function: cython.int
    block: cython.int
    row: cython.int
    after: cython.int
    to: cython.int
    op: cython.int
    reg: cython.int
    b: cython.int
    w: cython.int
    i: cython.int
    j: cython.int
    s: cython.int
    g: cython.int
    t: cython.int
    mark: cython.int
    emit: cython.int
    call: cython.int
    going: cython.bint
    mask: cython.longlong
    one: cython.longlong = 1
    address_kind: cython.longlong
    address_a: cython.longlong
    address_b: cython.longlong
    value_kind: cython.longlong
    value_a: cython.longlong
    value_b: cython.longlong
    proto: cython.longlong
    member: cython.longlong
    number: cython.longlong
    done: cython.int
    below: cython.longlong
    registers: cython.int = cython.cast(cython.int, order.shape[0])
    word: cython.int = cython.cast(cython.int, machine[0])
    returned: cython.int = cython.cast(cython.int, machine[1])  # bytes of a return address on the stack
    last: cython.int = cython.cast(cython.int, machine[2])  # general registers
    sp: cython.int = cython.cast(cython.int, machine[3])
    result: cython.int = cython.cast(cython.int, machine[4])  # register of a function's result
    lost: cython.longlong = machine[5]  # registers that a call need not keep
    chooses: cython.bint = machine[6] != 0  # a conditional move takes one of two registers
    fixed: cython.int = cython.cast(cython.int, machine[7])  # register that always has one value, or NONE
    held: cython.longlong  # registers that a row loads or stores, a byte each
    both: cython.longlong  # registers that a row loads, with what they get in `fetched`
    maybe: cython.bint
    step: cython.longlong
    counts: cython.int[::1] = waiting[:2]  # places remembered, places to go on from
    queue: cython.int[::1] = waiting[2 : 2 + STATE_LIMIT]
    rows_of: cython.int[::1] = waiting[2 + STATE_LIMIT : 2 + 2 * STATE_LIMIT]  # row of each place remembered
    queued: cython.int[::1] = waiting[2 + 2 * STATE_LIMIT :]

    for position in range(begin, cython.cast(cython.int, work.shape[0])):
        function = work[position]
        before = count
        # --- What the arguments are.
        for i in range(STATE_SIZE):
            state[i] = 0
        proto = prototype[function]
        for j in range(MOST_ARGUMENTS):
            _found(leaf, 4, n + ARGUMENTS * function + j, origin_type)
            if arguments[function, j, 0]:
                for i in range(3):
                    leaf[4 + i] = arguments[function, j, i]
            number = in_register[proto, j] if proto else -1
            if number >= 0:
                member = part_type[number]
                if kind[member] == BTF_PTR and link[member]:
                    leaf[4] = POINTER
                    leaf[5] = link[member]
                    leaf[6] = 0
                    if kind[link[member]] == BTF_FUNC_PROTO:
                        leaf[4] = PARAMETER
                        leaf[5] = function
                        leaf[6] = j
            if j < registers:
                for i in range(3):
                    state[3 * order[j] + i] = leaf[4 + i]
            elif number >= 0:
                _save(state, -word * (j - registers), leaf[4], leaf[5], leaf[6])
        if fixed < REGISTERS:
            state[3 * fixed] = CONSTANT
            state[3 * fixed + 1] = machine[8]
        for i in range(STATE_SIZE):
            entry[i] = state[i]
        counts[0] = 0
        counts[1] = 0
        _arrive(counts, remembered, states, queue, rows_of, queued, first[function], state)
        done = 0
        emit = 0
        while True:
            # --- The next block: while values still change the last one put off, then each one, to record.
            if emit:
                if done >= counts[0]:
                    break
                block = done
                done += 1
            else:
                if counts[1] == 0:
                    emit = 1
                    count = _leave(records, count, remembered, states, first[function], entry)
                    continue
                counts[1] -= 1
                block = queue[counts[1]]
                queued[block] = 0
            row = rows_of[block]
            for i in range(STATE_SIZE):
                state[i] = states[block * STATE_SIZE + i]
            going = True
            s = 1  # the block's first row
            while going:
                mark = marks[row]
                if (mark & MARK_JOIN) and not s:
                    if not emit:
                        _arrive(counts, remembered, states, queue, rows_of, queued, row, state)
                    else:
                        count = _leave(records, count, remembered, states, row, state)
                    break
                s = 0
                op = operation[row]
                reg = register[row]
                b = base[row]
                w = width[row]
                if mark & MARK_EXTRA:
                    i = _find(extra_row, row)
                    while i < extra_row.shape[0] and extra_row[i] == row:
                        if not emit:
                            _arrive(counts, remembered, states, queue, rows_of, queued, extra_to[i], state)
                        else:
                            count = _leave(records, count, remembered, states, extra_to[i], state)
                        i += 1
                if mark & MARK_TOLD:
                    count = _told(
                        records, count, emit, row, state, told_row, told_place, told_type, told_offset, kind,
                        size,
                    )  # fmt: skip
                after = row + 1
                if mark & MARK_NEXT:
                    after = next_to[_find(next_row, row)]
                mask = clobbers[row]
                both = 0
                value_kind = UNKNOWN
                value_a = 0
                value_b = 0

                # --- The address of a memory operand, or of LEA.
                address_kind = UNKNOWN
                address_a = 0
                address_b = 0
                if (flags[row] & 1) or op in (LEA, LOAD, STORE, STORE_IMMEDIATE, STORE_MULTIPLE):
                    if flags[row] & 2 and word == 4:
                        # Per-CPU variables are linked where all others are.
                        if index[row] == NONE and (b == NONE or (b < REGISTERS and state[3 * b] == CONSTANT)):
                            address_kind = CONSTANT
                            address_a = displacement[row] + (state[3 * b + 1] if b < REGISTERS else 0)
                    elif flags[row] & 2:
                        if b == HERE:
                            address_kind = PER_CPU
                            address_a = address[row] + length[row] + displacement[row]
                        elif b == NONE and index[row] == NONE:
                            address_kind = PER_CPU
                            address_a = displacement[row]
                        elif b < REGISTERS and index[row] == NONE and state[3 * b] == POINTER:
                            # this_cpu_read(pointer->member): the pointer is a per-CPU one
                            address_kind = POINTER
                            address_a = state[3 * b + 1]
                            address_b = state[3 * b + 2] + displacement[row]
                        elif b < REGISTERS and index[row] == NONE and state[3 * b] == CONSTANT:
                            address_kind = PER_CPU
                            address_a = state[3 * b + 1] + displacement[row]
                    elif b == HERE:
                        address_kind = CONSTANT
                        address_a = address[row] + length[row] + displacement[row]
                    elif b == NONE:
                        address_kind = CONSTANT
                        address_a = displacement[row]
                        address_b = 1 if index[row] != NONE else 0
                    elif b == sp:
                        if stack_kind[row] == STACK_KNOWN and index[row] == NONE:
                            address_kind = STACK
                            address_a = depth[row] - displacement[row]
                    elif b < REGISTERS:
                        address_kind = state[3 * b]
                        address_a = state[3 * b + 1]
                        address_b = state[3 * b + 2]
                        if (
                            index[row] < REGISTERS
                            and state[3 * index[row]] == POINTER
                            and address_kind in (UNKNOWN, ORIGIN, GLOBAL)
                        ):
                            # A number plus a pointer.
                            address_kind = POINTER
                            address_a = state[3 * index[row] + 1]
                            address_b = state[3 * index[row] + 2]
                        if address_kind == POINTER or address_kind == ORIGIN:
                            address_b += displacement[row]
                        elif address_kind == STACK:
                            address_a -= displacement[row]
                            if index[row] != NONE:
                                address_kind = UNKNOWN
                        elif address_kind == CONSTANT or address_kind == PER_CPU:
                            address_a += displacement[row]
                            if index[row] != NONE:
                                address_b = 1
                        else:
                            address_kind = UNKNOWN
                        if address_kind in (UNKNOWN, ORIGIN) and displacement[row] < -SMALL:
                            # No object reaches as far: a number of bytes into the table at that address.
                            address_kind = CONSTANT
                            address_a = displacement[row]
                            address_b = 1

                # --- Effects.
                if op == MOVE:
                    if w == word and b == sp:
                        if stack_kind[row] == STACK_KNOWN:
                            value_kind = STACK
                            value_a = depth[row]
                    elif b < REGISTERS and (
                        w == word or (state[3 * b] == CONSTANT and state[3 * b + 1] >= 0)
                    ):
                        value_kind = state[3 * b]
                        value_a = state[3 * b + 1]
                        value_b = state[3 * b + 2]
                    mask = one << reg if reg < REGISTERS else mask
                elif op == MOVE_IMMEDIATE:
                    value_kind = CONSTANT
                    value_a = immediate[row]
                    mask = one << reg if reg < REGISTERS else mask
                elif op == LEA:
                    value_kind = address_kind
                    value_a = address_a
                    value_b = address_b
                    if w != word:
                        value_kind = UNKNOWN
                    elif index[row] != NONE:
                        # Steps over the elements of an array keep their type; a number plus a number is any.
                        if value_kind == CONSTANT and value_a >= 0:
                            value_kind = UNKNOWN
                    mask = one << reg if reg < REGISTERS else mask
                elif op == ADD_IMMEDIATE:
                    if reg < REGISTERS and reg != sp and w == word:
                        value_kind = state[3 * reg]
                        value_a = state[3 * reg + 1]
                        value_b = state[3 * reg + 2]
                        if value_kind == POINTER or value_kind == ORIGIN:
                            value_b += immediate[row]
                        elif value_kind == CONSTANT or value_kind == PER_CPU:
                            value_a += immediate[row]
                        elif value_kind == STACK:
                            value_a -= immediate[row]
                        else:
                            value_kind = UNKNOWN
                elif op == AND_IMMEDIATE:
                    # Flags in a pointer's low bits.
                    if (
                        reg < REGISTERS
                        and w == word
                        and -64 <= immediate[row] < 0
                        and state[3 * reg] in (POINTER, ORIGIN)
                    ):
                        value_kind = state[3 * reg]
                        value_a = state[3 * reg + 1]
                        value_b = state[3 * reg + 2]
                elif op == ADD:
                    # Plus a per-CPU offset: the pointer of this CPU's copy.
                    if reg < REGISTERS and reg != sp and w == word and (flags[row] & 1):
                        value_kind = state[3 * reg]
                        value_a = state[3 * reg + 1]
                        value_b = state[3 * reg + 2]
                        if value_kind == CONSTANT and (flags[row] & 2 or address_kind == CONSTANT):
                            value_kind = PER_CPU if word == 8 else CONSTANT
                            value_b = 0
                        elif value_kind != POINTER and value_kind != ORIGIN:
                            value_kind = UNKNOWN
                    elif (
                        reg < REGISTERS
                        and reg != sp
                        and b < REGISTERS
                        and w == word
                        and state[3 * b] == POINTER
                    ):
                        if state[3 * reg] in (UNKNOWN, ORIGIN, GLOBAL):  # a number plus a pointer
                            value_kind = POINTER
                            value_a = state[3 * b + 1]
                            value_b = state[3 * b + 2]
                    elif (
                        reg < REGISTERS
                        and reg != sp
                        and b < REGISTERS
                        and w == word
                        and state[3 * reg] == POINTER
                    ):
                        if state[3 * b] in (UNKNOWN, ORIGIN, GLOBAL):
                            value_kind = POINTER
                            value_a = state[3 * reg + 1]
                            value_b = state[3 * reg + 2]
                elif op == MOVE_CONDITIONAL and w == word and reg < REGISTERS and reg != sp:
                    if not (flags[row] & 1):
                        leaf[4] = CONSTANT  # of no register: zero
                        leaf[5] = 0
                        if b < REGISTERS:
                            for i in range(3):
                                leaf[4 + i] = state[3 * b + i]
                        if chooses and index[row] < REGISTERS:
                            for i in range(3):
                                state[3 * reg + i] = state[3 * index[row] + i]
                        elif chooses:
                            state[3 * reg] = CONSTANT
                            state[3 * reg + 1] = 0
                    else:
                        _load(
                            leaf, state, address_kind, address_a, address_b, kind, named, link, size,
                            part_first, part_at, part_type, variable_at, variable_type, per_cpu_at,
                            per_cpu_type,
                        )  # fmt: skip
                        if leaf[4] == UNKNOWN:
                            _found(leaf, 4, row, origin_type)
                    address_kind = state[3 * reg]
                    address_a = state[3 * reg + 1]
                    address_b = state[3 * reg + 2]
                    _meet_value(state, 3 * reg, leaf[4], leaf[5], leaf[6], row, 3 * reg + 1)
                    if emit and state[3 * reg] == MERGED and state[3 * reg + 1] == row:
                        if state[3 * reg + 2] == 3 * reg + 1:
                            count = _record(
                                records, count, row, MERGED, row, 3 * reg + 1, address_kind, address_a,
                                address_b,
                            )  # fmt: skip
                            count = _record(
                                records, count, row, MERGED, row, 3 * reg + 1, leaf[4], leaf[5], leaf[6]
                            )
                    address_kind = UNKNOWN
                    mask = 0
                elif op == LOAD:
                    mask = one << reg if reg < REGISTERS else mask
                    if w == word:
                        _load(
                            leaf, state, address_kind, address_a, address_b, kind, named, link, size,
                            part_first, part_at, part_type, variable_at, variable_type, per_cpu_at,
                            per_cpu_type,
                        )  # fmt: skip
                        value_kind = leaf[4]
                        value_a = leaf[5]
                        value_b = leaf[6]
                        if value_kind == UNKNOWN and reg < REGISTERS:
                            _found(leaf, 4, row, origin_type)
                            value_kind = leaf[4]
                            value_a = leaf[5]
                            value_b = leaf[6]
                            if emit and address_kind == ORIGIN:
                                count = _record(
                                    records, count, row, HOLDS, address_a, address_b, value_kind, value_a, 0
                                )
                elif (
                    op == EXCHANGE
                    and not (flags[row] & 1)
                    and reg < REGISTERS
                    and b < REGISTERS
                    and w == word
                ):
                    for i in range(3):
                        number = state[3 * reg + i]
                        state[3 * reg + i] = state[3 * b + i]
                        state[3 * b + i] = number
                    mask = 0
                elif op == EXCHANGE:
                    if emit and (flags[row] & 1) and reg < REGISTERS:
                        count = _flow_into(records, count, row, 0, LOOSE, 0, 0, state, 3 * reg, kind, link)
                elif op == POP:
                    if reg < REGISTERS:
                        mask = one << reg
                        if w == word and stack_kind[row] == STACK_KNOWN:
                            i = _slot(state, depth[row])
                            if i >= 0:
                                value_kind = state[i + 1]
                                value_a = state[i + 2]
                                value_b = state[i + 3]
                elif op == PUSH:
                    if stack_kind[row] == STACK_KNOWN:
                        if reg < REGISTERS and reg != sp and not (flags[row] & 1) and w == word:
                            _save(
                                state,
                                depth[row] + word,
                                state[3 * reg],
                                state[3 * reg + 1],
                                state[3 * reg + 2],
                            )
                        elif reg == NONE and not (flags[row] & 1):
                            _save(state, depth[row] + word, CONSTANT, immediate[row], 0)
                        else:
                            _save(state, depth[row] + word, UNKNOWN, 0, 0)
                    if emit and reg != sp and not (flags[row] & 1):
                        # To hand it over, or to keep a register.
                        value_a = immediate[row]
                        if reg < REGISTERS:
                            value_a = state[3 * reg + 1] if state[3 * reg] == CONSTANT else 0
                        if value_a < 0:
                            if stack_kind[row] == STACK_KNOWN:
                                count = _record(
                                    records, count, row, STACKED, depth[row] + word, 0, CONSTANT, value_a, 0
                                )
                            else:
                                count = _record(records, count, row, LOOSE, 0, 0, CONSTANT, value_a, 0)
                        value_a = 0
                    mask = 0

                # --- Several registers at once, in order of memory.
                if op == LOAD_MULTIPLE or op == STORE_MULTIPLE:
                    held = listed[row]
                    step = 0
                    for j in range(8):
                        i = cython.cast(cython.int, held >> 8 * j & 0xFF)
                        if i >= REGISTERS:
                            break
                        if op == STORE_MULTIPLE:
                            count = _stored(
                                records, count, emit, row, state, 3 * i if i != sp else -1, address_kind,
                                address_a - step if address_kind == STACK else address_a + step
                                if address_kind == CONSTANT else address_a,
                                address_b + step if address_kind in (POINTER, ORIGIN) else address_b,
                                leaf, kind, named, link, size, part_first, part_at, part_type, variable_at,
                                variable_type, per_cpu_at, per_cpu_type,
                            )  # fmt: skip
                            if flags[row] & CONDITIONAL and address_kind == STACK:
                                _save(state, address_a - step, UNKNOWN, 0, 0)
                        elif i != sp:
                            _load(
                                leaf, state, address_kind,
                                address_a - step if address_kind == STACK else address_a + step
                                if address_kind == CONSTANT else address_a,
                                address_b + step if address_kind in (POINTER, ORIGIN) else address_b,
                                kind, named, link, size, part_first, part_at, part_type, variable_at,
                                variable_type, per_cpu_at, per_cpu_type,
                            )  # fmt: skip
                            if i == reg:  # the base as well: it is read first
                                mask |= one << i
                            else:
                                fetched[3 * i] = leaf[4]
                                fetched[3 * i + 1] = leaf[5]
                                fetched[3 * i + 2] = leaf[6]
                                both |= one << i
                        step += word
                    if op == STORE_MULTIPLE and i == OTHERS:
                        if address_kind == STACK:
                            for i in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
                                if address_a - w < state[i] <= address_a - step:
                                    state[i + 1] = UNKNOWN
                        for i in range(8 if last == 16 else 0, last):
                            if i != sp and state[3 * i] == STACK:
                                _escape(state, state[3 * i + 1])
                            elif emit and i != sp:
                                count = _flow_into(
                                    records, count, row, 0, LOOSE, 0, 0, state, 3 * i, kind, link
                                )
                    if reg < REGISTERS and reg != sp and not (flags[row] & CONDITIONAL):  # the base moves on
                        value_kind = state[3 * reg]
                        value_a = state[3 * reg + 1]
                        value_b = state[3 * reg + 2]
                        if value_kind == POINTER or value_kind == ORIGIN:
                            value_b += immediate[row]
                        elif value_kind == CONSTANT:
                            value_a += immediate[row]
                        elif value_kind == STACK:
                            value_a -= immediate[row]
                        else:
                            value_kind = UNKNOWN

                if op == COPY and emit and flags[row] & 4:
                    # Of whole objects: one is of the type that the other is of.
                    for i in range(2):
                        t = 3 * SI if i else 3 * DI
                        j = 3 * DI if i else 3 * SI
                        if (
                            state[t] == CONSTANT
                            and state[t + 1] < 0
                            and state[j] == POINTER
                            and state[j + 2] == 0
                        ):
                            count = _record(
                                records, count, row, OBJECT, state[j + 1], 0, CONSTANT, state[t + 1], 0
                            )
                    if state[3 * DI] == CONSTANT and state[3 * DI + 1] < 0 and state[3 * SI] == CONSTANT:
                        count = _record(
                            records, count, row, COPIED, state[3 * DI + 1], 0, CONSTANT, state[3 * SI + 1],
                            w * state[3 * CX + 1] if state[3 * CX] == CONSTANT else 0,
                        )  # fmt: skip

                # --- Stores, and the value that goes there.
                if op == STORE or op == STORE_IMMEDIATE:
                    if op == STORE:
                        t = 3 * reg if reg < REGISTERS and reg != sp and w == word else -1
                    else:
                        # The immediate takes the place of a register that is not there.
                        t = 3 * sp
                        state[t] = CONSTANT if w == word else UNKNOWN
                        state[t + 1] = immediate[row]
                        state[t + 2] = 0
                    count = _stored(
                        records, count, emit and w == word, row, state, t, address_kind, address_a, address_b,
                        leaf, kind, named, link, size, part_first, part_at, part_type, variable_at,
                        variable_type, per_cpu_at, per_cpu_type,
                    )  # fmt: skip
                    if op == STORE_IMMEDIATE:
                        state[3 * sp] = UNKNOWN
                    mask = 0

                # --- Calls and jumps that leave the function.
                call = 0  # 1 a call, 2 a jump
                g = -1  # the callee
                maybe = flags[row] & CONDITIONAL != 0
                if op in (CALL, CALL_INDIRECT):
                    t = target[row] if op == CALL else -1
                    g = owner[t] if t >= 0 else -1
                    if t >= 0 and role[g] == ROLE_NOP and first[g] == t:
                        pass
                    elif t >= 0 and first[g] != t and (g == function or parent[g] == function or is_piece[g]):
                        if not emit:
                            # An internal call; what is known on the stack lies at other depths there.
                            for i in range(SLOTS, SLOTS + 4 * SLOT_COUNT, 4):
                                state[i + 1] = UNKNOWN
                            _arrive(counts, remembered, states, queue, rows_of, queued, t, state)
                        if after < n and operation[after] == BREAKPOINT:
                            going = False
                    else:
                        call = 1
                        if t >= 0 and first[g] == t:
                            going = maybe or not no_return[g]
                elif op in (JUMP, JUMP_CONDITIONAL):
                    t = target[row]
                    g = owner[t] if t >= 0 else -1
                    if t >= 0 and role[g] == ROLE_RETURN and first[g] == t:
                        going = op == JUMP_CONDITIONAL
                        call = 3
                    elif t >= 0 and role[g] == ROLE_INDIRECT:
                        call = 2
                        going = op == JUMP_CONDITIONAL
                    elif t < 0 or (
                        first[g] == t and g != function and parent[g] != function and not is_piece[g]
                    ):
                        call = 2
                        going = op == JUMP_CONDITIONAL
                    else:
                        if not emit:
                            _arrive(counts, remembered, states, queue, rows_of, queued, t, state)
                        else:
                            count = _leave(records, count, remembered, states, t, state)
                        going = op == JUMP_CONDITIONAL
                elif op == JUMP_INDIRECT:
                    call = 0 if mark & MARK_SWITCH else 2
                    going = maybe
                elif op == RETURN:
                    call = 3
                    going = maybe
                elif op in (INTERRUPT_RETURN, SYSTEM_RETURN, FAR_JUMP, BAD):
                    going = maybe
                elif op == UNDEFINED:
                    going = maybe or mark & MARK_CONTINUES != 0
                elif op == BREAKPOINT:
                    going = length[row] == 1 and after < n and owner[after] == owner[row]

                if call == 2 and emit and proto and kind[link[proto]] == BTF_PTR:
                    if kind[link[link[proto]]] == BTF_FUNC_PROTO:
                        count = _record(
                            records, count, row, RESULT, function, 0, RESULT if g >= 0 else UNKNOWN, g, 0
                        )
                if call == 3:
                    member = link[proto] if proto else 0
                    # Of a function that returns nothing, or less than a pointer, no one reads it.
                    if emit and (not proto or (member and size[member] >= word)):
                        count = _flow_into(
                            records, count, row, member, RESULT, function, 0, state, 3 * result, kind, link
                        )
                elif call:
                    member = -1  # the callee's prototype
                    if op in (CALL_INDIRECT, JUMP_INDIRECT) or (g >= 0 and role[g] == ROLE_INDIRECT):
                        # --- The target as a value.
                        if g >= 0:
                            i = thunk[g]
                            if i < REGISTERS:
                                value_kind = state[3 * i]
                                value_a = state[3 * i + 1]
                                value_b = state[3 * i + 2]
                        elif flags[row] & 1:
                            _load(
                                leaf, state, address_kind, address_a, address_b, kind, named, link, size,
                                part_first, part_at, part_type, variable_at, variable_type, per_cpu_at,
                                per_cpu_type,
                            )  # fmt: skip
                            value_kind = leaf[4]
                            value_a = leaf[5]
                            value_b = leaf[6]
                            if value_kind == UNKNOWN and address_kind == ORIGIN:
                                value_kind = ORIGIN
                                value_a = row
                                if emit:
                                    count = _record(
                                        records, count, row, HOLDS, address_a, address_b, ORIGIN, row, 0
                                    )
                        elif b < REGISTERS:
                            value_kind = state[3 * b]
                            value_a = state[3 * b + 1]
                            value_b = state[3 * b + 2]
                        g = -1
                        if emit:
                            count = _record(
                                records, count, row, SITE, function, address_b if flags[row] & 1 else 0,
                                value_kind, value_a, value_b,
                            )  # fmt: skip
                        member = 0
                        if value_kind == FIELD:
                            if _member(
                                leaf, value_a, value_b, kind, named, link, size, part_first, part_at,
                                part_type,
                            ) and kind[leaf[0]] == BTF_PTR:  # fmt: skip
                                member = link[leaf[0]]
                        elif value_kind == PARAMETER:
                            if in_register[prototype[value_a], value_b] >= 0:
                                number = part_type[in_register[prototype[value_a], value_b]]
                                if kind[number] == BTF_PTR:
                                    member = link[number]
                        elif value_kind == RESULT:
                            member = link[link[prototype[value_a]]]
                        elif value_kind == PROTOTYPE:
                            member = value_a
                        if kind[member] != BTF_FUNC_PROTO:
                            member = 0
                        if (
                            emit
                            and value_kind == FIELD
                            and member == 0
                            and (value_b < 0 or value_b >= size[value_a])
                        ):
                            for j in range(registers):
                                t = 3 * order[j]
                                if state[t] == POINTER and state[t + 2] == 0:
                                    count = _record(
                                        records, count, row, HANDED, j, 0, POINTER, state[t + 1], 0
                                    )
                    elif g >= 0:
                        member = prototype[g]
                    if emit:
                        # A jump leaves the return address where it is, above the arguments.
                        below = depth[row] - returned if call == 2 else depth[row]
                        for j in range(MOST_ARGUMENTS):
                            t = 3 * sp
                            if j < registers or stack_kind[row] == STACK_KNOWN:
                                t = _argument(state, order, j, below, word, sp)
                            number = in_register[member, j] if member > 0 else -1
                            if number >= 0:
                                to = part_type[number]
                                if state[t] == STACK:
                                    count = _stacked(
                                        records, count, row, link[to] if kind[to] == BTF_PTR else 0, state, t,
                                        leaf, kind, named, link, size, part_first, part_at, part_type,
                                    )  # fmt: skip
                                elif g >= 0:
                                    count = _flow_into(
                                        records, count, row, to, PARAMETER, g, j, state, t, kind, link
                                    )
                                if state[t] != STACK and (g < 0 or role[g] == ROLE_TRAMPOLINE):
                                    count = _flow_into(
                                        records, count, row, to, PASSED, member, j, state, t, kind, link
                                    )
                                if g >= 0 and not (kind[to] == BTF_PTR and link[to]):
                                    count = _record(
                                        records, count, row, ARGUMENT, g, j, state[t], state[t + 1],
                                        state[t + 2],
                                    )  # fmt: skip
                            elif number == -3 and state[t] != CONSTANT and state[t] != STACK:
                                # One of any number of arguments: it is printed.
                                if g >= 0:
                                    count = _record(
                                        records, count, row, ARGUMENT, g, j, state[t], state[t + 1],
                                        state[t + 2],
                                    )  # fmt: skip
                            elif (member <= 0 and j < registers) or number <= -2:
                                # No prototype, or a part of a struct, or one of any number of arguments.
                                if g >= 0:
                                    count = _record(
                                        records, count, row, ARGUMENT, g, j, state[t], state[t + 1],
                                        state[t + 2],
                                    )  # fmt: skip
                                if state[t] == STACK:
                                    count = _stacked(
                                        records, count, row, 0, state, t, leaf, kind, named, link, size,
                                        part_first, part_at, part_type,
                                    )  # fmt: skip
                                else:
                                    count = _flow_into(
                                        records, count, row, 0, LOOSE, 1 if g < 0 and member == 0 else 0, 0,
                                        state, t, kind, link,
                                    )  # fmt: skip
                    if call == 1:
                        for j in range(registers):
                            if state[3 * order[j]] == STACK:
                                _escape(state, state[3 * order[j] + 1])
                        if state[ESCAPED]:
                            count = _after_call(records, count, emit, row, state)
                        for i in range(last):
                            if lost >> i & 1:
                                state[3 * i] = UNKNOWN
                        mask = 0
                        _found(state, 3 * result, row, origin_type)
                        if maybe:  # or what was there before
                            state[3 * result] = UNKNOWN
                        elif member > 0:
                            number = link[member]
                            if kind[number] == BTF_PTR:
                                number = link[number]
                                if kind[number] == BTF_FUNC_PROTO:
                                    state[3 * result] = RESULT if g >= 0 else PROTOTYPE
                                    state[3 * result + 1] = g if g >= 0 else number
                                    state[3 * result + 2] = 0
                                elif number:
                                    state[3 * result] = POINTER
                                    state[3 * result + 1] = number
                                    state[3 * result + 2] = 0
                elif mask:
                    for i in range(last):
                        if mask >> i & 1:
                            state[3 * i] = UNKNOWN
                if both:
                    for i in range(last):
                        if both >> i & 1:
                            state[3 * i] = fetched[3 * i]
                            state[3 * i + 1] = fetched[3 * i + 1]
                            state[3 * i + 2] = fetched[3 * i + 2]
                if not call and value_kind != UNKNOWN and reg < REGISTERS and (mask >> reg & 1):
                    state[3 * reg] = value_kind
                    state[3 * reg + 1] = value_a
                    state[3 * reg + 2] = value_b
                if op == JUMP_CONDITIONAL and clobbers[row]:
                    state[3 * CX] = UNKNOWN
                if not going:
                    break
                # --- On to the next row; into the next function it is a tail call.
                if after >= n or after < 0:
                    break
                to = owner[after]
                if (
                    first[to] == after
                    and to != function
                    and owner[row] != to
                    and parent[to] != function
                    and not is_piece[to]
                ):
                    break
                row = after
        for i in range(counts[0]):
            remembered[rows_of[i]] = -1
        if count > records.shape[0]:
            if position == begin:
                return 0, count
            return position - begin, before
        ends[position] = count
    return cython.cast(cython.int, work.shape[0]) - begin, count
