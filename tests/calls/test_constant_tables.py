"""Calls through constant tables of pointers, on machines without types."""

from __future__ import annotations

from pathlib import Path

import pytest

import cross
import stackfit
from stackfit.calls.model import Rung

SOURCE = """
volatile int port;
int red(int a) { volatile char big[100]; big[0] = a; return big[0]; }
int green(int a) { return a + port; }
int never(int a) { return a - 1; }
int (*const table[])(int) = { red, green, 0 };
int (*changed[])(int) = { red, green };
int by_table(int index) { return table[index & 1](index) + 1; }
int by_changed(int index) { return changed[index & 1](index) + 1; }
int by_pointer(int (*one)(int)) { return one(3) + 1; }
int main(void) { return by_table(1) + by_changed(0) + by_pointer(never); }
"""


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4f", "cortex-a7", "rv32imac", "rv64gc", "aarch64"])
def test_only_a_constant_table_settles_a_call(tmp_path: Path, target: str) -> None:
    source = tmp_path / "table.c"
    source.write_text(SOURCE)
    image = cross.build(tmp_path, target, [source], "-O1", "-fno-inline", "-fno-ipa-cp", "-fno-ipa-sra")
    analysis = stackfit.check(image)
    names, calls = analysis.code.functions.names, analysis.calls
    found = {}
    for site in range(len(calls)):
        caller = names[int(calls.function[site])]
        if caller.startswith("by_"):
            number = int(calls.candidates[site])
            members = calls.candidate_sets[number] if number >= 0 else ()
            found[caller] = (
                {names[one] for one in members},
                Rung(int(calls.rung[site])),
                bool(calls.open[site]),
            )
    assert found["by_table"] == ({"red", "green"}, Rung.GLOBAL, False)
    assert found["by_changed"][0] == set() and found["by_changed"][2]
    assert found["by_pointer"][0] == set() and found["by_pointer"][2]
