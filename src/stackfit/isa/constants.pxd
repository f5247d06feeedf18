# Numbers that the compiled modules share, as C constants; constants.py has the same for uncompiled runs and
# says what they mean. tests/isa/test_constants.py holds the two files together.

cdef enum:
    OTHER = 0
    PUSH = 1
    POP = 2
    ADD_IMMEDIATE = 3
    MOVE = 4
    LEA = 5
    AND_IMMEDIATE = 6
    LOAD = 7
    STORE = 8
    CALL = 9
    CALL_INDIRECT = 10
    JUMP = 11
    JUMP_INDIRECT = 12
    JUMP_CONDITIONAL = 13
    RETURN = 14
    INTERRUPT_RETURN = 15
    UNDEFINED = 16
    BREAKPOINT = 17
    INTERRUPT = 18
    HALT = 19
    SYSTEM_CALL = 20
    SYSTEM_RETURN = 21
    LEAVE = 22
    ENTER = 23
    PUSH_ALL = 24
    POP_ALL = 25
    PUSH_FLAGS = 26
    POP_FLAGS = 27
    EXCHANGE = 28
    SUBTRACT = 29
    COMPARE_IMMEDIATE = 30
    MOVE_IMMEDIATE = 31
    STORE_IMMEDIATE = 32
    ADD = 33
    TEST = 34
    LOAD_NARROW = 35
    SHIFT_LEFT = 36
    SHIFT_RIGHT = 37
    FAR_JUMP = 38
    NOP = 39
    BAD = 40
    COMPARE = 41
    LOAD_MULTIPLE = 42
    STORE_MULTIPLE = 43
    INSERT_IMMEDIATE = 44
    SUBTRACT_REGISTERS = 45
    ALIGN = 46
    MOVE_CONDITIONAL = 47
    READ_SPECIAL = 48
    WRITE_SPECIAL = 49
    COPY = 50

cdef enum:
    HAS_MODRM = 1
    IMM8 = 2
    IMMZ = 4
    TO_REG = 8
    TO_RM = 16
    RESERVED = 32
    RESERVED_64 = 64
    VECTOR = 256

cdef enum:
    AX = 0
    CX = 1
    DX = 2
    BX = 3
    SP = 4
    BP = 5
    SI = 6
    DI = 7
    R11 = 11
    RIP = 16
    NONE = 255

cdef enum:
    MEMORY = 1
    CONDITIONAL = 8
    FLOATING = 16

cdef enum:
    CODE = 0
    THUMB = 1
    DATA = 2
    COMPACT = 3
