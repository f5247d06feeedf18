"""Depth distributions: sums and tails against enumeration in fractions, tails in closed form, refusals."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackfit.machine import depths
from stackfit.machine.depths import Depths, DepthsError

SAID = ("assumed", "for the test")

WEIGHTS = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 1000)), min_size=1, max_size=6)
PARTS = st.lists(WEIGHTS, min_size=1, max_size=4)


def enumerated(parts: list[list[tuple[int, int]]]) -> dict[int, Fraction]:
    """The distribution of the sum, one combination after the other."""
    whole: dict[int, Fraction] = {}
    for choice in itertools.product(*parts):
        share = Fraction(1)
        for (_, weight), part in zip(choice, parts, strict=True):
            share *= Fraction(weight, sum(w for _, w in part))
        total = sum(depth for depth, _ in choice)
        whole[total] = whole.get(total, Fraction(0)) + share
    return whole


@given(PARTS)
def test_a_sum_is_what_enumeration_gives(parts: list[list[tuple[int, int]]]) -> None:
    values, shares = depths.convolve([depths.weighted(part, *SAID) for part in parts])
    whole = enumerated(parts)
    assert values.tolist() == sorted(whole)
    assert shares.tolist() == pytest.approx([float(whole[value]) for value in sorted(whole)], rel=1e-12)


@given(PARTS, st.integers(0, 900))
def test_a_tail_is_what_enumeration_gives(parts: list[list[tuple[int, int]]], size: int) -> None:
    beyond = sum((share for total, share in enumerated(parts).items() if total > size), Fraction(0))
    found = depths.tail([depths.weighted(part, *SAID) for part in parts], size)
    assert found == pytest.approx(float(beyond), rel=1e-12)
    assert (found == 0) == (beyond == 0)


def test_a_tail_of_1e_24_keeps_its_digits() -> None:
    # Six contexts that are deep once in 10,000 each: all of them at once.
    rare = depths.weighted([(100, 9999), (1000, 1)], *SAID)
    assert depths.tail([rare] * 6, 5999) == pytest.approx(1e-24, rel=1e-12)


@given(st.floats(0.05, 0.95), st.integers(1, 64), st.integers(0, 30))
def test_an_exponential_tail_falls_by_its_ratio(ratio: float, step: int, k: int) -> None:
    body = depths.uniform(100, 200, *SAID)
    long = depths.with_tail(body, 1e-3, ratio, step, "extrapolated")
    assert long.above(200 + step * k) == pytest.approx(1e-3 * ratio**k, rel=1e-9)
    assert long.probabilities.sum() == pytest.approx(1)
    assert long.evidence == "assumed" and "extrapolated" in long.source


@given(PARTS)
def test_probabilities_and_grid(parts: list[list[tuple[int, int]]]) -> None:
    made = [depths.weighted(part, *SAID) for part in parts]
    for part in made:
        assert part.probabilities.sum() == pytest.approx(1)
        assert (np.diff(part.values) > 0).all() and (part.probabilities > 0).all()
    step = depths.grid_step(made)
    assert all(not ((part.values - part.values[0]) % step).any() for part in made)


def test_measured_depths_are_the_samples() -> None:
    seen = depths.measured([(900, 3), (400, 1)], "marks of 4 tasks")
    assert seen.values.tolist() == [400, 900] and seen.probabilities.tolist() == [0.25, 0.75]
    assert (seen.evidence, seen.samples, seen.greatest, seen.mean) == ("measured", 4, 900, 775.0)


def test_chains_are_named_by_the_heaviest() -> None:
    chains = depths.chain_depths([("read", 800, 1), ("write", 800, 3), ("open", 400, 1)], *SAID)
    assert chains.chain(800) == "write" and chains.chain(400) == "open" and chains.chain(401) == ""
    assert chains.above(400) == pytest.approx(0.8)


def test_scaled_depths_round_up_to_words_and_are_assumed() -> None:
    other = depths.scaled(depths.measured([(4800, 1), (640, 1)], "amd64"), 0.7267, 4, "i386 is smaller")
    assert other.values.tolist() == [468, 3492]  # 465.1 and 3488.2
    assert other.evidence == "assumed" and other.samples == 2


def test_the_weakest_evidence() -> None:
    assert depths.weakest(["proved", "assumed", "measured"]) == "assumed"
    assert depths.weakest([]) == "proved"


@pytest.mark.parametrize(
    "make",
    [
        lambda: depths.constant(-1, *SAID),
        lambda: depths.constant(1, "guessed", "x"),
        lambda: depths.constant(1, "assumed", "  "),
        lambda: depths.uniform(10, 5, *SAID),
        lambda: depths.uniform(0, 10, *SAID, step=4),
        lambda: depths.uniform(0, 1 << 20, *SAID),
        lambda: depths.weighted([], *SAID),
        lambda: depths.weighted([(1, 0.0)], *SAID),
        lambda: depths.weighted([(1, float("nan"))], *SAID),
        lambda: depths.weighted([(1, 1e308), (2, 1e308)], *SAID),
        lambda: depths.weighted([(1, 1e308), (2, 1e-308)], *SAID),
        lambda: depths.measured([(1, -1)], "x"),
        lambda: depths.with_tail(depths.constant(1, *SAID), 0.1, 1.0, 1, "x"),
        lambda: depths.with_tail(depths.constant(1, *SAID), 0.1, 0.999999, 1, "x"),
        lambda: depths.with_tail(depths.constant(1, *SAID), 0.0, 0.5, 1, "x"),
        lambda: depths.scaled(depths.constant(1, *SAID), float("inf"), 4, "x"),
        lambda: depths.convolve([depths.weighted([(0, 1), (1 << 24, 1), ((1 << 24) + 1, 1)], *SAID)]),
    ],
)
def test_what_is_no_distribution_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(DepthsError) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_a_constant_adds_no_cells() -> None:
    parts: list[Depths] = [depths.constant(1 << 20, *SAID), depths.uniform(0, 8, *SAID, step=4)]
    assert depths.cells(parts) == 3
    assert depths.tail(parts, (1 << 20) + 3) == pytest.approx(2 / 3)
