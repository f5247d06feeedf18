"""--fail-on: what makes the exit status 1."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass

from stackfit.decision.gate import BUDGET, GROWTH
from stackfit.tomlfile import hint
from stackfit.verdict.model import Verdict

__all__ = ["FailOn", "fail_on", "fail_on_words", "growth"]

_MOST = 1 << 30  # bytes
_GROWTH = re.compile(rf"{GROWTH}:(\d{{1,10}})", re.ASCII)


@dataclass(frozen=True)
class FailOn:
    """`rules`: names of verdicts, and `budget`. `growth`: bytes that a frame or a need may grow by; None:
    any."""

    rules: frozenset[str] = frozenset()
    growth: int | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """As they were written, sorted."""
        grown = () if self.growth is None else (f"{GROWTH}:{self.growth}",)
        return tuple(sorted((*self.rules, *grown)))


def fail_on(text: str) -> FailOn:
    """Words with commas between them, for argparse."""
    return fail_on_words(part for part in text.split(",") if part)


def fail_on_words(words: Iterable[str]) -> FailOn:
    """Raises argparse.ArgumentTypeError naming the word that is none."""
    known = [*(verdict.value for verdict in Verdict), BUDGET]
    rules, limit = set[str](), None
    for word in words:
        if word.startswith(f"{GROWTH}:"):
            limit = growth(word)
        elif word in known:
            rules.add(word)
        else:
            names = ", ".join([*known, f"{GROWTH}:BYTES"])
            raise argparse.ArgumentTypeError(f"{word[:60]!r} is none of {names}{hint(word, known)}")
    return FailOn(frozenset(rules), limit)


def growth(text: str) -> int:
    """BYTES of `growth:BYTES`, for argparse."""
    match = _GROWTH.fullmatch(text)
    if match is None or int(match[1]) > _MOST:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not {GROWTH}:BYTES, at most {_MOST} of them")
    return int(match[1])
