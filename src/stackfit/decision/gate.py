"""What a project allows itself, held against an analysis: verdicts that fail, and budgets in bytes.

A budget here is a number of bytes that a context, a task or a module may take; it assumes nothing. (A
budget of an assumption file is something else: how often a function occurs on a chain.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from stackfit.bounds.model import Bound
from stackfit.image.model import InputError
from stackfit.text import bytes_text, near_text, number_text
from stackfit.verdict.model import ContextNeed, Verdict

if TYPE_CHECKING:
    from stackfit.analysis import Analysis

__all__ = ["AT", "BUDGET", "GROWTH", "KINDS", "Budget", "Finding", "Held", "hold", "verdict_findings"]

BUDGET, GROWTH = "budget", "growth"  # rules, besides the verdicts
KINDS = ("context", "task", "module")
AT = ("direct", "bound")
_TASKS = ("task", "kthread")  # kinds of contexts that are tasks
_KEPT = (Verdict.FITS, Verdict.FITS_IF, Verdict.NOT_ANALYSED)  # nothing to report, unless it is asked for


@dataclass(frozen=True)
class Budget:
    """`kind`: one of KINDS. `pattern`: a module's name, else a shell pattern: of a context's kind and name
    (`syscall read`), of a task's name. `at`: the number that is held against `bytes`: direct, or the
    bound."""

    kind: str
    pattern: str
    bytes: int
    at: str = "direct"


@dataclass(frozen=True)
class Held:
    """A budget held against one subject. `value` None: there is no finite number. `found`: the deepest
    concrete chain. `open`: items below that may add to it."""

    budget: Budget
    subject: str
    value: int | None
    found: int | None
    open: int
    need: ContextNeed | None = None
    chain: Bound | None = None

    @property
    def over(self) -> bool:
        """Not known to be kept: above it, or without a finite number. Open items aside."""
        return self.value is None or self.value > self.budget.bytes

    @property
    def text(self) -> str:
        """What is wrong with it, or that it is kept, in words."""
        allowed, at = bytes_text(self.budget.bytes), self.budget.at
        aside = (
            f", {number_text(self.open)} open item{'s' if self.open > 1 else ''} aside" if self.open else ""
        )
        if self.value is None:
            return f"no finite number ({at}); its budget is {allowed}"
        if not self.over:
            return f"{bytes_text(self.value)} ({at}) of {allowed}{aside}"
        less = self.found is not None and self.found <= self.budget.bytes
        found = f", the deepest chain found {bytes_text(self.found)}" if less else ""
        return f"{bytes_text(self.value)} ({at}{found}) of {allowed}{aside}"


@dataclass(frozen=True)
class Finding:
    """Something to report. `rule`: a verdict's name, `budget` or `growth`; `fails`: whether the exit status
    says so. `function`: where it is, -1: unknown; else `need` and `chain` show the way."""

    rule: str
    subject: str
    text: str
    fails: bool
    need: ContextNeed | None = None
    chain: Bound | None = None
    function: int = -1


def verdict_findings(analysis: Analysis, fail_on: Collection[str]) -> Iterator[Finding]:
    """Every stack that does not fit, or of which that is not known."""
    for layout in analysis.verdicts:
        for need in layout.stacks:
            verdict = need.verdict
            if verdict in _KEPT and verdict.value not in fail_on:
                continue
            yield Finding(
                rule=verdict.value,
                subject=f"{layout.layout.name} {need.stack.name}",
                text=f"{need.why}; the stack has {bytes_text(need.stack.size)}",
                fails=verdict.value in fail_on,
                need=need.worst,
                chain=need.chain,
            )


def hold(analysis: Analysis, budgets: Sequence[Budget], path: str) -> list[Held]:
    """Each budget with each context of the first layout, or module, that it is for, in the order of the
    budgets.

    InputError naming `path`: a budget that is for nothing in these images, which is a mistake in its name.
    """
    if not budgets:
        return []
    needs = analysis.composer.context_needs(analysis.layouts[0], chains=True)
    held: list[Held] = []
    for budget in budgets:
        found = list(_module(analysis, budget) if budget.kind == "module" else _contexts(needs, budget))
        if not found:
            known = _known(analysis, needs, budget.kind)
            hint = near_text(budget.pattern, known)
            raise InputError(path, f"budget.{budget.kind}: there is no {budget.pattern!r}{hint}")
        held += found
    return held


def _known(analysis: Analysis, needs: Sequence[ContextNeed], kind: str) -> list[str]:
    if kind == "module":
        return [image.module for image in analysis.program.images if image.module is not None]
    return [name for need in needs for name in _names(need, kind)]


def _names(need: ContextNeed, kind: str) -> tuple[str, ...]:
    """What a pattern may match of a context."""
    context = need.context
    if kind == "task":
        return (context.name,) if context.kind in _TASKS else ()
    plain = f"{context.kind} {context.name}"
    return (plain, context.title) if context.title != plain else (plain,)


def _contexts(needs: Sequence[ContextNeed], budget: Budget) -> Iterator[Held]:
    for need in needs:
        if any(fnmatchcase(name, budget.pattern) for name in _names(need, budget.kind)):
            # Where recursion that nothing limits is reached without any indirect call, there is no number.
            direct = need.hops[0] if need.hops else None
            value = direct if budget.at == "direct" else need.bound
            yield Held(budget, need.context.title, value, need.found, need.open.total, need, need.chain)


def _module(analysis: Analysis, budget: Budget) -> Iterator[Held]:
    """What a module adds below the calls into it, of all its functions the deepest."""
    names = [image.module for image in analysis.program.images]
    if budget.pattern in names:
        own = analysis.through(budget.pattern).own
        calls = analysis.calls
        inside = analysis.code.functions.image[calls.function[calls.open]]
        opened = int((inside == names.index(budget.pattern)).sum())
        value = None if own.unlisted else own.upper
        yield Held(budget, f"module {budget.pattern}", value, own.found, opened, None, own)
