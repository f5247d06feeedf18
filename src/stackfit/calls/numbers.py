"""How the walk that follows pointers writes addresses: as negative numbers, so that they are never taken for
sizes and offsets.

A kernel's addresses are negative as they stand, with the sign of a word. Those of firmware are anywhere, so
they are moved below zero: by 2**32 where words have 32 bits, by 2**63 where they have 64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackfit.image.model import Machine, Program

__all__ = ["Numbers", "program_numbers"]

_SLACK = 0x1000  # bytes around a program that the first half of an address may have (lui, adrp)


@dataclass(frozen=True)
class Numbers:
    """`shift` is added to an address to get its number, `mask` takes an address out of a number. `low`,
    `high`: what lies between is an address and no other number; bytes. A shift of 0: all have the sign of
    a word."""

    machine: Machine
    shift: int = 0
    low: int = 0
    high: int = 0

    @property
    def mask(self) -> int:
        return self.machine.mask >> (1 if self.shift and self.machine.word == 8 else 0)

    def addresses(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The numbers of addresses."""
        signed = self.machine.signed(addresses)
        if not self.shift:
            return signed
        plain = signed & self.mask
        return plain + self.shift if self.machine.word == 4 else plain | np.int64(self.shift)

    def values(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers that code or data holds: those of addresses where they may be such."""
        signed = self.machine.signed(values.view(np.uint64))
        if not self.shift:
            return signed
        plain = signed & self.machine.mask if self.machine.word == 4 else signed
        return np.where(
            (plain >= self.low) & (plain < self.high), self.addresses(values.view(np.uint64)), signed
        )

    def code(self, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Where code pointers with these numbers lead."""
        found = numbers.view(np.uint64) & np.uint64(self.mask)
        return found & ~np.uint64(1) if self.machine is Machine.ARM else found


def program_numbers(program: Program) -> Numbers:
    """A program all of whose addresses are negative keeps them."""
    machine = program.machine
    sections = [one for image in program.images for one in image.sections if one.allocated and one.size]
    if machine.x86 or not sections:
        return Numbers(machine)
    low, high = min(one.address for one in sections), max(one.end for one in sections)
    if machine.word == 8 and low >> 63:
        return Numbers(machine)
    shift = -(1 << (63 if machine.word == 8 else 32))
    return Numbers(machine, shift, max(low - _SLACK, 1), high + _SLACK)
