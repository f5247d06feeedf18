"""The `[interrupts]` table of a scenario: system calls and interrupts on CPUs, and what they do to the
stacks.

Every key, with its unit; all not marked "default" are required, and unknown keys are refused:

    [interrupts]
    cpus = 2                    # 1 to 1,024; each takes all sources at the rates below. Default 1
    hours = 0.05                # simulated time, up to 1,000
    nested_handlers = 1         # handlers on top of one that enables interrupts, 0 to 8; the layout's `nests`
                                # limits them too. Default 1: "one other at a time", as the layouts assume
    evidence = "assumed"        # of the rates and durations: assumed, measured
    rates_from = "…"            # where they are from, a sentence

    [interrupts.process]        # system calls, and exceptions from user mode like them
    busy = 0.4                  # their share of the time that interrupts leave, 0 to 0.99; or instead:
    syscalls_per_second = 8000  # per CPU, of that time (with the duration it gives the share)
    duration_us = 50            # mean of one, microseconds
    duration = "exponential"    # or "constant". Default exponential; that of user mode in between always is
    depth = { … }               # bytes from the stack's top, the entry frame included
    name = "system call"        # default that

    [[interrupts.source]]
    name = "eth0"               # each its own
    kind = "device"             # device, system-vector, simple-vector, nmi: at any time; exception, softirq:
                                # raised (and run) by system calls, the rate is per second of system call
    per_second = 10000          # rate on each CPU
    arrival = "poisson"         # or "periodic" (timer ticks; not for exception, softirq). Default poisson
    duration_us = 5             # mean of one, microseconds
    duration = "exponential"    # or "constant". Default exponential
    entry = 76                  # bytes pushed on the interrupted stack before any switch. Default 0
    enables_irqs = true         # the handler runs with interrupts on (device, vectors). Default false
    depth = { … }               # bytes below the entry frame

    [interrupts.source.softirq] # raised at the end of the handler (device, vectors). Default none
    name = "net-rx"
    probability = 0.8
    duration_us = 20
    duration = "exponential"    # default
    depth = { … }

A depth has `source` (a sentence), `evidence` (proved, measured, assumed; not with `samples`, which are
measured) and exactly one of

    bytes = 1200                          always that
    between = [400, 900], step = 4        each step equally likely (step: default 1)
    weights = [[400, 0.9], [900, 0.1]]    bytes and weight
    chains = [["write", 900, 0.1], …]     name of a call chain, bytes, weight
    samples = [[896, 12], [1024, 3]]      bytes seen and how often

and may have

    scale = { factor = 0.7, word = 4, source = "…" }
                                          another machine's depths times the factor, rounded up to words
    tail = { probability = 0.01, ratio = 0.9, step = 16, source = "…" }
                                          with that probability deeper than all that (scaled), by k steps
                                          with chance (1 − ratio)·ratio^(k−1)

both of which make it assumed. Depths are those at a moment, not peaks: peaks in their place err on the deep
side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stackfit.layouts import Layout
from stackfit.machine import depths, interrupts_constants
from stackfit.machine.depths import Depths, DepthsError
from stackfit.machine.interrupts import StormResult, simulate
from stackfit.machine.interrupts_model import HARD_KINDS, KINDS, MAX_SOURCES, Process, Softirq, Source, Storm
from stackfit.machine.overflow import Chance, chance_of_overflow
from stackfit.tomlfile import MAX_ITEMS, Table, quoted

__all__ = ["Chance", "Storm", "StormResult", "overflow_chance", "parse_storm", "run_storm"]

FORMS = ("bytes", "between", "weights", "chains", "samples")
SHAPES = ("exponential", "constant")
MOST_RATE = 1e7  # per second
MOST_DURATION = 1e7  # microseconds
MOST_ENTRY = 1 << 16  # bytes
MOST_COUNT = 10**12  # samples of one depth
LEAST = 1e-3  # microseconds of a duration


class _Keys(Table):
    """A table with numbers, flags and rows as well."""

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        """A finite number from `least` to `most`, both included."""
        if default is not None and key not in self:
            return default
        value = self._take(key, "a number", (int, float))
        if not least <= value <= most:  # NaN is not either
            shown = value if isinstance(value, float) or abs(value) < 10**12 else "the number"
            raise self.error(key, f"{shown} is not between {least:g} and {most:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        if key not in self:
            return default
        value = self._data[key]
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def keys_of(self, key: str) -> _Keys | None:
        """The sub-table, or None when absent."""
        table = self.table(key)
        return None if table is None else _Keys(table.path, table._data, table.where)

    def needed(self, key: str) -> _Keys:
        """The sub-table, which must be there."""
        table = self.keys_of(key)
        if table is None:
            raise self.error(key, "missing (a table is required)")
        return table

    def rows(self, key: str, *types: type | tuple[type, ...]) -> list[list[Any]]:
        """A list of rows with values of these types."""
        rows = self._take(key, "a list", list)
        if not rows or len(rows) > MAX_ITEMS:
            raise self.error(key, f"must have 1 to {MAX_ITEMS} rows")
        for number, row in enumerate(rows, 1):
            right = isinstance(row, list) and len(row) == len(types)
            if not right or any(
                isinstance(value, bool) or not isinstance(value, kind)
                for value, kind in zip(row, types, strict=True)
            ):
                raise self.error(key, f"row {number} does not have the values that it must have")
        return rows  # type: ignore[no-any-return]


def parse_storm(table: Mapping[str, object], where: str) -> Storm:
    """The load that an `[interrupts]` table states; `where` names its file.

    InputError: a key that is unknown, missing or wrong, with file and key.
    """
    top = _Keys(where, dict(table), "interrupts")
    sources = top.tables("source")
    if len(sources) > MAX_SOURCES:
        raise top.error("source", f"more than {MAX_SOURCES}")
    storm = Storm(
        cpus=top.integer("cpus", 1, 1024, 1),
        hours=top.number("hours", 1e-9, 1000),
        process=_process(top.needed("process")),
        sources=tuple(_source(one, number, where) for number, one in enumerate(sources, 1)),
        nested_handlers=top.integer("nested_handlers", 0, interrupts_constants.MOST_NESTED, 1),
        evidence=top.choice("evidence", ("assumed", "measured")),
        source=top.text("rates_from"),
        where=where,
    )
    top.done()
    seen: set[str] = set()
    for number, one in enumerate(storm.sources, 1):
        if one.name in seen:
            raise top.error(f"source #{number}.name", f"{quoted(one.name)} is there already")
        seen.add(one.name)
    return storm


def _process(table: _Keys) -> Process:
    duration = table.number("duration_us", LEAST, MOST_DURATION)
    if ("busy" in table) == ("syscalls_per_second" in table):
        raise table.error("busy", "exactly one of busy and syscalls_per_second is needed")
    if "busy" in table:
        busy = table.number("busy", 0, 0.99)
    else:
        rate = table.number("syscalls_per_second", 0, MOST_RATE)
        busy = rate * duration / 1e6
        if busy > 0.99:
            cause = f"{rate:g} calls of {duration:g} us each take more than 0.99 of the time"
            raise table.error("syscalls_per_second", cause)
    process = Process(
        busy, duration, _depth(table.needed("depth")), _fixed(table), table.text("name", "system call")
    )
    table.done()
    return process


def _fixed(table: _Keys) -> bool:
    return table.choice("duration", SHAPES, SHAPES[0]) == "constant"


def _source(given: Table, number: int, where: str) -> Source:
    table = _Keys(where, given._data, f"interrupts.source #{number}")
    kind = table.choice("kind", KINDS)
    softirq = table.keys_of("softirq")
    periodic = table.choice("arrival", ("poisson", "periodic"), "poisson") == "periodic"
    if kind not in HARD_KINDS:
        for key in ("softirq", "enables_irqs"):
            if key in table:
                raise table.error(key, f"only {', '.join(HARD_KINDS)} have it, and the kind is {kind}")
    if periodic and kind in ("exception", "softirq"):
        raise table.error("arrival", f"system calls raise {kind}s at random: poisson")
    source = Source(
        name=table.text("name"),
        kind=kind,
        rate=table.number("per_second", 0, MOST_RATE),
        duration=table.number("duration_us", LEAST, MOST_DURATION),
        depth=_depth(table.needed("depth")),
        entry=table.integer("entry", 0, MOST_ENTRY, 0),
        enables_irqs=table.flag("enables_irqs", False),
        periodic=periodic,
        fixed=_fixed(table),
        softirq=None if softirq is None else _softirq(softirq),
    )
    if kind == "softirq" and source.entry:
        raise table.error("entry", "softirqs are called, no entry frame is pushed")
    table.done()
    return source


def _softirq(table: _Keys) -> Softirq:
    softirq = Softirq(
        name=table.text("name"),
        probability=table.number("probability", 0, 1),
        duration=table.number("duration_us", LEAST, MOST_DURATION),
        depth=_depth(table.needed("depth")),
        fixed=_fixed(table),
    )
    table.done()
    return softirq


def _depth(table: _Keys) -> Depths:
    given = [form for form in FORMS if form in table]
    if len(given) != 1:
        raise table.error("", f"exactly one of {', '.join(FORMS)} is needed")
    try:
        depth = _body(table, given[0])
        scale, tail = table.keys_of("scale"), table.keys_of("tail")
        if scale is not None:
            word = scale.integer("word", 1, 64)
            depth = depths.scaled(depth, scale.number("factor", 1e-3, 1e3), word, scale.text("source"))
            scale.done()
        if tail is not None:
            probability = tail.number("probability", 0, 1)
            ratio, step = tail.number("ratio", 0, 1), tail.integer("step", 1, depths.MAX_BYTES)
            depth = depths.with_tail(depth, probability, ratio, step, tail.text("source"))
            tail.done()
    except DepthsError as error:
        raise table.error("", str(error)) from None
    table.done()
    return depth


def _body(table: _Keys, form: str) -> Depths:
    source, number = table.text("source"), (int, float)
    if form == "samples":
        seen = [(depth, count) for depth, count in table.rows("samples", int, int)]
        if any(not 0 <= count <= MOST_COUNT for _, count in seen):
            raise table.error("samples", f"a count is not between 0 and {MOST_COUNT}")
        return depths.measured(seen, source)
    evidence = table.choice("evidence", depths.EVIDENCE)
    if form == "bytes":
        return depths.constant(table.integer("bytes", 0, depths.MAX_BYTES), evidence, source)
    if form == "between":
        ends = table._take("between", "[least, most]", list)
        if len(ends) != 2 or any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
            raise table.error("between", "must be [least, most] in whole bytes")
        step = table.integer("step", 1, depths.MAX_BYTES, 1)
        return depths.uniform(ends[0], ends[1], evidence, source, step)
    types: tuple[type | tuple[type, ...], ...] = (int, number) if form == "weights" else (str, int, number)
    rows = table.rows(form, *types)
    if any(not math.isfinite(row[-1]) or row[-1] < 0 or row[-1] > 1e300 for row in rows):
        raise table.error(form, "a weight is not a number from 0 up")
    named = [("", *row) for row in rows] if form == "weights" else rows
    return depths.chain_depths(((n, depth, float(weight)) for n, depth, weight in named), evidence, source)


def run_storm(storm: Storm, layout: Layout, seed: int) -> StormResult:
    """The load on the layout for its hours: greatest use of each stack and overflows, with chains of
    contexts."""
    return simulate(storm, layout, seed)


def overflow_chance(storm: Storm, layout: Layout, seed: int) -> Chance:
    """The chance per hour that some stack overflows (overflow.chance_of_overflow)."""
    return chance_of_overflow(storm, layout, seed)
