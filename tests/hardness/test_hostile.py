"""A file of a MiB takes neither a minute nor a GiB, whatever is in it; what fuzzing found stays mended."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutate import MOST
from fuzz.targets import TARGETS
from fuzz.worker import content, corpus, findings, input_of, judged, outcome
from hostile import CASES

CASE_OF_TARGET = [(name, target) for name, (targets, _) in CASES.items() for target in targets]


@pytest.mark.parametrize(("name", "target"), CASE_OF_TARGET, ids=[f"{a}-{b}" for a, b in CASE_OF_TARGET])
def test_hostile_input_takes_neither_time_nor_memory(name: str, target: str) -> None:
    data = CASES[name][1]()
    assert len(data) <= MOST
    assert judged(TARGETS[target], data) == ""


FOUND = [(target, place) for target in TARGETS.values() for place in findings(target)]


@pytest.mark.parametrize(("target", "place"), FOUND, ids=[f"{one.name}-{place.name}" for one, place in FOUND])
def test_what_was_found_stays_mended(target: object, place: Path) -> None:
    assert judged(target, content(place)) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read(name: str, tmp_path: Path) -> None:
    """Refused may be what was changed, not what it is changed from."""
    target = TARGETS[name]
    path = tmp_path / f"input{target.suffix}"
    for place in sorted((Path(__file__).parents[2] / "fuzz" / "corpus" / name).iterdir()):
        path.write_bytes(content(place))
        assert outcome(target, path) == ("", "read"), place
