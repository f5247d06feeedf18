"""What the article "4K Stacks in 2.6" claims, and what the runs say of it, each by a stated rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stackfit.lab.experiment import Row, StormRow
from stackfit.lab.overflow import OverflowRow
from stackfit.text import bytes_text, number_text

__all__ = ["Claim", "claims"]

BEFORE, AFTER = "8k", "4k"
_SHARED = "8k-shared"
_PLENTY = 0.1  # of memory free: not particularly short of resources
_FAR_MORE = 2.0  # times
_HOLES = ("anon", "ramfs", "cache")


@dataclass(frozen=True)
class Claim:
    """`answer`: "holds", "in part", "does not hold" or "open" (not run). `why`: the numbers; `rule`: how it
    follows."""

    text: str
    answer: str
    why: str
    rule: str


def claims(
    rows: Sequence[Row], storms: Sequence[StormRow], overflows: Sequence[OverflowRow]
) -> tuple[Claim, ...]:
    """In the order of the article."""
    pairs = _pairs([row for row in rows if not row.case.reclaim and not row.case.condition])
    holes = [pair for pair in pairs if pair[0].case.state in _HOLES]
    fresh = [pair for pair in pairs if pair[0].case.state == "fresh"]
    return (
        _limit(holes), _no_pairs(holes), _thrash(_pairs([row for row in rows if row.case.state == "grow"])),
        _more(holes, fresh), _own_stacks(storms, overflows), _safer(storms, overflows),
    )  # fmt: skip


def _pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The same case on kernels with two pages and with one."""
    after = {
        (row.case.memory, row.case.state, row.case.mode): row for row in rows if row.case.kernel == AFTER
    }
    keys = [
        (row, (row.case.memory, row.case.state, row.case.mode)) for row in rows if row.case.kernel == BEFORE
    ]
    return [(row, after[key]) for row, key in keys if key in after]


def _limit(holes: Sequence[tuple[Row, Row]]) -> Claim:
    text = (
        "two-page kernel stacks can limit the creation of new processes, even though the system is"
        " not short of resources"
    )
    rule = (
        "holds when, on fragmented memory, order 1 stops the first kernel with a tenth of memory"
        " free, and not the second"
    )
    if not holes:
        return Claim(text, "open", "not run", rule)
    stopped = [
        (a, b) for a, b in holes
        if a.order == 1 and b.order == 0 and a.outcomes[0].free_after_kb >= _PLENTY * a.case.memory * 1024
    ]  # fmt: skip
    worst = max(holes, key=lambda pair: pair[1].children / max(pair[0].children, 1))
    why = (
        f"{len(stopped)} of {len(holes)} fragmented cases; the most: {worst[0].case.name} stops at"
        f" {worst[0].children} with {number_text(worst[0].outcomes[0].free_after_kb)} kB free,"
        " one-page stacks at"
        f" {worst[1].children}"
    )
    return Claim(text, _share(len(stopped), len(holes)), why, rule)


def _no_pairs(holes: Sequence[tuple[Row, Row]]) -> Claim:
    text = "two adjacent free pages simply do not exist"
    rule = (
        "holds when, where order 1 stopped the kernel, a twentieth of free memory or less is in"
        " blocks of two pages or more"
    )
    cases = [a for a, _ in holes if a.order == 1 and a.outcomes[0].buddyinfo_after]
    if not cases:
        return Claim(text, "open", "no run was stopped by order 1", rule)
    shares = []
    for row in cases:
        blocks = row.outcomes[0].buddyinfo_after
        total = sum(count << order for order, count in enumerate(blocks))
        shares.append(1 - blocks[0] / max(total, 1))
    held = sum(share <= 0.05 for share in shares)
    why = f"{held} of {len(cases)} runs stopped by order 1; {max(shares):.1%} of what is free at most"
    return Claim(text, _share(held, len(cases)), why, rule)


