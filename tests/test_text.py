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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("_ZN2io4Uart5writeEi", "io::Uart::write(int)"),
        ("_ZThn8_N4Both8on_eventEi", "non-virtual thunk to Both::on_event(int)"),
        ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
        ("_ZN4core3fmt9Formatter3pad17h1234567890abcdefE", "core::fmt::Formatter::pad"),
        ("_Zebra", "_Zebra"),
        ("_ZN\udcff", "_ZN\\udcff"),
    ],
)
def test_names_of_cpp_and_rust_are_as_their_sources_have_them(name: str, shown: str) -> None:
    assert clean(name) == shown


@pytest.mark.parametrize("name", ["_Z1f" + "P" * 100_000 + "i", "_Z1f" + "P" * 990, "_R" + "Y" * 990])
def test_a_hostile_mangled_name_is_a_name(name: str) -> None:
    assert len(clean(name)) <= 400


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
