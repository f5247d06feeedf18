# Numbers of the compiled event loop, as C constants; interrupts_constants.py has the same for uncompiled runs.

cdef enum:
    HARD = 0
    NMI = 1
    EXCEPTION = 2
    CALLED = 3
    TYPE = 0
    REMAINS = 1
    STACK = 2
    DEPTH = 3
    ENTRY_STACK = 4
    ENTRY = 5
    NODE = 6
    COUNTED = 7
    COUNTED_TOO = 8
    COLUMNS = 9
    LEVELS = 24
    MOST_NESTED = 8
    DONE = 0
    NEEDS_RANDOM = 1
    NEEDS_NODES = 2

cdef extern from *:
    """
    #define FAR 4000000000000000000LL
    """
    const long long FAR
