"""The event model: where contexts land on each layout, what nests, rates against the exact Markov chain."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.image.model import InputError
from stackfit.layouts import load_layout
from stackfit.machine import depths, interrupts, interrupts_loop, interrupts_model
from stackfit.machine.depths import Depths
from stackfit.machine.interrupts import StackUse, StormResult, simulate
from stackfit.machine.interrupts_model import Machine, Process, Softirq, Source, Storm, place_storm
from stackfit.machine.overflow_states import Rules, exact_rates, reachable

SHARED, SEPARATE, TODAY = "linux-2.6-8k", "linux-2.6-4k", "linux-x86_64"
LAYOUTS = (SHARED, SEPARATE, "linux-i386", TODAY)


def always(depth: int) -> Depths:
    return depths.constant(depth, "assumed", "for the test")


ETH = Source("eth", "device", 20_000, 10, always(700), 76, True, softirq=Softirq("rx", 0.8, 20, always(900)))
DISK = Source("disk", "device", 5_000, 20, always(300), 60)
TIMER = Source("timer", "system-vector", 1_000, 5, always(200), 64)
NMI = Source("nmi", "nmi", 500, 5, always(100), 52)
FAULT = Source("fault", "exception", 2_000, 20, always(500), 48)
LOCAL = Source("local", "softirq", 3_000, 20, always(900))
PROCESS = Process(0.4, 50, always(3100))


def storm(*sources: Source, process: Process = PROCESS, hours: float = 2e-4, nested: int = 1) -> Storm:
    return Storm(1, hours, process, sources, nested)


def run(load: Storm, layout: str, seed: int = 1) -> StormResult:
    return simulate(load, load_layout(layout), seed)


def stack(result: StormResult, name: str) -> StackUse:
    return next(use for use in result.stacks if use.name == name)


def greatest(result: StormResult, name: str) -> int | None:
    return stack(result, name).greatest


def machine(load: Storm, layout: str) -> Machine:
    return place_storm(load, load_layout(layout))


# ---------------------------------------------------------------- where contexts land


def test_shared_stacks_take_everything() -> None:
    # system call, eth0's entry frame, its softirq, a handler, one on top of it, an NMI
    deepest = 3100 + 76 + 900 + 2 * (76 + 700) + 52 + 100
    result = run(storm(ETH, NMI, hours=2e-3), SHARED)
    assert greatest(result, "process") == deepest
    chain = stack(result, "process").chain
    assert chain is not None and [(part.name, part.bytes) for part in chain.parts] == [
        ("system call", 3100),
        ("eth (entry frame)", 76),
        ("rx", 900),
        ("eth", 776),
        ("eth", 776),
        ("nmi", 152),
    ]
    assert str(chain).endswith("= 5,780 B on stack process of 8,132 usable")


def test_separate_stacks_share_the_bytes() -> None:
    result = run(storm(ETH, TIMER, NMI, hours=2e-3), SEPARATE)
    # The timer's vector stays on the process stack, and so does the NMI on top of it.
    assert greatest(result, "process") == 3100 + 64 + 200 + 52 + 100
    # One handler on top of another, and an NMI; the lower one's entry frame is on another stack.
    assert greatest(result, "hardirq") == 700 + 76 + 700 + 52 + 100
    assert greatest(result, "softirq") == 900 + 64 + 200 + 52 + 100


def test_from_user_mode_the_process_stack_is_empty() -> None:
    idle = replace(PROCESS, busy=0.0)
    # With handlers of 2.6's 4K stacks device interrupts switch from user mode too.
    separate = run(storm(DISK, process=idle), SEPARATE)
    assert (greatest(separate, "process"), greatest(separate, "hardirq")) == (60, 300)
    shared = run(storm(DISK, process=idle), SHARED)
    assert greatest(shared, "process") == 360
    # The softirq too is on the task's stack; what hits it is not.
    today = run(storm(replace(ETH, enables_irqs=False), process=idle), TODAY)
    assert greatest(today, "process") == 76 + 900 + 76
    assert greatest(today, "irq") == 700


def test_an_nmi_of_today_takes_its_frame_along() -> None:
    result = run(storm(NMI), TODAY)
    assert (greatest(result, "process"), greatest(result, "nmi")) == (3100, 152)


def test_softirqs_of_a_system_call_switch_where_they_can() -> None:
    assert greatest(run(storm(LOCAL), SHARED), "process") == 4000
    separate = run(storm(LOCAL), SEPARATE)
    assert (greatest(separate, "process"), greatest(separate, "softirq")) == (3100, 900)
    assert greatest(run(storm(LOCAL), TODAY), "irq") == 900


def test_exceptions_nest_where_the_layout_says_so() -> None:
    assert greatest(run(storm(FAULT), SHARED), "process") == 3100 + 548
    layout = load_layout(SHARED)
    bare = replace(layout, stacks=tuple(replace(one, nests={"hardirq": 1}) for one in layout.stacks))
    result = simulate(storm(FAULT), bare, 1)
    assert stack(result, "process").greatest == 3100 and result.barred["fault"] > 0


def test_interrupts_on_are_the_layouts_to_allow() -> None:
    # linux-i386 states nests.hardirq = 0 on the hardirq stack: handlers there run alone, whatever they do.
    assert greatest(run(storm(ETH), "linux-i386"), "hardirq") == 700
    assert greatest(run(storm(ETH), SEPARATE), "hardirq") == 1476
    assert greatest(run(storm(replace(ETH, enables_irqs=False)), SEPARATE), "hardirq") == 700
    assert greatest(run(storm(ETH, nested=0), SEPARATE), "hardirq") == 700


def test_overflow_is_recorded_with_its_chain() -> None:
    deep = replace(PROCESS, depth=always(3900), name="write")
    result = run(storm(ETH, process=deep), SEPARATE)
    assert stack(result, "process").overflows == 0  # 3,900 + 76 of 4,036
    result = run(storm(TIMER, ETH, process=deep), SEPARATE)
    use = stack(result, "process")
    assert use.overflows > 0 and use.per_hour == pytest.approx(use.overflows / 2e-4)
    assert "write 3,900 B + timer 264 B = 4,164 B on stack process of 4,036 usable" in map(
        str, use.overflow_chains
    )
    assert use.overflows == sum(chain.overflows for chain in use.overflow_chains)
    # No overflow seen is a limit, never a rate of 0.
    other = stack(result, "hardirq")
    assert other.per_hour is None and other.per_hour_at_most == pytest.approx(3 / 2e-4)


def test_each_stack_of_a_chain_by_hand() -> None:
    both = storm(ETH, DISK)
    chain = (0, 5, 3, 2, 1)  # system call, eth's entry frame, rx, disk, eth
    stacks = {
        layout: [(p.entry_stack, p.entry, p.stack) for p in machine(both, layout).places(chain)]
        for layout in (SHARED, SEPARATE)
    }
    assert stacks[SHARED] == [(0, 0, 0), (0, 76, 0), (0, 0, 0), (0, 60, 0), (0, 76, 0)]
    # process, hardirq, softirq are 0, 1, 2
    assert stacks[SEPARATE] == [(0, 0, 0), (0, 76, 0), (2, 0, 2), (2, 60, 1), (1, 76, 1)]


# ---------------------------------------------------------------- rules and rates

RATES = st.floats(1, 50_000)


@st.composite
def loads(draw: st.DrawFn) -> Storm:
    kinds = draw(st.lists(st.sampled_from(interrupts_model.KINDS), min_size=1, max_size=4))
    sources = []
    for number, kind in enumerate(kinds):
        hard = kind in interrupts_model.HARD_KINDS
        soft = Softirq(f"soft{number}", draw(st.floats(0.1, 1)), 10, always(200), draw(st.booleans()))
        sources.append(
            Source(
                f"s{number}",
                kind,
                draw(RATES),
                draw(st.floats(1, 30)),
                always(100),
                0 if kind == "softirq" else 8,
                hard and draw(st.booleans()),
                hard and draw(st.booleans()),
                draw(st.booleans()),
                soft if hard and draw(st.booleans()) else None,
            )
        )
    return storm(*sources, hours=2e-6, nested=draw(st.integers(0, 2)))


@settings(max_examples=40, deadline=None)
@given(loads(), st.sampled_from(LAYOUTS), st.integers(0, 5))
def test_no_chain_comes_about_that_the_rules_forbid(load: Storm, layout: str, seed: int) -> None:
    result = run(load, layout, seed)
    placed = machine(load, layout)
    possible, rules = reachable(placed), Rules(placed)
    assert possible is not None
    count = len(load.sources)
    for chain, starts in zip(result.chains, result.starts.sum(axis=0), strict=True):
        if not starts:
            continue
        assert chain in possible
        assert sum(map(rules.is_softirq, chain)) <= 1
        assert sum(1 for what in chain if 0 < what <= count and load.sources[what - 1].kind == "nmi") <= 1
        assert 0 not in chain[1:]
    for use in result.stacks:
        total = [
            placed.on_stack(c, at)
            for c, n in zip(result.chains, result.starts.sum(axis=0), strict=True)
            if n
            for at in placed.touched(c)
            if placed.layout.stacks[at].name == use.name
        ]
        by_hand = max((fixed + sum(part.greatest for part in parts) for fixed, parts in total), default=None)
        assert use.greatest == by_hand  # depths are constants here


@pytest.mark.parametrize("layout", [SHARED, SEPARATE, TODAY])
@pytest.mark.parametrize(
    "sources", [(ETH,), (ETH, TIMER), (ETH, NMI, FAULT), (ETH, LOCAL), (DISK, TIMER, NMI)], ids=len
)
def test_starts_come_at_the_rates_of_the_markov_chain(sources: tuple[Source, ...], layout: str) -> None:
    hours = 0.004
    load = storm(*sources, hours=hours)
    exact = exact_rates(machine(load, layout))
    assert exact is not None
    result = run(load, layout, 7)
    seen = dict(zip(result.chains, result.starts.T, strict=True))
    for chain, rate in exact.items():
        batches = seen.get(chain, np.zeros(interrupts.BATCHES, np.int64))
        expected = rate * hours * 3600
        # Starts come in clusters: their scatter is that between batches, not less than Poisson's.
        scatter = max(expected**0.5, float(batches.std(ddof=1)) * interrupts.BATCHES**0.5, 1.0)
        assert abs(batches.sum() - expected) < 6 * scatter, chain
    assert not {c for c, n in seen.items() if n.any()} - set(exact)


def test_arrivals_are_starts_or_merged_or_waiting() -> None:
    result = run(storm(replace(DISK, periodic=True, rate=20_000), hours=1e-3), SHARED)
    ends = [at for at, chain in enumerate(result.chains) if chain and chain[-1] == 1]
    starts = int(result.starts[:, ends].sum())
    assert starts + result.merged["disk"] == pytest.approx(20_000 * 3.6, abs=2)
    assert result.merged["disk"] > 0  # 20 us of work every 50, exponential: some come while one waits


def test_time_is_all_accounted_for() -> None:
    load = replace(storm(ETH, DISK, hours=1e-4), cpus=2)
    assert int(run(load, SHARED).spent.sum()) == pytest.approx(2 * 0.36e12, abs=100)


def test_process_gets_its_share_of_what_interrupts_leave() -> None:
    result = run(storm(DISK, hours=0.005), SEPARATE)
    spent = dict(zip(result.chains, result.spent.sum(axis=0).tolist(), strict=True))
    assert spent[(0,)] / (spent[(0,)] + spent[()]) == pytest.approx(0.4, abs=0.01)


# ---------------------------------------------------------------- the run itself


def plain_loop() -> ModuleType:
    """The event loop from its `.py`, whatever is compiled beside it."""
    path = Path(interrupts_loop.__file__).with_name("interrupts_loop.py")
    loader = importlib.machinery.SourceFileLoader("plain_interrupts_loop", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def everything(result: StormResult) -> tuple[object, ...]:
    counts = [array.tolist() for array in (result.starts, result.delivered, result.spent)]
    return result.events, result.stacks, result.merged, result.barred, result.chains, counts


SPREAD = depths.with_tail(depths.uniform(100, 900, "assumed", "x", step=4), 0.1, 0.9, 16, "x")


def test_compiled_and_uncompiled_runs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    varied = replace(ETH, depth=SPREAD)
    load = replace(storm(varied, replace(TIMER, periodic=True, fixed=True), NMI, FAULT, LOCAL), cpus=2)
    before = run(load, SHARED, 3)
    monkeypatch.setattr(interrupts, "Cpu", plain_loop().Cpu)
    assert everything(run(load, SHARED, 3)) == everything(before)
    assert before.events > 30_000


def test_the_seed_decides() -> None:
    load = storm(replace(ETH, depth=SPREAD), NMI)
    assert everything(run(load, SHARED, 3)) == everything(run(load, SHARED, 3))
    assert everything(run(load, SHARED, 3)) != everything(run(load, SHARED, 4))


@pytest.mark.skipif(not interrupts_loop.__file__.endswith(".so"), reason="for the compiled loop")
def test_a_million_events_take_seconds() -> None:
    began = time.process_time()
    assert run(storm(ETH, DISK, TIMER, NMI, FAULT, LOCAL, hours=6e-3), SHARED).events > 1_000_000
    assert time.process_time() - began < 5


def test_evidence_and_assumptions_come_along() -> None:
    proved = replace(PROCESS, depth=depths.constant(900, "proved", "a bound"))
    assert run(storm(process=proved), SHARED).evidence == "assumed"  # the rates are
    stated = replace(storm(process=proved), evidence="measured")
    result = run(stated, SHARED)
    assert result.evidence == "measured"
    assert set(load_layout(SHARED).assumptions) < set(result.assumptions)


def test_what_cannot_be_simulated_is_refused() -> None:
    layout = load_layout(SHARED)
    with pytest.raises(InputError, match="no stack runs syscall or task"):
        place_storm(storm(), replace(layout, stacks=(replace(layout.stacks[0], runs=("nmi",)),)))
    with pytest.raises(InputError, match="events"):
        place_storm(storm(replace(ETH, rate=1e7), hours=100), layout)
    with pytest.raises(InputError, match="for all CPUs together"):
        place_storm(replace(storm(hours=500), cpus=64), layout)


def test_constants_of_both_kinds_agree() -> None:
    from stackfit.machine import interrupts_constants as constants

    pxd = Path(constants.__file__).with_suffix(".pxd").read_text()
    stated = [line.split(" = ") for line in pxd.splitlines() if " = " in line]
    assert {name.strip(): int(number) for name, number in stated} == {
        name: value for name, value in vars(constants).items() if name.isupper() and name != "FAR"
    }
    assert f"FAR {constants.FAR}LL" in pxd
