"""A file of a MiB takes neither a minute nor a GiB, whatever is in it; what fuzzing found stays mended."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz.mutate import MOST
from fuzz.targets import TARGETS
from fuzz.worker import content, corpus, findings, input_of, judged, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import CASES

CASE_OF_TARGET = [(name, target) for name, (targets, _) in CASES.items() for target in targets]
FOUND = [(name, place) for name, target in TARGETS.items() for place in findings(target)]
CORPUS = Path(__file__).resolve().parents[2] / "fuzz" / "corpus"
# Whose inputs are read in a moment: for these hypothesis makes the choices, and makes what it finds smaller.
FAST = ("btf", "usage", "project", "core")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), CASE_OF_TARGET, ids=[f"{a}-{b}" for a, b in CASE_OF_TARGET])
def test_hostile_input_takes_neither_time_nor_memory(name: str, target: str) -> None:
    data = CASES[name][1]()
    assert len(data) <= MOST
    assert judged(TARGETS[target], data) == ""


@pytest.mark.parametrize(("target", "place"), FOUND, ids=[f"{name}-{place.name}" for name, place in FOUND])
def test_what_was_found_stays_mended(target: str, place: Path) -> None:
    assert judged(TARGETS[target], content(place)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read(name: str, tmp_path: Path) -> None:
    """What is refused may be what was changed, not what it was changed from."""
    target = TARGETS[name]
    path = tmp_path / f"input{target.suffix}"
    for place in sorted((CORPUS / name).iterdir()):
        data = content(place)
        path.write_bytes(target.wrap(data, random.Random(1)) if target.wrap and target.always else data)
        wrong, came = outcome(target, path)
        assert not wrong and (came in ("read", "", "# ") or name == "explain"), (place, came)


@pytest.mark.parametrize("name", FAST)
def test_changed_input_is_read_or_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    target, directory = TARGETS[name], tmp_path_factory.mktemp(name)
    pool = corpus(target)

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.randoms(use_true_random=False))
    def read(chance: random.Random) -> None:
        path = directory / f"input{target.suffix}"
        path.write_bytes(input_of(target, pool, chance)[1])
        wrong, trace = outcome(target, path)
        assert not wrong, trace

    read()


def test_a_target_that_fails_takes_long_or_much_is_found(tmp_path: Path) -> None:
    """The harness itself."""
    from fuzz.mutate import Form
    from fuzz.targets import Target

    def fails(path: Path) -> None:
        raise IndexError(path.read_bytes())

    def takes_all(path: Path) -> None:
        bytearray(2 << 30)

    def crashes(path: Path) -> None:
        import ctypes

        ctypes.string_at(0)

    assert "IndexError" in judged(Target("x", Form.BYTES, fails), b"a")
    assert "MemoryError" in judged(Target("x", Form.BYTES, takes_all), b"a")
    assert judged(Target("x", Form.BYTES, crashes), b"a") == "ended by SIGSEGV"
