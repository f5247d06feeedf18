"""Memory of one machine: zones, and what a request goes through before it fails.

Fast path, kswapd, direct compaction, direct reclaim, the OOM rule. All of it takes time (`Times`), and kswapd
runs when it gets the CPU (`Processor`).

Sources: mm/page_alloc.c of Linux 6.1 (__alloc_pages_slowpath, should_reclaim_retry, __setup_per_zone_wmarks),
mm/vmscan.c (shrink_node, balance_pgdat), mm/compaction.c (try_to_compact_pages, defer_compaction).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isqrt
from typing import Any

import numpy as np

from stackfit.pages import allocator_constants as c
from stackfit.pages.compaction import compact
from stackfit.pages.era import Era
from stackfit.pages.processor import Job, Processor, Times
from stackfit.pages.reclaim import deactivate, shrink
from stackfit.pages.zone import Zone

__all__ = ["Events", "Handle", "Memory", "OutOfMemory", "Place", "Settings", "ZoneSpec"]

_SWAP_CLUSTER_MAX = 32  # pages that one direct reclaim wants (include/linux/swap.h)
_COSTLY_ORDER = 3  # PAGE_ALLOC_COSTLY_ORDER
_MAX_COMPACT_RETRIES = 16
_MAX_RECLAIM_RETRIES = 16  # runs without success after which kswapd gives up (mm/internal.h)
_COMPACT_MAX_DEFER_SHIFT = 6
_THROTTLE = 100_000.0  # microseconds: HZ/10, mm/vmscan.c:reclaim_throttle
_TICK = 10_000.0
_DEF_PRIORITY = 12  # mm/vmscan.c: the first pass looks at 1/4096 of a list
_LEAST_MIN_KB, _MOST_MIN_KB = 128, 262144  # mm/page_alloc.c:calculate_min_free_kbytes
_PRIORITY_LISTS = ((c.INACTIVE_FILE, c.ACTIVE_FILE), (c.INACTIVE_ANONYMOUS, c.ACTIVE_ANONYMOUS))


@dataclass(frozen=True)
class ZoneSpec:
    """`pages`: the zone's end, counted from a place aligned to the largest block; `first`: where it begins.
    `managed`: pages that boot gave to the allocator."""

    name: str
    pages: int
    managed: int
    first: int = 0


@dataclass(frozen=True)
class Settings:
    """What a kernel's configuration and its sysctls say. `min_free_kb` None: by the kernel's formula."""

    block_order: int
    compaction: bool = True
    boost: bool = True
    pinned_may_move: bool = True  # vm.compact_unevictable_allowed
    min_free_kb: int | None = None
    swap_pages: int = 0
    swappiness: int = 60
    cpus: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A block of the kernel's own: zone by index, first page, order."""

    zone: int
    page: int
    order: int


@dataclass(frozen=True, slots=True)
class Handle:
    """A page that may be moved or taken: zone by index, handle."""

    zone: int
    handle: int


@dataclass
class Events:
    """What requests have gone through so far. All but the counts of calls are pages."""

    stalls: int = 0  # requests that had to reclaim themselves (allocstall)
    compactions: int = 0  # runs of direct compaction (compact_stall)
    compactions_deferred: int = 0
    kswapd_runs: int = 0
    kswapd: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(c.COUNTERS, np.int64))
    direct: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(c.COUNTERS, np.int64))

    def total(self, counter: int) -> int:
        """Of both kswapd and the requests themselves; `counter` as in allocator_constants."""
        return int(self.kswapd[counter] + self.direct[counter])


class OutOfMemory(Exception):
    """A request that calls the OOM killer (order ≤ 3) or fails (above, or atomic)."""

    def __init__(self, order: int, what: str) -> None:
        super().__init__(f"order {order}: {what}")
        self.order = order
        self.what = what


