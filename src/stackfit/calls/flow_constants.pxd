# Numbers of the compiled propagation of types, as C constants; flow_constants.py has the same for uncompiled runs
# and says what they mean. tests/isa/test_constants.py holds the two files together.

cdef enum:
    UNKNOWN = 0
    POINTER = 1
    FIELD = 2
    GLOBAL = 3
    PARAMETER = 4
    RESULT = 5
    PROTOTYPE = 6
    CONSTANT = 7
    STACK = 8
    PER_CPU = 9
    MERGED = 20
    ORIGIN = 21
    CHANGED = 22
    OWN = 23
    REGISTERS = 16
    SLOTS = 48
    SMALL = 1048576
    SLOT_COUNT = 16
    NEXT_SLOT = 112
    ESCAPED = 113
    STATE_SIZE = 114
    STATE_LIMIT = 16384
    SITE = 0
    PASSED = 10
    OBJECT = 11
    LOOSE = 12
    STACKED = 13
    ARGUMENT = 14
    HANDED = 15
    TYPED = 16
    HOLDS = 17
    EMBEDS = 18
    COPIED = 19
    RECORD_SIZE = 7
    MOST_ARGUMENTS = 6
    ARGUMENTS = 8
    MARK_EXTRA = 1
    MARK_NEXT = 2
    MARK_CONTINUES = 4
    MARK_JOIN = 8
    MARK_TOLD = 16
    TOLD_SLOT = 1048576
    ROLE_RETURN = 1
    ROLE_INDIRECT = 2
    ROLE_NOP = 3
    ROLE_TRAMPOLINE = 4
    STACK_KNOWN = 1


cdef enum:
    BTF_PTR = 2
    BTF_ARRAY = 3
    BTF_STRUCT = 4
    BTF_UNION = 5
    BTF_FUNC_PROTO = 13
