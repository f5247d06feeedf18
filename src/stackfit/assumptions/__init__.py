"""Facts that are used and not derived, each with its reason and source."""

from stackfit.assumptions.loader import load_assumptions, shipped_names
from stackfit.assumptions.model import (
    AssumptionSet,
    Budget,
    Candidates,
    Cut,
    DynamicBound,
    Entry,
    Sleeps,
    combine,
)
from stackfit.assumptions.versions import VersionRange, release_version

__all__ = [
    "AssumptionSet",
    "Budget",
    "Candidates",
    "Cut",
    "DynamicBound",
    "Entry",
    "Sleeps",
    "VersionRange",
    "combine",
    "load_assumptions",
    "release_version",
    "shipped_names",
]
