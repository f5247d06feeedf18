"""Rare overflow: exact by formula and enumeration, sampling against exact, both against the event model."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackfit.layouts import Layout, load_layout
from stackfit.machine import depths, interrupts_loop, overflow
from stackfit.machine.depths import Depths
from stackfit.machine.interrupts import simulate
from stackfit.machine.interrupts_model import Process, Softirq, Source, Storm, place_storm
from stackfit.machine.overflow import chance_of_overflow, importance, importance_mixture
from stackfit.machine.overflow_states import exact_rates, reachable, stationary

SAID = ("assumed", "for the test")
SHARED, SEPARATE = load_layout("linux-2.6-8k"), load_layout("linux-2.6-4k")
DEEP = depths.weighted([(2000, 0.9), (5000, 0.09), (7000, 0.01)], *SAID)
HANDLER = depths.weighted([(200, 0.8), (700, 0.15), (1500, 0.05)], *SAID)
COMPILED = pytest.mark.skipif(not interrupts_loop.__file__.endswith(".so"), reason="needs millions of events")
ETH = Source("eth", "device", 20_000, 10, HANDLER, 76)
SOFT = Softirq("rx", 0.7, 20, depths.uniform(100, 2500, *SAID, step=100))


def storm(*sources: Source, depth: Depths = DEEP, hours: float = 1e-3, cpus: int = 1) -> Storm:
    return Storm(cpus, hours, Process(0.4, 50, depth), sources)


def brute(parts: list[Depths], size: int) -> float:
    """P(sum > size), one combination after the other."""
    pairs = [list(zip(part.values.tolist(), part.probabilities.tolist(), strict=True)) for part in parts]
    return math.fsum(
        math.prod(share for _, share in choice)
        for choice in itertools.product(*pairs)
        if sum(depth for depth, _ in choice) > size
    )


def blind(_: object) -> None:
    """Stands for exact_rates where there are too many states."""


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize("rate", [10.0, 20_000.0, 300_000.0])
def test_one_source_by_formula(rate: float) -> None:
    # None, the handler, the handler and one waiting: shares 1, r, r² with r = rate × duration. A handler
    # starts by arrival where none runs, and by the one that waited.
    load = storm(replace(ETH, rate=rate), cpus=3)
    r = rate * 10e-6
    starts = (rate + r * r / 10e-6) / (1 + r + r * r) * 0.4 * 3 * 3600  # on a system call, per hour
    expected = starts * brute([DEEP, HANDLER], SHARED.stack("process").usable - 76)
    found = chance_of_overflow(load, SHARED, 1)
    assert found.per_hour == pytest.approx(expected, rel=1e-9)
    assert (found.method, found.evidence, found.error) == ("exact", "assumed", 0.0)
    assert found.chance == pytest.approx(-math.expm1(-expected), rel=1e-9)
    assert found.low == found.high == found.chance


def test_deep_system_calls_alone_count_once_each() -> None:
    load = storm(depth=depths.weighted([(100, 1e6), (9000, 1)], *SAID))
    starts = 0.4 / 50e-6 * 3600
    assert chance_of_overflow(load, SHARED, 1).per_hour == pytest.approx(starts / 1_000_001, rel=1e-9)


def test_separate_stacks_hold_what_shared_ones_do_not() -> None:
    source = replace(ETH, softirq=SOFT, depth=depths.constant(3000, *SAID))
    load = storm(source, depth=depths.uniform(500, 3500, *SAID, step=100))
    shared, separate = chance_of_overflow(load, SHARED, 1), chance_of_overflow(load, SEPARATE, 1)
    assert shared.per_hour is not None and shared.per_hour > 0
    # 3,500 + 76 on one, 3,000 (+ 76) on the other, 2,500 + 76 on the third: nothing adds up to an overflow.
    assert (separate.per_hour, separate.chance, separate.evidence) == (0.0, 0.0, "assumed")
    assert separate.deepest["process"] == 3576 and separate.deepest["softirq"] == 2576
    assert shared.deepest["process"] == 3500 + 76 + 2500 + 3076
    assert shared.chains[0].contexts[0] == "system call"


def test_stationary_probabilities_of_a_known_chain() -> None:
    # A queue of at most 4 whose shares fall by 10^-6 a step: each as precise as the first.
    rates = np.zeros((5, 5))
    for at in range(4):
        rates[at, at + 1], rates[at + 1, at] = 1.0, 1e6
    shares = stationary(rates)
    assert shares / shares[0] == pytest.approx([1e-6**at for at in range(5)], rel=1e-12)


def test_exact_needs_exponential_times() -> None:
    for other in (
        replace(ETH, periodic=True),
        replace(ETH, fixed=True),
        replace(ETH, softirq=replace(SOFT, fixed=True)),
    ):
        assert exact_rates(place_storm(storm(other), SHARED)) is None


def test_every_chain_of_the_markov_chain_is_reachable() -> None:
    machine = place_storm(storm(replace(ETH, softirq=SOFT, enables_irqs=True)), SHARED)
    rates, possible = exact_rates(machine), reachable(machine)
    assert rates is not None and possible is not None and set(rates) <= set(possible)


# ---------------------------------------------------------------- importance sampling


def generator(seed: int = 5) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ([depths.uniform(0, 1000, *SAID, step=4)] * 4, 3950),
        ([depths.with_tail(depths.uniform(100, 3000, *SAID, step=4), 1e-3, 0.97, 16, "x"), HANDLER], 8000),
        ([DEEP, HANDLER, depths.uniform(100, 2500, *SAID, step=4)], 10_900),
        ([depths.weighted([(100, 99_999), (900, 1)], *SAID)] * 3, 1800),
    ],
)
def test_sampling_finds_what_convolution_says(parts: list[Depths], size: int) -> None:
    exact = depths.tail(parts, size)
    assert 0 < exact < 1e-3
    found = importance(parts, size, 100_000, generator())
    assert found.probability is not None and found.error is not None and found.evidence == "measured"
    assert abs(found.probability - exact) < 5 * found.error
    assert found.error < 0.05 * exact and found.effective > 500


def test_sampling_at_1e_9() -> None:
    part = depths.uniform(0, 1000, *SAID, step=4)
    size = next(s for s in range(3000, 4000, 4) if depths.tail([part] * 4, s) < 2e-9)
    exact = depths.tail([part] * 4, size)
    assert 1e-10 < exact < 2e-9
    inside = 0
    for seed in range(40):
        found = importance([part] * 4, size, 20_000, generator(seed))
        inside += found.low <= exact <= found.high
    assert inside >= 34  # 38 expected of 95 % intervals; fewer than 34 is one chance in 60


BODY = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 50)), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 300), st.integers(1, 50)), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ),
    st.data(),
)
def test_sampling_is_never_sure_of_nothing(bodies: list[list[tuple[int, int]]], data: st.DataObject) -> None:
    parts = [depths.weighted(body, *SAID) for body in bodies]
    size = data.draw(st.integers(0, 1000))
    exact, found = brute(parts, size), importance(parts, size, 2000, generator())
    if exact == 0:
        assert found.probability == 0 and found.evidence == "proved"
    elif found.probability is None:
        assert found.evidence == "open" and found.high > 0
    else:
        assert abs(found.probability - exact) <= 6 * (found.error or 0) + 1e-9 * exact + 0.02 * exact
        assert found.low <= found.probability <= found.high


def test_without_a_hit_only_an_upper_limit_is_known() -> None:
    # Overflow needs the one value of a million that 50 draws do not find: the mean is above it already.
    rare = depths.weighted([(0, 1), (1000, 1_000_000)], *SAID)
    parts = [rare, depths.weighted([(0, 1_000_000), (1, 1)], *SAID)]
    found = importance(parts, 1000, 50, generator(0))
    assert found.probability is None or found.evidence == "open"
    assert found.high >= depths.tail(parts, 1000)


def test_contexts_that_depend_on_each_other() -> None:
    # Under load both are deep, else neither: far likelier than if they were independent.
    calm, busy = depths.uniform(0, 400, *SAID, step=4), depths.uniform(400, 1000, *SAID, step=4)
    cases = [(0.99, [calm, calm]), (0.01, [busy, busy])]
    found = importance_mixture(cases, 1990, 50_000, generator())
    exact = 0.01 * depths.tail([busy, busy], 1990)
    assert found.probability is not None and found.error is not None
    assert abs(found.probability - exact) < 5 * found.error


def test_few_effective_samples_are_open() -> None:
    part = depths.uniform(0, 1000, *SAID, step=4)
    assert importance([part] * 4, 3800, 60, generator()).evidence == "open"
    with pytest.raises(ValueError, match="at least 2"):
        importance([part], 10, 1, generator())


# ---------------------------------------------------------------- against the event model

FREQUENT = (
    (storm(ETH), SHARED),
    (storm(replace(ETH, softirq=SOFT, enables_irqs=True)), SHARED),
    (storm(replace(ETH, kind="system-vector"), depth=depths.uniform(500, 3900, *SAID, step=100)), SEPARATE),
)


@COMPILED
@pytest.mark.parametrize(("load", "layout"), FREQUENT)
def test_the_event_model_overflows_at_the_exact_rate(load: Storm, layout: Layout) -> None:
    exact = chance_of_overflow(load, layout, 1)
    assert exact.method == "exact" and exact.per_hour is not None
    result = simulate(replace(load, hours=0.02), layout, 11)
    for use in result.stacks:
        expected = exact.stacks.get(use.name, 0.0)
        if not expected:
            assert use.overflows == 0
            continue
        assert use.per_hour is not None and use.error is not None and use.overflows > 200
        assert abs(use.per_hour - expected) < 5 * use.error


@pytest.mark.parametrize(("load", "layout"), FREQUENT)
def test_starts_from_a_run_give_the_exact_rate(
    load: Storm, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = chance_of_overflow(load, layout, 1).per_hour
    monkeypatch.setattr(overflow, "exact_rates", blind)
    found = chance_of_overflow(load, layout, 1)
    assert exact is not None and found.per_hour is not None and found.error is not None
    assert found.method == "simulated" and found.evidence == "assumed"
    assert abs(found.per_hour - exact) < 5 * found.error
    assert found.error < 0.1 * exact


@COMPILED
def test_intervals_from_runs_hold_the_exact_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    load = storm(replace(ETH, softirq=SOFT), cpus=2)
    exact = chance_of_overflow(load, SHARED, 1).per_hour
    assert exact is not None
    monkeypatch.setattr(overflow, "exact_rates", blind)
    inside = 0
    for seed in range(30):
        found = chance_of_overflow(load, SHARED, seed)
        assert found.per_hour is not None and found.error is not None
        inside += abs(found.per_hour - exact) <= 2.093 * found.error
    assert inside >= 24  # 28.5 expected of 95 % intervals


def test_a_run_of_seconds_finds_one_overflow_in_thousands_of_years(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = depths.with_tail(depths.uniform(1000, 3000, *SAID, step=100), 1e-4, 0.5, 50, "x")
    load = storm(replace(ETH, depth=rare), depth=rare)
    exact = chance_of_overflow(load, SHARED, 1).per_hour
    assert exact is not None and 0 < exact < 1e-7  # per hour: more than a thousand years
    monkeypatch.setattr(overflow, "exact_rates", blind)
    found = chance_of_overflow(load, SHARED, 1)
    assert found.per_hour == pytest.approx(exact, rel=0.05)
    assert found.error is not None and abs(found.per_hour - exact) < 5 * found.error


@pytest.mark.parametrize("sampled", [False, True])
def test_sums_too_big_to_convolve_are_sampled(sampled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    load = storm(replace(ETH, softirq=SOFT))
    exact = chance_of_overflow(load, SHARED, 1)
    if sampled:
        monkeypatch.setattr(overflow, "MAX_CONVOLVED", 1)
    found = chance_of_overflow(load, SHARED, 1)
    assert found.per_hour is not None and exact.per_hour is not None and found.error is not None
    assert abs(found.per_hour - exact.per_hour) <= 5 * found.error
    assert (found.error > 0) == sampled


# ---------------------------------------------------------------- what is not known stays open


def test_a_run_too_short_to_see_the_chain_gives_an_upper_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "exact_rates", blind)
    seldom = Source("seldom", "device", 1e-3, 1, depths.constant(3000, *SAID), periodic=True)
    load = storm(seldom, depth=depths.constant(6000, *SAID), hours=1e-5)
    found = chance_of_overflow(load, SHARED, 1)
    assert (found.per_hour, found.chance, found.evidence) == (None, None, "open")
    assert found.unseen == 1 and found.high == pytest.approx(1.0) and "upper limit" in found.reason


def test_samples_do_not_prove_that_nothing_overflows() -> None:
    seen = depths.measured([(900, 990), (1500, 10)], "marks of 1,000 tasks")
    load = storm(replace(ETH, rate=1e-5, depth=depths.constant(300, *SAID)), depth=seen)
    load = replace(load, process=replace(load.process, busy=1e-9))
    found = chance_of_overflow(load, SHARED, 1)
    assert (found.per_hour, found.chance, found.evidence) == (None, None, "open")
    # Each start of a system call, and each interrupt of one, needs a depth beyond 1,000 samples: 3/1,000.
    starts = 1e-9 / 50e-6 * 3600 + 1e-5 * 1e-9 * 3600
    assert found.high == pytest.approx(-math.expm1(-starts * 3 / 1000), rel=1e-6)
    assert "samples" in found.reason


def test_few_starts_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "exact_rates", blind)
    load = storm(replace(ETH, rate=30.0, periodic=True), hours=2e-4)
    found = chance_of_overflow(load, SHARED, 2)
    assert found.evidence == "open" and found.effective is not None and found.effective < overflow.ENOUGH
    assert "effective" in found.reason or "come about" in found.reason


def test_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "exact_rates", blind)
    found = [chance_of_overflow(storm(ETH), SHARED, seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] and found[0] != found[2]
