from stackfit.pages.allocator_constants cimport *


cdef class Buddy:
    cdef readonly int pages
    cdef readonly int begin
    cdef readonly int end
    cdef readonly int block_order
    cdef readonly int steal
    cdef readonly bint tail_hint
    cdef readonly long long free
    cdef public long long boost
    cdef public long long boost_most
    cdef readonly long long stolen_blocks
    cdef readonly long long claimed_blocks
    cdef int[::1] after
    cdef int[::1] before
    cdef signed char[::1] head
    cdef signed char[::1] listed
    cdef unsigned char[::1] state
    cdef signed char[::1] block_type
    cdef long long[::1] count
    cdef long long[::1] free_of

    cdef void link_first(self, int node, int which) noexcept
    cdef void link_last(self, int node, int which) noexcept
    cdef void unlink(self, int node) noexcept
    cdef void _enlist(self, int page, int order, int migratetype, bint last) noexcept
    cdef void _delist(self, int page, int order) noexcept
    cpdef void put(self, int page, int order, int migratetype) except *
    cdef int _take_smallest(self, int order, int migratetype) noexcept
    cpdef int take(self, int order, int migratetype) except -3
    cdef int take_movable(self, int order) noexcept
    cdef void expand(self, int page, int low, int high, int migratetype) noexcept
    cdef bint _steal(self, int order, int migratetype) except -1
    cdef int _fallback(self, int order, int migratetype) noexcept
    cdef int _take_first(self, int order, int migratetype) except? -2
    cdef bint _can_claim(self, int order, int migratetype) noexcept
    cdef void _claim(self, int page, int order, int migratetype, bint whole) except *
    cpdef int move_blocks(self, int page, int end, int migratetype) except -1
    cpdef void take_at(self, int page) except *
