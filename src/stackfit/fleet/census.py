"""Census files of many hosts added up: how deep tasks have been, what each layout would save, what came
close.

A host's row says of its stacks' marks the greatest, the lower median and (not in files of before) how many
are at most 4, 8 and 16 KiB; what lies between is known within limits: (low, high) wherever a number is a
count of stacks below some depth, or bytes of stacks that grow. Marks are what happened since each host's
boot, under the layout that it ran with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stackfit.fleet.estimate import Chance, bootstrap_sums, chance_of, interval
from stackfit.fleet.hosts import HostFile, HostRows, Key, read_host
from stackfit.fleet.run import Progress, Workers, run_all
from stackfit.image.model import InputError, Machine
from stackfit.layouts import load_layout, preset_names
from stackfit.layouts.model import PAGE, Layout
from stackfit.measure.census import LIMITS

__all__ = [
    "Census", "Depths", "Kernel", "Range", "Saving", "StackChance", "TaskRow", "take_census",
]  # fmt: skip

PROCESS = "process"
_ENDED = "ended"
_CHUNK = 16  # files of one piece of work
Range = tuple[int, int]  # low, high
KernelKey = tuple[str, str, str]  # release, build-id, machine


@dataclass(frozen=True)
class Stacks:
    """A layout, as far as a census is about it. `limits`: of each stack, the bytes from its top down to what
    is reserved at the base; `per_cpu`: bytes of all stacks that each CPU has."""

    name: str
    machine: str | None
    size: int  # of a process stack, at most
    mapped: int | None  # what it has from the start, if it grows; None: all of it
    sizes: Mapping[str, int]
    limits: Mapping[str, int]
    per_cpu: int


@dataclass(frozen=True)
class Depths:
    """Process stacks of tasks that are alive, by how deep they have been. `at_most`: so many at each of
    LIMITS; `share`: of all, its interval over hosts; None: one host, or all or none of the tasks seen."""

    stacks: int
    at_most: tuple[Range, ...]
    share: tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True)
class Kernel:
    """`release`, `build_id`: "" not known; None: all kernels of the machine."""

    machine: str
    release: str | None
    build_id: str | None
    hosts: int
    ended: int  # stacks of tasks that are gone, not in `depths`
    depths: Depths


@dataclass(frozen=True)
class TaskRow:
    """Stacks of one name, kind and kernel, of all hosts. `median`: the least and the greatest of the hosts'
    medians. `limit`: bytes that the stack's layout leaves to it; `host`: where the greatest is."""

    kernel: KernelKey
    layout: str
    stack: str
    size: int
    kind: str
    name: str
    hosts: int
    stacks: int
    at_most: tuple[Range, ...]
    greatest: int
    median: Range
    limit: int
    host: str

    @property
    def headroom(self) -> int:
        """Bytes that the deepest has left; below 0: into what is reserved."""
        return self.limit - self.greatest


@dataclass(frozen=True)
class Saving:
    """What one layout's process stacks would take less than those that the hosts have. Bytes; negative: more.

    `interval`: of `saved`, were these hosts drawn at random from a fleet of as many. `per_cpu`: of the stacks
    that CPUs have; None where a host's CPUs or layout are not known (`per_cpu_unknown` hosts). `deeper`:
    process stacks whose mark is above what the layout leaves; `chance`: of a host with such a stack.
    """

    layout: str
    machine: str
    hosts: int
    size: int
    now: Range
    then: Range
    saved: Range
    interval: tuple[float, float] | None
    per_cpu: int | None
    per_cpu_unknown: int
    deeper: Range
    chance: Chance


@dataclass(frozen=True)
class StackChance:
    """How many hosts have a stack that was used to its limit, in the layout that they run with."""

    machine: str
    layout: str
    stack: str
    limit: int
    greatest: int
    chance: Chance


@dataclass(frozen=True, eq=False)
class Census:
    """`tasks`: the one with the greatest mark first. `skipped`: (file, why). `copies`: files whose content
    another one has too; `unknown_layouts`: of hosts, whose reserves are not known."""

    hosts: int
    kernels: tuple[Kernel, ...]
    tasks: Tasks
    savings: tuple[Saving, ...]
    chances: tuple[StackChance, ...]
    skipped: tuple[tuple[str, str], ...]
    copies: tuple[str, ...]
    unknown_layouts: tuple[str, ...]
    seed: int


# ------------------------------------------------------------ what workers do


