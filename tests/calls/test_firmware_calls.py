"""Indirect calls of Arm, AArch64 and RISC-V programs: candidates by the types in their debug information."""

from __future__ import annotations

from pathlib import Path

import pytest

import cross
import stackfit
from stackfit.analysis import Analysis, analyse
from stackfit.calls.model import CallKind, Reason, Rung
from stackfit.calls.resolve import Indirect
from stackfit.image.load import load_image

SOURCE = Path(__file__).resolve().parents[2] / "fixtures" / "firmware" / "indirect.c"
ALL = {"add_one", "add_two", "add_three", "add_four", "add_five", "add_six", "add_seven"}
# Of each function that calls through a pointer: what that can be, and what may be named besides.
PLACES = {
    "call_open": ({"add_one", "add_three"}, set()),
    "call_close": ({"add_two"}, {"add_three"}),  # handed over on the stack by _start: known to be somewhere
    "call_events": ({"on_uart", "on_timer"}, set()),
    "call_hook": ({"add_five", "add_six"}, set()),
    "call_fallback": ({"add_four", "add_six"}, set()),
    "call_parameter": ({"add_two", "add_seven"}, set()),
    "call_fifth": ({"add_three"}, set()),
    "call_request": ({"pair_a", "pair_b"}, set()),
    "call_result": ({"add_one", "add_seven"}, ALL),
}


def reached(analysis: Analysis) -> dict[str, tuple[set[str], Rung, str]]:
    """By caller: candidates, rung, reason of the one indirect call or jump that it makes."""
    calls, names = analysis.calls, analysis.code.functions.names
    found = {}
    for site in range(len(calls)):
        if int(calls.kind[site]) in (CallKind.INDIRECT, CallKind.INDIRECT_TAIL):
            number = int(calls.candidates[site])
            members = {names[one] for one in calls.candidate_sets[number]} if number >= 0 else set()
            rung, reason = Rung(int(calls.rung[site])), Reason(int(calls.reason[site])).label
            found[names[int(calls.function[site])]] = members, rung, reason
    return found


@pytest.mark.parametrize("option", ["-O0", "-O2", "-Os"])
@pytest.mark.parametrize("target", cross.TARGETS)
def test_debug_information_tells_what_each_pointer_can_be(target: str, option: str, tmp_path: Path) -> None:
    found = reached(stackfit.check(cross.build(tmp_path, target, [SOURCE], option, "-g")))
    assert set(found) == set(PLACES)
    for caller, (needed, allowed) in PLACES.items():
        members, _, reason = found[caller]
        assert not reason
        assert needed <= members <= needed | allowed, caller


def test_without_debug_information_they_are_open(tmp_path: Path) -> None:
    found = reached(stackfit.check(cross.build(tmp_path, "cortex-m3", [SOURCE], "-O2")))
    assert all(reason == "indirect call: the pointer's value is not known" for _, _, reason in found.values())


def test_damaged_debug_information_leaves_them_open(tmp_path: Path) -> None:
    """It was not asked for: the image is analysed all the same, and the reason is a warning."""
    image = cross.build(tmp_path, "cortex-m3", [SOURCE], "-O2", "-g")
    section = load_image(image).section(".debug_info")
    assert section is not None
    data = bytearray(image.read_bytes())
    data[section.offset + 40 : section.offset + 400] = b"\xff" * 360
    image.write_bytes(data)
    analysis = stackfit.check(image)
    assert all(reason for _, _, reason in reached(analysis).values())
    assert any("debug information is not used" in warning for warning in analysis.warnings)


def test_strict_trusts_no_types(tmp_path: Path) -> None:
    image = cross.build(tmp_path, "cortex-m3", [SOURCE], "-O2", "-g")
    found = reached(analyse([image], indirect=Indirect.STRICT))
    assert all(reason for _, _, reason in found.values())
