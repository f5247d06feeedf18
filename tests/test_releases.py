"""Kernels of other Debian releases than the one that everything else is measured on: 5.10 and 6.12."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from conftest import KernelFiles
from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import CallKind, Reason, Rung
from stackfit.contexts.model import Context
from stackfit.layouts import default_layout

pytestmark = pytest.mark.kernel

# arch/x86/entry/syscalls/syscall_64.tbl: numbers up to 440 that have no function of their own (212,
# lookup_dcookie, is gone since 6.8).
NONE_64 = {
    134,
    156,
    174,
    *range(177, 179),
    *range(180, 186),
    205,
    *range(211, 213),
    214,
    215,
    236,
    *range(335, 424),
}
# arch/x86/include/asm/trapnr.h: what all of these kernels handle (machine checks are left out of some).
EXCEPTIONS = {*range(15), *range(15, 18), 19, 29} - {2}


@pytest.fixture(scope="module")
def bullseye(bullseye_kernel: KernelFiles) -> Analysis:
    return analyse([bullseye_kernel.vmlinuz])


@pytest.fixture(scope="module")
def trixie(trixie_kernel: KernelFiles) -> Analysis:
    return analyse([trixie_kernel.vmlinuz])


@pytest.fixture(params=["bullseye", "trixie"])
def analysis(request: pytest.FixtureRequest) -> Analysis:
    found: Analysis = request.getfixturevalue(request.param)
    return found


def of(contexts: Iterable[Context], kind: str) -> list[Context]:
    return [context for context in contexts if context.kind == kind]


def names(analysis: Analysis, functions: Iterable[int]) -> set[str]:
    return {analysis.code.functions.names[one] for one in functions}


def candidates(analysis: Analysis, site: int) -> set[str]:
    number = int(analysis.calls.candidates[site])
    return names(analysis, analysis.calls.candidate_sets[number]) if number >= 0 else set()


def sites(analysis: Analysis, function: str, kind: CallKind) -> list[int]:
    (index,) = analysis.code.functions.named(function)
    calls = analysis.calls
    return np.flatnonzero((calls.function == index) & (calls.kind == kind)).tolist()


def test_depths_agree_with_orc(analysis: Analysis) -> None:
    (orc,) = analysis.witnesses
    assert orc.defined > 150_000
    assert len(orc.disagreements) <= 1e-4 * orc.defined


def test_nearly_all_code_is_reached(analysis: Analysis) -> None:
    code = ~analysis.code.padding()
    assert (code & (analysis.frames.visitor < 0)).sum() < 2e-3 * code.sum()


def test_every_system_call_is_found(analysis: Analysis) -> None:
    calls = of(analysis.contexts, "syscall")
    numbered = {one.number: one for one in calls if one.abi == "x86-64" and one.number >= 0}
    assert set(range(441)) - NONE_64 <= numbered.keys()
    for number, name in ((0, "read"), (59, "execve"), (334, "rseq"), (437, "openat2")):
        assert numbered[number].name == name
    assert len([one for one in calls if one.abi == "compat" and one.number >= 0]) > 400
    assert not any(one.open for one in calls)
    work = [one for one in calls if one.number < 0 and one.abi == "x86-64"]
    started = names(analysis, (start.entry for one in work for start in one.starts))
    assert any("exit_to_user_mode" in name for name in started)


def test_every_exception_interrupt_and_softirq_is_found(analysis: Analysis) -> None:
    contexts = analysis.contexts
    assert {one.number for one in of(contexts, "exception")} >= EXCEPTIONS
    softirqs = {one.name for one in of(contexts, "softirq")}
    assert softirqs >= {
        "net_rx_action",
        "net_tx_action",
        "tasklet_action",
        "tasklet_hi_action",
        "rcu_core_si",
    }
    assert len(softirqs) == 11  # the ten of include/linux/interrupt.h, and what runs them
    assert len(of(contexts, "nmi")) == 1
    # Threads that are handed on to another function are all that is not found.
    assert [one.kind for one in contexts if not one.starts] == ["kthread"]


def test_device_interrupts_and_system_vectors_switch_stacks(analysis: Analysis) -> None:
    interrupts = {one.name: one for one in of(analysis.contexts, "hardirq")}
    timer = interrupts["apic_timer_interrupt"]
    assert "__sysvec_apic_timer_interrupt" in names(analysis, (start.entry for start in timer.switched))
    assert timer.interrupted  # … and the way there is on the stack that it hits
    assert interrupts["common_interrupt"].interrupt == "device"


def test_the_layout_is_that_of_today(analysis: Analysis) -> None:
    assert default_layout(analysis.program.machine) == "linux-x86_64"
    assert [layout.name for layout in analysis.layouts] == ["linux-x86_64"]


def test_paravirt_calls_reach_what_the_image_has(analysis: Analysis) -> None:
    calls = analysis.calls
    rung = np.flatnonzero(calls.rung == Rung.PARAVIRT)
    assert rung.size > 3_000
    assert all(len(calls.candidate_sets[number]) == 1 for number in np.unique(calls.candidates[rung]))
    reached = set().union(*(candidates(analysis, int(site)) for site in rung[::50]))
    assert reached
    assert "BUG_func" not in reached  # what the patching of 6.8 and later replaces


def test_5_10_says_what_it_does_not_know_of_device_interrupts(bullseye: Analysis) -> None:
    interrupts = {one.name: one for one in of(bullseye.contexts, "hardirq")}
    assert (
        "common_interrupt" in interrupts["common_interrupt"].behind
    )  # the handler is read from its descriptor
    assert not interrupts["apic_timer_interrupt"].behind


def test_6_12_calls_security_hooks_through_trampolines(trixie: Analysis) -> None:
    (hooks,) = sites(trixie, "__SCT__lsm_static_call_file_open_0", CallKind.TAIL)
    assert candidates(trixie, hooks) >= {"selinux_file_open", "apparmor_file_open", "tomoyo_file_open"}
    opened = {
        trixie.code.functions.names[int(trixie.calls.function[site])]
        for site in np.flatnonzero(trixie.calls.reason == Reason.UPDATED)
    }
    assert not [name for name in opened if "lsm_static_call" in name]
