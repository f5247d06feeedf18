"""Needs and verdicts of small programs made by hand: what a layout changes, and what no change may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackfit.bounds.model import Limits
from stackfit.calls.model import CallKind, Calls, EdgeKind, Edges, Evidence, Reason, Rung
from stackfit.contexts.model import Context, Start
from stackfit.image.functions import Functions
from stackfit.image.model import InputError
from stackfit.layouts.model import Interrupt, Layout, Stack
from stackfit.verdict.compose import Composer
from stackfit.verdict.cycles import most_hops, recursive
from stackfit.verdict.evidence import decide
from stackfit.verdict.limits import AppliedLimits
from stackfit.verdict.model import StackNeed, Verdict

WORD = 8


class Program:
    """Functions with frames, and calls between them, as the composer takes them."""

    def __init__(self, **frames: int) -> None:
        self.names = list(frames)
        self.frames = np.array(list(frames.values()), np.int32)
        self.calls: list[dict[str, Any]] = []
        self.cut = np.full(len(frames), -1, np.int32)
        self.times = np.zeros(len(frames), np.int32)
        self.assumed: dict[int, str] = {}
        self.user_only = np.zeros(len(frames), np.bool_)

    def index(self, name: str) -> int:
        return self.names.index(name)

    def call(
        self,
        caller: str,
        callee: str | None,
        depth: int,
        kind: CallKind = CallKind.DIRECT,
        evidence: Evidence = Evidence.PROVED,
        under: int = -1,
    ) -> Program:
        """A call site; without a callee it is open."""
        self.calls.append(
            {
                "function": self.index(caller),
                "depth": depth,
                "kind": kind,
                "evidence": evidence if callee else Evidence.OPEN,
                "reason": Reason.NONE if callee else Reason.INDIRECT,
                "under": under,
                "members": (self.index(callee),) if callee else (),
                "rung": Rung.ANNOTATION if kind == CallKind.INDIRECT and callee else Rung.ENCODED,
            }
        )
        return self

    def cut_at(self, name: str, charge: int) -> Program:
        self.cut[self.index(name)] = charge
        self.assumed[self.index(name)] = f"cut at {name}"
        return self

    def budget(self, name: str, times: int) -> Program:
        self.times[self.index(name)] = times
        self.assumed[self.index(name)] = f"budget {name}"
        return self

    def composer(self, contexts: Sequence[Context], hops: int = 0, hop_limit: int | None = None) -> Composer:
        rows = sorted(self.calls, key=lambda row: row["function"])
        sets = sorted({row["members"] for row in rows if row["members"]})
        count = len(rows)

        def column(name: str, kind: type) -> Any:
            return np.array([row[name] for row in rows], kind)

        calls = Calls(
            function=column("function", np.int32),
            address=np.arange(count, dtype=np.uint64) + 4096,
            return_address=np.arange(count, dtype=np.uint64) + 8192,
            depth=column("depth", np.int32),
            under=column("under", np.int32),
            kind=column("kind", np.uint8),
            tail=np.zeros(count, np.bool_),
            rung=column("rung", np.uint8),
            evidence=column("evidence", np.uint8),
            reason=column("reason", np.uint8),
            candidates=np.array(
                [sets.index(row["members"]) if row["members"] else -1 for row in rows], np.int32
            ),
            name=np.full(count, -1, np.int32),
            charge=np.zeros(count, np.int32),
            assumption=np.full(count, -1, np.int32),
            candidate_sets=sets,
            names=[],
            assumptions=[],
        )
        kinds = {
            CallKind.EXCEPTION: EdgeKind.EXCEPTION,
            CallKind.STACK_SWITCH: EdgeKind.SWITCH,
            CallKind.INDIRECT: EdgeKind.HOP,
        }
        chosen = [site for site, row in enumerate(rows) if row["members"]]
        edges = Edges(
            first=np.searchsorted(
                [rows[site]["function"] for site in chosen], np.arange(len(self.names) + 1)
            ).astype(np.int64),
            callee=np.array([rows[site]["members"][0] for site in chosen], np.int32),
            weight=np.array([rows[site]["depth"] for site in chosen], np.int32),
            kind=np.array([kinds.get(rows[site]["kind"], EdgeKind.PLAIN) for site in chosen], np.uint8),
            site=np.array(chosen, np.int32),
        )
        zeros = np.zeros(len(self.names), np.int32)
        limits = Limits(self.frames, self.times, self.cut, zeros.astype(np.bool_), zeros)
        kernel = replace(
            limits,
            frame=np.where(self.user_only, 0, self.frames).astype(np.int32),
            cut=np.where(self.user_only, 0, self.cut).astype(np.int32),
        )
        none = np.zeros(len(self.names), np.int32)
        functions = Functions(
            address=np.arange(len(self.names), dtype=np.uint64) * 64,
            end=np.arange(1, len(self.names) + 1, dtype=np.uint64) * 64,
            image=none,
            section=none,
            names=self.names,
            aliases=[()] * len(self.names),
            parent=none - 1,
            piece=none.astype(np.bool_),
            synthetic=none.astype(np.bool_),
        )
        code = cast(Any, SimpleNamespace(functions=functions))
        frames = cast(Any, SimpleNamespace(frame=self.frames))
        applied = AppliedLimits(
            limits, kernel, self.user_only, np.zeros_like(self.user_only), self.assumed, {}, {}
        )
        return Composer(code, frames, calls, edges, list(contexts), applied, hops, hop_limit)

    def start(self, name: str, used: int = 0) -> Start:
        return Start(self.index(name), used)


def stack(name: str, size: int = 4096, **more: Any) -> Stack:
    return Stack(name, "process", size, "static", **more)


def layout(*stacks: Stack, interrupts: Sequence[Interrupt] = (), assumptions: tuple[str, ...] = ()) -> Layout:
    return Layout("hand", "", None, "", stacks, tuple(interrupts), assumptions)


def need_of(composer: Composer, wanted: Layout, name: str = "process") -> StackNeed:
    (verdict,) = composer.judge([wanted])
    return next(need for need in verdict.stacks if need.stack.name == name)


def syscalls(program: Program, *names: str, frame: int = 100) -> list[Context]:
    return [Context(name, "syscall", (program.start(name),), frame_user=frame, abi="x") for name in names]


# ---------------------------------------------------------------- the need


def two_calls() -> Program:
    return Program(read=40, write=24, deep=300).call("read", "deep", 32).call("write", "deep", 16)


def test_a_need_is_reserves_and_entry_frame_and_the_worst_context() -> None:
    program = two_calls()
    wanted = layout(stack("process", reserve_base=52, reserve_top=8, runs=("syscall",)))
    need = need_of(program.composer(syscalls(program, "read", "write")), wanted)
    assert need.direct == need.found == need.bound == 52 + 8 + 100 + 32 + 300
    assert sum(part.total for part in need.parts) == need.direct
    assert need.worst is not None and need.worst.context.name == "read"
    assert (need.headroom, need.fits_hops) == (4096 - 492, 0)


def test_nothing_assumed_and_nothing_open_is_proved() -> None:
    program = two_calls()
    need = need_of(program.composer(syscalls(program, "read")), layout(stack("process", runs=("syscall",))))
    assert (need.verdict, need.assumed, need.lower_bound) == (Verdict.FITS, (), False)


def test_a_number_of_nested_contexts_is_an_assumption() -> None:
    program = two_calls()
    process = stack(
        "process", runs=("syscall",), nests={"exception": 0}, sources={"nests.exception": "entry.S"}
    )
    need = need_of(program.composer(syscalls(program, "read")), layout(process))
    assert need.verdict is Verdict.FITS_IF
    assert any("at most 0 exception" in text and "entry.S" in text for text in need.assumed)


def test_what_a_layout_takes_for_granted_is_listed() -> None:
    program = two_calls()
    wanted = layout(stack("process", runs=("syscall",)), assumptions=("no KASAN",))
    need = need_of(program.composer(syscalls(program, "read")), wanted)
    assert need.verdict is Verdict.FITS_IF and any("no KASAN" in text for text in need.assumed)


def test_open_items_make_it_a_lower_limit_and_unknown() -> None:
    program = two_calls().call("deep", None, 8, CallKind.INDIRECT)
    need = need_of(program.composer(syscalls(program, "read")), layout(stack("process", runs=("syscall",))))
    assert need.verdict is Verdict.UNKNOWN and need.lower_bound and need.open.total == 1


def test_open_items_that_nothing_here_reaches_do_not_count() -> None:
    program = Program(read=40, other=24).call("other", None, 16, CallKind.INDIRECT)
    need = need_of(program.composer(syscalls(program, "read")), layout(stack("process", runs=("syscall",))))
    assert need.verdict is Verdict.FITS


def test_an_open_context_is_an_open_item_of_the_stack_it_runs_on() -> None:
    program = two_calls()
    contexts = [*syscalls(program, "read"), Context("others", "kthread", (), open="threads not found")]
    need = need_of(program.composer(contexts), layout(stack("process", runs=("syscall", "kthread"))))
    assert need.verdict is Verdict.UNKNOWN and ("threads not found", 1) in need.open.counts
    alone = need_of(program.composer(contexts[1:]), layout(stack("process", runs=("syscall", "kthread"))))
    assert alone.verdict is Verdict.UNKNOWN and alone.direct is None


def test_recursion_without_a_budget_has_no_bound_and_names_the_function() -> None:
    program = Program(read=40, walk=64).call("read", "walk", 32).call("walk", "walk", 64)
    wanted = layout(stack("process", runs=("syscall",)))
    need = need_of(program.composer(syscalls(program, "read")), wanted)
    assert (need.bound, need.verdict) == (None, Verdict.UNKNOWN)
    assert [program.names[index] for index in need.unlisted] == ["walk"]
    budgeted = need_of(program.budget("walk", 3).composer(syscalls(program, "read")), wanted)
    assert budgeted.bound == 100 + 32 + 3 * 64
    assert budgeted.verdict is Verdict.FITS_IF and "budget walk" in budgeted.assumed


def test_a_stack_on_which_nothing_starts_is_not_analysed() -> None:
    program = two_calls()
    entry = stack("entry", entry=("syscall",))
    need = need_of(
        program.composer(syscalls(program, "read")),
        layout(stack("process", runs=("syscall",)), entry),
        "entry",
    )
    assert (need.verdict, need.direct) == (Verdict.NOT_ANALYSED, None)


# ---------------------------------------------------------------- may-exceed


def test_a_chain_without_assumptions_above_the_size_may_exceed() -> None:
    program = two_calls().call("deep", None, 8, CallKind.INDIRECT)
    need = need_of(
        program.composer(syscalls(program, "read")), layout(stack("process", 256, runs=("syscall",)))
    )
    assert need.verdict is Verdict.MAY_EXCEED and need.chain is not None
    assert [program.names[link.function] for link in need.chain.chain] == ["read", "deep"]


def test_a_charge_alone_is_no_chain() -> None:
    program = two_calls().cut_at("deep", 4000)
    wanted = layout(stack("process", 1024, runs=("syscall",)))
    need = need_of(program.composer(syscalls(program, "read")), wanted)
    assert need.verdict is Verdict.UNKNOWN  # the bound is above the size because of what is assumed
    assert need.bound == 100 + 32 + 4000


def test_a_chain_ends_for_certain_at_a_call_whose_target_is_assumed() -> None:
    program = Program(read=40, deep=3000).call("read", "deep", 32, CallKind.STATIC_CALL, Evidence.ASSUMED)
    need = need_of(
        program.composer(syscalls(program, "read")), layout(stack("process", 1024, runs=("syscall",)))
    )
    assert need.verdict is Verdict.UNKNOWN


def test_the_chain_that_is_printed_is_the_one_above_the_size() -> None:
    # `worst` is deeper, by a charge; only `sure` is above the size without it.
    program = Program(worst=40, sure=2000, cut=16).call("worst", "cut", 32).cut_at("cut", 5000)
    need = need_of(
        program.composer(syscalls(program, "worst", "sure")),
        layout(stack("process", 1024, runs=("syscall",))),
    )
    assert need.verdict is Verdict.MAY_EXCEED
    assert need.worst is not None and need.worst.context.name == "sure"


# ---------------------------------------------------------------- exceptions and interrupts


def faulting() -> Program:
    return (
        Program(read=40, copy=16, fault=500, to_user=2000)
        .call("read", "copy", 32)
        .call("copy", "fault", 8 + 176, CallKind.EXCEPTION)
        .call("fault", "to_user", 100)
    )


def test_exceptions_nest_where_they_are_raised_as_often_as_the_layout_says() -> None:
    program = faulting()
    contexts = syscalls(program, "read")
    without = need_of(program.composer(contexts), layout(stack("process", runs=("syscall",))))
    once = need_of(
        program.composer(contexts), layout(stack("process", runs=("syscall",), nests={"exception": 1}))
    )
    assert without.direct == 100 + 32 + 16
    assert once.direct == 100 + 32 + 184 + 100 + 2000


def test_what_runs_only_on_the_way_to_user_mode_is_not_on_top_of_the_kernel() -> None:
    program = faulting()
    program.user_only[program.index("to_user")] = True
    contexts = syscalls(program, "read")
    need = need_of(
        program.composer(contexts), layout(stack("process", runs=("syscall",), nests={"exception": 1}))
    )
    assert need.direct == 100 + 32 + 184 + 500
    assert any("user mode" in text for text in need.assumed)


def test_too_many_nested_exceptions_are_refused() -> None:
    program = faulting()
    wanted = layout(stack("process", runs=("syscall",), nests={"exception": 900}))
    with pytest.raises(InputError, match=r"stack\.process\.nests\.exception"):
        program.composer(syscalls(program, "read")).judge([wanted])


def interrupted() -> tuple[Program, list[Context]]:
    """A handler that switches: `on_irq` runs on the other stack, `leave` on the interrupted one."""
    program = (
        Program(read=400, handler=32, on_irq=900, leave=200)
        .call("handler", "on_irq", 8, CallKind.STACK_SWITCH, under=32)
        .call("handler", "leave", 24)
    )
    handler = Context(
        "timer",
        "hardirq",
        (program.start("handler"),),
        frame_user=168,
        frame_kernel=176,
        interrupt="device",
        interrupted=(Start(program.index("leave"), 24, ((program.index("handler"), 24),)),),
        switched=(Start(program.index("on_irq"), 8, ((program.index("handler"), 8),)),),
        switchers=(program.index("handler"),),
    )
    return program, [*syscalls(program, "read"), handler]


SEPARATE = (
    stack("process", runs=("syscall",), nests={"hardirq": 1}),
    Stack("irq", "cpu", 4096, "static", runs=("hardirq",)),
)


def separate_layout() -> Layout:
    return layout(*SEPARATE, interrupts=[Interrupt("device", "irq", "process")])


def shared_layout(times: int = 1) -> Layout:
    process = stack("process", runs=("syscall",), nests={"hardirq": times})
    return layout(process, interrupts=[Interrupt("device", "interrupted", "process")])


def test_up_to_its_switch_an_interrupt_is_on_the_interrupted_stack() -> None:
    program, contexts = interrupted()
    need = need_of(program.composer(contexts), separate_layout())
    assert need.direct == 100 + 400 + 176 + 24 + 200
    assert not need.hypothetical


def test_behind_its_switch_it_is_on_the_other_counted_from_its_top() -> None:
    program, contexts = interrupted()
    assert need_of(program.composer(contexts), separate_layout(), "irq").direct == 8 + 900


def test_a_switch_that_the_layout_does_not_have_is_a_plain_call_and_hypothetical() -> None:
    program, contexts = interrupted()
    need = need_of(program.composer(contexts), shared_layout())
    assert need.direct == 100 + 400 + 176 + (32 + 8) + 900
    assert need.hypothetical and any("plain calls" in text for text in need.assumed)


def test_each_nested_interrupt_counts() -> None:
    program, contexts = interrupted()
    composer = program.composer(contexts)
    once, thrice = (need_of(composer, shared_layout(times)).direct for times in (1, 3))
    assert once is not None and thrice is not None and thrice - once == 2 * (176 + 40 + 900)


def test_softirqs_called_directly_stay_where_no_stack_of_their_own_is() -> None:
    program = (
        Program(read=400, do_softirq=16, __do_softirq=700)
        .call("read", "do_softirq", 200)
        .call("do_softirq", "__do_softirq", 8, CallKind.STACK_SWITCH, under=16)
    )
    contexts = [
        *syscalls(program, "read"),
        Context("core", "softirq", (program.start("__do_softirq"),), interrupt="softirq"),
    ]
    composer = program.composer(contexts)
    own = layout(
        stack("process", runs=("syscall",)),
        Stack("softirq", "cpu", 4096, "static", runs=("softirq",)),
        interrupts=[Interrupt("softirq", "softirq", "softirq")],
    )
    none = layout(
        stack("process", runs=("syscall",)), interrupts=[Interrupt("softirq", "interrupted", "process")]
    )
    counted = layout(
        stack("process", runs=("syscall",), nests={"softirq": 1}),
        interrupts=[Interrupt("softirq", "interrupted", "process")],
    )
    assert need_of(composer, own).direct == 100 + 400
    assert need_of(composer, none).direct == 100 + 200 + 16 + 8 + 700
    assert need_of(composer, none).hypothetical
    assert need_of(composer, counted).direct == 100 + 400 + 700


@given(st.lists(st.integers(1, 200).map(lambda one: one * 8), min_size=4, max_size=4), st.integers(0, 3))
def test_moving_interrupts_away_never_raises_the_process_stack(frames: list[int], times: int) -> None:
    program, contexts = interrupted()
    program.frames = np.array(frames, np.int32)
    composer = program.composer(contexts)
    shared = need_of(composer, shared_layout(times))
    process = replace(SEPARATE[0], nests={"hardirq": times})
    separate = need_of(
        composer, layout(process, SEPARATE[1], interrupts=[Interrupt("device", "irq", "process")])
    )
    assert separate.direct is not None and shared.direct is not None
    assert separate.direct <= shared.direct


# ---------------------------------------------------------------- hops


def chained() -> Program:
    return (
        Program(read=40, one=100, two=1000)
        .call("read", "one", 32, CallKind.INDIRECT, Evidence.ASSUMED)
        .call("one", "two", 96, CallKind.INDIRECT, Evidence.ASSUMED)
    )


def test_the_curve_by_hops_and_where_it_ends() -> None:
    program = chained()
    need = need_of(
        program.composer(syscalls(program, "read"), hops=3), layout(stack("process", runs=("syscall",)))
    )
    assert need.hops == (140, 232, 100 + 32 + 96 + 1000, 1228)
    assert need.direct == 140 and need.bound == 1228
    assert need.verdict is Verdict.FITS_IF


def test_an_assumed_number_of_hops_bounds_and_is_listed() -> None:
    program = chained()
    composer = program.composer(syscalls(program, "read"), hops=1, hop_limit=1)
    need = need_of(composer, layout(stack("process", runs=("syscall",))))
    assert need.bound == 232 and any("at most 1 hops" in text for text in need.assumed)


def test_fits_up_to_so_many_hops() -> None:
    program = chained()
    composer = program.composer(syscalls(program, "read"), hops=3)
    assert need_of(composer, layout(stack("process", 256, runs=("syscall",)))).fits_hops == 1
    assert need_of(composer, layout(stack("process", 128, runs=("syscall",)))).fits_hops is None


def test_a_cycle_of_indirect_calls_has_no_bound() -> None:
    program = chained().call("two", "one", 500, CallKind.INDIRECT, Evidence.ASSUMED)
    need = need_of(
        program.composer(syscalls(program, "read"), hops=3),
        layout(stack("process", 1 << 20, runs=("syscall",))),
    )
    assert need.bound is None and need.verdict is Verdict.UNKNOWN and "one" in need.why
    assert None not in need.hops


def test_most_hops_and_recursion_of_a_graph() -> None:
    program = chained().call("two", "two", 8)
    edges = program.composer([], hops=1).edges
    assert most_hops(edges, np.ones(3, np.bool_)) == (2, -1)
    assert recursive(edges).tolist() == [False, False, True]


# ---------------------------------------------------------------- verdicts

ORDER = [Verdict.FITS, Verdict.FITS_IF, Verdict.UNKNOWN, Verdict.MAY_EXCEED, Verdict.EXCEEDS]
numbers = st.integers(0, 1 << 20)
maybe = st.none() | numbers


@pytest.mark.parametrize(
    ("measured", "sure", "bound", "unknown", "assumptions", "expected"),
    [
        (5000, 5000, None, 3, 2, Verdict.EXCEEDS),
        (4096, 4097, None, 3, 2, Verdict.MAY_EXCEED),
        (None, 4096, None, 0, 0, Verdict.UNKNOWN),
        (None, 4096, 4096, 1, 0, Verdict.UNKNOWN),
        (None, 4000, 4097, 0, 0, Verdict.UNKNOWN),
        (None, 4000, 4096, 0, 1, Verdict.FITS_IF),
        (None, 4000, 4096, 0, 0, Verdict.FITS),
    ],
)
def test_the_first_verdict_that_holds(
    measured: int | None, sure: int, bound: int | None, unknown: int, assumptions: int, expected: Verdict
) -> None:
    assert decide(4096, measured, sure, bound, unknown, assumptions)[0] is expected


@given(numbers, numbers, maybe, numbers, maybe, st.integers(0, 3), st.integers(0, 3))
def test_a_bigger_stack_never_has_a_worse_verdict(
    size: int, more: int, measured: int | None, sure: int, bound: int | None, unknown: int, assumptions: int
) -> None:
    small, _ = decide(size, measured, sure, bound, unknown, assumptions)
    large, _ = decide(size + more, measured, sure, bound, unknown, assumptions)
    assert ORDER.index(large) <= ORDER.index(small)


@given(st.integers(1, 400).map(lambda one: one * 8), st.integers(0, 2000))
def test_an_assumption_that_settles_a_verdict_is_listed(charge: int, size: int) -> None:
    program = Program(read=40, walk=64).call("read", "walk", 32).call("walk", "walk", 64)
    wanted = layout(stack("process", size + 256, runs=("syscall",)))
    before = need_of(program.composer(syscalls(program, "read")), wanted)
    after = need_of(program.cut_at("walk", charge).composer(syscalls(program, "read")), wanted)
    assert before.verdict in (Verdict.UNKNOWN, Verdict.MAY_EXCEED)
    if after.verdict in (Verdict.FITS, Verdict.FITS_IF):
        assert after.verdict is Verdict.FITS_IF and "cut at walk" in after.assumed


def test_how_many_contexts_fit_alone_and_with_what_nests_on_top() -> None:
    program = Program(small=100, large=700, endless=100, handler=200).call("endless", "endless", 50)
    interrupt = Context("irq", "nmi", (program.start("handler"),), interrupt="nmi")
    contexts = [*syscalls(program, "small", "large", "endless"), interrupt]
    counts = []
    for times in (0, 1, 4):
        process = stack("process", 900, runs=("syscall",), nests={"nmi": times})
        fitting = need_of(program.composer(contexts), layout(process)).fitting
        assert (fitting.contexts, fitting.alone) == (4, (3,))  # what interrupts user mode starts here too
        counts.append(fitting.nested)
    assert counts == [(3,), (2,), (0,)]
