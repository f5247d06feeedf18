"""What starts to run in a shipped arm64 kernel, and on which of its stacks."""

from __future__ import annotations

import numpy as np
import pytest

import stackfit
from conftest import KernelFiles
from stackfit.analysis import Analysis
from stackfit.calls.model import CallKind
from stackfit.contexts.model import Context
from stackfit.frames.model import OPEN_FRAME, Summary
from stackfit.verdict.placement import place

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def analysis(arm64_kernel: KernelFiles) -> Analysis:
    return stackfit.check(arm64_kernel.vmlinuz)


@pytest.fixture(scope="module")
def contexts(analysis: Analysis) -> dict[str, Context]:
    return {context.title: context for context in analysis.contexts}


def names(analysis: Analysis, context: Context) -> set[str]:
    functions = analysis.code.functions
    return {functions.names[start.entry] for start in context.starts}


def test_the_layout_is_the_machines_own(analysis: Analysis) -> None:
    (layout,) = analysis.layouts
    assert layout.name == "linux-arm64"
    placed = {stack.name: place(layout, stack, analysis.contexts).items for stack in layout.stacks}
    assert all(placed.values())
    assert len(placed["process"]) > 700


def test_system_calls_by_number(analysis: Analysis, contexts: dict[str, Context]) -> None:
    """include/uapi/asm-generic/unistd.h; arch/arm64/include/asm/unistd32.h."""
    for title, number, function in (
        ("syscall read (arm64)", 63, "__arm64_sys_read"),
        ("syscall clone (arm64)", 220, "__arm64_sys_clone"),
        ("syscall ioctl (compat)", 54, "__arm64_compat_sys_ioctl"),
    ):
        context = contexts[title]
        assert context.number == number and names(analysis, context) == {function}
        (start,) = context.starts
        through = [analysis.code.functions.names[at] for at, _ in start.through]
        assert through[0].startswith("el0t_") and through[-1] == "invoke_syscall"
        assert start.bytes == sum(size for _, size in start.through)
    assert sum(title.startswith("syscall") for title in contexts) > 600


def test_what_the_vectors_push_is_read_from_them(contexts: dict[str, Context]) -> None:
    read = contexts["syscall read (arm64)"]
    assert read.frame_user == 336  # struct pt_regs of 6.1: 31 registers, sp, pc, pstate and eight words more
    assert contexts["exception el1h_64_sync"].frame_kernel == 336


def test_the_random_offset_is_bounded_by_the_code(analysis: Analysis) -> None:
    """include/linux/randomize_kstack.h: ten bits, rounded up to the stack's alignment."""
    (function,) = analysis.code.functions.named("invoke_syscall")
    summary = Summary(int(analysis.frames.summary[function]))
    assert summary & Summary.BOUNDED and not summary & OPEN_FRAME
    assert int(analysis.frames.frame[function]) == 32 + 1024


def test_interrupts_go_on_on_their_stack(analysis: Analysis, contexts: dict[str, Context]) -> None:
    functions, calls = analysis.code.functions, analysis.calls
    irq = contexts["hardirq irq"]
    assert not irq.behind and not irq.open
    assert "gic_handle_irq" in {functions.names[start.entry] for start in irq.switched}
    assert [functions.names[at] for at in irq.switchers] == ["call_on_irq_stack"]
    (switch,) = functions.named("call_on_irq_stack")
    (site,) = np.flatnonzero((calls.function == switch) & (calls.kind == CallKind.STACK_SWITCH)).tolist()
    assert int(calls.under[site]) == 16 and int(calls.depth[site]) == 0
    members = {functions.names[one] for one in calls.candidate_sets[int(calls.candidates[site])]}
    assert {"gic_handle_irq", "____do_softirq"} <= members
    softirq = contexts["softirq net_rx_action"]
    through = [functions.names[at] for at, _ in softirq.starts[0].through]
    assert through == ["____do_softirq", "__do_softirq", "handle_softirqs"]


def test_accesses_to_user_memory_may_fault(analysis: Analysis) -> None:
    calls, functions = analysis.calls, analysis.code.functions
    (handler,) = functions.named("el1h_64_sync_handler")
    raised = np.flatnonzero(calls.kind == CallKind.EXCEPTION)
    assert raised.size > 500
    sets = {calls.candidate_sets[number] for number in calls.candidates[raised].tolist()}
    assert sets == {(handler,)}


def test_nothing_is_lost_on_the_way(analysis: Analysis) -> None:
    """Of the code hardly anything is unreached: vectors, code of other exception levels."""
    code, frames = analysis.code, analysis.frames
    unreached = (frames.visitor < 0) & ~code.padding()
    assert unreached.sum() < 0.007 * len(code)
    open_frames = np.flatnonzero(frames.summary & OPEN_FRAME)
    known = ("vectors", "__bp_harden_el1_vectors", "__kvm_nvhe___kvm_hyp_host_vector")
    assert {code.functions.names[at] for at in open_frames.tolist()} <= set(known)
