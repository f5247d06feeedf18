# cython: boundscheck=False, wraparound=False, cdivision=True
# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="valid-type, no-any-return, untyped-decorator"
"""One CPU's contexts, event by event (compiled; runs uncompiled too).

Times are whole picoseconds and depths whole bytes, so compiled and uncompiled runs agree to the bit. A chain
of contexts is a node of a tree: the root is user mode, and the child of type t is reached when t starts on
top. With k sources the types are: 0 the system call; 1 + i the handler of source i; 1 + k + i the softirq
that it raises; 1 + 2k + i what is left of handler i while softirqs run at its end (its entry frame).
"""

from __future__ import annotations

from typing import Any

import cython

__all__ = ["Cpu"]

if not cython.compiled:
    from stackfit.machine.interrupts_constants import (
        CALLED,
        COUNTED,
        COUNTED_TOO,
        DEPTH,
        DONE,
        ENTRY,
        ENTRY_STACK,
        EXCEPTION,
        FAR,
        HARD,
        NEEDS_NODES,
        NEEDS_RANDOM,
        NMI,
        NODE,
        REMAINS,
        STACK,
        TYPE,
    )


@cython.cclass
class Cpu:
    """The state of a CPU; `run` moves it on. Arrays are the caller's (interrupts.py says what is in them)."""

    # What there is: per source, per type, per stack.
    sources: cython.longlong
    kind: cython.const[cython.uchar][::1]
    interval: cython.const[cython.double][::1]
    periodic: cython.const[cython.uchar][::1]
    entry: cython.const[cython.longlong][::1]
    enables: cython.const[cython.uchar][::1]
    from_kernel: cython.const[cython.longlong][::1]
    from_user: cython.const[cython.longlong][::1]
    raises: cython.const[cython.double][::1]
    work: cython.const[cython.double][::1]
    fixed: cython.const[cython.uchar][::1]
    first: cython.const[cython.longlong][::1]
    reach: cython.const[cython.double][::1]
    depths: cython.const[cython.longlong][::1]
    usable: cython.const[cython.longlong][::1]
    nests: cython.const[cython.longlong][:, ::1]
    think_mean: cython.double
    base: cython.longlong
    soft_kernel: cython.longlong
    soft_user: cython.longlong
    nested: cython.longlong
    # Where it stands.
    frames: cython.longlong[:, ::1]
    due: cython.longlong[::1]
    waiting: cython.uchar[::1]
    raised: cython.uchar[::1]
    use: cython.longlong[::1]
    frames_on: cython.longlong[::1]
    nested_on: cython.longlong[:, ::1]
    n: cython.longlong
    now: cython.longlong
    think: cython.longlong
    waits: cython.longlong
    raises_left: cython.longlong
    in_nmi: cython.longlong
    delivering: cython.bint
    # What was seen: per source, per node (starts, those of interrupts that had waited, picoseconds on top),
    # per node and place (0: where it runs, 1: where its entry frame is).
    merged: cython.longlong[::1]
    barred: cython.longlong[::1]
    tree: cython.longlong[::1]
    visits: cython.longlong[::1]
    delivered: cython.longlong[::1]
    spent: cython.longlong[::1]
    over: cython.longlong[::1]
    peak: cython.longlong[::1]
    parts: cython.longlong[:, ::1]
    nodes: cython.longlong[::1]
    events: cython.longlong
    # Random numbers given.
    uniforms: cython.const[cython.double][::1]
    exponentials: cython.const[cython.double][::1]
    next_uniform: cython.longlong
    next_exponential: cython.longlong

    def __init__(
        self,
        sources: int,
        per_source: Any,
        per_type: Any,
        per_stack: Any,
        state: Any,
        seen: Any,
        scalars: Any,
    ) -> None:
        """Sequences of arrays in the order of the attributes above; `scalars`: mean time in user mode
        between two system calls (ps), process stack, softirq's stack from kernel and user mode, how many
        handlers can be on top of one."""
        self.sources = sources
        (
            self.kind,
            self.interval,
            self.periodic,
            self.entry,
            self.enables,
            self.from_kernel,
            self.from_user,
            self.raises,
        ) = per_source
        self.work, self.fixed, self.first, self.reach, self.depths = per_type
        self.usable, self.nests = per_stack
        self.think_mean, self.base, self.soft_kernel, self.soft_user, self.nested = scalars
        (
            self.frames,
            self.due,
            self.waiting,
            self.raised,
            self.use,
            self.frames_on,
            self.nested_on,
        ) = state
        self.n = 0
        self.now = 0
        self.waits = 0
        self.raises_left = 0
        self.in_nmi = 0
        self.delivering = False
        self.events = 0
        self.think = -1
        self.next_uniform = 0
        self.next_exponential = 0
        self.merged, self.barred = seen

    def give_random(self, uniforms: Any, exponentials: Any) -> None:
        """Numbers to go on with; those of before that were not used are gone."""
        self.uniforms = uniforms
        self.exponentials = exponentials
        self.next_uniform = 0
        self.next_exponential = 0

    def give_nodes(
        self, tree: Any, visits: Any, delivered: Any, spent: Any, over: Any, peak: Any, parts: Any, nodes: Any
    ) -> None:
        """The tree of chains and what is counted of each, shared by the CPUs; longer than before."""
        self.tree = tree
        self.visits = visits
        self.delivered = delivered
        self.spent = spent
        self.over = over
        self.peak = peak
        self.parts = parts
        self.nodes = nodes

    def counted(self) -> int:
        """Events so far."""
        return self.events

    # ------------------------------------------------------------ random numbers

    @cython.cfunc
    def _span(self, mean: cython.double) -> cython.longlong:
        drawn: cython.double = mean * self.exponentials[self.next_exponential]
        self.next_exponential += 1
        return FAR if drawn > 4e18 else cython.cast(cython.longlong, drawn)

    @cython.cfunc
    def _uniform(self) -> cython.double:
        drawn: cython.double = self.uniforms[self.next_uniform]
        self.next_uniform += 1
        return drawn

    @cython.cfunc
    def _depth(self, what: cython.longlong) -> cython.longlong:
        """The smallest depth of a type whose cumulative probability is above a uniform number."""
        low: cython.longlong = self.first[what]
        high: cython.longlong = self.first[what + 1] - 1
        middle: cython.longlong
        drawn: cython.double
        if low == high:
            return self.depths[low]
        drawn = self._uniform()
        while low < high:
            middle = (low + high) >> 1
            if self.reach[middle] > drawn:
                high = middle
            else:
                low = middle + 1
        return self.depths[low]

    @cython.cfunc
    def _duration(self, what: cython.longlong) -> cython.longlong:
        if self.fixed[what]:
            return cython.cast(cython.longlong, self.work[what])
        return self._span(self.work[what])

    # ------------------------------------------------------------ contexts come and go

    @cython.cfunc
    def _child(self, node: cython.longlong, what: cython.longlong) -> cython.longlong:
        at: cython.longlong = node * (1 + 3 * self.sources) + what
        if self.tree[at] == 0:
            self.tree[at] = self.nodes[0]
            self.nodes[0] += 1
        return self.tree[at]

    @cython.cfunc
    def _parent(self) -> cython.longlong:
        return self.frames[self.n - 1, NODE] if self.n else 0

    @cython.cfunc
    def _look(self, stack: cython.longlong, place: cython.longlong) -> cython.void:
        """Write down an overflow, and the greatest use by this chain with what each context has there."""
        used: cython.longlong = self.use[stack]
        level: cython.longlong
        part: cython.longlong
        if used > self.usable[stack]:
            self.over[place] += 1
        if used > self.peak[place]:
            self.peak[place] = used
            for level in range(self.n):
                part = 0
                if self.frames[level, STACK] == stack:
                    part += self.frames[level, DEPTH]
                if self.frames[level, ENTRY_STACK] == stack:
                    part += self.frames[level, ENTRY]
                self.parts[place, level] = part

    @cython.cfunc
    def _start(
        self,
        what: cython.longlong,
        entry_stack: cython.longlong,
        entry: cython.longlong,
        stack: cython.longlong,
        nests_as: cython.longlong,
    ) -> cython.void:
        at: cython.longlong = self.n
        node: cython.longlong = self._child(self._parent(), what)
        depth: cython.longlong = self._depth(what)
        self.frames[at, TYPE] = what
        self.frames[at, REMAINS] = self._duration(what)
        self.frames[at, STACK] = stack
        self.frames[at, DEPTH] = depth
        self.frames[at, ENTRY_STACK] = entry_stack
        self.frames[at, ENTRY] = entry
        self.frames[at, NODE] = node
        self.frames[at, COUNTED] = -1
        self.frames[at, COUNTED_TOO] = -1
        if nests_as >= 0:
            if self.frames_on[entry_stack]:
                self.nested_on[entry_stack, nests_as] += 1
                self.frames[at, COUNTED] = entry_stack
            if stack != entry_stack and self.frames_on[stack]:
                self.nested_on[stack, nests_as] += 1
                self.frames[at, COUNTED_TOO] = stack
        self.frames_on[entry_stack] += 1
        if stack != entry_stack:
            self.frames_on[stack] += 1
        self.use[entry_stack] += entry
        self.use[stack] += depth
        self.n = at + 1
        self.visits[node] += 1
        if self.delivering:
            self.delivered[node] += 1
        self._look(stack, 2 * node)
        if stack != entry_stack and entry:
            self._look(entry_stack, 2 * node + 1)

    @cython.cfunc
    def _leave(self, nests_as: cython.longlong) -> cython.void:
        """The topmost context leaves the stack that it runs on, unless its entry frame is there too."""
        at: cython.longlong = self.n - 1
        stack: cython.longlong = self.frames[at, STACK]
        self.use[stack] -= self.frames[at, DEPTH]
        self.frames[at, DEPTH] = 0
        if stack != self.frames[at, ENTRY_STACK]:
            self.frames_on[stack] -= 1
            if self.frames[at, COUNTED_TOO] >= 0:
                self.nested_on[stack, nests_as] -= 1
                self.frames[at, COUNTED_TOO] = -1
            self.frames[at, STACK] = self.frames[at, ENTRY_STACK]

    @cython.cfunc
    def _end(self, nests_as: cython.longlong) -> cython.void:
        at: cython.longlong = self.n - 1
        entry_stack: cython.longlong = self.frames[at, ENTRY_STACK]
        self._leave(nests_as)
        self.use[entry_stack] -= self.frames[at, ENTRY]
        self.frames_on[entry_stack] -= 1
        if self.frames[at, COUNTED] >= 0:
            self.nested_on[entry_stack, nests_as] -= 1
        self.n = at

    @cython.cfunc
    def _interrupt(self, source: cython.longlong) -> cython.void:
        """Source `source` comes in now: on user mode, or on the topmost context at a depth drawn anew."""
        what: cython.uchar = self.kind[source]
        at: cython.longlong = self.n - 1
        here: cython.longlong = self.base
        stack: cython.longlong = self.from_user[source]
        depth: cython.longlong
        if at >= 0:
            here = self.frames[at, STACK]
            stack = self.from_kernel[source]
            depth = self._depth(self.frames[at, TYPE])
            self.use[here] += depth - self.frames[at, DEPTH]
            self.frames[at, DEPTH] = depth
        if stack < 0:
            stack = here
        if what == NMI:
            self.in_nmi = 1
        # Hardware that switches takes the entry frame along; Linux' entry code leaves it and switches later.
        self._start(
            1 + source,
            here if what == HARD else stack,
            self.entry[source],
            stack,
            -1 if what == CALLED else what,
        )

    @cython.cfunc
    def _softirq(self) -> cython.void:
        """Run the first raised softirq on top of what is left of a handler, or of the system call."""
        source: cython.longlong = 0
        at: cython.longlong = self.n - 1
        stack: cython.longlong = self.soft_kernel
        while not self.raised[source]:
            source += 1
        self.raised[source] = 0
        self.raises_left -= 1
        if at == 0 and self.frames[at, TYPE] > 2 * self.sources:
            stack = self.soft_user
        if stack < 0:
            stack = self.frames[at, STACK]
        self._start(1 + self.sources + source, stack, 0, stack, -1)

    # ------------------------------------------------------------ what may come in

    @cython.cfunc
    def _handler(self, at: cython.longlong) -> cython.bint:
        what: cython.longlong = self.frames[at, TYPE]
        return 1 <= what <= self.sources and self.kind[what - 1] == HARD

    @cython.cfunc
    def _room(self, source: cython.longlong) -> cython.bint:
        """Whether the layout lets one more of this kind nest where it would leave bytes."""
        what: cython.uchar = self.kind[source]
        here: cython.longlong = self.frames[self.n - 1, STACK]
        stack: cython.longlong = self.from_kernel[source]
        if stack < 0 or stack == here:
            return self.nested_on[here, what] < self.nests[here, what]
        if what == HARD and self.nested_on[here, what] >= self.nests[here, what]:
            return False
        return self.frames_on[stack] == 0 or self.nested_on[stack, what] < self.nests[stack, what]

    @cython.cfunc
    def _allowed(self, source: cython.longlong) -> cython.bint:
        at: cython.longlong = self.n - 1
        running: cython.longlong = 0
        if at < 0:
            return True
        if self.in_nmi:
            return False
        if self.kind[source] == NMI:
            return self._room(source)
        if self._handler(at) and not self.enables[self.frames[at, TYPE] - 1]:
            return False
        while at >= 0 and self._handler(at):
            running += 1
            at -= 1
        return running <= self.nested and self._room(source)

    # ------------------------------------------------------------ events

    @cython.cfunc
    def _arrive(self, source: cython.longlong) -> cython.void:
        what: cython.uchar = self.kind[source]
        if self.periodic[source]:
            self.due[source] += cython.cast(cython.longlong, self.interval[source])
        else:
            self.due[source] += self._span(self.interval[source])
        if what in (EXCEPTION, CALLED):
            if self.n == 1 and self.frames[0, TYPE] == 0:
                if what == CALLED or self._room(source):
                    self._interrupt(source)
                else:
                    self.barred[source] += 1
        elif self._allowed(source):
            self._interrupt(source)
        elif self.waiting[source]:
            self.merged[source] += 1
        else:
            self.waiting[source] = 1
            self.waits += 1

    @cython.cfunc
    def _complete(self) -> cython.void:
        at: cython.longlong = self.n - 1
        what: cython.longlong
        kind: cython.uchar
        if at < 0:
            self._start(0, self.base, 0, self.base, -1)
            return
        what = self.frames[at, TYPE]
        if what == 0:
            self._end(-1)
            self.think = self._span(self.think_mean)
            return
        if what <= self.sources:
            kind = self.kind[what - 1]
            if kind in (NMI, EXCEPTION):
                self._end(kind)
                if kind == NMI:
                    self.in_nmi = 0
                return
            if kind == HARD:
                if (
                    self.raises[what - 1] > 0
                    and self._uniform() < self.raises[what - 1]
                    and not self.raised[what - 1]
                ):
                    self.raised[what - 1] = 1
                    self.raises_left += 1
                if self.raises_left and not self._in_interrupt(at - 1):
                    self._leave(HARD)
                    self.frames[at, TYPE] = what + 2 * self.sources
                    self.n = at
                    self.frames[at, NODE] = self._child(self._parent(), what + 2 * self.sources)
                    self.n = at + 1
                    self._softirq()
                else:
                    self._end(HARD)
                return
        self._end(-1)  # a softirq
        if self.raises_left:
            self._softirq()
        elif self.n and self.frames[self.n - 1, TYPE] > 2 * self.sources:
            self._end(HARD)

    @cython.cfunc
    def _in_interrupt(self, at: cython.longlong) -> cython.bint:
        """Whether the context at this level is a handler or a softirq: softirqs do not run then."""
        what: cython.longlong
        if at < 0:
            return False
        what = self.frames[at, TYPE]
        if what > self.sources:
            return True
        return what > 0 and (self.kind[what - 1] == HARD or self.kind[what - 1] == CALLED)

    @cython.cfunc
    def _deliver(self) -> cython.void:
        """What waited and can come in now does, NMIs before the others, those in the order of the sources."""
        source: cython.longlong
        turn: cython.longlong
        self.delivering = True
        for turn in range(2):
            for source in range(self.sources):
                if (
                    self.waiting[source]
                    and (self.kind[source] == NMI) == (turn == 0)
                    and self._allowed(source)
                ):
                    self.waiting[source] = 0
                    self.waits -= 1
                    self._interrupt(source)
        self.delivering = False

    @cython.cfunc
    def _pass(self, span: cython.longlong) -> cython.void:
        self.spent[self._parent()] += span
        if self.n:
            self.frames[self.n - 1, REMAINS] -= span
        else:
            self.think -= span
        self.now += span

    def run(self, end: int) -> int:
        """Go on to time `end` (ps). DONE, or what is needed to go on: NEEDS_RANDOM, NEEDS_NODES."""
        source: cython.longlong
        last: cython.longlong = end
        soonest: cython.longlong
        which: cython.longlong
        left: cython.longlong
        draws: cython.longlong = 3 * (self.sources + 4)
        capacity: cython.longlong = self.visits.shape[0] - 2 * (self.sources + 4)
        if self.think < 0 and self.n == 0:
            self.think = self._span(self.think_mean)
        while True:
            if (
                self.next_uniform + draws > self.uniforms.shape[0]
                or self.next_exponential + draws > self.exponentials.shape[0]
            ):
                return NEEDS_RANDOM
            if self.nodes[0] > capacity:
                return NEEDS_NODES
            soonest = 9_000_000_000_000_000_000
            which = -1
            for source in range(self.sources):
                if self.due[source] < soonest:
                    soonest = self.due[source]
                    which = source
            left = self.frames[self.n - 1, REMAINS] if self.n else self.think
            if self.now + left <= soonest:
                if self.now + left > last:
                    self._pass(last - self.now)
                    return DONE
                self._pass(left)
                self._complete()
            else:
                if soonest > last:
                    self._pass(last - self.now)
                    return DONE
                self._pass(soonest - self.now)
                self._arrive(which)
            self.events += 1
            if self.waits:
                self._deliver()
