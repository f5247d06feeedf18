"""Time of a machine with one CPU: the task that makes requests and kswapd share it as CFS shares it.

Times are microseconds. kswapd is a generator of what its next bit of work takes; it runs where the kernel
lets it: when the task sleeps, when the task goes back to user mode or calls cond_resched after kswapd was
woken (it had slept, so it comes first), and when a tick finds that the task has had its slice. So requests
may find less memory than kswapd would have made, had it had the CPU.

Sources: kernel/sched/fair.c of Linux 6.1 (place_entity, wakeup_preempt_entity, check_preempt_tick); HZ=100.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from heapq import heappop, heappush

__all__ = ["Job", "Processor", "Times"]

Job = Generator[float, None, None]  # what its next bit takes; below 0: how long it sleeps
_SLEEPER = 3000.0  # half of sched_latency: so far behind a task may be that has slept
_WAKEUP = 1000.0  # sched_wakeup_granularity
_SLICE = 3000.0  # of two tasks
_TICK = 10_000.0


@dataclass(frozen=True)
class Times:
    """Microseconds of the experiment's machine (250 million instructions a second), measured by traces of it
    (docs/experiment.md): orders of magnitude for any other.

    `disk`: from a request to its end, equally likely values.
    """

    fork: float = 142.0  # a fork
    start: float = 45.0  # … and its child's way to its first sleep
    exit: float = 75.0
    use: float = 5.0  # a page that is there is used by a system call
    read: float = 45.0  # one that is not is read, besides the disk's time
    look: float = 3.7  # a page is looked at by reclaim
    free: float = 2.5  # … and freed
    write: float = 14.0  # … or handed to the disk
    follow: float = 1.0  # a mapping of an anonymous page's family is looked at
    demote: float = 1.4  # a page of a file goes from the active to the inactive list
    scan: float = 12.0  # one pass over the lists besides the pages
    compact: float = 0.1  # a page is looked at by compaction
    move: float = 3.0  # a page is moved by compaction
    stall: float = 10.0  # going into direct reclaim or compaction at all
    sleep: float = (
        14.0  # from a request to the disk until the task sleeps; what ends before does not make it sleep
    )
    disk: tuple[float, ...] = (11, 12, 12, 12, 12, 14, 35, 50, 75, 1000)


class Processor:
    """`now`: microseconds since the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self._task = self._kswapd = 0.0  # virtual run time of both
        self._job: Job | None = None
        self._asleep_until = 0.0  # kswapd, in the middle of its job
        self._needed = False  # kswapd has been woken and comes first
        self._since = 0.0  # the task has the CPU
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbered = 0

    @property
    def busy(self) -> bool:
        """Has kswapd something to do?"""
        return self._job is not None

    def at(self, time: float, do: Callable[[], None]) -> None:
        """Call `do` when it is `time`."""
        self._numbered += 1
        heappush(self._events, (time, self._numbered, do))

    def wake(self, job: Job) -> None:
        """kswapd, which sleeps, gets something to do."""
        self._job, self._asleep_until = job, 0.0
        self._place_kswapd()

    def resume(self) -> None:
        """kswapd need not sleep any longer in the middle of its job."""
        if self._job is not None and self._asleep_until > self.now:
            self._asleep_until = 0.0
            self._place_kswapd()

    def work(self, time: float) -> None:
        """The task works for so long."""
        self._task += time
        self._pass(time)

    def give_way(self) -> None:
        """The task is at a place where it may lose the CPU."""
        due = self._needed or self._slice_is_over(self._since)
        if not due or not self._runnable():
            return
        start = self.now
        while self._runnable() and not self._slice_is_over(start):
            self._step()
        self._needed, self._since = False, self.now

    def sleep(self, time: float) -> None:
        """The task sleeps for so long; kswapd has the CPU, and keeps it until it has had enough."""
        wake = self.now + time
        self._needed = False
        while self.now < wake:
            if self._runnable():
                self._step()
            else:
                self._pass(min(wake, self._next(wake)) - self.now)
        if self._runnable():
            self._task = max(self._task, self._kswapd - _SLEEPER)
            start = self.now
            while (
                self._runnable() and self._kswapd - self._task <= _WAKEUP and not self._slice_is_over(start)
            ):
                self._step()
        self._since = self.now

    def finish(self) -> None:
        """Until kswapd has nothing left to do."""
        while self._job is not None:
            if self._runnable():
                self._step()
            else:
                self._pass(self._next(self._asleep_until) - self.now)

    def _place_kswapd(self) -> None:
        self._kswapd = max(self._kswapd, self._task - _SLEEPER)
        self._needed = self._task - self._kswapd > _WAKEUP

    def _slice_is_over(self, since: float) -> bool:
        """Has there been a tick after a slice of time?"""
        return self.now // _TICK > (since + _SLICE) // _TICK

    def _runnable(self) -> bool:
        return self._job is not None and self._asleep_until <= self.now

    def _step(self) -> None:
        assert self._job is not None
        try:
            time = next(self._job)
        except StopIteration:
            self._job = None
            return
        if time < 0:
            self._asleep_until = self.now - time
            return
        self._kswapd += time
        self._pass(time)

    def _next(self, otherwise: float) -> float:
        """When something happens while nobody runs."""
        times = [otherwise]
        if self._job is not None and self._asleep_until > self.now:
            times.append(self._asleep_until)
        if self._events:
            times.append(max(self._events[0][0], self.now))
        return min(times)

    def _pass(self, time: float) -> None:
        self.now += time
        while self._events and self._events[0][0] <= self.now:
            heappop(self._events)[2]()
