"""Which function of one build is which of another.

Names first. What the compiler made of a function (`x.constprop.0`, `x.isra.0`, `x.part.0`) is `x` where that
has no other partner; then a name that one side has in one module and the other in another; last, code that
is the same, instruction for instruction, under another name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from stackfit.store.model import Function

__all__ = ["Matching", "Pair", "match", "stem"]

# What gcc and clang append to the names of functions that they copy, change or split.
_SUFFIX = re.compile(r"(\.(constprop|isra|part|cold|localalias|lto_priv|llvm)(\.\d+)?)+$")
_LEAST = 16  # instructions of code that is recognised by itself: shorter pieces look alike


@dataclass(frozen=True)
class Pair:
    """`how`: name, suffix, moved, code, or order (of several with the same name)."""

    old: Function
    new: Function
    how: str


@dataclass(frozen=True)
class Matching:
    pairs: tuple[Pair, ...]
    gone: tuple[Function, ...]
    come: tuple[Function, ...]


def stem(name: str) -> str:
    """The name in the source, without what the compiler appends."""
    return _SUFFIX.sub("", name)


def match(old: Iterable[Function], new: Iterable[Function]) -> Matching:
    """Each function has at most one partner; all orders are those given."""
    gone, come = list(old), list(new)
    pairs: list[Pair] = []

    def step(key: Callable[[Function], Hashable | None], how: str, single: bool) -> None:
        """Pair what has the same key; `single`: only where one on each side has it."""
        nonlocal gone, come
        groups = defaultdict[Hashable, tuple[list[Function], list[Function]]](lambda: ([], []))
        for side, functions in enumerate((gone, come)):
            for function in functions:
                found = key(function)
                if found is not None:
                    groups[found][side].append(function)
        taken: tuple[set[int], set[int]] = (set(), set())
        for before, after in groups.values():
            if not before or not after or (single and (len(before), len(after)) != (1, 1)):
                continue
            for pair in _paired(before, after, how):
                pairs.append(pair)
                taken[0].add(pair.old.number)
                taken[1].add(pair.new.number)
        gone = [one for one in gone if one.number not in taken[0]]
        come = [one for one in come if one.number not in taken[1]]

    step(lambda one: (one.module, one.name), "name", False)
    step(lambda one: (one.module, stem(one.name)), "suffix", False)
    step(lambda one: one.name, "moved", True)
    step(lambda one: (one.module, one.instructions) if _long(one) else None, "code", True)
    return Matching(tuple(pairs), tuple(gone), tuple(come))


def _paired(old: list[Function], new: list[Function], how: str) -> Iterable[Pair]:
    """Functions with the same name: the same code first, the others in the order of their addresses, as far
    as there are as many on both sides; else it is not known which is which."""
    if len(old) == len(new) == 1:
        yield Pair(old[0], new[0], how)
        return
    left = defaultdict[str, list[Function]](list)
    for one in new:
        left[one.instructions].append(one)
    rest: list[Function] = []
    for one in old:
        same = left.get(one.instructions)
        if same:
            yield Pair(one, same.pop(0), how)
        else:
            rest.append(one)
    others = [one for group in left.values() for one in group]
    others.sort(key=lambda one: one.number)
    if len(rest) == len(others):
        for before, after in zip(rest, others, strict=True):
            yield Pair(before, after, how if len(rest) == 1 else "order")


def _long(function: Function) -> bool:
    count, _, _ = function.instructions.partition(":")
    return count.isdigit() and int(count) >= _LEAST
