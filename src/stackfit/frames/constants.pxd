# Numbers of the compiled tracker, as C constants; constants.py has the same for uncompiled runs and says what
# they mean. tests/isa/test_constants.py holds the two files together.

cdef enum:
    UNKNOWN = 0
    FRAME = 1
    NUMBER = 2
    SWITCHED = 3
    BELOW = 4
    CONSTANT = 5

cdef enum:
    VALUES = 32
    SLOTS = 64
    SLOT_COUNT = 8
    SWITCH_KIND = 88
    SWITCH_VALUE = 89
    NEXT_SLOT = 90
    JOINS = 91
    STATE_SIZE = 92
    STATE_LIMIT = 65536
    WAITING_LIMIT = 131072

cdef enum:
    DEPTH_LIMIT = 268435456
    ALLOCATION_LIMIT = 1048576
    WIDEN_NUMBERS = 16
    WIDEN_DEPTH = 64

cdef enum:
    EXTRA = 1
    NEXT = 2
    CONTINUES = 4
    JOIN = 8
    SWITCH = 16

cdef enum:
    RETURN_THUNK = 1
    INDIRECT_THUNK = 2
    RUNTIME_NOP = 3

cdef enum:
    SITE_CALL = 0
    SITE_TAIL = 1
    SITE_INDIRECT = 2
    SITE_INDIRECT_TAIL = 3

cdef enum:
    RETURNS = 1
    REALIGNED = 2
    BOUNDED = 4
    UNBOUNDED = 8
    SWITCHES = 16
    CONFLICT = 32
    GROWS = 64
    UNBALANCED = 128
    TOO_COMPLEX = 256
    LEAVES = 512
    UNDECODED = 1024
