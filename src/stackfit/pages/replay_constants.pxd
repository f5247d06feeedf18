# Numbers of the compiled replay, as C constants; replay_constants.py has the same for uncompiled runs.

cdef enum:
    ALLOC = 1
    FREE = 2
    TAKE = 3
    DRAIN = 4
    RETURN = 5
    ISOLATE = 6
    SCAN = 7
    COMPACT = 8
    MARK = 9

cdef enum:
    PAST_LISTS = 0
    COMPACTED = 1
    UNKNOWN_RETURN = 2
    UNKNOWN_TAKE = 3
    INSIDE = 4
    OUTSIDE = 5
    CAUSES = 6

cdef enum:
    TAKEN = 0
    RETURNED = 1
    SCANNED = 2
    PROBLEMS = 3
    CAUSE_EVENTS = 4
    CAUSE_PAGES = 10
    COUNTERS = 16
