"""Assumptions about functions become arrays: what holds everywhere, and what holds in interrupts only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from stackfit.assumptions import AssumptionSet, Cut, Sleeps
from stackfit.verdict.limits import AppliedLimits, apply_assumptions

WHY: dict[str, Any] = {"reason": "because", "source": "kernel/x.c:f"}
NAMES = ["work", "schedule", "reclaim.constprop.0", "preempt_schedule_irq", "panic"]


def applied(*sleeps: str, cuts: tuple[Cut, ...] = ()) -> AppliedLimits:
    frames = SimpleNamespace(frame=np.full(len(NAMES), 40, np.int32), summary=np.zeros(len(NAMES), np.uint8))
    functions = cast(Any, _Functions(NAMES))
    code = cast(Any, SimpleNamespace(functions=functions))
    known = AssumptionSet("t", sleeps=tuple(Sleeps(function=name, **WHY) for name in sleeps), cuts=cuts)
    return apply_assumptions(code, cast(Any, frames), known)


class _Functions:
    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.aliases: list[tuple[str, ...]] = [()] * len(names)

    def __len__(self) -> int:
        return len(self.names)


def test_a_function_that_sleeps_ends_chains_of_interrupts_only_with_its_own_frame() -> None:
    found = applied("schedule", "reclaim")
    assert found.limits.cut.tolist() == [-1, -1, -1, -1, -1]
    assert found.kernel.cut.tolist() == [-1, 40, 40, -1, -1]  # gcc's clone too
    assert sorted(found.sleeps) == [1, 2]
    assert not found.by_function


def test_a_cut_that_holds_everywhere_keeps_its_charge_in_interrupts() -> None:
    found = applied("panic", cuts=(Cut(function="panic", charge=256, **WHY),))
    assert found.limits.cut[4] == found.kernel.cut[4] == 256


def test_preemption_at_the_end_of_an_exception_is_known_by_its_function() -> None:
    assert applied().preempts.tolist() == [False, False, False, True, False]
