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


def test_what_a_declared_task_s_switch_saves_counts(tmp_path: Path) -> None:
    layout = tmp_path / "layout.toml"
    task = '[[task]]\nname = "{}"\nentry = "app_main"\nsize = 4096\nsaved = {}\n'
    layout.write_text(f'name = "mine"\nextends = "bare-metal"\n{task.format("a", 0)}{task.format("b", 160)}')
    needs = stacks(stackfit.check(FIRMWARE / "rtos-riscv32.elf", layouts=[layout]))
    less, more = needs["task a"].bound, needs["task b"].bound
    assert less is not None and more == less + 160


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


TRAP = r"""
typedef unsigned long word;
static word trap_stack[128] __attribute__((aligned(16)));
static word main_stack[256] __attribute__((aligned(16)));
volatile int port;
__attribute__((noinline)) void handle(int cause) {
    volatile int room[20];
    ON
    room[cause & 7] = 1;
    port = room[0];
}
__attribute__((naked, aligned(4))) void trap_entry(void) {
    __asm volatile("csrrw sp, mscratch, sp\naddi sp, sp, -64\nsw ra, 0(sp)\nsw a0, 4(sp)\nsw t0, 8(sp)\n"
                   "csrr a0, mcause\ncall handle\nlw ra, 0(sp)\nlw a0, 4(sp)\nlw t0, 8(sp)\n"
                   "addi sp, sp, 64\ncsrrw sp, mscratch, sp\nmret\n");
}
__attribute__((noinline)) void app(void) { volatile int room[30]; room[1] = 2; port = room[1]; for (;;) ; }
void start_c(void) {
    __asm volatile("csrw mscratch, %0" :: "r"(TOP));
    __asm volatile("csrw mtvec, %0" :: "r"(trap_entry));
    app();
}
__attribute__((naked, section(".text.start"))) void _start(void) {
    __asm volatile("la sp, main_stack + 1024\ncall start_c\n");
}
word *keep = main_stack;
"""


def trap(directory: Path, *options: str) -> dict[str, StackNeed]:
    source, image = directory / "trap.c", directory / "trap.elf"
    if shutil.which("riscv64-unknown-elf-gcc") is None:
        pytest.skip("no riscv64-unknown-elf-gcc")
    source.write_text(TRAP)
    command = ["riscv64-unknown-elf-gcc", "-march=rv32imac_zicsr", "-mabi=ilp32", "-O2", "-ffreestanding"]
    command += ["-nostdlib", "-w", "-Wl,-Ttext=0x80000000", "-Wl,-e,_start", *options, "-o", str(image)]
    subprocess.run([*command, str(source)], check=True)
    return stacks(stackfit.check(image))


def test_a_handler_takes_its_stack_out_of_mscratch(tmp_path: Path) -> None:
    """Nothing of it is on the stack that it interrupts."""
    needs = trap(tmp_path, "-DTOP=trap_stack+128", "-DON=")
    assert {name: need.stack.size for name, need in needs.items()} == {"main": 1024, "trap": 512}
    assert needs["trap"].bound == 64 + 80 and needs["main"].bound == 16 + 128
    assert needs["trap"].stack.sources["size"] == "symbol trap_stack"


def test_a_stack_that_is_not_known_is_open(tmp_path: Path) -> None:
    needs = trap(tmp_path, "-DTOP=port", "-DON=")
    assert needs["main"].verdict is Verdict.UNKNOWN
    assert "the handler runs on another stack, which is not known" in dict(needs["main"].open.counts)


def test_a_handler_that_puts_interrupts_on_is_open(tmp_path: Path) -> None:
    needs = trap(tmp_path, "-DTOP=trap_stack+128", '-DON=__asm volatile("csrsi mstatus, 8");')
    assert "the handler puts interrupts on" in str(needs["trap"].open.counts)
    assert needs["trap"].verdict is Verdict.UNKNOWN


def test_a_handler_on_the_interrupted_stack_that_puts_interrupts_on_is_open(tmp_path: Path) -> None:
    """On every stack that it can interrupt."""
    text = TRAP.replace("csrrw sp, mscratch, sp\\n", "")
    source, image = tmp_path / "trap.c", tmp_path / "trap.elf"
    if shutil.which("riscv64-unknown-elf-gcc") is None:
        pytest.skip("no riscv64-unknown-elf-gcc")
    source.write_text(
        text.replace("ON\n", '__asm volatile("csrsi mstatus, 8");\n').replace("TOP", "trap_stack")
    )
    command = ["riscv64-unknown-elf-gcc", "-march=rv32imac_zicsr", "-mabi=ilp32", "-O2", "-ffreestanding"]
    command += ["-nostdlib", "-w", "-Wl,-Ttext=0x80000000", "-Wl,-e,_start", "-o", str(image)]
    subprocess.run([*command, str(source)], check=True)
    need = stacks(stackfit.check(image))["main"]
    assert "the handler puts interrupts on" in str(need.open.counts) and need.verdict is Verdict.UNKNOWN


EL1T = r"""
volatile int port;
__attribute__((noinline)) void handle(void) { volatile int room[50]; room[port & 7] = 1; port = room[0]; }
__attribute__((noinline)) void app(void) { volatile int room[30]; room[1] = 2; port = room[1]; for (;;) ; }
__asm(".text\n.balign 2048\nvectors: .rept 16\nb entry\n.balign 128\n.endr\n"
      ".type entry, %function\nentry: stp x29, x30, [sp, #-256]!\nbl handle\nldp x29, x30, [sp], #256\neret\n"
      ".size entry, .-entry\n"
      ".bss\n.balign 16\n.type low, %object\nlow: .space 1024\nhandlers_top:\n.size low, .-low\n"
      ".type mains, %object\nmains: .space 2048\nmain_top:\n.size mains, .-mains\n.text\n");
__attribute__((noreturn)) void _start(void) {
    __asm volatile("adrp x0, handlers_top\nadd x0, x0, :lo12:handlers_top\nmov sp, x0\nmsr spsel, #0\n"
                   "adrp x0, main_top\nadd x0, x0, :lo12:main_top\nmov sp, x0\n"
                   "adrp x0, vectors\nadd x0, x0, :lo12:vectors\nmsr vbar_el1, x0\nb app\n");
    __builtin_unreachable();
}
"""


def test_with_sp_el0_handlers_run_on_the_other_stack(tmp_path: Path) -> None:
    """EL1t: an exception takes SP_EL1, which start-up code has set before."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no aarch64-linux-gnu-gcc")
    source, image = tmp_path / "start.c", tmp_path / "image.elf"
    source.write_text(EL1T)
    command = ["aarch64-linux-gnu-gcc", "-O2", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-w"]
    subprocess.run([*command, "-Wl,-e,_start", "-o", str(image), str(source)], check=True)
    needs = stacks(stackfit.check(image))
    assert {name: need.stack.size for name, need in needs.items()} == {"main": 2048, "handlers": 1024}
    assert needs["handlers"].bound == 256 + 208
    assert needs["main"].bound is not None and needs["main"].bound < 200  # nothing on top
