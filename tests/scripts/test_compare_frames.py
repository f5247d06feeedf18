"""The script that holds frames of objects against gcc's -fstack-usage."""

from __future__ import annotations

from pathlib import Path

import pytest

import cross
from conftest import load_script

compare_frames = load_script("compare_frames")


def test_generated_functions_and_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not cross.has_compiler("rv32imac"):
        pytest.skip("no riscv64-unknown-elf-gcc")
    words = ["--targets", "rv32imac", "--levels", "Os"]
    assert compare_frames.main([*words, "--functions", "5"]) == 0
    out = capsys.readouterr().out
    assert "rv32imac -Os: 1 objects, 10 rows" in out and "0 not, 0 open" in out
    source, broken = tmp_path / "one.c", tmp_path / "broken.c"
    source.write_text("int away(int *); int f(int a) { int b[9]; b[a] = a; return away(b) + 1; }")
    broken.write_text("no C")
    assert compare_frames.main([str(source), str(broken), *words]) == 0
    assert "1 objects, 1 rows, 1 static of one function: 1 equal" in capsys.readouterr().out
    assert compare_frames.main([str(broken), *words]) == 1
