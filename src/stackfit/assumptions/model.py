"""Facts that are used and not derived: budgets, cuts, bounds of dynamic frames, candidates, hops.

Plain frozen data; all sizes are bytes. Each entry says why it holds and where that can be read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Generic, TypeVar

from stackfit.assumptions.versions import VersionRange, release_version
from stackfit.image.model import InputError, Machine

__all__ = [
    "AssumptionSet",
    "Budget",
    "Candidates",
    "Cut",
    "DynamicBound",
    "Entry",
    "Sleeps",
    "combine",
]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What every assumption has.

    `reason`: why it holds; `source`: where to read it (kernel file:function, document).
    `versions`: the kernel releases it holds for (`>=5.10,<6.2`), empty = all; `machine` None = all.
    `match`: "exact", or "glob" when the subject is a shell pattern (`*`, `?`, `[…]`). `name`: by which it can
    be left out, together with others of that name; empty = it has none.
    """

    reason: str
    source: str
    name: str = ""
    versions: str = ""
    machine: Machine | None = None
    match: str = "exact"

    @property
    def subject(self) -> str:
        """What the entry is about: a function, or a call site, or a field."""
        raise NotImplementedError

    @property
    def key(self) -> tuple[str, str]:
        """Entries of one kind with the same key are about the same thing; a later set's wins."""
        return (self.match, self.subject)

    def applies(self, release: str | None) -> bool:
        """Whether it holds for the kernel of that release (`uname -r`).

        An entry limited to versions does not apply where the release is not known: a bound must not
        rest on an assumption that may be another kernel's.
        """
        if not self.versions:
            return True
        version = release_version(release) if release is not None else None
        return version is not None and version in VersionRange.parse(self.versions)

    def covers(self, name: str) -> bool:
        """Whether the entry is about `name`; a glob is matched with case, on the whole name."""
        return fnmatchcase(name, self.subject) if self.match == "glob" else name == self.subject

    def overlaps(self, other: Entry) -> bool:
        """Whether both speak of the same subject for some kernel and machine."""
        if self.key != other.key:
            return False
        if self.machine is not None and other.machine is not None and self.machine is not other.machine:
            return False
        if not self.versions or not other.versions:
            return True
        return VersionRange.parse(self.versions).overlaps(VersionRange.parse(other.versions))


@dataclass(frozen=True, kw_only=True)
class Budget(Entry):
    """`function` occurs at most `times` times on a chain."""

    function: str
    times: int

    @property
    def subject(self) -> str:
        return self.function


@dataclass(frozen=True, kw_only=True)
class Cut(Entry):
    """Chains end in `function`, which counts `charge` bytes: its own frame and all below together."""

    function: str
    charge: int

    @property
    def subject(self) -> str:
        return self.function


@dataclass(frozen=True, kw_only=True)
class Sleeps(Entry):
    """`function` goes no deeper than its own frame in an interrupt: it checks and returns, or may not be
    called there, because what it would go on to do may sleep."""

    function: str

    @property
    def subject(self) -> str:
        return self.function


@dataclass(frozen=True, kw_only=True)
class DynamicBound(Entry):
    """The frame of `function`, dynamic part and return address included, is at most `bytes`."""

    function: str
    bytes: int

    @property
    def subject(self) -> str:
        return self.function


@dataclass(frozen=True, kw_only=True)
class Candidates(Entry):
    """All functions that indirect calls can reach.

    Exactly one of: `function` (every indirect call in it), `site` (`FUNCTION+0xOFFSET` of one call
    instruction), `field` (`struct TAG.MEMBER`, every call through it). No `functions` and no `places` = never
    called. `charge`: bytes that code in no image takes between the call and these functions. `places`: names
    of fields and parameters; what they hold is reached too.
    """

    functions: tuple[str, ...]
    charge: int = 0
    places: tuple[str, ...] = ()
    function: str | None = None
    site: str | None = None
    field: str | None = None

    @property
    def selector(self) -> str:
        """Which of the three it is: "function", "site" or "field"."""
        return "function" if self.function is not None else "site" if self.site is not None else "field"

    @property
    def subject(self) -> str:
        return self.function or self.site or self.field or ""

    @property
    def key(self) -> tuple[str, str]:
        return (f"{self.selector} {self.match}", self.subject)


AnyEntry = TypeVar("AnyEntry", bound=Entry)


class _Index(Generic[AnyEntry]):
    """Entries by exact name, and the patterns: a kernel has 50,000 functions to ask about."""

    def __init__(self, entries: Iterable[AnyEntry]) -> None:
        self.exact: dict[str, AnyEntry] = {}
        self.globs: list[AnyEntry] = []  # the last one first
        for entry in entries:
            if entry.match == "exact":
                self.exact[entry.subject] = entry
            else:
                self.globs.insert(0, entry)

    def find(self, name: str) -> AnyEntry | None:
        """The last entry that names `name` exactly, else the last whose pattern covers it."""
        found = self.exact.get(name)
        return found or next((entry for entry in self.globs if entry.covers(name)), None)


