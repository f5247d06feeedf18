"""The claims of "4K Stacks in 2.6" (LWN, 2004), answered from a comparison by stated rules.

Each is about the first layout ("before") against the last ("after"): the article's 8 KiB and 4 KiB stacks, or
others where a contiguous process stack becomes smaller. What a claim needs and the comparison does not have
leaves it open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from stackfit.analysis import Analysis
from stackfit.decision.model import Answer, Claim, Comparison, Number, Outcome, ProcessRoom, weakest
from stackfit.decision.modules import BINARY_ONLY
from stackfit.frames.model import OPEN_FRAME
from stackfit.layouts.model import INTERRUPTED, Layout, Stack
from stackfit.machine.children import process_stack
from stackfit.machine.model import Run
from stackfit.machine.overflow import Chance
from stackfit.pages.indices import unusable_index
from stackfit.text import bytes_text, number_text
from stackfit.verdict.model import StackNeed, Verdict

__all__ = ["claims"]

PAGE_KB = 4
FRAGMENTED = 500  # thousandths of free memory that a stack of the first layout cannot use
PLENTY = 0.1  # of memory free: "not particularly short of resources"
ABOUT = 0.25  # how far apart two sizes are that are "about the same"
A_YEAR = 1 / (365.25 * 24)  # per hour: less than once in a machine's year is "unheard of"
FAR_MORE = 2.0  # times
FRAME_WARN = {4: 1024, 8: 2048}  # bytes, by size of a word: lib/Kconfig.debug:FRAME_WARN

_OF_VERDICT = {
    Verdict.FITS: Answer.HOLDS,
    Verdict.FITS_IF: Answer.HOLDS,
    Verdict.EXCEEDS: Answer.FAILS,
}
_NO_IMAGE = "no image was given"
_QUOTES = {  # of each claim: a few words, and the sentence
    "sequence": (
        "must suffice for any sequence of calls, plus interrupts",
        "That stack must suffice for any sequence of calls that may result from a system call - plus the"
        " needs of any (hard or soft) interrupt handlers",
    ),
    "unheard-of": (
        "stack overflows are pretty much unheard of",
        "stack overflows are pretty much unheard of in stable kernels",
    ),
    "avoid": (
        "avoid large automatic variables, recursive functions",
        "the kernel developers have long since learned to avoid large automatic variables, recursive"
        " functions",
    ),
    "tested": (
        "hard to be certain that all paths have been tested",
        "it is hard to be certain that all of the possible paths through the kernel have actually been"
        " tested",
    ),
    "binary-modules": ("4KB stacks also break binary modules", "4KB stacks also break binary modules"),
    "order": (
        "8KB stacks require an order 1 allocation",
        '8KB stacks … require an "order 1" memory allocation: two pages which are contiguous in physical'
        " memory",
    ),
    "fragmented": (
        "two adjacent free pages simply do not exist",
        "Order 1 allocations can be very hard to satisfy once the system has been running for a while;"
        " … two adjacent free pages simply do not exist",
    ),
    "thrash": (
        "a slow, painful, thrashing system",
        "The kernel will try hard to free up pages to satisfy larger allocations; the result can be a slow,"
        " painful, thrashing system",
    ),
    "limit": (
        "can limit the creation of new processes",
        "the two-page kernel stacks can limit the creation of new processes, even though the system as a"
        " whole is not particularly short of resources",
    ),
    "more-processes": (
        "a single page … far more processes",
        "Shrinking kernel stacks to a single page eliminates this problem and makes it easy for Linux"
        " systems to handle far more processes",
    ),
    "own-stacks": (
        "interrupts … onto a separate, dedicated stack",
        "it moves interrupt handling onto a separate, dedicated stack. Software interrupts also get their"
        " own stack",
    ),
    "space": (
        "system calls about the same, interrupts increased",
        "the amount of space for system call handling remains about the same, and the stack space for"
        " interrupts has been increased",
    ),
    "safer": ("the 4KB stacks are actually safer", "the 4KB stacks are actually safer"),
}


def claims(comparison: Comparison) -> tuple[Claim, ...]:
    """All of them, in the order of the article; none where no contiguous process stack becomes smaller."""
    before, after = (process_stack(one) for one in (comparison.layouts[0], comparison.layouts[-1]))
    if before.order is None or after.size >= before.size:
        return ()
    one = _Claims(comparison)
    return (
        one.sequence(),
        one.unheard_of(),
        one.avoid(),
        one.tested(),
        one.binary_modules(),
        one.order(),
        one.fragmented(),
        one.thrash(),
        one.limit(),
        one.more_processes(),
        one.own_stacks(),
        one.space(),
        one.safer(),
    )


class _Claims:
    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.layouts = comparison.layouts[0], comparison.layouts[-1]
        self.before, self.after = self.layouts
        pairs = zip(comparison.of(self.before), comparison.of(self.after), strict=True)
        self.pairs = [pair for pair in pairs if pair[0].scenario.memory is not None]
        self.fragmented_pairs = [pair for pair in self.pairs if self._is_fragmented(pair[0].median)]

    # the image's part

    def sequence(self) -> Claim:
        rule = (
            "holds when the verdict of the process stack before is fits or fits-if; fails when it is exceeds"
        )
        need = self._need(self.before)
        if need is None:
            return _open("sequence", rule, _NO_IMAGE)
        numbers = [
            self._of(self.before, "need, deepest chain found", need.found, "bytes", _evidence(need)),
            self._of(self.before, "need, direct", need.direct, "bytes", _evidence(need)),
            self._of(self.before, "need, bound", need.bound, "bytes", _evidence(need)),
            self._of(self.before, "size", need.stack.size, "bytes", "proved"),
            self._of(self.before, "open items", need.open.total, "count", "proved"),
        ]
        text = (
            f"{need.verdict.value}: {bytes_text(need.stack.size)}; direct chains found, with all that nests"
            f" on top, add up to {bytes_text(need.found)}, none to more than {bytes_text(need.direct)};"
            f" {number_text(need.open.total)} open items may add to it"
        )
        answer = _OF_VERDICT.get(need.verdict, Answer.OPEN)
        return _claim("sequence", answer, text, rule, _evidence(need), "check", numbers)

    def unheard_of(self) -> Claim:
        rule = "holds when the chance of an overflow before is below one in a machine's year"
        chance = self._chance(self.before)
        if chance is None:
            return _open("unheard-of", rule, "no scenario with interrupts was run")
        answer = Answer.OPEN
        if chance.high < A_YEAR:
            answer = Answer.HOLDS
        elif chance.chance is not None and chance.low >= A_YEAR:
            answer = Answer.FAILS
        return self._chances("unheard-of", answer, rule, (self.before,))

    def avoid(self) -> Claim:
        rule = (
            "holds when no frame is above CONFIG_FRAME_WARN's default and no recursion without a budget is"
            " below the process stack; in part when one of the two"
        )
        analysis, need = self.comparison.analysis, self._need(self.before)
        if analysis is None or need is None:
            return _open("avoid", rule, _NO_IMAGE)
        limit = FRAME_WARN[analysis.program.machine.word]
        frame, index = _frames(analysis)
        large = int((frame > limit).sum())
        worst = int(index[int(np.argmax(frame))])
        recursion = len(need.unlisted)
        cyclic = int(analysis.recursive.sum())
        numbers = [
            Number("", "functions", int(frame.size), "count", "proved"),
            Number("", f"frames above {limit} bytes", large, "count", "proved"),
            Number("", "largest frame", int(frame.max()), "bytes", "proved"),
            Number("", "functions on cycles of direct calls", cyclic, "count", "proved"),
            self._of(self.before, "recursive functions without a budget", recursion, "count", "open"),
        ]
        text = (
            f"{number_text(large)} of {number_text(int(frame.size))} frames above {bytes_text(limit)},"
            f" the largest {bytes_text(int(frame.max()))} ({analysis.code.functions.names[worst]});"
            f" {number_text(recursion)} recursive functions below the process stack have no budget"
        )
        kept = (large == 0) + (recursion == 0)
        answer = (Answer.FAILS, Answer.IN_PART, Answer.HOLDS)[kept]
        evidence = weakest([number.evidence for number in numbers])
        return _claim("avoid", answer, text, rule, evidence, "frames, calls", numbers)

    def tested(self) -> Claim:
        rule = "holds while anything below the process stack is open, or no measured chains are given"
        need = self._need(self.after)
        if need is None:
            return _open("tested", rule, _NO_IMAGE)
        contexts = need.fitting.contexts
        fit = need.fitting.alone[0] if need.fitting.alone else 0
        numbers = [
            self._of(self.after, "open items", need.open.total, "count", "proved"),
            self._of(self.after, "contexts that start on the process stack", contexts, "count", "proved"),
            self._of(self.after, "contexts that fit alone, direct", fit, "count", _evidence(need)),
        ]
        text = (
            f"{number_text(need.open.total)} open items below the process stack; {number_text(fit)} of"
            f" {number_text(contexts)} contexts fit {bytes_text(need.stack.usable)} alone (these aside);"
            " no measured chain was given"
        )
        return _claim("tested", Answer.HOLDS, text, rule, "open", "check", numbers)

    def binary_modules(self) -> Claim:
        rule = (
            "holds when the deepest concrete chain below a call into the worst binary-only module is above"
            " the process stack's room after, and no chain of it is above that before"
        )
        module = self.comparison.module
        if module is None:
            return _open("binary-modules", rule, "no module was given")
        stacks = [process_stack(layout) for layout in self.layouts]
        below, worst = module.through.own, module.name
        large, small = (stack.usable for stack in stacks)
        fits_before = max(module.own, below.upper) <= large
        breaks = module.kind == BINARY_ONLY and below.found > small and fits_before
        answer = Answer.HOLDS if breaks else Answer.OPEN
        numbers = [
            Number("", f"{module.kind} modules", module.of, "count", "proved"),
            Number("", f"{worst}: deepest chain of its own frames", module.own, "bytes", "open"),
            Number("", f"{worst}: deepest chain below a call into it", below.found, "bytes", "open"),
            Number("", f"{worst}: deepest chain below a call into it, at most", below.upper, "bytes", "open"),
            self._of(self.before, "room on the empty process stack", large, "bytes", "proved"),
            self._of(self.after, "room on the empty process stack", small, "bytes", "proved"),
        ]
        none = "" if module.kind == BINARY_ONLY else "no binary-only module given; "
        text = (
            f"{none}{worst}, worst of {number_text(module.of)} {module.kind}: {bytes_text(module.own)} of its"
            f" own frames, with the kernel below {bytes_text(below.found)} to {bytes_text(below.upper)}; room"
            f" {bytes_text(large)} before, {bytes_text(small)} after"
        )
        return _claim("binary-modules", answer, text, rule, "open", "check", numbers)

    # the machine's part

    def order(self) -> Claim:
        rule = "holds when the process stack before is one block of order 1 or more"
        stacks = [process_stack(one) for one in self.layouts]
        numbers = [
            self._of(layout, "order of a stack", stack.order, "order", "proved")
            for layout, stack in zip(self.layouts, stacks, strict=True)
        ]
        blocks = dict.fromkeys(
            one for pair in self.pairs for one in pair[1].runs[0].contiguous if one.what != "stack"
        )
        numbers += [
            self._of(self.after, f"contiguous besides: {one.what}", one.order, "order", "measured")
            for one in blocks
        ]
        others = ", ".join(map(str, blocks))
        text = (
            f"order {_order(stacks[0])} before, {_order(stacks[1])} after; a fork's other blocks above order"
            f" 0: {others or 'none' if self.pairs else 'no scenario was run'}"
        )
        answer = Answer.HOLDS if (stacks[0].order or 0) >= 1 else Answer.FAILS
        return _claim("order", answer, text, rule, "proved", "layouts, costs", numbers)

    def fragmented(self) -> Claim:
        rule = (
            f"holds when, in a scenario that leaves over {FRAGMENTED // 10} % of free memory useless to a"
            " stack before, processes end for want of its order there and get further after"
        )
        if not self.fragmented_pairs:
            return _open("fragmented", rule, "no scenario with fragmented memory was run")
        texts, numbers, shown = [], list[Number](), False
        for one, other in self.fragmented_pairs:
            run, then = one.median, other.median
            useless = self._useless(run)
            name = one.scenario.name
            numbers += [
                self._of(
                    self.before, f"{name}: free before the first", run.before_free_pages * PAGE_KB, "kB"
                ),
                self._of(self.before, f"{name}: of it useless to a stack", useless / 1000, "share"),
            ]
            texts.append(
                f"{name}: of {_kb(run.before_free_pages)} free {useless / 10:.0f} % are of no use to a stack;"
                f" {_stop(run)} after {number_text(run.processes)}"
            )
            shown = shown or (self._stack_failed(run) and then.processes > run.processes)
        answer = Answer.HOLDS if shown else Answer.FAILS
        return self._modelled("fragmented", answer, "; ".join(texts), rule, self.fragmented_pairs, numbers)

    def thrash(self) -> Claim:
        rule = (
            "holds when in most runs requests before stall in reclaim and scan pages at least twice as"
            " often as after; in part when in some"
        )
        pairs = [pair for pair in self.pairs if any(step.do == "cycle" for step in pair[0].scenario.steps)]
        if not pairs:
            return _open("thrash", rule, "no scenario in which children come and go was run")
        texts, numbers, best = [], list[Number](), 0
        for pair in pairs:
            one, other = pair[0].median, pair[1].median
            name, runs = pair[0].scenario.name, len(pair[0].runs)
            shown = sum(map(_thrashes, pair[0].runs, pair[1].runs))
            for layout, run in zip(self.layouts, (one, other), strict=True):
                numbers += [
                    self._of(layout, f"{name}: direct reclaim stalls", run.reclaim.stalls, "count"),
                    self._of(layout, f"{name}: pages scanned directly", run.reclaim.scanned, "pages"),
                    self._of(layout, f"{name}: pages scanned by kswapd", run.reclaim.kswapd_scanned, "pages"),
                    self._of(layout, f"{name}: fork, p99", run.fork_latency.p99, "microseconds"),
                ]
            best = max(best, 2 if 2 * shown > runs else 1 if shown else 0)
            texts.append(
                f"{name}: in {shown} of {runs} runs; in the middle one {number_text(one.reclaim.stalls)}"
                " stalls against"
                f" {number_text(other.reclaim.stalls)}, {number_text(one.reclaim.scanned)} pages scanned by"
                f" requests against {number_text(other.reclaim.scanned)}, p99 of fork {_us(one)} against"
                f" {_us(other)}"
            )
        answer = (Answer.FAILS, Answer.IN_PART, Answer.HOLDS)[best]
        return self._modelled("thrash", answer, "; ".join(texts), rule, pairs, numbers)

    def limit(self) -> Claim:
        rule = (
            "holds when processes end before for want of a stack's order, above 0, while over"
            f" {PLENTY:.0%} of memory is free".replace("%", " %")
        )
        if not self.pairs:
            return _open("limit", rule, "no scenario with memory was run")
        failed = [pair for pair in self.pairs if self._stack_failed(pair[0].median)]
        found = [pair for pair in failed if _share_free(pair[0]) > PLENTY]
        texts, numbers = [], list[Number]()
        for one, _ in found or failed:
            run, name = one.median, one.scenario.name
            numbers += [
                self._of(self.before, f"{name}: {_many(run)}", run.processes, "count"),
                self._of(self.before, f"{name}: free then", run.free_pages * PAGE_KB, "kB"),
                self._of(self.before, f"{name}: free then", _share_free(one), "share"),
            ]
            texts.append(
                f"{name}: no stack after {number_text(run.processes)} {_many(run)}, with"
                f" {_kb(run.free_pages)} free ({_share_free(one):.0%})".replace("%", " %")
            )
        text = "; ".join(texts) or "no run ended for want of a stack"
        answer = Answer.HOLDS if found else Answer.FAILS
        return self._modelled("limit", answer, text, rule, found or failed or self.pairs, numbers)

    def more_processes(self) -> Claim:
        rule = (
            "holds when no run after ends for an order above 0 and fragmented memory takes at least"
            f" {FAR_MORE:g} times as many; in part when one of the two"
        )
        pairs = [pair for pair in self.pairs if pair[0].median.stopped_by != "end"]
        if not pairs:
            return _open("more-processes", rule, "no scenario that counts processes was run")
        numbers, texts = list[Number](), []
        for one, other in pairs:
            runs = one.median, other.median
            for layout, run in zip(self.layouts, runs, strict=True):
                numbers.append(self._of(layout, f"{one.scenario.name}: {_many(run)}", run.processes, "count"))
            texts.append(
                f"{one.scenario.name} {number_text(runs[0].processes)} → {number_text(runs[1].processes)}"
                f" ({_times(runs[0].processes, runs[1].processes)})"
            )
        stopped = [other.median for _, other in pairs if (other.median.failed_order or 0) > 0]
        texts.append(
            "after, "
            + ("; ".join(_stop(run) for run in stopped) if stopped else "no run ends for an order above 0")
        )
        far = bool(self.fragmented_pairs) and all(
            other.median.processes >= FAR_MORE * max(one.median.processes, 1)
            for one, other in self.fragmented_pairs
        )
        answer = (Answer.FAILS, Answer.IN_PART, Answer.HOLDS)[far + (not stopped)]
        return self._modelled("more-processes", answer, ", ".join(texts), rule, pairs, numbers)

    # interrupts

    def own_stacks(self) -> Claim:
        rule = (
            "holds when every kind of hard interrupt, and softirqs, run on a stack of their own after; in"
            " part when some do"
        )
        kinds = ("device", "system-vector", "softirq", "nmi")
        process = process_stack(self.after).name
        moved = [kind for kind in kinds if self.after.target(kind, user=False) not in (INTERRUPTED, process)]
        stay = [kind for kind in kinds if kind not in moved]
        numbers, texts = list[Number](), []
        for kind in kinds:
            for layout in self.layouts:
                usable = _where(layout, kind).usable
                numbers.append(
                    self._of(layout, f"{kind}: usable bytes where it runs", usable, "bytes", "proved")
                )
        for kind in moved:
            stack = _where(self.after, kind)
            texts.append(f"{kind}: {bytes_text(stack.usable)} of its own ({stack.name})")
        if stay:
            texts.append(f"{', '.join(stay)} stay on the process stack")
        answer = Answer.IN_PART if moved and stay else Answer.HOLDS if moved else Answer.FAILS
        return _claim("own-stacks", answer, "; ".join(texts), rule, "proved", "layouts", numbers)

    def space(self) -> Claim:
        rule = (
            f"holds when what interrupts leave for a system call after is at least {1 - ABOUT:.0%} of that"
            " before, and what the deepest system call leaves for interrupts is more; in part when one of the"
            " two".replace("%", " %")
        )
        rooms = {room.layout: room for room in self.comparison.process_rooms}
        if not rooms:
            return _open("space", rule, "no scenario with interrupts was run")
        before, after = rooms[self.before.name], rooms[self.after.name]
        numbers = [number for room in (before, after) for number in _room_numbers(room)]
        if before.for_calls is None or after.for_calls is None:
            return _open("space", rule, "too many chains of interrupts to tell what they take")
        kept = after.for_calls >= (1 - ABOUT) * before.for_calls
        grown = after.for_interrupts > before.for_interrupts
        text = (
            f"for a system call {bytes_text(before.for_calls)} → {bytes_text(after.for_calls)}"
            f" ({_change(before.for_calls, after.for_calls)}), for interrupts"
            f" {bytes_text(before.for_interrupts)} → {bytes_text(after.for_interrupts)}"
            f" ({_change(before.for_interrupts, after.for_interrupts)})"
        )
        answer = (Answer.FAILS, Answer.IN_PART, Answer.HOLDS)[kept + grown]
        return _claim("space", answer, text, rule, "assumed", self._storm(), numbers)

    def safer(self) -> Claim:
        rule = (
            "holds when the chance of an overflow after is not above that before; fails when it is (95 %"
            " intervals apart)"
        )
        before, after = (self._chance(one) for one in self.layouts)
        if before is None or after is None:
            return _open("safer", rule, "no scenario with interrupts was run")
        answer = Answer.OPEN
        if before.chance is not None and after.chance is not None:
            answer = Answer.FAILS if after.low > before.high else Answer.HOLDS
        elif after.high <= before.low:
            answer = Answer.HOLDS
        return self._chances("safer", answer, rule, self.layouts)

    # parts of answers

    def _need(self, layout: Layout) -> StackNeed | None:
        return self.comparison.need(layout, process_stack(layout).name)

    def _chance(self, layout: Layout) -> Chance | None:
        runs = (run for one in self.comparison.of(layout) for run in one.runs)
        return next((run.chance for run in runs if run.chance is not None), None)

    def _storm(self) -> str:
        return next(
            (one.scenario.name for one in self.comparison.outcomes if one.scenario.storm is not None), ""
        )

    def _chances(self, key: str, answer: Answer, rule: str, layouts: Sequence[Layout]) -> Claim:
        numbers, texts = [], []
        for layout in layouts:
            chance = self._chance(layout)
            assert chance is not None
            evidence = "open" if chance.chance is None else chance.evidence
            numbers.append(self._of(layout, "chance of an overflow", chance.chance, "per hour", evidence))
            numbers.append(self._of(layout, "… at most (95 %)", chance.high, "per hour", evidence))
            texts.append(f"{layout.name} {_hourly(chance)}")
        text = f"an hour of {self._storm()}: " + "; ".join(texts)
        evidence = weakest([number.evidence for number in numbers])
        return _claim(key, answer, text, rule, evidence, self._storm(), numbers)

    def _of(
        self, layout: Layout, name: str, value: float | None, unit: str, evidence: str = "assumed"
    ) -> Number:
        return Number(layout.name, name, value, unit, evidence)

    def _modelled(
        self,
        key: str,
        answer: Answer,
        text: str,
        rule: str,
        pairs: Iterable[tuple[Outcome, Outcome]],
        numbers: Sequence[Number],
    ) -> Claim:
        names = ", ".join(dict.fromkeys(pair[0].scenario.name for pair in pairs))
        return _claim(key, answer, text, rule, "assumed", names, numbers)

    def _order_wanted(self) -> int:
        return process_stack(self.before).order or 0

    def _useless(self, run: Run) -> int:
        return unusable_index(np.array(run.before_buddyinfo, np.int64), max(self._order_wanted(), 1))

    def _is_fragmented(self, run: Run) -> bool:
        return bool(run.before_buddyinfo) and self._useless(run) > FRAGMENTED

    def _stack_failed(self, run: Run) -> bool:
        return run.failed_what == "stack" and (run.failed_order or 0) > 0


def _claim(
    key: str, answer: Answer, text: str, rule: str, evidence: str, source: str, numbers: Sequence[Number]
) -> Claim:
    return Claim(key, *_QUOTES[key], answer, text, rule, evidence, source, tuple(numbers))


def _open(key: str, rule: str, why: str) -> Claim:
    return _claim(key, Answer.OPEN, why, rule, "open", "", ())


def _evidence(need: StackNeed) -> str:
    """Of a stack's numbers: open where anything below is, assumed where anything is taken for granted."""
    return "open" if need.open or need.direct is None else "assumed" if need.assumed else "proved"


