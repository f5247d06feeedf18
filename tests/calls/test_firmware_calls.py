"""Indirect calls of Arm, AArch64 and RISC-V programs: candidates by the types in their debug information."""

from __future__ import annotations

import subprocess
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


def test_functions_without_debug_information_are_an_assumption_that_is_listed(tmp_path: Path) -> None:
    """A library that was built without: what it puts somewhere has no prototype to be told by."""
    library = tmp_path / "library.c"
    library.write_text("""
        static int hidden(int x) { return x + 1; }
        struct device { int state; int (*open)(int); };
        void library_set(struct device *device) { device->open = hidden; }
    """)
    program = tmp_path / "program.c"
    program.write_text("""
        struct device { int state; int (*open)(int); };
        void library_set(struct device *);
        struct device device;
        volatile int port;
        static int own(int x) { port = x; return x; }
        __attribute__((noinline)) int call(struct device *d) { return d->open(d->state) + 1; }
        __asm(".section .vectors, \\"a\\"\\n.balign 128\\n.word 0x20001000, start + 1, none + 1, none + 1\\n"
              ".word none + 1, none + 1, none + 1, 0, 0, 0, 0, none + 1, none + 1, 0, none + 1, none + 1\\n"
              ".text\\n");
        void none(void) { for (;;) ; }
        void start(void) { device.open = own; library_set(&device); port = call(&device); for (;;) ; }
    """)
    if not cross.has_compiler("cortex-m3"):
        pytest.skip("no arm-none-eabi-gcc")
    flags = ["-mcpu=cortex-m3", "-mthumb", "-O2", "-ffreestanding"]
    objects = []
    for source, more in ((library, []), (program, ["-g"])):
        objects.append(str(source.with_suffix(".o")))
        command = ["arm-none-eabi-gcc", *flags, *more, "-c", str(source), "-o", objects[-1]]
        subprocess.run(command, check=True)
    image = tmp_path / "image.elf"
    subprocess.run(["arm-none-eabi-gcc", *flags, "-nostdlib", "-w", "-o", str(image), *objects], check=True)
    analysis = stackfit.check(image)
    assert reached(analysis)["call"][0] == {"own"}
    (need,) = [one for one in analysis.verdicts[0].stacks if one.stack.name == "main"]
    assert any(text.split("(")[1].startswith("hidden)") for text in need.assumed if "no type tells" in text)
