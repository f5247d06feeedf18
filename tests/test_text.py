"""Text for terminals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackfit.text import bytes_text, clean, escape, range_text, size_text


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert escape(text).isprintable() and clean(text).isprintable()


def test_lone_surrogates_of_names_that_are_not_utf_8_are_escaped() -> None:
    assert clean("a\udcff") == "a\\udcff"


def test_names_end_somewhere() -> None:
    assert len(clean("x" * 100_000)) == 400


@pytest.mark.parametrize(
    ("found", "upper", "lower", "expected"),
    [
        (5312, 5312, False, "5 312 B"),
        (5312, 5312, True, "≥ 5 312 B"),
        (5312, 9000, False, "5 312 … 9 000 B"),
        (5312, 9000, True, "≥ 5 312 … 9 000 B"),
        (None, None, False, "—"),
    ],
)
def test_only_what_was_found_is_a_lower_limit(
    found: int | None, upper: int | None, lower: bool, expected: str
) -> None:
    assert range_text(found, upper, lower) == expected


def test_sizes() -> None:
    assert (size_text(16384), size_text(100), bytes_text(None)) == ("16 KiB", "100 B", "—")