@dataclass(frozen=True)
class _Task:
    files: tuple[tuple[int, HostFile], ...]  # with their number
    targets: tuple[Stacks, ...]
    known: Mapping[str, Stacks]  # layouts by name


@dataclass(frozen=True)
class _Host:
    """What is kept of each host. Ranges as in Saving, by target; None: not its machine."""

    number: int
    digest: str
    kernel: KernelKey | None
    tasks: int
    ended: int
    at_most: tuple[Range, ...]
    now: Range
    then: tuple[Range | None, ...]
    deeper: tuple[Range | None, ...]
    per_cpu: tuple[int | None, ...]
    used: tuple[tuple[str, str, int, int], ...]  # layout, stack, size, greatest mark
    layouts: frozenset[str]


_SUMS = 2 + 2 * len(LIMITS)  # hosts, stacks, (low, high) at each limit


@dataclass(frozen=True, eq=False)
class _Groups:
    """Rows of several hosts by kernel and key: what adds up, and extremes."""

    keys: list[tuple[KernelKey, Key]]
    sums: NDArray[np.int64]  # key × _SUMS
    greatest: NDArray[np.int64]
    host: NDArray[np.int64]  # number of the host with the greatest; the first of several
    least_median: NDArray[np.int64]
    greatest_median: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Part:
    hosts: tuple[_Host, ...]
    groups: _Groups
    skipped: tuple[tuple[int, str], ...]


