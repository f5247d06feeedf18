"""Indirect calls that clang's kCFI checks, in programs built by fixtures/kcfi/build.sh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import CallKind, Evidence, Reason, Rung

BIN = Path(__file__).resolve().parents[2] / "fixtures" / "kcfi" / "bin"


@pytest.fixture(scope="module", params=["plain", "padded"])
def checked(request: pytest.FixtureRequest) -> Analysis:
    return analyse([BIN / request.param])


def site_of(analysis: Analysis, function: str) -> tuple[Rung, Evidence, Reason, CallKind, set[str]]:
    calls, names = analysis.calls, analysis.code.functions.names
    (index,) = analysis.code.functions.named(function)
    indirect = np.isin(calls.kind, (CallKind.INDIRECT, CallKind.INDIRECT_TAIL))
    (site,) = np.flatnonzero((calls.function == index) & indirect).tolist()
    number = int(calls.candidates[site])
    members = {names[one] for one in calls.candidate_sets[number]} if number >= 0 else set()
    return (
        Rung(int(calls.rung[site])), Evidence(int(calls.evidence[site])), Reason(int(calls.reason[site])),
        CallKind(int(calls.kind[site])), members,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("function", "reached", "kind"),
    [
        ("call_number", {"number_one", "number_two"}, CallKind.INDIRECT),  # not the one that takes unsigned
        ("call_text", {"text_one"}, CallKind.INDIRECT),
        ("tail_number", {"number_one", "number_two"}, CallKind.INDIRECT_TAIL),
    ],
)
def test_a_checked_call_reaches_the_functions_of_its_type(
    checked: Analysis, function: str, reached: set[str], kind: CallKind
) -> None:
    rung, evidence, reason, found_kind, members = site_of(checked, function)
    assert (rung, evidence, reason, found_kind) == (Rung.KCFI, Evidence.ASSUMED, Reason.NONE, kind)
    same_type = {"call_number", "tail_number"}  # other types of their own
    assert reached <= members and not members & same_type and "number_unsigned" not in members


def test_a_type_that_no_function_has_stays_open(checked: Analysis) -> None:
    rung, evidence, reason, _, members = site_of(checked, "call_object")
    assert (rung, evidence, reason, members) == (Rung.NONE, Evidence.OPEN, Reason.INDIRECT, set())


def test_a_call_without_a_check_stays_open(checked: Analysis) -> None:
    assert site_of(checked, "call_unchecked")[1:3] == (Evidence.OPEN, Reason.INDIRECT)
