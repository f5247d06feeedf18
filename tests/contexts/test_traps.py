"""What fools tools that add up frames, on every machine and at every level of optimisation: each trap is
reported, none is a finite number that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

import cross
import stackfit
from stackfit.analysis import Analysis
from stackfit.decision.explain import explain
from stackfit.verdict.model import ContextNeed

SOURCE = Path(__file__).resolve().parents[2] / "fixtures" / "firmware" / "traps.c"
EVERY = (*cross.TARGETS, *cross.NATIVE)
REASONS = {
    "mutual_recursion": {"recursion without a budget, counted once"},
    "direct_recursion": {"recursion without a budget, counted once"},
    "variable_length": {"frame of unknown size"},
    "pointer": {
        "indirect call: the pointer's value is not known",
        "indirect call: nothing in the images given fills the pointer",  # with types: the place is known
    },
}


def build(directory: Path, target: str, *options: str) -> Analysis:
    top = directory / "top.c"
    top.write_text("unsigned long __StackTop[1];\n")
    idle = ('-DIDLE=""',) if target in cross.NATIVE else ()
    return stackfit.check(cross.build(directory, target, [SOURCE, top], *idle, *options))


def need(analysis: Analysis, function: str) -> ContextNeed:
    return explain(analysis, function).need


@pytest.mark.parametrize("options", [("-O0", "-g"), ("-O2",), ("-Os", "-g")], ids=" ".join)
@pytest.mark.parametrize("target", EVERY)
def test_each_trap_is_reported(target: str, options: tuple[str, ...], tmp_path: Path) -> None:
    analysis = build(tmp_path, target, "-fno-ipa-ra", *options)
    for function, reasons in REASONS.items():
        found = need(analysis, function)
        assert reasons & set(dict(found.open.counts)), function  # so what is printed is a lower limit
    # A tail call: nothing is open, and the deeper frame counts though its caller's is gone.
    tail = need(analysis, "tail_call")
    functions, calls = analysis.code.functions, analysis.calls
    number = {name: functions.named(name)[0] for name in ("tail_call", "middle", "deep")}
    frame = {name: int(analysis.frames.frame[one]) for name, one in number.items()}
    helper = 16  # a division, on Cortex-M0
    assert not tail.open and tail.bound is not None
    assert max(frame.values()) <= tail.bound <= sum(frame.values()) + helper
    jumps = calls.tail & (calls.function == number["middle"]) & (calls.candidates >= 0)
    if (number["deep"],) in [calls.candidate_sets[one] for one in calls.candidates[jumps].tolist()]:
        assert tail.bound < sum(frame.values())
    else:  # the compiler has no such call here
        assert options[0] == "-O0" or target in ("cortex-m0", "rv32imac-save")
