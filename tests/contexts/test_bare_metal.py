"""RISC-V and AArch64 firmware of ours: contexts and stacks from the image, and what QEMU measures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

import stackfit
from stackfit.analysis import Analysis
from stackfit.cli.main import main
from stackfit.verdict.model import StackNeed, Verdict

REPOSITORY = Path(__file__).resolve().parents[2]
FIRMWARE = REPOSITORY / "fixtures" / "firmware"
MACHINES = {
    "rtos-riscv32": ("qemu-system-riscv32", "-M", "virt", "-bios", "none"),
    "rtos-aarch64": ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53"),
}


def stacks(analysis: Analysis) -> dict[str, StackNeed]:
    return {need.stack.name: need for need in analysis.verdicts[0].stacks}


@pytest.mark.parametrize(("name", "handler"), [("rtos-riscv32", "trap"), ("rtos-aarch64", "irq EL1")])
def test_entry_handlers_and_tasks(name: str, handler: str) -> None:
    analysis = stackfit.check(FIRMWARE / f"{name}.elf")
    assert {(context.name, context.kind) for context in analysis.contexts} == {
        ("reset", "boot"), (handler, "isr"), ("worker", "task"), ("reporter", "task"), ("idle", "task")
    }  # fmt: skip
    needs = stacks(analysis)
    word = analysis.program.machine.word
    assert needs["task worker"].stack.size == 512 * word
    assert needs["task worker"].stack.sources["size"] == "symbol worker_stack"
    assert needs["main"].stack.size == 1024 * word // 4
    assert needs["main"].stack.sources["size"] == "linker script symbols"
    assert {need.verdict for need in needs.values()} == {Verdict.FITS_IF}


@pytest.mark.parametrize("name", MACHINES)
def test_the_bound_holds_and_is_near_what_painted_stacks_show(name: str) -> None:
    qemu = shutil.which(MACHINES[name][0])
    if qemu is None:
        pytest.skip(f"no {MACHINES[name][0]}")
    image = FIRMWARE / f"{name}.elf"
    command = [qemu, *MACHINES[name][1:], "-nographic", "-kernel", str(image)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    marks = re.findall(r"^mark (\w+) (\d+) (\d+)\s*$", result.stdout, re.M)
    assert len(marks) == 4
    needs = stacks(stackfit.check(image))
    for task, size, used in marks:
        need = needs[task if task == "main" else f"task {task}"]
        assert need.stack.size == int(size)
        assert need.bound is not None and not need.open
        assert int(used) <= need.bound <= 1.1 * int(used), task


@pytest.mark.parametrize("command", ["frames", "calls", "contexts", "check"])
def test_json_of_firmware_is_as_the_schemas_say(command: str, tmp_path: Path) -> None:
    schema = json.loads((REPOSITORY / "docs" / "schemas" / f"stackfit.{command}-1.json").read_text())
    for image in sorted(FIRMWARE.glob("*.elf")):
        output = tmp_path / "out.json"
        assert main([command, str(image), "--json", str(output)]) == 0
        jsonschema.validate(json.loads(output.read_text()), schema)
