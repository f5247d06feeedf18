"""How many bytes to allocate for a stack: its bound, a margin that the project states, rounded to alignment.

A bound needs no margin while what it rests on holds; the margin is for what may change: the next version of
the code, another compiler, an assumption that is not quite true. Nothing is advised while something is open.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from stackfit import choices
from stackfit.layouts.model import PAGE
from stackfit.verdict.model import StackNeed

__all__ = ["DEFAULT_MARGIN", "Advice", "Margin", "advised", "parse_margin"]

_PERCENT = re.compile(r"(\d{1,4}(?:\.\d{1,3})?) ?%")
_MOST = 1 << 30  # bytes


@dataclass(frozen=True)
class Margin:
    """Added to a bound: a share of it in thousandths of a percent, or bytes."""

    millipercent: int = 0
    bytes: int = 0

    def of(self, bound: int) -> int:
        """Bytes on top of that bound."""
        return self.bytes + math.ceil(bound * self.millipercent / 100_000)

    @property
    def text(self) -> str:
        return f"{self.millipercent / 1000:g} %" if self.millipercent else f"{self.bytes} B"


@dataclass(frozen=True)
class Advice:
    """Allocate `bytes`: the bound and `margin`, rounded up to a multiple of `unit`."""

    bytes: int
    bound: int
    margin: int
    unit: int


def parse_margin(text: str) -> Margin:
    """`10%` or a number of bytes. ValueError: neither."""
    if match := _PERCENT.fullmatch(text):
        return Margin(millipercent=round(float(match[1]) * 1000))
    if text.isascii() and text.isdigit() and int(text[:12]) <= _MOST:
        return Margin(bytes=int(text))
    raise ValueError(f"{text!r} is neither a number of bytes nor a share such as 10%")


DEFAULT_MARGIN = parse_margin(choices.DEFAULT_MARGIN)


def advised(need: StackNeed, margin: Margin, alignment: int) -> Advice | None:
    """Advice for one stack; None while anything is open below it, or nothing runs on it that is known.

    `alignment`: bytes to which the machine aligns its stack pointer, where the layout states no unit.
    """
    if need.bound is None or need.open or need.worst is None:
        return None
    unit = need.stack.unit if need.stack.unit != PAGE else alignment
    more = margin.of(need.bound)
    return Advice(-(-(need.bound + more) // unit) * unit, need.bound, more, unit)