def grown_bytes(rows: HostRows, mapped: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bytes of stacks that grow by pages from `mapped` to at most `size`: at least, at most; by row."""

    def pages(mark: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.clip(-(-mark // PAGE) * PAGE, mapped, size)
        return found

    below = (rows.stacks - 1) // 2  # marks before the median, and those from it to the last
    above = rows.stacks - 1 - below
    middle, top = pages(rows.median), pages(rows.greatest)
    return below * mapped + above * middle + top, (below + 1) * middle + above * top


def _work(task: _Task) -> _Part:
    hosts: list[_Host] = []
    skipped: list[tuple[int, str]] = []
    parts: list[_Groups] = []
    for number, file in task.files:
        try:
            rows = read_host(file)
        except InputError as error:
            place = "" if error.offset is None else f" at offset {error.offset:#x}"
            skipped.append((number, f"{error.cause}{place}"))
            continue
        hosts.append(_host(number, rows, task))
        parts.append(_groups(number, rows))
    return _Part(tuple(hosts), _merge(parts), tuple(skipped))


def _groups(number: int, rows: HostRows) -> _Groups:
    sums = np.ones((len(rows.keys), _SUMS), np.int64)
    sums[:, 1] = rows.stacks
    for at, limit in enumerate(LIMITS):
        sums[:, 2 + 2 * at], sums[:, 3 + 2 * at] = rows.at_most(limit)
    kernel = rows.kernel or ("", "", "")
    host = np.full(len(rows.keys), number, np.int64)
    return _Groups([(kernel, key) for key in rows.keys], sums, rows.greatest, host, rows.median, rows.median)


def _merge(parts: Sequence[_Groups]) -> _Groups:
    """Whatever the order of the parts: sums, extremes, and the first of the hosts that share the greatest."""
    index: dict[tuple[KernelKey, Key], int] = {}
    places = [
        np.fromiter((index.setdefault(key, len(index)) for key in part.keys), np.int64, len(part.keys))
        for part in parts
    ]
    count = len(index)
    sums = np.zeros((count, _SUMS), np.int64)
    greatest, median = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    host, least = (np.full(count, np.iinfo(np.int64).max, np.int64) for _ in range(2))
    for part, at in zip(parts, places, strict=True):  # keys of one part are distinct: plain indexing will do
        sums[at] += part.sums
        deeper, same = part.greatest > greatest[at], part.greatest == greatest[at]
        host[at] = np.where(deeper, part.host, np.where(same, np.minimum(host[at], part.host), host[at]))
        greatest[at] = np.maximum(greatest[at], part.greatest)
        least[at] = np.minimum(least[at], part.least_median)
        median[at] = np.maximum(median[at], part.greatest_median)
    return _Groups(list(index), sums, greatest, host, least, median)


def _host(number: int, rows: HostRows, task: _Task) -> _Host:
    process = np.fromiter((key[1] == PROCESS for key in rows.keys), np.bool_, len(rows.keys))
    ended = process & np.fromiter((key[3] == _ENDED for key in rows.keys), np.bool_, len(rows.keys))
    alive = rows.only(process & ~ended)
    counts = tuple(_total(alive.at_most(limit)) for limit in LIMITS)
    machine = rows.kernel[2] if rows.kernel is not None else ""
    mine = [target.machine in (None, machine) and rows.kernel is not None for target in task.targets]
    stacks = rows.only(process)
    cpus = _cpus(rows)
    used: dict[tuple[str, str, int], int] = {}
    for key, greatest in zip(rows.keys, rows.greatest.tolist(), strict=True):
        used[key[:3]] = max(used.get(key[:3], 0), greatest)
    layouts = frozenset(key[0] for key in rows.keys)
    return _Host(
        number,
        rows.digest,
        rows.kernel,
        int(alive.stacks.sum()),
        int(rows.stacks[ended].sum()),
        counts,
        _now(stacks, task.known),
        tuple(_then(stacks, one) if here else None for one, here in zip(task.targets, mine, strict=True)),
        tuple(_deeper(stacks, one) if here else None for one, here in zip(task.targets, mine, strict=True)),
        tuple(
            _per_cpu(layouts, one, cpus, task.known) if here else None
            for one, here in zip(task.targets, mine, strict=True)
        ),
        tuple(sorted((*key, greatest) for key, greatest in used.items())),
        layouts,
    )


def _total(found: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Range:
    return int(found[0].sum()), int(found[1].sum())


def _now(rows: HostRows, known: Mapping[str, Stacks]) -> Range:
    """Bytes of the process stacks that are there."""
    low = high = 0
    for layout in sorted({key[0] for key in rows.keys}):
        mine = rows.only(np.fromiter((key[0] == layout for key in rows.keys), np.bool_, len(rows.keys)))
        own = known.get(layout)
        if own is not None and own.mapped is not None:
            more = _total(grown_bytes(mine, own.mapped, own.size))
        else:
            sizes = np.fromiter((key[2] for key in mine.keys), np.int64, len(mine.keys))
            more = (int((sizes * mine.stacks).sum()),) * 2
        low, high = low + more[0], high + more[1]
    return low, high


def _then(rows: HostRows, target: Stacks) -> Range:
    if target.mapped is not None:
        return _total(grown_bytes(rows, target.mapped, target.size))
    return (int(rows.stacks.sum()) * target.size,) * 2


def _deeper(rows: HostRows, target: Stacks) -> Range:
    low, high = _total(rows.at_most(target.limits[PROCESS]))
    count = int(rows.stacks.sum())
    return count - high, count - low


def _cpus(rows: HostRows) -> int | None:
    """As many as the commonest stack of a CPU is there; None where no such stack was seen."""
    counts: dict[str, int] = {}
    for key, stacks in zip(rows.keys, rows.stacks.tolist(), strict=True):
        if key[3] == "cpu":
            counts[key[1]] = counts.get(key[1], 0) + stacks
    return max(counts.values(), default=None)


def _per_cpu(
    layouts: frozenset[str], target: Stacks, cpus: int | None, known: Mapping[str, Stacks]
) -> int | None:
    own = {known[name].per_cpu for name in layouts if name in known}
    if len(own) != 1 or any(name not in known for name in layouts):
        return None
    less = own.pop() - target.per_cpu
    return 0 if not less else None if cpus is None else less * cpus


# ------------------------------------------------------------ all of it


@dataclass(frozen=True, eq=False)
class Tasks:
    """Rows by task name and kernel, made as they are asked for: there may be a million."""

    groups: _Groups
    names: tuple[str, ...]  # of hosts, by number
    known: Mapping[str, Stacks]
    order: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[TaskRow]:
        return map(self.row, self.order)

    def closest(self, most: int) -> list[TaskRow]:
        """Those with the least left of their stack, the closest first."""
        rows = [
            (self._limit(at) - int(self.groups.greatest[at]), place, at)
            for place, at in enumerate(self.order)
        ]
        return [self.row(at) for _, _, at in sorted(rows)[:most]]

    def row(self, at: int) -> TaskRow:
        groups = self.groups
        kernel, (layout, stack, size, kind, name) = groups.keys[at]
        sums = groups.sums[at].tolist()
        limits = tuple((sums[2 + 2 * one], sums[3 + 2 * one]) for one in range(len(LIMITS)))
        return TaskRow(
            kernel, layout, stack, size, kind, name, sums[0], sums[1], limits, int(groups.greatest[at]),
            (int(groups.least_median[at]), int(groups.greatest_median[at])), self._limit(at),
            self.names[int(groups.host[at])],
        )  # fmt: skip

    def _limit(self, at: int) -> int:
        layout, stack, size, _, _ = self.groups.keys[at][1]
        return limit_of(self.known, layout, stack, size)


def limit_of(known: Mapping[str, Stacks], layout: str, stack: str, size: int) -> int:
    """Bytes from a stack's top to what its layout reserves at the base; its size where the layout is not
    known, or has the stack in another size."""
    own = known.get(layout)
    return own.limits[stack] if own is not None and own.sizes.get(stack) == size else size


def take_census(
    files: Sequence[HostFile], layouts: Sequence[str], seed: int, workers: Workers, progress: Progress
) -> Census:
    """Read all files and add them up. `layouts`: presets or files; none: every preset that has process
    stacks.

    InputError: a layout is none, or not one file could be used.
    """
    named = [load_layout(name) for name in layouts]
    for layout in named:
        if PROCESS not in [stack.name for stack in layout.stacks]:
            raise InputError(layout.name, f"the layout has no stack {PROCESS}")
    presets = [_stacks(load_layout(name)) for name in preset_names() if _has_processes(load_layout(name))]
    targets = tuple(_stacks(layout) for layout in named) or tuple(presets)
    known = {one.name: one for one in (*presets, *targets)}
    parts = _read(files, targets, known, workers, progress)
    hosts = sorted((host for part in parts for host in part.hosts), key=lambda host: host.number)
    why = sorted((number, cause) for part in parts for number, cause in part.skipped)
    skipped = tuple((files[number].name, cause) for number, cause in why)
    if not hosts:
        raise InputError(skipped[0][0], f"{skipped[0][1]} (and none of {len(files)} files can be used)")
    groups = _merge([part.groups for part in parts])
    tasks = Tasks(groups, tuple(file.name for file in files), known, _ordered(groups))
    return Census(
        hosts=len(hosts),
        kernels=tuple(_kernels(hosts, seed)),
        tasks=tasks,
        savings=tuple(_savings(hosts, targets, seed)),
        chances=tuple(_chances(hosts, known)),
        skipped=skipped,
        copies=_copies(hosts, files),
        unknown_layouts=tuple(sorted({name for host in hosts for name in host.layouts if name not in known})),
        seed=seed,
    )


def _has_processes(layout: Layout) -> bool:
    return any(stack.name == PROCESS and stack.per == "process" for stack in layout.stacks)


def _stacks(layout: Layout) -> Stacks:
    process = layout.stack(PROCESS)
    per_cpu = sum(stack.size for stack in layout.stacks if stack.per == "cpu")
    return Stacks(
        layout.name,
        None if layout.machine is None else layout.machine.value,
        process.size,
        process.mapped if process.allocation == "dynamic" else None,
        {stack.name: stack.size for stack in layout.stacks},
        {stack.name: stack.size - stack.reserve_base for stack in layout.stacks},
        per_cpu + sum(stack.reserve_per_cpu or 0 for stack in layout.stacks),
    )


def _read(
    files: Sequence[HostFile],
    targets: tuple[Stacks, ...],
    known: Mapping[str, Stacks],
    workers: Workers,
    progress: Progress,
) -> list[_Part]:
    numbered = list(enumerate(files))
    chunks = [
        _Task(tuple(numbered[at : at + _CHUNK]), targets, known) for at in range(0, len(numbered), _CHUNK)
    ]
    parts, lost = [], list[_Task]()
    for outcome in run_all(_work, chunks, workers, progress):
        if outcome.value is not None:
            parts.append(outcome.value)
        else:
            lost.append(chunks[outcome.index])
    # One file of these takes its worker with it, or more memory than there is: each by itself.
    alone = [_Task((one,), targets, known) for task in lost for one in task.files]
    for outcome in run_all(_work, alone, workers, lambda done, total: None) if alone else ():
        if outcome.value is not None:
            parts.append(outcome.value)
        else:
            number = alone[outcome.index].files[0][0]
            parts.append(_Part((), _merge([]), ((number, outcome.error or ""),)))
    return parts


def _ordered(groups: _Groups) -> list[int]:
    """The greatest mark first; by name where it is the same."""
    greatest = groups.greatest.tolist()
    return sorted(range(len(groups.keys)), key=lambda at: (-greatest[at], groups.keys[at]))


def _kernels(hosts: Sequence[_Host], seed: int) -> Iterator[Kernel]:
    """Each machine, and each of its kernels."""
    for machine in Machine:
        mine = [host for host in hosts if host.kernel is not None and host.kernel[2] == machine.value]
        if not mine:
            continue
        yield _kernel(machine.value, None, None, mine, seed)
        for release, build_id in sorted({host.kernel[:2] for host in mine if host.kernel is not None}):
            same = [host for host in mine if host.kernel == (release, build_id, machine.value)]
            yield _kernel(machine.value, release, build_id, same, seed)


def _kernel(machine: str, release: str | None, build_id: str | None, hosts: list[_Host], seed: int) -> Kernel:
    counted = np.array(
        [[host.tasks, *(number for limits in host.at_most for number in limits)] for host in hosts], np.int64
    )
    total = counted.sum(axis=0).tolist()
    limits = tuple((total[1 + 2 * at], total[2 + 2 * at]) for at in range(len(LIMITS)))
    shares: tuple[tuple[float, float] | None, ...] = (None,) * len(LIMITS)
    if total[0]:
        sums = bootstrap_sums(counted, seed)
        sums = sums[sums[:, 0] > 0]  # a draw of hosts without a task has no share
        shares = tuple(
            interval(sums[:, 1 + 2 * at] / sums[:, 0], sums[:, 2 + 2 * at] / sums[:, 0], len(hosts))
            if limits[at][0] < total[0] and limits[at][1] > 0
            else None  # draws of hosts that are all alike would claim that no host is different
            for at in range(len(LIMITS))
        )
    ended = sum(host.ended for host in hosts)
    return Kernel(machine, release, build_id, len(hosts), ended, Depths(total[0], limits, shares))


def _savings(hosts: Sequence[_Host], targets: Sequence[Stacks], seed: int) -> Iterator[Saving]:
    by_machine: dict[str, list[_Host]] = {}
    for host in hosts:
        if host.kernel is not None:
            by_machine.setdefault(host.kernel[2], []).append(host)
    for machine, mine in sorted(by_machine.items()):
        chosen = [at for at, target in enumerate(targets) if target.machine in (None, machine)]
        if not chosen:
            continue
        now = np.array([host.now for host in mine], np.int64)
        then = np.array([[host.then[at] for at in chosen] for host in mine], np.int64)  # host, target, limit
        saved = np.stack([now[:, :1] - then[:, :, 1], now[:, 1:] - then[:, :, 0]], axis=2)
        sums = bootstrap_sums(saved.reshape(len(mine), -1), seed).reshape(-1, len(chosen), 2)
        for place, at in enumerate(chosen):
            deeper = np.array([host.deeper[at] for host in mine], np.int64)
            chance = chance_of(int((deeper[:, 1] > 0).sum()), len(mine))
            assert chance is not None
            per_cpu = [host.per_cpu[at] for host in mine]
            known = [one for one in per_cpu if one is not None]
            yield Saving(
                targets[at].name,
                machine,
                len(mine),
                targets[at].size,
                _pair(now.sum(axis=0)),
                _pair(then[:, place].sum(axis=0)),
                _pair(saved[:, place].sum(axis=0)),
                interval(sums[:, place, 0], sums[:, place, 1], len(mine)),
                sum(known) if len(known) == len(per_cpu) else None,
                len(per_cpu) - len(known),
                _pair(deeper.sum(axis=0)),
                chance,
            )


def _pair(values: NDArray[np.int64]) -> Range:
    low, high = values.tolist()
    return int(low), int(high)


def _chances(hosts: Sequence[_Host], known: Mapping[str, Stacks]) -> Iterator[StackChance]:
    """By machine, layout and stack, over the hosts that have it."""
    found: dict[tuple[str, str, str, int], list[int]] = {}
    for host in hosts:
        for layout, stack, size, greatest in host.used:
            machine = host.kernel[2] if host.kernel is not None else ""
            limit = limit_of(known, layout, stack, size)
            found.setdefault((machine, layout, stack, limit), []).append(greatest)
    for (machine, layout, stack, limit), marks in sorted(found.items()):
        chance = chance_of(sum(mark >= limit for mark in marks), len(marks))
        assert chance is not None
        yield StackChance(machine, layout, stack, limit, max(marks), chance)


def _copies(hosts: Sequence[_Host], files: Sequence[HostFile]) -> tuple[str, ...]:
    seen: set[str] = set()
    copies = []
    for host in hosts:
        if host.digest in seen:
            copies.append(files[host.number].name)
        seen.add(host.digest)
    return tuple(copies)
