"""Images without symbols: their functions are found again, and get the frames that they have."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cross
from stackfit.analysis import analyse
from stackfit.frames.model import StackKind

REPOSITORY = Path(__file__).resolve().parents[2]
FIRMWARE = REPOSITORY / "fixtures" / "firmware"
STRIP = {"aarch64": "aarch64-linux-gnu-strip", "riscv32": "riscv64-unknown-elf-strip"}


def found_again(image: Path, directory: Path, strip: str) -> tuple[int, int, int, int, float]:
    """(functions with symbols, found without, found rightly, of these with the same frame, share of the
    instructions that no function reaches)."""
    if shutil.which(strip) is None:
        pytest.skip(f"no {strip}")
    bare = directory / "stripped.elf"
    subprocess.run([strip, "-o", str(bare), str(image)], check=True)
    whole, left = cross.track(image), cross.track(bare)
    functions, others = whole.code.functions, left.code.functions
    named = {
        int(functions.address[index]): index
        for index in np.flatnonzero(~functions.synthetic & (functions.parent < 0)).tolist()
    }
    found = {int(others.address[index]): index for index in np.flatnonzero(others.parent < 0).tolist()}
    assert others.synthetic.all()
    both = named.keys() & found.keys()
    same = sum(whole.frames.frame[named[at]] == left.frames.frame[found[at]] for at in both)
    unreached = (left.frames.stack == StackKind.UNREACHED) & ~left.code.padding()
    return len(named), len(found), len(both), same, float(unreached.mean())


@pytest.mark.parametrize(
    ("name", "recall"),
    [("rtos-cortex-m4f", 0.83), ("traps-cortex-m4f", 1), ("rtos-riscv32", 0.88), ("rtos-aarch64", 0.82)],
)
def test_our_firmware_without_symbols(tmp_path: Path, name: str, recall: float) -> None:
    """What is missed is assembly that nothing but other assembly leads to, and leaves that nothing calls."""
    strip = next((tool for part, tool in STRIP.items() if part in name), "arm-none-eabi-strip")
    named, found, both, same, _ = found_again(FIRMWARE / f"{name}.elf", tmp_path, strip)
    assert both == found and both >= recall * named and same == both


@pytest.mark.parametrize(("target", "recall", "precision"), [
    ("cortex-m0", 0.85, 0.95), ("cortex-m3", 0.6, 0.85), ("rv32imac", 0.7, 0.95), ("rv64gc", 0.65, 0.95),
    ("rv32imac-save", 0.9, 0.95), ("aarch64", 0.5, 0.85),
])  # fmt: skip
def test_functions_that_nothing_calls(tmp_path: Path, target: str, recall: float, precision: float) -> None:
    """Of generated functions nothing calls most: they are found by how they begin, or not at all."""
    generate = [sys.executable, str(REPOSITORY / "scripts" / "generate_c.py"), "40", "3"]
    source, callees = tmp_path / "functions.c", tmp_path / "callees.c"
    source.write_text(subprocess.run(generate, check=True, capture_output=True, text=True).stdout)
    callees.write_text(cross.CALLEES)
    image = cross.build(tmp_path, target, [source, callees], "-Os")
    named, found, both, same, _ = found_again(image, tmp_path, f"{cross.TARGETS[target][0]}-strip")
    assert both >= recall * named and both >= precision * found and same >= 0.9 * both


def test_the_verdict_says_that_functions_are_guessed(tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-strip") is None:
        pytest.skip("no arm-none-eabi-strip")
    bare = tmp_path / "stripped.elf"
    image = FIRMWARE / "rtos-cortex-m4f.elf"
    subprocess.run(["arm-none-eabi-strip", "-o", str(bare), str(image)], check=True)
    analysis = analyse([bare], layouts=[FIRMWARE / "rtos-cortex-m4f.toml"])
    (main_stack,) = [need for need in analysis.verdicts[0].stacks if need.stack.name == "main"]
    assert any("no symbols" in text for text in main_stack.assumed)
    assert all(name.startswith("sub_") for name in analysis.code.functions.names)