def _thrash(pairs: Sequence[tuple[Row, Row]]) -> Claim:
    text = "the kernel will try hard to free up pages; the result can be a slow, painful, thrashing system"
    rule = (
        "holds when forks of the first kernel go into direct reclaim twice as often, and scan twice as many"
        " pages, as those of the second, medians of all runs of the growing load"
    )
    if not pairs:
        return Claim(text, "open", "not run", rule)
    a, b = pairs[0]
    more = [a.rate(name) >= _FAR_MORE * max(b.rate(name), 1) for name in ("allocstall", "pgscan_direct")]
    why = (
        f"per 1 000 forks, medians of {len(a.outcomes)} and {len(b.outcomes)} runs: stalls"
        f" {a.rate('allocstall'):.0f} against {b.rate('allocstall'):.0f}, pages scanned by forks themselves"
        f" {a.rate('pgscan_direct'):.0f} against {b.rate('pgscan_direct'):.0f}"
    )
    return Claim(text, "holds" if all(more) else "in part" if any(more) else "does not hold", why, rule)


def _more(holes: Sequence[tuple[Row, Row]], fresh: Sequence[tuple[Row, Row]]) -> Claim:
    text = "a single page makes it easy to handle far more processes"
    rule = "holds when the second kernel has twice as many in every case; in part when in some"
    cases = [*holes, *fresh]
    if not cases:
        return Claim(text, "open", "not run", rule)
    gains = [b.children / max(a.children, 1) for a, b in cases]
    plain = [b.children / max(a.children, 1) for a, b in fresh]
    why = f"{sum(gain >= _FAR_MORE for gain in gains)} of {len(gains)} cases" + (
        f"; on fresh memory {min(plain):.2f} to {max(plain):.2f} times as many" if plain else ""
    )
    return Claim(text, _share(sum(gain >= _FAR_MORE for gain in gains), len(gains)), why, rule)


def _own_stacks(storms: Sequence[StormRow], overflows: Sequence[OverflowRow]) -> Claim:
    text = (
        "interrupt handling moves onto a separate, dedicated stack; the space for interrupts has been"
        " increased"
    )
    rule = (
        "holds when hard and soft interrupts together have more room on one page each than the deepest"
        " process, as measured with interrupts apart, leaves them of two pages that all share"
    )
    rooms = {(row.kernel, row.context): row.measured for row in overflows if row.measured is not None}
    own = [rooms.get((AFTER, kind)) for kind in ("hardirq", "softirq")]
    shared = rooms.get((_SHARED, "hardirq"))
    deepest = max((row.deepest or 0 for row in storms if row.storm.kernel == BEFORE), default=0)
    if shared is None or not deepest or None in own:
        return Claim(text, "open", "not run", rule)
    together, left = sum(room or 0 for room in own), shared - deepest
    why = (
        f"{bytes_text(together)} of their own; above an almost empty process {bytes_text(shared)}, above the"
        f" deepest that was measured ({bytes_text(deepest)}) {bytes_text(left)} of the shared stack"
    )
    return Claim(text, "holds" if together > left else "does not hold", why, rule)


def _safer(storms: Sequence[StormRow], overflows: Sequence[OverflowRow]) -> Claim:
    text = "the 4KB stacks are actually safer"
    rule = (
        "holds when, under the same load, the deepest stack leaves a greater share of its size free;"
        " does not hold when a smaller"
    )
    shares = {}
    sizes = {BEFORE: 8192, AFTER: 4096, _SHARED: 8192}
    for row in storms:
        if row.deepest is not None and row.storm.kernel in sizes:
            shares[row.storm.kernel] = 1 - row.deepest / sizes[row.storm.kernel]
    if _SHARED not in shares or AFTER not in shares:
        return Claim(text, "open", "not run", rule)
    why = (
        f"{shares[_SHARED]:.0%} of the process stack left with everything on two pages,"
        f" {shares[AFTER]:.0%} with one page"
    )
    return Claim(text, "holds" if shares[AFTER] > shares[_SHARED] else "does not hold", why, rule)


def _share(held: int, of: int) -> str:
    return "holds" if held == of else "in part" if held else "does not hold"
