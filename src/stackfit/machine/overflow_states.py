"""The states that a CPU of the event model goes through, and how often each chain of contexts comes about.

A second statement of the rules of interrupts_loop, over the chains alone: where all times are exponential the
model is a Markov chain, and its stationary probabilities give the rate of every start. They are found by the
elimination of Grassmann, Taksar and Heyman (Operations Research 33, 1985), which never subtracts, so the
rarest state is as precise as the commonest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stackfit.machine import interrupts_constants as constants
from stackfit.machine.interrupts_model import Machine

__all__ = ["MAX_CHAINS", "MAX_STATES", "Chain", "Rules", "exact_rates", "reachable"]

MAX_STATES = 4_000  # solved exactly: a matrix of 128 MB
MAX_CHAINS = 20_000

Chain = tuple[int, ...]
State = tuple[Chain, int, int]  # chain; sources that wait, raised softirqs (bits)
Move = tuple[float, State, tuple[Chain, ...]]  # per second, where to, which chains start on the way


class Rules:
    """What can follow what on one CPU."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.sources = machine.storm.sources
        self.count = len(self.sources)

    def is_handler(self, what: int) -> bool:
        """A device's or vector's handler, running."""
        return 0 < what <= self.count and self.machine.kinds[what - 1] == constants.HARD

    def is_softirq(self, what: int) -> bool:
        """A softirq, raised by a handler or run by the system call."""
        if self.count < what <= 2 * self.count:
            return True
        return 0 < what <= self.count and self.machine.kinds[what - 1] == constants.CALLED

    def _nested(self, chain: Chain, stack: int, kind: int) -> tuple[int, int]:
        """Contexts on a stack, and how many of a kind are there that did not start it."""
        there = nested = 0
        for place in self.machine.places(chain):
            if stack not in (place.stack, place.entry_stack):
                continue
            hit = place.what > 2 * self.count or 0 < place.what <= self.count
            if there and hit and self.machine.kinds[(place.what - 1) % self.count] == kind:
                nested += 1
            there += 1
        return there, nested

    def allowed(self, chain: Chain, source: int) -> bool:
        """Whether an interrupt of a source can come in on top of a chain."""
        kind = self.machine.kinds[source]
        if kind in (constants.EXCEPTION, constants.CALLED):
            return chain == (0,) and (kind == constants.CALLED or self._room(chain, source))
        if not chain:
            return True
        if any(0 < what <= self.count and self.machine.kinds[what - 1] == constants.NMI for what in chain):
            return False
        if kind == constants.HARD:
            running = 0
            while running < len(chain) and self.is_handler(chain[-1 - running]):
                running += 1
            if running and not self.sources[chain[-1] - 1].enables_irqs:
                return False
            if running > self.machine.storm.nested_handlers:
                return False
        return self._room(chain, source)

    def _room(self, chain: Chain, source: int) -> bool:
        kind = self.machine.kinds[source]
        last = self.machine.places((*chain, 1 + source))[-1]
        for stack in {last.stack, last.entry_stack}:
            there, nested = self._nested(chain, stack, kind)
            if there and nested >= self.machine.nests[stack][kind]:
                return False
        return True

    def runs_softirqs(self, chain: Chain) -> bool:
        """Whether the topmost context is a handler at whose end softirqs may run."""
        if not self.is_handler(chain[-1]):
            return False
        return len(chain) < 2 or not (self.is_handler(chain[-2]) or self.is_softirq(chain[-2]))

    # ------------------------------------------------------------ the Markov chain

    def moves(self, state: State) -> Iterator[Move]:
        """Every way out of a state."""
        chain, waiting, raised = state
        for source, one in enumerate(self.sources):
            if one.rate <= 0:
                continue
            if self.allowed(chain, source):
                yield self._settled(one.rate, (*chain, 1 + source), waiting, raised, [(*chain, 1 + source)])
            elif self.machine.kinds[source] in (constants.HARD, constants.NMI):
                yield one.rate, (chain, waiting | 1 << source, raised), ()
        process = self.machine.storm.process
        if not chain:
            if process.busy:
                rate = 1e6 * process.busy / (process.duration * (1 - process.busy))
                yield self._settled(rate, (0,), waiting, raised, [(0,)])
            return
        what = chain[-1]
        if what == 0:
            yield self._settled(1e6 / process.duration, (), waiting, raised, [])
            return
        source = (what - 1) % self.count
        soft = self.sources[source].softirq
        if self.is_handler(what):
            ends = 1e6 / self.sources[source].duration
            chance = soft.probability if soft else 0.0
            if chance > 0:
                yield self._handler_ends(ends * chance, chain, waiting, raised | 1 << source)
            if chance < 1:
                yield self._handler_ends(ends * (1 - chance), chain, waiting, raised)
        elif self.is_softirq(what):
            duration = soft.duration if what > self.count and soft else self.sources[source].duration
            yield self._softirqs(1e6 / duration, chain[:-1], waiting, raised)
        else:
            yield self._settled(1e6 / self.sources[source].duration, chain[:-1], waiting, raised, [])

    def _handler_ends(self, rate: float, chain: Chain, waiting: int, raised: int) -> Move:
        if raised and self.runs_softirqs(chain):
            return self._softirqs(rate, (*chain[:-1], chain[-1] + 2 * self.count), waiting, raised)
        return self._settled(rate, chain[:-1], waiting, raised, [])

    def _softirqs(self, rate: float, base: Chain, waiting: int, raised: int) -> Move:
        """The next raised softirq starts on `base`; none left: the handler's entry frame goes."""
        if not raised:
            left = base[:-1] if base and base[-1] > 2 * self.count else base
            return self._settled(rate, left, waiting, raised, [])
        first = (raised & -raised).bit_length() - 1
        top = (*base, 1 + self.count + first)
        return self._settled(rate, top, waiting, raised & (raised - 1), [top])

    def _settled(self, rate: float, chain: Chain, waiting: int, raised: int, starts: list[Chain]) -> Move:
        """What waits comes in where it can: NMIs first, then the others in the order of the sources."""
        for nmi in (True, False):
            for source in range(self.count):
                if (self.machine.kinds[source] == constants.NMI) != nmi or not waiting >> source & 1:
                    continue
                if self.allowed(chain, source):
                    waiting &= ~(1 << source)
                    chain = (*chain, 1 + source)
                    starts.append(chain)
        return rate, (chain, waiting, raised), tuple(starts)


