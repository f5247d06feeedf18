"""How deep contexts stand in a stack, as distributions over whole bytes, and exact sums of them.

A distribution here is of the bytes in use at the moment that is looked at. Sums of independent depths are
convolutions on the grid that all values share: every term is a product of positive numbers, so a tail of
1e-15 keeps the relative precision of one near 1 (the upper tail is summed, never taken as 1 minus the rest).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EVIDENCE",
    "MAX_BYTES",
    "MAX_VALUES",
    "Depths",
    "DepthsError",
    "chain_depths",
    "constant",
    "convolve",
    "grid_step",
    "measured",
    "scaled",
    "tail",
    "uniform",
    "weakest",
    "weighted",
    "with_tail",
]

EVIDENCE = ("proved", "measured", "assumed")  # from the strongest to the weakest
MAX_BYTES = 1 << 30  # of one depth, as of one stack in a layout
MAX_VALUES = 1 << 16  # distinct depths of one distribution
MAX_CELLS = 1 << 22  # of the grid that a sum is spread on
REST = 1e-21  # a tail is cut where this share of it is left; the rest goes to its last value


class DepthsError(ValueError):
    """Numbers that make no distribution; the message is one line."""


@dataclass(frozen=True, eq=False)
class Depths:
    """A distribution of stack depth.

    `values` (n, int64): bytes, ascending, distinct, from 0; `probabilities` (n, float64): above 0, sum 1.
    `evidence`: of the whole distribution, one of EVIDENCE; `source`: the sentence that says why. `chains`:
    the name of each value's chain, or empty. `samples`: how many observations it was made from; None: none.
    `open_ended`: a tail goes beyond what was stated or seen, cut where 1e-21 of it is left.
    """

    values: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    evidence: str
    source: str
    chains: tuple[str, ...] = ()
    samples: int | None = None
    open_ended: bool = False

    @property
    def greatest(self) -> int:
        """The deepest value, bytes."""
        return int(self.values[-1])

    @property
    def mean(self) -> float:
        """The expected depth, bytes."""
        return float(np.dot(self.values, self.probabilities))

    def above(self, size: int) -> float:
        """P(depth > size)."""
        return float(self.probabilities[np.searchsorted(self.values, size, "right") :][::-1].sum())

    def chain(self, depth: int) -> str:
        """The name of the chain that is `depth` bytes deep; empty when unknown."""
        at = int(np.searchsorted(self.values, depth))
        known = bool(self.chains) and at < self.values.size and int(self.values[at]) == depth
        return self.chains[at] if known else ""


def _distribution(
    pairs: Iterable[tuple[int, float, str]], evidence: str, source: str, samples: int | None = None
) -> Depths:
    """Pairs of one depth are added up; the chain kept of several is the heaviest one's (first of equals)."""
    if evidence not in EVIDENCE:
        raise DepthsError(f"evidence {evidence!r} is none of {', '.join(EVIDENCE)}")
    if not source.strip():
        raise DepthsError("a depth needs a source sentence")
    weights: dict[int, list[float]] = {}
    names: dict[int, tuple[float, str]] = {}
    for depth, weight, name in pairs:
        if not 0 <= depth <= MAX_BYTES:
            raise DepthsError(f"a depth of {depth} bytes is not between 0 and {MAX_BYTES}")
        if not math.isfinite(weight) or weight < 0:
            raise DepthsError(f"a weight of {weight} is not a number from 0 up")
        if weight > 0:
            weights.setdefault(depth, []).append(weight)
            if depth not in names or weight > names[depth][0]:
                names[depth] = (weight, name)
    if not weights:
        raise DepthsError("no depth has a weight above 0")
    if len(weights) > MAX_VALUES:
        raise DepthsError(f"more than {MAX_VALUES} distinct depths")
    ordered = sorted(weights)
    mass = np.array([math.fsum(weights[depth]) for depth in ordered], np.float64)
    with np.errstate(over="ignore"):
        total = float(mass.sum())
    if not math.isfinite(total):
        raise DepthsError("the weights add up to no number")
    chains = tuple(names[depth][1] for depth in ordered)
    share = mass / total
    if not (share > 0).all():
        raise DepthsError("weights so far apart that a share of one is lost")
    return Depths(
        np.array(ordered, np.int64), share, evidence, source, chains if any(chains) else (), samples
    )


def constant(depth: int, evidence: str, source: str) -> Depths:
    """Always `depth` bytes."""
    return _distribution([(depth, 1.0, "")], evidence, source)


def uniform(least: int, most: int, evidence: str, source: str, step: int = 1) -> Depths:
    """Every multiple of `step` bytes above `least`, up to `most`, equally likely; both ends included."""
    if step < 1 or most < least or (most - least) % step:
        raise DepthsError(f"from {least} to {most} bytes is no whole number of steps of {step}")
    if (most - least) // step >= MAX_VALUES:
        raise DepthsError(f"more than {MAX_VALUES} distinct depths")
    return _distribution(((depth, 1.0, "") for depth in range(least, most + 1, step)), evidence, source)


