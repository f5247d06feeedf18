from stackfit.pages.allocator_constants cimport *
from stackfit.pages.buddy cimport Buddy

cdef class Zone(Buddy):
    cdef public str name
    cdef public long long managed
    cdef public long long minimum
    cdef public long long low
    cdef public long long high
    cdef public int watermark_rule
    cdef public bint mobility
    cdef public int per_cpu_orders
    cdef public int per_cpu_high
    cdef public int per_cpu_batch
    cdef public bint per_cpu_scaled
    cdef public bint working_set
    cdef public bint reclaim_active
    cdef public long long age
    cdef long long[::1] evicted_at
    cdef unsigned char[::1] evicted_settled
    cdef int[::1] family
    cdef int[::1] written
    cdef int written_count
    cdef readonly int per_cpu_count
    cdef int free_factor
    cdef readonly long long highatomic_pages
    cdef readonly long long splits
    cdef long long[::1] protection
    cdef long long[::1] listed_pages
    cdef unsigned char[::1] referenced
    cdef int[::1] handle_of
    cdef int[::1] page_of
    cdef int[::1] free_handles
    cdef int handles_left

    cpdef bint watermark_ok(self, int order, long long mark, int highest, bint atomic) except -1
    cpdef int allocate(self, int order, int migratetype, long long mark, int highest, bint atomic) except -3
    cpdef int allocate_many(self, int order, int migratetype, long long mark, int highest, int[::1] pages) except -3
    cpdef void release_many(self, int[::1] pages, int order) except *
    cdef int _from_per_cpu(self, int order, int migratetype) except -3
    cdef void _refill(self, int order, int migratetype, int which) except *
    cpdef void release(self, int page, int order) except *
    cdef int _per_cpu_limit(self) noexcept
    cdef int _number_to_free(self, int high) noexcept
    cdef void _free_bulk(self, int wanted, int start) except *
    cpdef void drain(self) except *
    cpdef int adopt(self, int page, int state, int which) except -3
    cpdef int page(self, int handle) except? -9
    cpdef void reference(self, int handle) except *
    cpdef long long distance(self, int handle) except *
    cpdef void activate(self, int handle) except *
    cpdef void settle(self, int handle) except *
    cpdef bint settled(self, int handle) except *
    cpdef void relate(self, int handle, int members) except *
    cpdef void copied(self, int handle) except *
    cpdef bint has_copy(self, int handle) except *
    cdef void begin_write(self, int page) except *
    cpdef void end_write(self, int handle) except *
    cpdef void pin(self, int handle) except *
    cpdef void forget(self, int handle, int mark) except *
    cpdef void release_handle(self, int handle) except *
    cdef void move(self, int source, int target) except *
    cdef void requeue(self, int page, int which) noexcept
    cpdef int list_of(self, int page) except -3