def _frames(analysis: Analysis) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Frames of bounded size, bytes, and their functions."""
    functions, frames = analysis.code.functions, analysis.frames
    whole = (functions.parent < 0) & ~functions.piece & ((frames.summary & OPEN_FRAME) == 0)
    index = np.flatnonzero(whole)
    return frames.frame[index], index


def _where(layout: Layout, kind: str) -> Stack:
    target = layout.target(kind, user=False)
    return process_stack(layout) if target == INTERRUPTED else layout.stack(target)


def _room_numbers(room: ProcessRoom) -> list[Number]:
    wanted = (
        ("usable bytes of the process stack", room.usable, "proved"),
        ("deepest system call", room.deepest_call, "assumed"),
        ("most that interrupts put on top of it there", room.on_top, "assumed"),
        ("left for system calls", room.for_calls, "assumed"),
        ("left for interrupts, all stacks", room.for_interrupts, "assumed"),
    )
    return [Number(room.layout, name, value, "bytes", evidence) for name, value, evidence in wanted]


def _share_free(outcome: Outcome) -> float:
    """Of all memory, what was free at the end of the median run."""
    memory = outcome.scenario.memory
    assert memory is not None
    return outcome.median.free_pages / sum(zone.spec.managed for zone in memory.zones)


def _thrashes(before: Run, after: Run) -> bool:
    """With the same seed."""
    one, other = before.reclaim, after.reclaim
    return _doubled(one.stalls, other.stalls) and _doubled(one.scanned, other.scanned)


def _doubled(one: int, other: int) -> bool:
    return one > 0 and one >= 2 * other


def _order(stack: Stack) -> str:
    return f"0 ({stack.allocation})" if stack.order is None else str(stack.order)


def _stop(run: Run) -> str:
    if run.failed_order is None:
        return {"limit": "as many as wanted"}.get(run.stopped_by, run.stopped_by)
    return f"order {run.failed_order} ({run.failed_what}) fails"


def _many(run: Run) -> str:
    return "processes" if run.mode == "process" else "threads"


def _times(one: int, other: int) -> str:
    if not one:
        return "—"
    return f"{other / one:.1f} times" if other >= FAR_MORE * one else _change(one, other)


def _change(one: int, other: int) -> str:
    return "—" if one <= 0 else f"{100 * (other - one) / one:+.0f} %"


def _hourly(chance: Chance) -> str:
    """`3.7e-05`; where it is next to certain how often, and on which chain most."""
    if chance.chance is None:
        return f"open, at most {chance.high:.2g}"
    if chance.high == 0:
        return "0, the depths stated do not add up to a stack"
    if chance.per_hour is None or chance.per_hour < 1 or not chance.chains:
        return f"{chance.chance:.2g}"
    worst = chance.chains[0]
    expected = number_text(round(chance.per_hour))
    return f"{expected} overflows expected, most of them {' + '.join(worst.contexts)} on {worst.stack}"


def _us(run: Run) -> str:
    return "—" if run.fork_latency.p99 is None else f"{run.fork_latency.p99:.0f} µs"


def _kb(pages: int) -> str:
    return f"{number_text(pages * PAGE_KB)} kB"
