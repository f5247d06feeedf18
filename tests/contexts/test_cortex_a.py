"""Cortex-A and -R firmware: vectors, and the stack of each processor mode."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import cross
import stackfit
from stackfit.verdict.model import StackNeed, Verdict

SOURCE = r"""
volatile int port;
#define ROOM(n) { volatile int room[n]; room[port % n] = 1; port = room[0]; }
__attribute__((interrupt("IRQ"))) void irq_handler(void) IRQ
__attribute__((interrupt("FIQ"))) void fiq_handler(void) ROOM(10)
__attribute__((interrupt("ABORT"))) void data_abort(void) ROOM(30)
__attribute__((interrupt("UNDEF"))) void undefined(void) { for (;;) ; }
__attribute__((interrupt("SWI"))) void svc_handler(void) ROOM(15)
__attribute__((noinline)) int application(void) { ROOM(100) for (;;) ; }
__attribute__((naked, section(".text.start"), aligned(32))) void vectors(void) {
    __asm volatile("ldr pc, =reset\nldr pc, =undefined\nldr pc, =svc_handler\nldr pc, =data_abort\n"
                   "ldr pc, =data_abort\nnop\nldr pc, =irq_handler\nldr pc, =fiq_handler\n");
}
__attribute__((naked, used)) void reset(void) {
    __asm volatile("cps #0x12\nldr sp, =irq_top\ncps #0x11\nldr sp, =fiq_top\n"
                   "msr cpsr_c, #0xd7\nldr sp, =abt_top\ncps #0x1b\nldr sp, =und_top\n"
                   "mov r0, #0x13\nmsr cpsr_c, r0\nldr sp, =svc_top\n"
                   LAST "bl application\n");
}
__asm(".section .stacks, \"aw\", %nobits\n.balign 8\n.space 256\n.globl irq_top\nirq_top: .space 128\n"
      ".globl fiq_top\nfiq_top: .space 256\n.globl abt_top\nabt_top: .space 64\n"
      ".globl und_top\nund_top: .space 512\n.globl svc_top\nsvc_top: .space 2048\n"
      ".globl main_top\nmain_top:\n.text\n");
"""
SYSTEM = "cps #0x1f\\nldr sp, =main_top\\n"
NESTING = '{ __asm volatile("srsdb sp!, #0x1f\\n cps #0x1f\\n" ::: "memory"); port = 1; }'


def stacks(directory: Path, cpu: str, last: str = SYSTEM, irq: str = "ROOM(20)") -> dict[str, StackNeed]:
    if not cross.has_compiler("cortex-a7"):
        pytest.skip("no arm-none-eabi-gcc")
    source, image = directory / "start.c", directory / "image.elf"
    source.write_text(SOURCE.replace("LAST", f'"{last}"').replace("IRQ\n", irq + "\n", 1))
    command = ["arm-none-eabi-gcc", f"-mcpu={cpu}", "-marm", "-O2", "-ffreestanding", "-nostdlib"]
    subprocess.run([*command, "-w", "-Wl,-e,vectors", "-o", str(image), str(source)], check=True)
    return {need.stack.name: need for need in stackfit.check(image).verdicts[0].stacks}


@pytest.mark.parametrize("cpu", ["cortex-a7", "cortex-r5"])
def test_each_mode_has_the_stack_that_start_up_code_gives_it(cpu: str, tmp_path: Path) -> None:
    needs = stacks(tmp_path, cpu)
    assert {name: need.stack.size for name, need in needs.items()} == {
        "main": 2048, "irq": 256, "fiq": 128, "abt": 256, "und": 64, "svc": 512
    }  # fmt: skip
    least = {"main": 400, "irq": 80, "fiq": 40, "abt": 120, "und": 0, "svc": 60}
    for name, need in needs.items():
        assert need.verdict is Verdict.FITS_IF and need.bound is not None
        assert least[name] <= need.bound < least[name] + 40, name


def test_where_main_runs_in_a_mode_its_exceptions_are_on_its_stack(tmp_path: Path) -> None:
    needs = stacks(tmp_path, "cortex-a7", last="")
    assert "svc" not in needs and needs["main"].stack.size == 512
    parts = [part.name.split(",")[0] for part in needs["main"].parts]
    assert parts == ["boot reset", "isr svc"]


def test_a_handler_that_changes_the_mode_is_open(tmp_path: Path) -> None:
    """What it has on the other mode's stack is not counted: the verdict says so."""
    needs = stacks(tmp_path, "cortex-a7", irq=NESTING)
    opened = [dict(need.open.counts) for need in needs.values() if need.open]
    assert any("the handler changes the processor's mode" in text for one in opened for text in one)
    assert needs["main"].verdict is Verdict.UNKNOWN


def test_a_handler_that_puts_interrupts_on_is_open(tmp_path: Path) -> None:
    needs = stacks(tmp_path, "cortex-a7", irq='{ __asm volatile("cpsie i" ::: "memory"); port = 1; }')
    opened = [text for need in needs.values() for text in dict(need.open.counts)]
    assert opened == ["the handler puts interrupts on: how often it nests is not known"]


def test_what_is_said_of_a_task_is_of_that_task(tmp_path: Path) -> None:
    stacks(tmp_path, "cortex-a7", irq=NESTING)
    layout = tmp_path / "layout.toml"
    tasks = "".join(
        f'[[task]]\nname = "{name}"\nentry = "application"\nsize = 1024\n{more}'
        for name, more in (("one", "saved = 64\n"), ("two", ""), ("three", "saved = 64\n"))
    )
    layout.write_text(f'name = "mine"\nextends = "bare-metal"\n{tasks}')
    warnings = stackfit.check(tmp_path / "image.elf", layouts=[layout]).warnings
    said = [text for text in warnings if text.startswith("task ")]
    assert said == [
        "task two: what a context switch saves on the task's stack is not known: declare [[task]] with saved"
    ]
