"""Cortex-M firmware of ours: contexts, stacks and tasks from the image; what QEMU measures; the traps."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import cross
import stackfit
from stackfit.analysis import Analysis
from stackfit.image.model import InputError
from stackfit.verdict.model import StackNeed, Verdict

FIRMWARE = Path(__file__).resolve().parents[2] / "fixtures" / "firmware"
RTOS = FIRMWARE / "rtos-cortex-m4f.elf"
TRAPS = FIRMWARE / "traps-cortex-m4f.elf"


def stacks(analysis: Analysis) -> dict[str, StackNeed]:
    return {need.stack.name: need for need in analysis.verdicts[0].stacks}


@pytest.fixture(scope="module")
def rtos() -> Analysis:
    return stackfit.check(RTOS, layouts=[str(FIRMWARE / "rtos-cortex-m4f.toml")])


@pytest.fixture(scope="module")
def traps() -> Analysis:
    return stackfit.check(TRAPS)


def test_the_vector_table_is_walked(rtos: Analysis) -> None:
    found = {(context.name, context.kind) for context in rtos.contexts}
    assert found == {
        ("Reset", "boot"), ("SVCall", "isr"), ("PendSV", "isr"), ("SysTick", "isr"), ("IRQ 1", "isr"),
        ("worker", "task"), ("filter", "task"), ("reporter", "task"), ("idle", "task"),
    }  # fmt: skip


def test_tasks_have_the_size_of_their_stacks_symbol(rtos: Analysis) -> None:
    sizes = {name: need.stack.size for name, need in stacks(rtos).items()}
    assert sizes == {
        "main": 1024, "task worker": 1024, "task filter": 1280, "task reporter": 768, "task idle": 384
    }  # fmt: skip
    assert stacks(rtos)["task worker"].stack.sources["size"] == "symbol worker_stack"


def test_the_context_switch_saves_to_the_tasks_stack(rtos: Analysis) -> None:
    """Exception frame 32 or 104 B and 4 of alignment; r4 to r11 and lr; s16 to s31 of floating-point
    tasks."""
    reserved = {name: need.stack.reserve_base for name, need in stacks(rtos).items()}
    assert reserved["task worker"] == 36 + 36
    assert reserved["task filter"] == 108 + 36 + 64


def test_handlers_nest_by_their_priority(rtos: Analysis) -> None:
    parts = {part.name.split(",")[0]: part.bytes for part in stacks(rtos)["main"].parts}
    assert set(parts) == {"boot Reset", "isr SysTick", "isr IRQ 1"}  # SVCall, PendSV: SysTick's priority
    assert parts["isr IRQ 1"] == 8 + 160  # nothing preempts it: no frame on top


def test_without_priorities_each_handler_nests_once() -> None:
    need = stacks(stackfit.check(RTOS))["main"]
    assert {part.name.split(",")[0] for part in need.parts} == {
        "boot Reset", "isr SVCall", "isr PendSV", "isr SysTick", "isr IRQ 1"
    }  # fmt: skip
    assert need.direct is not None and need.direct > 632


def test_the_bound_holds_and_is_near_what_painted_stacks_show(rtos: Analysis) -> None:
    """The application takes every worst path on purpose; nothing is open."""
    qemu = shutil.which("qemu-system-arm")
    if qemu is None:
        pytest.skip("no qemu-system-arm")
    command = [qemu, "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel", str(RTOS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    marks = re.findall(r"^mark (\w+) (\d+) (\d+)$", result.stdout + result.stderr, re.M)
    assert len(marks) == 5
    needs = stacks(rtos)
    for name, size, used in marks:
        need = needs[name if name == "main" else f"task {name}"]
        assert need.stack.size == int(size)
        assert need.bound is not None and not need.open
        assert int(used) <= need.bound <= 1.1 * int(used), name


def test_a_proof_needs_no_measurement(rtos: Analysis) -> None:
    for need in stacks(rtos).values():
        assert need.verdict is Verdict.FITS_IF and need.bound == need.direct


def context(analysis: Analysis, name: str) -> object:
    (found,) = [
        need for need in analysis.composer.context_needs(analysis.layouts[0]) if need.context.name == name
    ]
    return found


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("IRQ 0", "recursion without a budget, counted once"),
        ("IRQ 1", "indirect call: the pointer's value is not known"),
        ("IRQ 2", "frame of unknown size"),
        ("IRQ 4", "recursion without a budget, counted once"),
    ],
)
def test_traps_are_reported(traps: Analysis, name: str, reason: str) -> None:
    """Mutual recursion, a pointer, an array of variable length, direct recursion: open, no finite number."""
    assert reason in dict(context(traps, name).open.counts)  # type: ignore[attr-defined]
    assert stacks(traps)["main"].verdict is Verdict.UNKNOWN


def test_a_tail_call_reaches_the_deepest_frame(traps: Analysis) -> None:
    """Its own frame is gone by then: the deeper of both counts, not their sum."""
    need = context(traps, "IRQ 3")
    names = traps.code.functions.names
    frames = {name: int(traps.frames.frame[names.index(name)]) for name in ("middle", "deep")}
    frame = 32 + 4  # of what preempts it
    assert need.bound == need.direct == frame + max(frames.values())  # type: ignore[attr-defined]
    assert not need.open  # type: ignore[attr-defined]


def layout(directory: Path, text: str) -> str:
    path = directory / "board.toml"
    path.write_text(f'name = "board"\nextends = "cortex-m"\n{text}')
    return str(path)


def test_tasks_and_sizes_can_be_declared(tmp_path: Path) -> None:
    file = layout(
        tmp_path,
        '[stack.main]\nsize = 640\n[[task]]\nname = "extra"\nentry = "tail_call"\nsize = 512\n',
    )
    needs = stacks(stackfit.check(TRAPS, layouts=[file]))
    assert needs["main"].stack.size == 640
    assert needs["task extra"].verdict is Verdict.MAY_EXCEED
    assert needs["task extra"].direct == 800 + 36


def test_a_task_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    file = layout(tmp_path, '[[task]]\nentry = "tail_cal"\nsize = 512\n')
    with pytest.raises(InputError, match=r"no function tail_cal \(did you mean tail_call\?\)|tail_call"):
        stackfit.check(TRAPS, layouts=[file])


def test_a_handler_that_is_not_there_is_said(tmp_path: Path) -> None:
    file = layout(tmp_path, '[[isr]]\nname = "IRQ 77"\npriority = 1\n')
    assert any("IRQ 77" in warning for warning in stackfit.check(TRAPS, layouts=[file]).warnings)


def test_without_symbols_the_main_stack_is_the_same(tmp_path: Path) -> None:
    strip = shutil.which("arm-none-eabi-strip")
    if strip is None:
        pytest.skip("no arm-none-eabi-strip")
    image = tmp_path / "stripped.elf"
    subprocess.run([strip, "-o", str(image), str(RTOS)], check=True)
    stripped, whole = stackfit.check(image), stackfit.check(RTOS)
    need = stacks(stripped)["main"]
    assert (need.bound, need.stack.size) == (stacks(whole)["main"].bound, 1024)
    assert need.stack.sources["size"] == "section .stack"
    assert any("no symbols" in text for text in need.assumed)
    assert any("[[task]]" in warning for warning in stripped.warnings)


STARTUP = """
volatile unsigned port;
extern char top[];
void none(void) { for (;;) ; }
__attribute__((noinline)) int application(void) {
    volatile unsigned big[64];
    big[port & 63] = 1;
    return big[0];
}
__attribute__((naked)) void Reset_Handler(void) {
    __asm volatile("ldr r0, =top\\nmov sp, r0\\nbl application\\nb .");
}
__attribute__((section(".vectors"), used, aligned(128)))
const void *const vectors[16] = { (void *)0x20001000, Reset_Handler, none, none, none, none, none };
__asm(".globl top\\n.set top, 0x20001000");
"""


SWITCHING = """
__attribute__((used, noinline)) void elsewhere(void) { volatile char room[512]; room[0] = 1; }
__attribute__((used, naked)) void on_another_stack(void *top) {
    __asm__ volatile("push {r4, lr}\\n mov r4, sp\\n mov sp, r0\\n"
                     "bl elsewhere\\n mov sp, r4\\n pop {r4, pc}");
}
"""


def test_what_reset_calls_once_it_has_set_the_stack_pointer_counts(tmp_path: Path) -> None:
    """As vendors' start-up code does: the call is on a stack that the code chose, which is the main stack."""
    source = tmp_path / "start.c"
    source.write_text(STARTUP)
    image = cross.build(tmp_path, "cortex-m4f", [source], "-O2")
    need = stacks(stackfit.check(image))["main"]
    assert need.direct is not None and need.direct >= 256 + 36
    assert need.chain is not None


def test_what_runs_on_a_stack_that_a_function_switches_to_is_open(tmp_path: Path) -> None:
    """No stack of the layout counts it: the verdict says so, not a note alone."""
    source = tmp_path / "start.c"
    source.write_text(STARTUP + SWITCHING)
    need = stacks(stackfit.check(cross.build(tmp_path, "cortex-m4f", [source], "-O2")))["main"]
    assert dict(need.open.counts)["what it calls there is counted on none"] == 1
    assert need.verdict is Verdict.UNKNOWN
