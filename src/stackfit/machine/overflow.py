"""The chance that some stack overflows, small as it may be, for a load on a layout.

In the event model depths do not influence times. So the rate of overflows is exactly

    sum over chains of contexts: starts of the chain per hour × P(its depths on the stack exceed what fits)

and only the first factor is about time. It is exact where all times are exponential and the states are few
(overflow_states). Else it comes from a run of the event model: what arrives at random on a chain does so at
its rate times the time that the chain ran (Poisson arrivals see time averages: Wolff, Operations Research 30,
1982), other starts are counted. So the run has to show the chain below, not the overflow. The second factor
is a convolution; where that would be too big, importance sampling (overflow_sampling).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.layouts import Layout
from stackfit.machine.depths import Depths, cells, tail, weakest
from stackfit.machine.interrupts import StormResult, simulate
from stackfit.machine.interrupts_model import ASSUMPTIONS, Machine, Storm, place_storm
from stackfit.machine.overflow_sampling import ENOUGH, NORMAL, Estimate, importance, importance_mixture
from stackfit.machine.overflow_states import Chain, Rules, exact_rates, reachable

__all__ = [
    "ENOUGH",
    "ChainChance",
    "Chance",
    "Estimate",
    "chance_of_overflow",
    "importance",
    "importance_mixture",
]

SAMPLES = 200_000
MAX_CONVOLVED = 1 << 15  # grid cells of a sum that is still convolved
_STUDENT = 2.093  # as NORMAL, for the mean of 20 batches
_LISTED = 20  # chains of a result

OVERFLOW_ASSUMPTIONS = (
    "overflows are counted where a context starts; the chance takes them as independent of each other. Where "
    "several come together (one deep context hit repeatedly) it is smaller; it is never above the rate",
    "a measured depth distribution holds what was seen; depths beyond the deepest seen are not in it unless "
    "a tail states them",
)


@dataclass(frozen=True)
class ChainChance:
    """One chain's part: context types and names outermost first, starts per hour of the whole machine, the
    probability that such a start overflows `stack`, and their product."""

    stack: str
    chain: Chain
    contexts: tuple[str, ...]
    starts_per_hour: float
    probability: float
    per_hour: float


@dataclass(frozen=True, eq=False)
class Starts:
    """Starts of a chain per hour of the whole machine, by batch of a run; `seen`: on how many events of the
    run the figure rests (inf: exact)."""

    rates: NDArray[np.float64]
    seen: float

    @property
    def per_hour(self) -> float:
        """The mean over the batches."""
        return float(self.rates.mean())


@dataclass(frozen=True)
class Chance:
    """The chance per hour that some stack of the machine overflows.

    `per_hour`: rate of overflows; `chance` = 1 − exp(−`per_hour`); None where there is no estimate,
    never 0 for want of one. `error`: standard error of the rate (0 when exact). `low`, `high`: 95 % interval
    of the chance. `effective`: effective number of starts seen that the rate rests on; None when exact.
    `method`: "exact" or "simulated" starts. `stacks`: rate by stack; `deepest`: by stack the greatest sum of
    depths that a chain can have (bytes; None: too many chains). `unseen`: chains that can overflow and did
    not come about in the run. `reason`: why the evidence is open, else empty.
    """

    layout: str
    method: str
    per_hour: float | None
    chance: float | None
    error: float | None
    low: float
    high: float
    effective: float | None
    evidence: str
    reason: str
    stacks: dict[str, float]
    deepest: dict[str, int | None]
    chains: tuple[ChainChance, ...]
    unseen: int | None
    assumptions: tuple[str, ...]


class _Tails:
    """P(overflow at a chain's last start), by stack; each combination of contexts is worked out once."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
        self.known: dict[tuple[int, int, tuple[int, ...]], tuple[float, float, float]] = {}
        self.deepest: dict[int, int] = {}
        self.open = False

    def of(self, chain: Chain, stack: int) -> tuple[float, float, float]:
        """Probability, its standard error (0: exact) and what it is at most (95 %)."""
        fixed, parts = self.machine.on_stack(chain, stack)
        whats = tuple(sorted(place.what for place in self.machine.places(chain) if place.stack == stack))
        key = (stack, fixed, whats)
        if key not in self.known:
            greatest = fixed + sum(part.greatest for part in parts)
            self.deepest[stack] = max(self.deepest.get(stack, 0), greatest)
            self.known[key] = self._work_out(parts, self.machine.usable[stack] - fixed)
        return self.known[key]

    def _work_out(self, parts: list[Depths], room: int) -> tuple[float, float, float]:
        if room < 0 or sum(int(part.values[0]) for part in parts) > room:
            return 1.0, 0.0, 1.0
        if cells(parts) <= MAX_CONVOLVED or sum(part.greatest for part in parts) <= room:
            exact = tail(parts, room)
            return exact, 0.0, exact
        guess = importance(parts, room, SAMPLES, self.generator)
        self.open = self.open or guess.evidence == "open"
        return guess.probability or 0.0, guess.error or 0.0, guess.high


def chance_of_overflow(storm: Storm, layout: Layout, seed: int, run: StormResult | None = None) -> Chance:
    """The chance per hour that some stack overflows. `run`: the load's own run on the layout with that seed,
    where it is there already. InputError as interrupts.simulate."""
    machine = place_storm(storm, layout)
    tails = _Tails(machine, seed)
    possible = reachable(machine)
    able = _able(machine, tails, possible)
    exact = exact_rates(machine) if able is None or able else {}
    if exact is not None:
        hourly = 3600.0 * storm.cpus
        starts = {chain: Starts(np.array([rate * hourly]), math.inf) for chain, rate in exact.items()}
    else:
        run = run if run is not None else simulate(storm, layout, seed)
        starts = _counted(machine, run)
    rows, batches, variance = _rows(machine, tails, starts)
    total = float(batches.mean())
    unseen: int | None = None if able is None else 0
    unseen_rate = 0.0
    effective, error = None, 0.0
    if exact is None:
        effective = _effective(rows, starts)
        error = math.sqrt(float(batches.var(ddof=1)) / batches.size + variance)
        missing = [probability for chain, probability in (able or {}).items() if chain not in starts]
        unseen = None if able is None else len(missing)
        # The rule of three over the hours of the run, for chains that never came about.
        unseen_rate = 3.0 / storm.hours * (1.0 if able is None else max(missing, default=0.0))
    else:
        error = math.sqrt(variance)
    spread = (_STUDENT if exact is None else NORMAL) * error
    low, high = max(0.0, total - spread), total + spread + unseen_rate
    evidence, reason = _evidence(machine, tails, total, effective, able, unseen_rate)
    estimate: float | None = total
    if total == 0 and evidence == "open":
        estimate = None
        if effective is None or (able is not None and not able):
            high = max(high, _beyond(machine, seed, run, exact_rates(machine), possible or ()))
    chance = None if estimate is None else -math.expm1(-estimate)
    stacks: dict[str, float] = {}
    for row in rows:
        stacks[row.stack] = stacks.get(row.stack, 0.0) + row.per_hour
    names = [stack.name for stack in layout.stacks]
    return Chance(
        layout.name,
        "exact" if exact is not None else "simulated",
        estimate,
        chance,
        None if estimate is None else error,
        -math.expm1(-low),
        -math.expm1(-high),
        effective,
        evidence,
        reason,
        stacks,
        {name: None if possible is None else tails.deepest.get(at, 0) for at, name in enumerate(names)},
        tuple(sorted(rows, key=lambda row: (-row.per_hour, row.contexts))[:_LISTED]),
        unseen,
        (*ASSUMPTIONS, *OVERFLOW_ASSUMPTIONS, *layout.assumptions),
    )


def _able(machine: Machine, tails: _Tails, possible: tuple[Chain, ...] | None) -> dict[Chain, float] | None:
    """Chains that can overflow a stack, and the greatest probability that one's start does; None: not
    known."""
    if possible is None:
        return None
    able = {}
    for chain in possible:
        if chain:
            most = sum(tails.of(chain, stack)[2] for stack in machine.touched(chain))
            if most > 0:
                able[chain] = min(1.0, most)
    return able


def _counted(machine: Machine, run: StormResult) -> dict[Chain, Starts]:
    """Starts of each chain, from the chains that came about in a run."""
    rules, length = Rules(machine), run.hours / run.starts.shape[0]
    numbers = {chain: at for at, chain in enumerate(run.chains)}
    found: dict[Chain, Starts] = {}
    for chain, at in numbers.items():
        if chain and run.starts[:, at].any():
            found[chain] = Starts(run.starts[:, at] / length, float(run.starts[:, at].sum()))
    for chain, at in numbers.items():
        if not run.spent[:, at].any():
            continue
        for source, one in enumerate(machine.storm.sources):
            if one.periodic or one.rate <= 0 or not rules.allowed(chain, source):
                continue
            # What may come in has not waited, or it would be in already.
            whole = (*chain, 1 + source)
            waited = numbers.get(whole)
            rates = one.rate * run.spent[:, at] * 1e-12 / length
            seen = float(run.starts[:, at].sum()) if chain else run.spent[:, at].sum() * 1e-12 * one.rate
            if waited is not None:
                rates = rates + run.delivered[:, waited] / length
                seen += float(run.delivered[:, waited].sum())
            found[whole] = Starts(rates, seen)
    return found


def _rows(
    machine: Machine, tails: _Tails, starts: dict[Chain, Starts]
) -> tuple[list[ChainChance], NDArray[np.float64], float]:
    """Every chain's part, overflows per hour by batch, and the variance that sampled tails add."""
    length = max((one.rates.size for one in starts.values()), default=1)
    batches, rows = np.zeros(length), []
    by_tail: dict[tuple[float, float], float] = {}
    for chain, one in sorted(starts.items(), key=lambda item: item[0]):
        for stack in machine.touched(chain):
            probability, error, _ = tails.of(chain, stack)
            if not probability:
                continue
            batches += one.rates * probability
            rate = one.per_hour
            by_tail[probability, error] = by_tail.get((probability, error), 0.0) + rate
            contexts = tuple(machine.name(what) for what in chain)
            name = machine.layout.stacks[stack].name
            rows.append(ChainChance(name, chain, contexts, rate, probability, rate * probability))
    return rows, batches, sum((rate * error) ** 2 for (_, error), rate in by_tail.items())


def _effective(rows: list[ChainChance], starts: dict[Chain, Starts]) -> float:
    """(Σ weights)² / Σ weights² over the events that the rate rests on; a chain's weigh the same."""
    squares = sum(row.per_hour**2 / starts[row.chain].seen for row in rows if row.per_hour)
    return sum(row.per_hour for row in rows) ** 2 / squares if squares else 0.0


def _evidence(
    machine: Machine,
    tails: _Tails,
    total: float,
    effective: float | None,
    able: dict[Chain, float] | None,
    unseen: float,
) -> tuple[str, str]:
    """The weakest evidence in it, or open and why."""
    storm = machine.storm
    depths = [machine.depth(what) for what in range(1 + 2 * len(storm.sources))]
    known = [depth for depth in depths if depth is not None]
    if (able is not None and not able) or (effective is None and total == 0):
        if any(depth.samples is not None for depth in known):
            return "open", "no depths seen add up to an overflow, and samples do not bound what was not seen"
        return weakest([depth.evidence for depth in known]), ""
    if total == 0:
        return "open", "no chain that can overflow came about in the run: only an upper limit is known"
    if effective is not None and effective < ENOUGH:
        return "open", f"rests on {effective:.3g} effective starts (at least {ENOUGH:.0f} are asked for)"
    if unseen > total:
        return "open", f"chains that did not come about in the run may add up to {unseen:.3g} per hour"
    if tails.open:
        return "open", "importance sampling of a tail found too few hits"
    return weakest([storm.evidence, *(depth.evidence for depth in known)]), ""


def _beyond(
    machine: Machine,
    seed: int,
    run: StormResult | None,
    exact: dict[Chain, float] | None,
    possible: tuple[Chain, ...],
) -> float:
    """Overflows per hour, at most (95 %): each needs a depth beyond the deepest of n samples, which has at
    most 3/n of the probability."""
    storm = machine.storm
    if exact is not None:
        rates = {chain: rate * storm.cpus * 3600 for chain, rate in exact.items()}
    else:
        run = run if run is not None else simulate(storm, machine.layout, seed)
        rates = {chain: one.per_hour for chain, one in _counted(machine, run).items()}
        rates.update({chain: 3.0 / storm.hours for chain in possible if chain and chain not in rates})
    most = 0.0
    for chain, rate in rates.items():
        for stack in machine.touched(chain) if chain else ():
            parts = machine.on_stack(chain, stack)[1]
            most += rate * min(1.0, sum(3.0 / part.samples for part in parts if part.samples))
    return most