def reachable(machine: Machine) -> tuple[Chain, ...] | None:
    """Every chain that can start, and perhaps some that cannot; None beyond MAX_CHAINS. Sorted."""
    rules = Rules(machine)
    softs = [
        1 + rules.count + at
        for at, one in enumerate(machine.storm.sources)
        if one.rate > 0 and one.softirq is not None and one.softirq.probability > 0
    ]
    seen: set[Chain] = {()}
    todo: deque[Chain] = deque(seen)
    while todo:
        chain = todo.popleft()
        following = [
            (*chain, 1 + at)
            for at, one in enumerate(machine.storm.sources)
            if one.rate > 0 and rules.allowed(chain, at)
        ]
        if not chain and machine.storm.process.busy:
            following.append((0,))
        if chain and rules.runs_softirqs(chain):
            following += [(*chain[:-1], chain[-1] + 2 * rules.count, soft) for soft in softs]
        if chain and chain[-1] <= rules.count and rules.is_softirq(chain[-1]):
            following += [(*chain[:-1], soft) for soft in softs]
        for one_more in following:
            if one_more not in seen:
                if len(seen) >= MAX_CHAINS:
                    return None
                seen.add(one_more)
                todo.append(one_more)
    return tuple(sorted(seen))


def exact_rates(machine: Machine) -> dict[Chain, float] | None:
    """How often per second and CPU each chain comes about by the start of its last context.

    None when not all times are exponential, or there are more than MAX_STATES states.
    """
    storm = machine.storm
    timed = [(one.periodic or one.fixed, one.softirq) for one in storm.sources if one.rate > 0]
    if storm.process.fixed and storm.process.busy:
        return None
    if any(fixed or (soft is not None and soft.fixed) for fixed, soft in timed):
        return None
    rules = Rules(machine)
    start: State = ((), 0, 0)
    numbers = {start: 0}
    order = [start]
    moves: list[list[Move]] = []
    while len(moves) < len(order):
        moves.append(list(rules.moves(order[len(moves)])))
        for _, state, _ in moves[-1]:
            if state not in numbers:
                if len(order) >= MAX_STATES:
                    return None
                numbers[state] = len(order)
                order.append(state)
    matrix = np.zeros((len(order), len(order)), np.float64)
    for at, ways in enumerate(moves):
        for rate, state, _ in ways:
            matrix[at, numbers[state]] += rate
    shares = stationary(matrix)
    rates: dict[Chain, float] = {}
    for share, ways in zip(shares.tolist(), moves, strict=True):
        for rate, _, starts in ways:
            for chain in starts:
                rates[chain] = rates.get(chain, 0.0) + share * rate
    return rates


def stationary(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stationary probabilities (n) of an irreducible Markov chain from its rates (n, n); overwrites `matrix`.

    The diagonal is not used.
    """
    count = matrix.shape[0]
    for last in range(count - 1, 0, -1):
        onward = np.flatnonzero(matrix[last, :last])
        into = np.flatnonzero(matrix[:last, last])
        matrix[into, last] /= matrix[last, onward].sum()
        matrix[np.ix_(into, onward)] += matrix[into, last][:, None] * matrix[last, onward][None, :]
    shares = np.ones(count, np.float64)
    for at in range(1, count):
        into = np.flatnonzero(matrix[:at, at])
        shares[at] = (shares[into] * matrix[into, at]).sum()
    shares /= shares.sum()
    return shares