@dataclass(frozen=True)
class AssumptionSet:
    """Assumptions from one file, or from several put together.

    `hops`: the greatest number of indirect calls on a chain, None = unlimited. Look-ups take an exact name
    before a pattern and a later entry before an earlier; use `select` first, they ignore version and machine.
    """

    name: str
    path: str = ""
    hops: int | None = None
    budgets: tuple[Budget, ...] = ()
    cuts: tuple[Cut, ...] = ()
    sleeps: tuple[Sleeps, ...] = ()
    dynamics: tuple[DynamicBound, ...] = ()
    candidates: tuple[Candidates, ...] = ()
    description: str = ""
    hops_reason: str = ""
    hops_source: str = ""

    @property
    def entries(self) -> Iterator[Entry]:
        """All entries: budgets, cuts, sleeps, dynamics, candidates."""
        yield from self.budgets
        yield from self.cuts
        yield from self.sleeps
        yield from self.dynamics
        yield from self.candidates

    def select(self, release: str | None, machine: Machine | None) -> AssumptionSet:
        """Only what holds for that kernel; an entry for one machine goes where the machine is not known."""

        return self._only(lambda entry: entry.applies(release) and entry.machine in (None, machine))

    @property
    def names(self) -> tuple[str, ...]:
        """Names by which entries can be left out, sorted."""
        return tuple(sorted({entry.name for entry in self.entries if entry.name}))

    def without(self, names: Iterable[str]) -> AssumptionSet:
        """All but the entries of these names. InputError: no entry has one of them."""
        dropped = set(names)
        for name in sorted(dropped.difference(self.names)):
            near = difflib.get_close_matches(name[:100], self.names, 3)
            known = f"near: {', '.join(near)}" if near else f"there are {', '.join(self.names) or 'none'}"
            raise InputError(self.name, f"no assumption is named {name[:100]} ({known})")
        return self._only(lambda entry: entry.name not in dropped)

    def _only(self, keep: Callable[[Entry], bool]) -> AssumptionSet:
        return replace(
            self,
            budgets=tuple(filter(keep, self.budgets)),
            cuts=tuple(filter(keep, self.cuts)),
            sleeps=tuple(filter(keep, self.sleeps)),
            dynamics=tuple(filter(keep, self.dynamics)),
            candidates=tuple(filter(keep, self.candidates)),
        )

    def budget(self, function: str) -> Budget | None:
        """The budget of that function, or None."""
        return self._budgets.find(function)

    def cut(self, function: str) -> Cut | None:
        """The cut at that function, or None."""
        return self._cuts.find(function)

    def sleeping(self, function: str) -> Sleeps | None:
        """The entry that says the function may sleep, or None."""
        return self._sleeps.find(function)

    def dynamic(self, function: str) -> DynamicBound | None:
        """The bound of that function's dynamic frame, or None."""
        return self._dynamics.find(function)

    def candidates_for(
        self, *, function: str | None = None, site: str | None = None, field: str | None = None
    ) -> Candidates | None:
        """Candidates of a call: those of its site, else of the field it goes through, else its function's."""
        for selector, name in (("site", site), ("field", field), ("function", function)):
            found = self._candidates[selector].find(name) if name is not None else None
            if found is not None:
                return found
        return None

    @cached_property
    def _budgets(self) -> _Index[Budget]:
        return _Index(self.budgets)

    @cached_property
    def _cuts(self) -> _Index[Cut]:
        return _Index(self.cuts)

    @cached_property
    def _sleeps(self) -> _Index[Sleeps]:
        return _Index(self.sleeps)

    @cached_property
    def _dynamics(self) -> _Index[DynamicBound]:
        return _Index(self.dynamics)

    @cached_property
    def _candidates(self) -> dict[str, _Index[Candidates]]:
        return {
            selector: _Index(one for one in self.candidates if one.selector == selector)
            for selector in ("site", "field", "function")
        }


def combine(*sets: AssumptionSet) -> AssumptionSet:
    """All sets as one: about the same function (site, field), the later set's entry wins.

    An earlier entry goes where a later one covers all its versions and machines; where it covers some only,
    both stay and look-ups take the later. `hops` is that of the last set that states it.
    """

    def merged(of: Callable[[AssumptionSet], tuple[AnyEntry, ...]]) -> tuple[AnyEntry, ...]:
        result: list[AnyEntry] = []
        for one in sets:
            later: dict[tuple[str, str], list[Entry]] = {}
            for entry in of(one):
                later.setdefault(entry.key, []).append(entry)
            result = [old for old in result if not _shadowed(old, later.get(old.key, []))]
            result.extend(of(one))
        return tuple(result)

    limits = [one for one in sets if one.hops is not None]
    limit = limits[-1] if limits else AssumptionSet("")
    return AssumptionSet(
        name=" + ".join(one.name for one in sets),
        path=", ".join(one.path for one in sets if one.path),
        hops=limit.hops,
        budgets=merged(lambda one: one.budgets),
        cuts=merged(lambda one: one.cuts),
        sleeps=merged(lambda one: one.sleeps),
        dynamics=merged(lambda one: one.dynamics),
        candidates=merged(lambda one: one.candidates),
        hops_reason=limit.hops_reason,
        hops_source=limit.hops_source,
    )


def _shadowed(old: Entry, later: Iterable[Entry]) -> bool:
    """Whether a later entry of the same key holds wherever the old one does."""
    return any(
        (new.machine is None or new.machine is old.machine) and new.versions in ("", old.versions)
        for new in later
    )
