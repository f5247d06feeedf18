"""`measured` and `composed`: what recordings of a running system say of contexts and stacks. Sizes are bytes.

Composed is the deepest concrete chain over edges that were all seen, under the same budgets and cuts as the
bounds. A recorded chain on which a function is more often than its budget allows refutes the budget: composed
then counts as many as were seen, and the ladder's defects say so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stackfit.bounds.model import Bound
from stackfit.calls.model import Calls
from stackfit.contexts.model import Context, Start
from stackfit.isa.code import Code
from stackfit.layouts.model import Layout, Stack
from stackfit.verdict.limits import AppliedLimits
from stackfit.verdict.model import ContextNeed, Measured, Observed, StackNeed
from stackfit.verdict.placement import Item, Placement
from stackfit.verdict.solvers import Solvers

__all__ = ["ComposedChain", "Ladder", "ladder_defects"]


@dataclass(frozen=True)
class ComposedChain:
    """The deepest chain over seen edges of one item: `total` from the stack's top, entry frame included."""

    total: int
    item: Item
    start: Start
    chain: Bound


class Ladder:
    """The two lower rungs of one program's contexts and stacks."""

    def __init__(
        self, code: Code, calls: Calls, contexts: list[Context], applied: AppliedLimits, full: Solvers,
        observed: Observed,
    ) -> None:  # fmt: skip
        self.observed = observed
        self.index = {id(context): number for number, context in enumerate(contexts)}
        self.names = code.functions.names
        limits = applied.limits
        # Recursion that was seen without a budget is counted as often as it was seen.
        times = np.where((limits.times == 0) & (observed.times > 1), observed.times, limits.times).astype(
            np.int32
        )
        times = np.where(limits.times > 0, np.maximum(times, observed.times), times).astype(np.int32)
        self.refuted = np.flatnonzero((limits.times > 0) & (observed.times > limits.times))
        self.budgets = limits.times
        applied = replace(
            applied, limits=replace(limits, times=times), kernel=replace(applied.kernel, times=times)
        )
        self.solvers = Solvers(code, observed.edges, calls, contexts, applied, 0, full.switches)

    # ------------------------------------------------------------ measured

    def measured(self, context: Context) -> int | None:
        """The deepest recorded chain that can have been of this context and no other."""
        return max((one.bytes for one in self._of(context)), default=None)

    def traced(self, context: Context) -> int | None:
        """The deepest of them all of whose functions are known: composed has its calls."""
        return max((one.bytes for one in self._of(context) if one.known), default=None)

    def _of(self, context: Context) -> list[Measured]:
        number = self.index.get(id(context), -1)
        return [one for one in self.observed.measured if one.contexts == (number,)]

    def stack_measured(self, stack: Stack, placement: Placement) -> tuple[int | None, str]:
        """(bytes that a stack had in use, reserves included, and by which recording)."""
        found = [(stack.reserved + one.whole, one.name) for one in self._here(placement)]
        found += [
            (stack.reserve_base + size, f"mark of {owner}" if owner else "mark")
            for name, size, owner in self.observed.marks
            if name == stack.name
        ]
        return max(found, key=lambda one: one[0], default=(None, ""))

    def stack_traced(self, stack: Stack, placement: Placement) -> int | None:
        """As `stack_measured`, by chains alone all of whose functions are known."""
        here = self._here(placement)
        return max((stack.reserved + one.whole for one in here if one.known), default=None)

    def _here(self, placement: Placement) -> list[Measured]:
        """Recorded chains of contexts that start on a stack."""
        here = {self.index.get(id(item.context), -1) for item in placement.items if not item.kernel}
        return [one for one in self.observed.measured if one.contexts and here.issuperset(one.contexts)]

    # ------------------------------------------------------------ composed

    def composed(self, item: Item, exceptions: int) -> ComposedChain | None:
        """None: none of the item's entry functions was seen running."""
        best: ComposedChain | None = None
        for start in item.starts:
            if not self.observed.entered[start.entry]:
                continue
            above = item.frame + start.bytes
            upper = above + self.solvers.upper(item, start.entry, exceptions)
            if best is not None and upper <= best.total:
                continue
            chain = self.solvers.chain(item, start, exceptions)
            if best is None or above + chain.found > best.total:
                best = ComposedChain(above + chain.found, item, start, chain)
        return best

    def stack_composed(self, layout: Layout, stack: Stack, placement: Placement) -> int | None:
        """The deepest composed context, with reserves and, as far as seen, what the layout nests on top."""
        exceptions = placement.exceptions
        best = self._deepest(placement.items, exceptions)
        if best is None:
            return None
        total = stack.reserved + best
        for nested in placement.nested:
            total += nested.times * (self._deepest(nested.items, exceptions) or 0)
        return total

    def _deepest(self, items: Sequence[Item], exceptions: int) -> int | None:
        found = [self.composed(item, exceptions) for item in items]
        return max((one.total for one in found if one is not None), default=None)

    # ------------------------------------------------------------ defects

    def defects(self) -> tuple[str, ...]:
        """Assumptions that a recording refutes."""
        return tuple(
            f"budget of {self.names[index]}: at most {int(self.budgets[index])} on a chain,"
            f" a recorded chain has it {int(self.observed.times[index])} times"
            for index in self.refuted.tolist()
        )


def ladder_defects(needs: Sequence[ContextNeed | StackNeed], titles: Sequence[str]) -> list[str]:
    """Where measured ≤ composed ≤ bound does not hold: something in the analysis is wrong.

    Held against them are chains alone all of whose functions are known: marks, of which nobody recorded a
    call, and chains through modules that were not given, may be deeper.
    """
    found = []
    for need, title in zip(needs, titles, strict=True):
        rungs = [("measured", need.traced), ("composed", need.composed)]
        if need.bound is not None and not need.open:
            rungs.append(("bound", need.bound))
        known = [(name, value) for name, value in rungs if value is not None]
        for (low, lower), (high, higher) in itertools.pairwise(known):
            if lower > higher:
                found.append(f"{title}: {low} {lower} B is above {high} {higher} B")
    return found
