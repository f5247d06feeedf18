"""Small probabilities by importance sampling.

Depths are drawn from exponentially tilted distributions under which what is looked for is common, and
weighted back (Siegmund, Annals of Statistics 4, 1976).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.machine.depths import Depths

__all__ = ["ENOUGH", "NORMAL", "Estimate", "importance", "importance_mixture"]

ENOUGH = 100.0  # effective samples below which an estimate is open
NORMAL = 1.96  # standard errors on both sides of 95 %


@dataclass(frozen=True)
class Estimate:
    """A probability estimated by sampling.

    `probability`: None without a hit; `error`: its standard error; `low`, `high`: 95 % confidence interval
    (without a hit `high` is the rule of three); `effective`: effective sample size of the weighted hits;
    `evidence`: "measured", or "open" below ENOUGH effective samples.
    """

    probability: float | None
    error: float | None
    low: float
    high: float
    effective: float
    hits: int
    samples: int
    evidence: str


def importance(parts: Sequence[Depths], size: int, samples: int, generator: np.random.Generator) -> Estimate:
    """P(sum of independent depths > size) by exponential tilting. ValueError: fewer than 2 samples."""
    return importance_mixture([(1.0, parts)], size, samples, generator)


def importance_mixture(
    components: Sequence[tuple[float, Sequence[Depths]]],
    size: int,
    samples: int,
    generator: np.random.Generator,
) -> Estimate:
    """P(sum > size) where the depths are independent given one of several cases, and dependent through it.

    `components`: each case's probability and its depths (bytes). Each gets `samples` draws, tilted for it.
    """
    if samples < 2:
        raise ValueError("importance sampling needs at least 2 samples")
    mean = variance = squares = most = 0.0
    hits = drawn = 0
    for share, parts in components:
        if sum(part.greatest for part in parts) <= size:
            continue  # cannot be above: exactly nothing to add
        weights, limit = _tilted(parts, size, samples, generator)
        mean += share * float(weights.mean())
        variance += share**2 * float(weights.var(ddof=1)) / samples
        squares += float(((share * weights / samples) ** 2).sum())
        hits += int(np.count_nonzero(weights))
        drawn += samples
        most += share * min(1.0, limit * 3.0 / samples) if not weights.any() else 0.0
    if not drawn:
        return Estimate(0.0, 0.0, 0.0, 0.0, math.inf, 0, 0, "proved")
    if not hits:
        return Estimate(None, None, 0.0, most, 0.0, 0, drawn, "open")
    effective = mean**2 / squares
    error = math.sqrt(variance)
    low, high = max(0.0, mean - NORMAL * error), min(1.0, mean + NORMAL * error + most)
    evidence = "measured" if effective >= ENOUGH else "open"
    return Estimate(mean, error, low, high, effective, hits, drawn, evidence)


def _tilted(
    parts: Sequence[Depths], size: int, samples: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """Weights of draws under the tilt that makes the mean just above `size` (0: not above), and the greatest
    weight that a hit can have."""
    tilt = _tilt(parts, size)
    total = np.zeros(samples, np.int64)
    scale = 0.0
    for part in parts:
        shares, log_scale = _tilt_one(part, tilt)
        scale += log_scale
        reach = np.cumsum(shares)
        at = np.searchsorted(reach, generator.random(samples) * reach[-1], "right")
        total += part.values[np.minimum(at, part.values.size - 1)]
    weights = np.where(total > size, np.exp(np.minimum(0.0, scale - tilt * total)), 0.0)
    return weights, math.exp(min(0.0, scale - tilt * (size + 1)))


def _tilt_one(part: Depths, tilt: float) -> tuple[NDArray[np.float64], float]:
    """Probabilities proportional to p·exp(tilt·depth), and the logarithm of what they were divided by."""
    exponent = tilt * part.values.astype(np.float64)
    top = float(exponent.max())
    raw = part.probabilities * np.exp(exponent - top)
    total = float(raw.sum())
    return raw / total, top + math.log(total)


def _tilt(parts: Sequence[Depths], size: int) -> float:
    """The tilt under which the mean of the sum is just above `size`; 0 when it is already."""
    target = size + min(1.0, (sum(part.greatest for part in parts) - size) / 2)

    def mean(tilt: float) -> float:
        return sum(float(np.dot(_tilt_one(part, tilt)[0], part.values)) for part in parts)

    if mean(0.0) >= target:
        return 0.0
    low, high = 0.0, 1e-6
    while mean(high) < target and high < 1e3:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < target else (low, middle)
    return high