class Memory:
    """Zones in address order under one era's rules; pages are given by zone index and page."""

    def __init__(
        self,
        zones: Sequence[ZoneSpec],
        era: Era,
        settings: Settings,
        times: Times | None = None,
        random: np.random.Generator | None = None,
    ) -> None:
        self.era = era
        self.settings = settings
        self.events = Events()
        self.times = times or Times()
        self.processor = Processor()
        self._random = random or np.random.Generator(np.random.PCG64(0))
        cost = self.times
        self._work = np.array(
            [cost.look, cost.free, cost.write, cost.follow, cost.demote, cost.scan], np.float64
        )
        self._kswapd_wants = 0, 0  # order, highest zone
        self._under_way: list[tuple[Zone, int]] = []  # handed to the disk by the pass that is going on
        self._writing = 0
        self._written = 0  # since kswapd began to wait
        self._all_written = False  # PGDAT_WRITEBACK: reclaim has met nothing but pages that are being written
        self.swap_used = 0
        self._kswapd_failures = 0
        # Of anonymous and file pages: what bringing them back has cost lately; refaults into the working
        # set, and
        # how many of these the last reclaim had seen.
        self._cost = [0, 0]
        self._refaults, self._seen = [0, 0], [0, 0]
        self.zones = [
            Zone(
                spec.name,
                spec.first,
                spec.pages,
                settings.block_order,
                era.steal_rule,
                era.tail_hint,
                [0] * len(zones),
            )
            for spec in zones
        ]
        for zone, spec in zip(self.zones, zones, strict=True):
            zone.managed = spec.managed
            zone.mobility = era.mobility
            zone.watermark_rule = era.watermark_rule
            zone.working_set = era.working_set
        self._set_protection()
        self._set_watermarks()
        self._set_per_cpu_lists()
        self._cursors = [np.array([0, zone.pages], np.int64) for zone in self.zones]
        self._targets = np.zeros(1 << settings.block_order, np.int32)
        self._defer = [[0, 0, -1] for _ in self.zones]  # considered, shift, failed order

    # set up as the kernel does at boot

    def _set_watermarks(self) -> None:
        usable = [zone for zone in self.zones if zone.name != "HighMem"]
        lowmem = sum(zone.managed for zone in usable)
        kb = self.settings.min_free_kb
        if kb is None:
            kb = self.era.min_free_kb
        if not kb:
            kb = min(max(isqrt(lowmem * 4 * 16), _LEAST_MIN_KB), _MOST_MIN_KB)
        for zone in usable:
            zone.minimum = kb // 4 * zone.managed // max(lowmem, 1)
            if self.era.low_above_min == "scaled":
                step = max(zone.minimum // 4, zone.managed * 10 // 10000)
                zone.low, zone.high = zone.minimum + step, zone.minimum + 2 * step
            elif self.era.low_above_min == "quarters":
                zone.low, zone.high = zone.minimum * 5 // 4, zone.minimum * 3 // 2
            else:
                zone.low, zone.high = zone.minimum * 2, zone.minimum * 3
            if self.era.boost and self.settings.boost and 4 << zone.block_order <= zone.managed:
                zone.boost_most = max(zone.high * 15000 // 10000, 1 << zone.block_order)

    def _set_protection(self) -> None:
        """lowmem_reserve: what a zone keeps from requests that could use higher ones."""
        for index, zone in enumerate(self.zones):
            ratio = self.era.reserve_ratio.get(zone.name, 0)
            above, reserve = 0, [0] * len(self.zones)
            for highest in range(index + 1, len(self.zones)):
                above += self.zones[highest].managed
                reserve[highest] = above // ratio if ratio else 0
            zone.set_protection(reserve)

    def _set_per_cpu_lists(self) -> None:
        for zone in self.zones:
            most = 256 if self.era.per_cpu_high == "low-watermark" else 128  # zone_batchsize: 1 MiB, 512 KiB
            batch = min(zone.managed >> 10, most) // 4 or 1
            batch = max((1 << ((batch + batch // 2).bit_length() - 1)) - 1, 1)
            zone.per_cpu_batch = batch
            zone.per_cpu_orders = self.era.per_cpu_orders
            zone.per_cpu_scaled = self.era.per_cpu_scaled
            if self.era.per_cpu_high == "low-watermark":
                zone.per_cpu_high = max(zone.low // self.settings.cpus, batch * 4)
            else:
                zone.per_cpu_high = batch * 6

    # requests

    @property
    def free(self) -> int:
        """MemFree, pages: what is on free lists (the per-CPU lists are not)."""
        return sum(zone.free for zone in self.zones)

    def counts(self) -> list[int]:
        """Free blocks by order over all zones."""
        return [sum(column) for column in zip(*(zone.counts() for zone in self.zones), strict=True)]

    def allocate(
        self, order: int, migratetype: int, highest: int | None = None, atomic: bool = False
    ) -> Place:
        """A block for GFP_KERNEL (`atomic`: GFP_ATOMIC). OutOfMemory: all that Linux tries was in vain."""
        top = len(self.zones) - 1 if highest is None else highest
        place = self._try(order, migratetype, top, "low", atomic)
        if place is not None:
            return place
        return self._slow(order, migratetype, top, atomic)

    def try_allocate(self, order: int, migratetype: int) -> Place | None:
        """A block for a request that neither reclaims nor wakes kswapd; None: there is none."""
        top = len(self.zones) - 1
        return self._try(order, migratetype, top, "low", False) or self._try(
            order, migratetype, top, "min", False
        )

    def allocate_page(self, state: int, migratetype: int, highest: int | None = None) -> Handle:
        """One page that goes to an LRU list: ANONYMOUS, FILE, PINNED or SLAB. OutOfMemory as above."""
        place = self.allocate(0, migratetype, highest)
        which = {
            c.ANONYMOUS: c.INACTIVE_ANONYMOUS,
            c.FILE: c.INACTIVE_FILE,
            c.PINNED: c.UNEVICTABLE,
            c.SLAB: c.SLABS,
        }[state]
        return Handle(place.zone, self.zones[place.zone].adopt(place.page, state, which))

    def release(self, place: Place) -> None:
        self.zones[place.zone].release(place.page, place.order)

    def release_page(self, handle: Handle) -> None:
        """Free a handle; a page in swap gives its place there back."""
        zone = self.zones[handle.zone]
        if zone.has_copy(handle.handle):
            self.swap_used -= 1
        zone.release_handle(handle.handle)

    def refault(self, handle: Handle, state: int, migratetype: int) -> Handle:
        """A page that reclaim took is read back, and into the active list when it would have stayed there
        (mm/workingset.c:workingset_refault); a copy in swap is kept. OutOfMemory as above."""
        zone = self.zones[handle.zone]
        distance, settled = zone.distance(handle.handle), zone.settled(handle.handle)
        swapped = zone.page(handle.handle) == c.SWAPPED_OUT
        zone.release_handle(handle.handle)
        new = self.allocate_page(state, migratetype)
        if swapped:
            self.zones[new.zone].copied(new.handle)
        file = state == c.FILE
        if self.era.working_set:
            size = zone.pages_on(c.ACTIVE_FILE) + (0 if file else zone.pages_on(c.INACTIVE_FILE))
            if self.settings.swap_pages > self.swap_used:
                size += zone.pages_on(c.ACTIVE_ANONYMOUS) + (
                    zone.pages_on(c.INACTIVE_ANONYMOUS) if file else 0
                )
            if distance <= size:
                self.zones[new.zone].activate(new.handle)
                self._refaults[file] += 1
                if settled:
                    self.zones[new.zone].settle(new.handle)
                    self._note_cost(self.zones[new.zone], file, 1)
        self.wait_for_disk(self.times.read)
        return new

    def wait_for_disk(self, work: float = 0.0) -> None:
        """The task reads from the disk: so much work, and it sleeps for as long as the disk takes, unless
        that is less than its way to sleep."""
        takes = self._disk()
        if takes > self.times.sleep:
            self.processor.work(self.times.sleep)
            self.processor.sleep(takes - self.times.sleep)
        self.processor.work(work)
        self.processor.give_way()

    def _disk(self) -> float:
        return float(self.times.disk[int(self._random.integers(len(self.times.disk)))])

    def page(self, handle: Handle) -> int:
        """Where a handle's page is in its zone; EVICTED or SWAPPED_OUT when reclaim took it."""
        return int(self.zones[handle.zone].page(handle.handle))

    def reference(self, handle: Handle) -> None:
        """The page was used: reclaim spares it once."""
        self.zones[handle.zone].reference(handle.handle)

    def relate(self, handle: Handle, members: int) -> None:
        """The page is a child's that has not used it; `members`: of the family whose mappings are looked
        at."""
        self.zones[handle.zone].relate(handle.handle, members)

    def pin(self, handle: Handle) -> None:
        """Make a page unevictable (mlock); ValueError: reclaim took it."""
        self.zones[handle.zone].pin(handle.handle)

    def _try(self, order: int, migratetype: int, highest: int, mark: str, atomic: bool) -> Place | None:
        for index in range(highest, -1, -1):
            zone = self.zones[index]
            pages = getattr(zone, "minimum" if mark == "min" else mark) + zone.boost
            page = zone.allocate(order, migratetype, pages, highest, atomic)
            if page >= 0:
                if atomic and order and self.era.highatomic:
                    zone.reserve_highatomic(page)
                return Place(index, page, order)
        return None

    def _slow(self, order: int, migratetype: int, highest: int, atomic: bool) -> Place:
        self._wake_kswapd(order if self.era.kswapd_order else 0, highest)
        place = self._try(order, migratetype, highest, "min", atomic)
        if place is not None:
            return place
        if atomic:
            raise OutOfMemory(order, "an atomic request fails at once")
        can_compact = self.era.compaction and self.settings.compaction and order > 0
        if can_compact and migratetype != c.MOVABLE:
            place = self._compact_and_try(order, migratetype, highest, whole=False)
            if place is not None:
                return place
        idle = compact_retries = 0
        while True:
            self.processor.give_way()
            progress = self._direct_reclaim(order, highest)
            if progress:
                place = self._try(order, migratetype, highest, "min", False)
                if place is None:
                    for zone in self.zones:
                        if zone.highatomic_pages > 1 << zone.block_order and zone.unreserve_highatomic(
                            migratetype
                        ):
                            break
                    for zone in self.zones:
                        zone.drain()
                    place = self._try(order, migratetype, highest, "min", False)
                if place is not None:
                    return place
            if can_compact:
                place = self._compact_and_try(order, migratetype, highest, whole=True)
                if place is not None:
                    return place
            if self.era.retry == "progress":  # order ≤ 3 goes round for as long as anything is freed
                if progress and order <= _COSTLY_ORDER:
                    continue
                break
            idle = 0 if progress and order <= _COSTLY_ORDER else idle + 1
            if idle > self.era.reclaim_retries:
                if any(zone.unreserve_highatomic(migratetype) for zone in self.zones):
                    continue
            elif self._reclaim_could_help(order, highest):
                continue
            if progress and can_compact and compact_retries < _MAX_COMPACT_RETRIES:
                compact_retries += 1
                continue
            break
        place = self._try(order, migratetype, highest, "high", False)
        if place is not None:
            return place
        raise OutOfMemory(order, "the OOM killer is called" if order <= _COSTLY_ORDER else "it fails")

    # reclaim

    def _shrink(
        self, zone: Zone, priority: int, wanted: int, order: int, counters: np.ndarray[Any, Any], direct: bool
    ) -> Generator[float, None, int]:
        """One pass over a zone's lists at a priority (shrink_node), as what its bits take; pages freed."""
        freed = 0
        if self.era.working_set:
            freed = yield from self._shrink_balanced(zone, priority, wanted, order, counters, direct)
        else:
            for inactive, active in _PRIORITY_LISTS:
                anonymous = inactive == c.INACTIVE_ANONYMOUS
                if anonymous and (self._swap_left <= 0 or not self.settings.swappiness):
                    continue
                share = self.settings.swappiness if anonymous else 200 - self.settings.swappiness
                if zone.pages_on(active) > zone.pages_on(inactive):  # inactive_is_low, for small memory
                    scan = max(zone.pages_on(active) >> priority, _SWAP_CLUSTER_MAX)
                    yield deactivate(zone, active, scan, self._work)
                scan = (zone.pages_on(inactive) >> priority) * share // 100
                if not scan and priority == 0:
                    scan = zone.pages_on(inactive)
                if scan and freed < wanted:
                    freed += yield from self._look(zone, inactive, scan, wanted - freed, order, counters)
        self._unplug()
        scan = zone.pages_on(c.SLABS) >> priority
        if scan and freed < wanted:  # counted as slabs_scanned, not with the pages of the lists
            nothing = np.zeros(c.COUNTERS, np.int64)
            freed += shrink(zone, c.SLABS, scan, wanted - freed, 0, 0, False, nothing, self._work)[0]
        yield self.times.scan
        return freed

    @property
    def _swap_left(self) -> int:
        return self.settings.swap_pages - self.swap_used

    def _look(
        self, zone: Zone, which: int, scan: int, wanted: int, order: int, counters: np.ndarray[Any, Any]
    ) -> Generator[float, None, int]:
        """Up to `scan` pages of an inactive list, in bits between which somebody else may run; pages
        freed."""
        freed = 0
        while scan > 0 and freed < wanted:
            before = int(counters[c.SWAPPED])
            got, seen, took = shrink(
                zone, which, scan, wanted - freed, before + self._swap_left, order, self.era.lumpy, counters,
                self._work,
            )  # fmt: skip
            self.swap_used += int(counters[c.SWAPPED]) - before
            self._under_way += [(zone, handle) for handle in zone.take_written()]
            freed += got
            scan -= seen
            yield took
            if not seen:
                break
        return freed

    def _unplug(self) -> None:
        """What the pass has handed to the disk is on its way (blk_finish_plug)."""
        for zone, handle in self._under_way:
            self._writing += 1
            self.processor.at(self.processor.now + self._disk(), partial(self._end_write, zone, handle))
        self._under_way.clear()

    def _end_write(self, zone: Zone, handle: int) -> None:
        zone.end_write(handle)
        self._writing -= 1
        self._written += 1
        if self._written > _SWAP_CLUSTER_MAX:
            self.processor.resume()

    def _shrink_balanced(
        self, zone: Zone, priority: int, wanted: int, order: int, counters: np.ndarray[Any, Any], direct: bool
    ) -> Generator[float, None, int]:
        """The lists by what reclaiming each has cost (prepare_scan_count, get_scan_count, shrink_lruvec);
        pages freed."""
        size = {which: zone.pages_on(which) for pair in _PRIORITY_LISTS for which in pair}
        low = [
            size[inactive] < size[active] or self._refaults[file] != self._seen[file]
            for file, (inactive, active) in enumerate(reversed(_PRIORITY_LISTS))
        ]  # anonymous, file
        shares = self._shares(zone, priority, self._swap_left, low, size)
        left = {
            which: int((size[which] >> priority) * shares[file])
            for file, pair in enumerate(reversed(_PRIORITY_LISTS))
            for which in pair
        }
        target = dict(left)
        freed, evened = 0, direct and priority == _DEF_PRIORITY
        while left[c.INACTIVE_ANONYMOUS] or left[c.ACTIVE_FILE] or left[c.INACTIVE_FILE]:
            for file, (inactive, active) in enumerate(reversed(_PRIORITY_LISTS)):
                part = min(left[inactive], _SWAP_CLUSTER_MAX)
                if part:
                    left[inactive] -= part
                    before = int(counters[c.SWAPPED])
                    freed += yield from self._look(zone, inactive, part, part, order, counters)
                    self._note_cost(zone, file, int(counters[c.SWAPPED]) - before)
                part = min(left[active], _SWAP_CLUSTER_MAX)
                if part:
                    left[active] -= part
                    if low[file]:
                        yield deactivate(zone, active, part, self._work)
            if freed >= wanted and not evened:
                if not self._even_out(left, target):
                    break
                evened = True
        if self._swap_left > 0 and zone.pages_on(c.INACTIVE_ANONYMOUS) < zone.pages_on(c.ACTIVE_ANONYMOUS):
            yield deactivate(zone, c.ACTIVE_ANONYMOUS, _SWAP_CLUSTER_MAX, self._work)
        return freed

    def _even_out(self, left: dict[int, int], target: dict[int, int]) -> bool:
        """Enough is freed: the larger half is scanned as far as the smaller one has been, in proportion to
        what was wanted of both (shrink_lruvec). False: one half is done, so nothing is left to do."""
        anonymous, file = (list(pair) for pair in reversed(_PRIORITY_LISTS))
        halves = [sum(left[which] for which in pair) for pair in (anonymous, file)]
        if not all(halves):
            return False
        smaller, larger = (anonymous, file) if halves[1] > halves[0] else (file, anonymous)
        percentage = min(halves) * 100 // (sum(target[which] for which in smaller) + 1)
        for which in smaller:
            left[which] = 0
        for which in larger:
            scanned = target[which] - left[which]
            rest = target[which] * (100 - percentage) // 100
            left[which] = rest - min(rest, scanned)
        return True

    def _shares(
        self, zone: Zone, priority: int, swap: int, low: list[bool], size: dict[int, int]
    ) -> tuple[float, float]:
        """Of anonymous and file lists, the share of a pass."""
        if swap <= 0 or not self.settings.swappiness:
            return 0.0, 1.0
        if not priority:
            return 1.0, 1.0
        files = size[c.ACTIVE_FILE] + size[c.INACTIVE_FILE]
        if files + zone.free <= zone.high and not low[0] and size[c.INACTIVE_ANONYMOUS] >> priority:
            return 1.0, 0.0
        if size[c.INACTIVE_FILE] >> priority and not low[1]:
            return 0.0, 1.0
        total = sum(self._cost)
        costs = [total + one for one in self._cost]
        anonymous = self.settings.swappiness * (sum(costs) + 1) // (costs[0] + 1)
        file = (200 - self.settings.swappiness) * (sum(costs) + 1) // (costs[1] + 1)
        return anonymous / (anonymous + file), file / (anonymous + file)

    def _note_cost(self, zone: Zone, file: int, pages: int) -> None:
        """lru_note_cost: older costs count less and less."""
        self._cost[file] += pages
        lists = sum(zone.pages_on(which) for pair in _PRIORITY_LISTS for which in pair)
        if sum(self._cost) > lists // 4:
            self._cost = [one // 2 for one in self._cost]

    def _direct_reclaim(self, order: int, highest: int) -> int:
        """The request reclaims itself (do_try_to_free_pages); pages freed."""
        counters = self.events.direct
        self.events.stalls += 1
        self.processor.work(self.times.stall)
        freed = 0
        for priority in range(_DEF_PRIORITY, -1, -1):
            for zone in self.zones[highest::-1]:
                wanted = _SWAP_CLUSTER_MAX - freed
                freed += self._by_request(self._shrink(zone, priority, wanted, order, counters, direct=True))
                if freed >= _SWAP_CLUSTER_MAX:
                    break
            if freed >= _SWAP_CLUSTER_MAX:
                break
            if priority == 1 and not freed and 2 * self._writing > sum(map(self._reclaimable, self.zones)):
                self.processor.sleep(_TICK)  # VMSCAN_THROTTLE_NOPROGRESS
        self._seen = list(self._refaults)
        if freed:
            self._kswapd_failures = 0
        return freed

    def _by_request(self, work: Generator[float, None, int]) -> int:
        """The request does the work itself; between two bits it may lose the CPU."""
        while True:
            try:
                took = next(work)
            except StopIteration as end:
                return int(end.value)
            self.processor.work(took)
            self.processor.give_way()

    def _wake_kswapd(self, order: int, highest: int) -> None:
        self._kswapd_wants = max(self._kswapd_wants[0], order), max(self._kswapd_wants[1], highest)
        if self.processor.busy or self._kswapd_failures >= _MAX_RECLAIM_RETRIES:
            return
        if any(zone.boost for zone in self.zones[: highest + 1]) or not self._balanced(order, highest):
            self.processor.wake(self._kswapd())

    def balance(self, order: int, highest: int) -> None:
        """Wake kswapd and wait until it has done what it can."""
        self._wake_kswapd(order, highest)
        self.processor.finish()

    def _kswapd(self) -> Job:
        """Until there is enough, or it has failed too often: it sleeps then until somebody else reclaims
        something."""
        while True:
            order, highest = self._kswapd_wants
            self._kswapd_wants = 0, highest
            order = yield from self._balance(order, highest)
            if self._kswapd_failures >= _MAX_RECLAIM_RETRIES or self._balanced(order, highest):
                self._all_written = False
                return

    def _balance(self, order: int, highest: int) -> Generator[float, None, int]:
        """Every zone to its high watermark, for `order` as far as the era tries (balance_pgdat); the order
        that it stopped at."""
        zones = self.zones[: highest + 1]
        boosted = [zone.boost for zone in zones]
        counters = self.events.kswapd
        self.events.kswapd_runs += 1
        priority, total = _DEF_PRIORITY, 0
        for zone in zones:
            zone.reclaim_active = True
        while priority > 0 and not self._balanced(order, highest):
            freed = goal = 0
            seen = int(counters[c.SCANNED])
            for zone in zones:
                if not zone.watermark_ok(order, zone.high + zone.boost, highest, False):
                    wanted = max(zone.high, _SWAP_CLUSTER_MAX)
                    goal += wanted
                    looked, met = int(counters[c.SCANNED]), int(counters[c.WAITING])
                    freed += yield from self._shrink(zone, priority, wanted, order, counters, direct=False)
                    met = int(counters[c.WAITING]) - met
                    if met and self._all_written:  # faster than the disk: wait for some of it
                        self._written = 0
                        yield -_THROTTLE
                    elif met and met == int(counters[c.SCANNED]) - looked:
                        self._all_written = True
            total += freed
            if order and self.era.compaction and total >= 2 << order:
                order = 0  # enough for compaction to work with (compact_gap)
            # Since 4.8 the priority stays only when the pass has looked at as much as it wants to free.
            if not freed or (self.era.working_set and counters[c.SCANNED] - seen < goal):
                priority -= 1
        self._seen = list(self._refaults)
        for zone in zones:
            zone.reclaim_active = False
        if total:
            self._kswapd_failures = 0
        elif not priority:
            self._kswapd_failures += 1
        for zone, boost in zip(zones, boosted, strict=True):
            zone.boost -= min(zone.boost, boost)
        return order

    def _balanced(self, order: int, highest: int) -> bool:
        tests = (
            zone.watermark_ok(order, zone.high + zone.boost, highest, False)
            for zone in self.zones[: highest + 1]
            if zone.managed
        )
        # One zone that can serve is enough since 4.6 (pgdat_balanced); before, all had to.
        return any(tests) if self.era.retry == "reclaimable" else all(tests)

    def _reclaimable(self, zone: Zone) -> int:
        pages = zone.pages_on(c.INACTIVE_FILE) + zone.pages_on(c.ACTIVE_FILE)
        if self.swap_used < self.settings.swap_pages:
            pages += zone.pages_on(c.INACTIVE_ANONYMOUS) + zone.pages_on(c.ACTIVE_ANONYMOUS)
        return pages

    def _reclaim_could_help(self, order: int, highest: int) -> bool:
        """should_reclaim_retry: with everything reclaimable freed, would a zone pass?"""
        for zone in self.zones[: highest + 1]:
            mark = zone.minimum + zone.boost - self._reclaimable(zone)
            if zone.watermark_ok(order, mark, highest, False):
                return True
        return False

    # compaction

    def _compact_and_try(self, order: int, migratetype: int, highest: int, whole: bool) -> Place | None:
        """Direct compaction zone by zone (try_to_compact_pages), and the request again after each."""
        self.events.compactions += 1
        self.processor.work(self.times.stall)
        kind = migratetype if self.era.mobility else c.UNMOVABLE
        for index in range(highest, -1, -1):
            zone, defer = self.zones[index], self._defer[index]
            if not zone.managed or self._deferred(defer, order):
                continue
            mark = zone.minimum + zone.boost
            if not zone.watermark_ok(0, mark + (2 << order), highest, False):
                continue  # too little free memory to work with
            cursor, counters = self._cursors[index], self.events.direct
            before = int(counters[c.MIGRATE_SCANNED] + counters[c.FREE_SCANNED]), int(counters[c.MIGRATED])
            result = compact(
                zone, order, kind, whole, self.settings.pinned_may_move, cursor.data, counters.data,
                self._targets.data,
            )  # fmt: skip
            looked = int(counters[c.MIGRATE_SCANNED] + counters[c.FREE_SCANNED]) - before[0]
            moved = int(counters[c.MIGRATED]) - before[1]
            self.processor.work(looked * self.times.compact + moved * self.times.move)
            if result == c.COMPACT_COMPLETE or cursor[0] >= cursor[1]:
                cursor[:] = 0, zone.pages
            page = zone.allocate(order, migratetype, mark, highest, False)
            if page >= 0:
                defer[:] = 0, 0, max(defer[2], order + 1)
                return Place(index, page, order)
            if whole and result == c.COMPACT_COMPLETE:
                failed = order if defer[2] < 0 else min(defer[2], order)
                defer[:] = 0, min(defer[1] + 1, _COMPACT_MAX_DEFER_SHIFT), failed
        return None

    def _deferred(self, defer: list[int], order: int) -> bool:
        """compaction_deferred: after failures every 2nd, 4th … 64th attempt only."""
        considered, shift, failed = defer
        if failed < 0 or order < failed:
            return False
        if considered + 1 >= 1 << shift:
            defer[0] = 1 << shift
            return False
        defer[0] += 1
        self.events.compactions_deferred += 1
        return True