def weighted(pairs: Iterable[tuple[int, float]], evidence: str, source: str) -> Depths:
    """Stated depths with their weights (any positive scale)."""
    return _distribution(((depth, weight, "") for depth, weight in pairs), evidence, source)


def measured(counts: Iterable[tuple[int, int]], source: str) -> Depths:
    """Depths seen running, each with how often: the empirical distribution, which bounds nothing above it."""
    seen = list(counts)
    if any(count < 0 for _, count in seen):
        raise DepthsError("a count below 0")
    total = sum(count for _, count in seen)
    return _distribution(((depth, float(count), "") for depth, count in seen), "measured", source, total)


def chain_depths(chains: Iterable[tuple[str, int, float]], evidence: str, source: str) -> Depths:
    """Depths of named call chains with the share of time (any scale) that each is in use."""
    return _distribution(((depth, weight, name) for name, depth, weight in chains), evidence, source)


def with_tail(body: Depths, probability: float, ratio: float, step: int, source: str) -> Depths:
    """`body`, and with `probability` a depth beyond its greatest: by step·k bytes, k ≥ 1, with chance
    (1 − ratio)·ratio^(k−1): the exponential tail on whole steps. It is assumed, so the whole is."""
    if not 0 < probability < 1 or not 0 <= ratio < 1:
        raise DepthsError("a tail needs 0 < probability < 1 and 0 <= ratio < 1")
    if step < 1:
        raise DepthsError("a tail needs a step of at least 1 byte")
    length = 1 if ratio == 0 else max(1, math.ceil(math.log(REST) / math.log(ratio)))
    if length + body.values.size > MAX_VALUES or body.greatest + step * length > MAX_BYTES:
        raise DepthsError("the tail falls so slowly that it has no end within the limits")
    share = (1 - ratio) * ratio ** np.arange(length, dtype=np.float64)
    share[-1] = ratio ** (length - 1)
    return replace(
        body,
        values=np.concatenate((body.values, body.greatest + step * np.arange(1, length + 1, dtype=np.int64))),
        probabilities=np.concatenate((body.probabilities * (1 - probability), share * probability)),
        evidence="assumed",
        source=f"{body.source}; tail: {source}",
        chains=(*body.chains, *[""] * length) if body.chains else (),
        open_ended=ratio > 0 or body.open_ended,
    )


def scaled(body: Depths, factor: float, word: int, source: str) -> Depths:
    """Every depth times `factor`, rounded up to `word` bytes: depths of another machine. It is assumed."""
    if not math.isfinite(factor) or factor <= 0 or word < 1:
        raise DepthsError("a scale is a number above 0")
    names = body.chains or ("",) * body.values.size
    pairs = zip(body.values.tolist(), body.probabilities.tolist(), names, strict=True)
    taken = [(math.ceil(depth * factor / word) * word, share, name) for depth, share, name in pairs]
    whole = _distribution(taken, "assumed", f"{body.source}; scaled: {source}", body.samples)
    return replace(whole, open_ended=body.open_ended)


def weakest(evidence: Iterable[str]) -> str:
    """The weakest of several evidences; "proved" of none."""
    return max(evidence, key=EVIDENCE.index, default=EVIDENCE[0])


def grid_step(parts: Iterable[Depths]) -> int:
    """The greatest number of bytes that divides every distance between two values of a part; at least 1."""
    return max(1, math.gcd(*(int(np.gcd.reduce(part.values - part.values[0])) for part in parts)))


def _reach(part: Depths) -> int:
    return part.greatest - int(part.values[0])


def cells(parts: Sequence[Depths]) -> int:
    """How many grid cells the sum of the parts takes."""
    reach = sum(_reach(part) for part in parts)
    return reach // grid_step(parts) + 1


def spread(part: Depths, step: int) -> NDArray[np.float64]:
    """A distribution on a grid: cell i is P(depth = least + i·step)."""
    least = int(part.values[0])
    grid = np.zeros(_reach(part) // step + 1, np.float64)
    grid[(part.values - least) // step] = part.probabilities
    return grid


def convolve(parts: Sequence[Depths]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The sum of independent depths: its values (bytes, ascending) and their probabilities (all above 0).

    DepthsError when the grid would have more than 4 million cells.
    """
    if cells(parts) > MAX_CELLS:
        raise DepthsError(f"the sum needs more than {MAX_CELLS} grid cells")
    step, grid = grid_step(parts), np.ones(1, np.float64)
    for part in sorted(parts, key=_reach):
        grid = np.convolve(grid, spread(part, step))
    at = np.flatnonzero(grid)
    least = sum(int(part.values[0]) for part in parts)
    return least + step * at.astype(np.int64), grid[at]


def tail(parts: Sequence[Depths], size: int) -> float:
    """P(sum of independent depths > size)."""
    if sum(part.greatest for part in parts) <= size:
        return 0.0
    values, shares = convolve(parts)
    return min(1.0, float(shares[np.searchsorted(values, size, "right") :][::-1].sum()))
