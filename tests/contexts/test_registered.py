"""Functions that Debian's amd64 kernel registers: which, in which contexts, and what lies above them."""

from __future__ import annotations

from typing import Any

import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.contexts.registered import FAMILIES
from stackfit.verdict.registered import RegisteredNeed


@pytest.fixture(scope="module")
def kernel(amd64_kernel: Any) -> Analysis:
    (module,) = amd64_kernel.modules.rglob("ena.ko*")
    return analyse([amd64_kernel.vmlinuz], [module])


def needs(analysis: Analysis, name: str) -> dict[tuple[str, str], RegisteredNeed]:
    """(family, kind) → the need of a function, by its name."""
    names = analysis.code.functions.names
    return {
        (need.registered.family.name, need.kind): need
        for need in analysis.registered_needs
        if names[need.registered.function] == name
    }


def test_every_family_says_who_calls_it_and_where_that_can_be_read() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.places and ":" in family.source, family.name
        for _, steps in family.ways:
            assert not steps[0].starts and all(step.starts for step in steps[1:]), family.name


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("function", "family", "kind"),
    [
        ("timer_interrupt", "irq handler", "hardirq"),
        ("pciehp_ist", "irq thread", "kthread"),
        ("process_timeout", "timer", "softirq"),
        ("tick_sched_timer", "hrtimer", "hardirq"),
        ("vmstat_update", "work", "kthread"),
        ("kswapd", "thread", "kthread"),
        ("__delayed_free_task", "RCU callback", "softirq"),
        ("process_backlog", "NAPI poll", "softirq"),
        ("ena_intr_msix_io", "irq handler", "hardirq"),
        ("ena_io_poll", "NAPI poll", "softirq"),
        ("ena_fw_reset_device", "work", "kthread"),
    ],
)
def test_well_known_functions_are_found(kernel: Analysis, function: str, family: str, kind: str) -> None:
    need = needs(kernel, function)[family, kind]
    assert need.above is not None and need.need is not None and need.need.direct is not None
    assert need.need.direct == need.above.bytes + need.own
    assert need.above.stack.name == ("process" if kind == "kthread" else "irq")


@pytest.mark.kernel
def test_the_way_down_is_that_of_the_kernels_dispatch_code(kernel: Analysis) -> None:
    names = kernel.code.functions.names

    def way(function: str, family: str, kind: str) -> list[str]:
        above = needs(kernel, function)[family, kind].above
        assert above is not None
        assert above.bytes == above.item.frame + sum(size for _, size in above.path)
        return [names[one] for one, _ in above.path]

    assert way("vmstat_update", "work", "kthread") in (
        ["kthread", "rescuer_thread", "process_one_work"],
        ["kthread", "worker_thread", "process_one_work"],
    )
    timer = way("process_timeout", "timer", "softirq")
    assert timer[timer.index("handle_softirqs") + 1] == "run_timer_softirq" and timer[-1] == "call_timer_fn"
    assert timer.index("handle_softirqs") == 1 and timer[0] == "__do_softirq"  # calls it since 6.1.95
    assert way("tick_sched_timer", "hrtimer", "hardirq")[-2:] == ["hrtimer_interrupt", "__hrtimer_run_queues"]


@pytest.mark.kernel
def test_the_mode_of_an_hrtimer_says_where_it_runs(kernel: Analysis) -> None:
    kinds = {kind for _, kind in needs(kernel, "tcp_pace_kick")}
    assert kinds == {"softirq"}  # net/ipv4/tcp_timer.c: HRTIMER_MODE_ABS_PINNED_SOFT
    assert {kind for _, kind in needs(kernel, "sched_rt_period_timer")} == {"hardirq"}


@pytest.mark.kernel
def test_what_may_be_registered_besides_is_counted(kernel: Analysis) -> None:
    registrations = kernel.registrations
    assert registrations.known and registrations.loose and registrations.unknown
    listed = {(one.family.name, one.function) for one in registrations.functions}
    for family, members in registrations.loose.items():
        assert not any((family, one) in listed for one in members), family
