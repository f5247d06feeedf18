"""Ranges of kernel releases, written as in PEP 440: `>=5.10,<6.2`, `==6.1.*`.

A release counts by its leading dotted numbers: `6.1.0-56-cloud-amd64` is 6.1.0, `6.2.0-rc1` is 6.2.0.
Missing parts are zeros, so 6.1 and 6.1.0 are the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["VersionRange", "release_version"]

RELEASE = re.compile(r"(\d{1,9}(?:\.\d{1,9}){0,7})(?![0-9])", re.ASCII)
CLAUSE = re.compile(r"(>=|<=|==|>|<)\s*(\d{1,9}(?:\.\d{1,9}){0,7})(\.\*)?", re.ASCII)
MAX_CLAUSES = 16

Version = tuple[int, ...]


def _version(text: str) -> Version:
    """The numbers of a dotted text without trailing zeros, so that tuples compare as versions do."""
    parts = [int(part) for part in text.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def release_version(release: str) -> Version | None:
    """The leading dotted numbers of `uname -r`, trailing zeros cut off; None when it starts otherwise."""
    match = RELEASE.match(release)
    return _version(match.group(1)) if match else None


@dataclass(frozen=True)
class VersionRange:
    """The versions from `low` to `high`, each end included or not; None = no end on that side."""

    text: str
    low: Version | None = None
    low_included: bool = True
    high: Version | None = None
    high_included: bool = True

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """The range that all comma-separated clauses allow; ValueError says what is wrong with `text`."""
        clauses = text.split(",")
        if len(clauses) > MAX_CLAUSES:
            raise ValueError(f"more than {MAX_CLAUSES} clauses")
        result = cls(text)
        for clause in clauses:
            match = CLAUSE.fullmatch(clause.strip())
            if match is None or (match.group(3) and match.group(1) != "=="):
                raise ValueError("not a version range such as '>=5.10,<6.2' or '==6.1.*'")
            operator, digits, star = match.groups()
            version = _version(digits)
            if star:
                numbers = [int(part) for part in digits.split(".")]
                numbers[-1] += 1
                result = result._above(version, True)._below(_version(".".join(map(str, numbers))), False)
                continue
            if operator in (">=", ">", "=="):
                result = result._above(version, operator != ">")
            if operator in ("<=", "<", "=="):
                result = result._below(version, operator != "<")
        if result._empty():
            raise ValueError("holds for no version")
        return result

    def _above(self, version: Version, included: bool) -> VersionRange:
        if self.low is not None and (self.low, not self.low_included) >= (version, not included):
            return self
        return VersionRange(self.text, version, included, self.high, self.high_included)

    def _below(self, version: Version, included: bool) -> VersionRange:
        if self.high is not None and (self.high, self.high_included) <= (version, included):
            return self
        return VersionRange(self.text, self.low, self.low_included, version, included)

    def _empty(self) -> bool:
        if self.low is None or self.high is None:
            return self.high == () and not self.high_included  # nothing is below version 0
        return self.low > self.high or (
            self.low == self.high and not (self.low_included and self.high_included)
        )

    def __contains__(self, version: Version) -> bool:
        after = self.low is None or (version >= self.low if self.low_included else version > self.low)
        before = self.high is None or (version <= self.high if self.high_included else version < self.high)
        return after and before

    def overlaps(self, other: VersionRange) -> bool:
        """Whether some version lies in both."""
        both = self
        if other.low is not None:
            both = both._above(other.low, other.low_included)
        if other.high is not None:
            both = both._below(other.high, other.high_included)
        return not both._empty()
