"""What hosts that were looked at say of hosts that were not: intervals, and the chance of what was not seen.

Hosts are the sample: stacks of one host have more in common than those of two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.fleet.extra import need

__all__ = ["DRAWS", "LEVEL", "Chance", "bootstrap_sums", "chance_of", "interval"]

DRAWS = 2_000
_TOGETHER = 1 << 20  # hosts drawn at a time
LEVEL = 0.95
_SEEN = "Clopper-Pearson, two-sided"
_NONE = "Clopper-Pearson, one-sided (0 seen: the rule of three)"
_ALL = "Clopper-Pearson, one-sided (seen on all)"


@dataclass(frozen=True)
class Chance:
    """How often something was seen, of so many, and the interval of its probability at LEVEL. Not seen is not
    0: `high` says how likely it may still be."""

    seen: int
    of: int
    low: float
    high: float
    method: str


def chance_of(seen: int, of: int) -> Chance | None:
    """Of independent trials; None without any.

    Clopper and Pearson, Biometrika 26 (1934): exact, never too narrow. None seen, or on all: one-sided, as
    the other limit is 0 or 1 whatever was seen.
    """
    if of == 0:
        return None
    beta = need("scipy.stats").beta
    one_sided, tail = 1 - LEVEL, (1 - LEVEL) / 2
    if seen == 0:
        return Chance(seen, of, 0.0, float(beta.ppf(1 - one_sided, 1, of)), _NONE)
    if seen == of:
        return Chance(seen, of, float(beta.ppf(one_sided, of, 1)), 1.0, _ALL)
    low, high = beta.ppf(tail, seen, of - seen + 1), beta.ppf(1 - tail, seen + 1, of - seen)
    return Chance(seen, of, float(low), float(high), _SEEN)


def bootstrap_sums(values: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Sums of columns over hosts drawn with replacement, as many as there are: DRAWS × columns, of hosts ×
    columns.

    All columns of a draw are of the same hosts, so that ratios of them may be taken. Whole numbers below 2^53
    in all sums: the same whatever adds them up.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    hosts = len(values)
    exact = values.astype(np.float64)
    parts, left = [], DRAWS
    while left:
        draws = min(left, max(_TOGETHER // hosts, 1))
        drawn = generator.integers(hosts, size=(draws, hosts)) + np.arange(draws)[:, None] * hosts
        times = np.bincount(drawn.ravel(), minlength=draws * hosts).reshape(draws, hosts)
        parts.append(times.astype(np.float64) @ exact)
        left -= draws
    return np.concatenate(parts)


def interval(low: NDArray[np.float64], high: NDArray[np.float64], hosts: int) -> tuple[float, float] | None:
    """The expanded percentile interval of draws at LEVEL; `low` and `high` where a draw itself is known
    between two limits. None of fewer than two hosts.

    Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015):
    percentiles alone are too narrow with few hosts, as a normal interval without Student's t and n - 1 is.
    """
    if hosts < 2:
        return None
    stats = need("scipy.stats")
    student = float(stats.t.ppf((1 - LEVEL) / 2, hosts - 1)) * np.sqrt(hosts / (hosts - 1))
    tail = float(stats.norm.cdf(student))
    return (
        float(np.quantile(low, tail, method="lower")),
        float(np.quantile(high, 1 - tail, method="higher")),
    )
