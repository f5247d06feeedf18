"""Virtual calls of C++ firmware: what tables of virtual functions hold, by class."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import cross
import stackfit
from stackfit.calls.model import CallKind, Rung

SOURCE = Path(__file__).resolve().parents[2] / "fixtures" / "firmware" / "virtual.cpp"
OPTIONS = (
    "-g", "-ffreestanding", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-nostdlib",
    "-static", "-w",
)  # fmt: skip
WRITE = {"_ZN2io4Uart5writeEi", "_ZN2io8Buffered5writeEi", "_ZN4Both5writeEi"}
ABSTRACT = {"__cxa_pure_virtual"}  # of a base class, while its constructor runs
CALLS = {
    "_Z10call_writePN2io6StreamEi": (WRITE, ABSTRACT),
    "_Z10call_flushPN2io6StreamE": ({"_ZN2io6Stream5flushEv", "_ZN2io8Buffered5flushEv"}, set()),
    "_Z9call_uartPN2io4UartEi": (WRITE, ABSTRACT),
    # A class with two bases: a thunk is in the second one's table.
    "_Z13call_listenerP8Listener": (
        {"_ZN5Other8on_eventEi", "_ZThn8_N4Both8on_eventEi"}, {"_ZN8Listener8on_eventEi"}
    ),
}  # fmt: skip


def build(directory: Path, target: str, *options: str) -> Path:
    prefix, flags = cross.TARGETS[target]
    if shutil.which(f"{prefix}-g++") is None:
        pytest.skip(f"no {prefix}-g++")
    image = directory / "image.elf"
    place = ("-Wl,-Ttext=0x80000000",) if prefix.startswith("riscv") else ()
    command = [f"{prefix}-g++", *flags, *OPTIONS, *options, *place, "-o", str(image), str(SOURCE), "-lgcc"]
    subprocess.run(command, check=True, capture_output=True)
    return image


@pytest.mark.parametrize("option", ["-O0", "-O2", "-Os"])
@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4f", "rv32imac"])
def test_a_virtual_call_reaches_its_slot_of_each_table(target: str, option: str, tmp_path: Path) -> None:
    analysis = stackfit.check(build(tmp_path, target, option))
    calls, names = analysis.calls, analysis.code.functions.names
    found = {}
    for site in range(len(calls)):
        if int(calls.kind[site]) in (CallKind.INDIRECT, CallKind.INDIRECT_TAIL):
            members = {names[one] for one in calls.candidate_sets[int(calls.candidates[site])]}
            assert not calls.reason[site]
            if int(calls.rung[site]) == Rung.VIRTUAL:
                found[names[int(calls.function[site])]] = members
    assert set(found) == set(CALLS)
    for caller, (needed, allowed) in CALLS.items():
        assert needed <= found[caller] <= needed | allowed, caller
