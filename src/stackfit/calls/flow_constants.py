"""Numbers of the compiled propagation of types as plain integers: the same as in `flow_constants.pxd` for
Cython.

Compiled, a name from the `.pxd` is a C constant; uncompiled, flow.py imports it from here.
"""

from __future__ import annotations

from stackfit.image.btf import Kind

# What a register or a stack slot holds: a kind and two numbers.
UNKNOWN = 0
POINTER = 1  # to byte `b` of an object of type `a`
FIELD = 2  # the function pointer in field (struct `a`, byte `b`)
GLOBAL = 3  # the function pointer at address `a`; `b` = 1: an element of the table there
PARAMETER = 4  # the function pointer that is parameter `b` of function `a`
RESULT = 5  # the function pointer that function `a` returns
PROTOTYPE = 6  # a function pointer of which only the prototype `a` is known
CONSTANT = 7  # the number `a`
STACK = 8  # the address of depth `a` in this frame
PER_CPU = 9  # a per-CPU address: `a` bytes from the start of the per-CPU area
MERGED = 20  # one of the values that meet at row `a` in place `b` (a register's, or a slot's depth and SLOTS)
ORIGIN = 21  # `b` bytes behind what was found at row `a`, or in an argument (see ARGUMENTS): of unknown type

# Values of records alone.
CHANGED = 22  # what a call puts there that knows the address: into that field, through a pointer of its type
OWN = 23  # as MERGED, in an object that goes to a call: what a call has changed is in that very field already

SMALL = 1 << 20  # bytes: offsets up to that are not taken for addresses

# A state: REGISTERS registers, then SLOT_COUNT stack slots of four numbers: depth, kind, a, b.
REGISTERS = 16
SLOTS = 48
SLOT_COUNT = 16
NEXT_SLOT = 112
ESCAPED = 113  # the greatest depth whose address is known outside the function
STATE_SIZE = 114
STATE_LIMIT = 16384  # places of one function where paths meet

# Records: row, sink, two numbers that name it, then the value that flows there: kind, a, b. The sinks below
# PARAMETER have a value's kind as their number.
SITE = 0  # an indirect call: its target is the value
PASSED = 10  # parameter `b` of the prototype `a`, in an indirect call
OBJECT = 11  # a pointer to type `a` is what is expected where the value goes
LOOSE = 12  # nothing is known of where the value goes; `a` = 1: into a parameter, of an unknown prototype
STACKED = 13  # a stack slot at depth `a`
ARGUMENT = 14  # argument `b` of function `a`, of which no prototype is known
HANDED = 15  # argument `a` of an indirect call to outside a struct
TYPED = 16  # a pointer to type `a` is expected where an ORIGIN goes
HOLDS = 17  # byte `b` of the ORIGIN `a` holds the value
EMBEDS = 18  # an object of the type that the value points to is expected at byte `b` of the ORIGIN `a`
COPIED = 19  # the object at address `a` is made a copy of the one at the value's `a`, of `b` bytes or 0
RECORD_SIZE = 7
MOST_ARGUMENTS = 6
ARGUMENTS = 8  # origins of arguments are numbered behind the rows: rows + ARGUMENTS × function + argument

# BTF kinds, by name.
BTF_PTR = int(Kind.PTR)
BTF_ARRAY = int(Kind.ARRAY)
BTF_STRUCT = int(Kind.STRUCT)
BTF_UNION = int(Kind.UNION)
BTF_FUNC_PROTO = int(Kind.FUNC_PROTO)

# Marks of rows, roles of functions: those of frames/constants.py, by other names.
MARK_EXTRA = 1
MARK_NEXT = 2
MARK_CONTINUES = 4
MARK_JOIN = 8
MARK_TOLD = 16  # debug information says what a variable points to
TOLD_SLOT = 1 << 20  # a place of a variable: a register, or this and the depth of a slot
ROLE_RETURN = 1
ROLE_INDIRECT = 2
ROLE_NOP = 3
ROLE_TRAMPOLINE = 4  # of a static call: it may jump elsewhere too
STACK_KNOWN = 1
