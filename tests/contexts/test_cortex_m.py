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


def test_priorities_are_read_from_the_code_that_sets_them(rtos: Analysis) -> None:
    """SHPR2, SHPR3 and IPR0 are written with constants: as the file declares, but not as certain."""
    found = stackfit.check(RTOS)
    assert stacks(found)["main"].direct == stacks(rtos)["main"].direct
    (said,) = [
        text for text in stacks(found)["main"].assumed if "priorities are those that code sets" in text
    ]
    assert "SVCall 0x80" in said and "IRQ 1 0x40" in said


def test_without_priorities_each_handler_nests_once(traps: Analysis) -> None:
    need = stacks(traps)["main"]
    assert {part.name.split(",")[0] for part in need.parts} == {
        "boot Reset", *(f"isr IRQ {number}" for number in range(5))
    }  # fmt: skip


PRIORITIES = """
#include <stdint.h>
#define IPR ((volatile uint8_t *)0xe000e400)
#define AIRCR (*(volatile uint32_t *)0xe000ed0c)
extern char top[];
volatile unsigned port;
void none(void) { for (;;) ; }
#define ISR(name, words) void name(void) \\
    { volatile unsigned room[words]; room[port % words] = 1; port = room[0]; }
ISR(first, 8) ISR(second, 20) ISR(third, 50)
void Reset_Handler(void) {
    IPR[0] = 0x40;
    IPR[1] = 0x60;
    IPR[2] = 0xc0;
    AIRCR = 0x05fa0000 | GROUP << 8;
    for (;;) ;
}
__attribute__((section(".vectors"), used, aligned(128)))
const void *const vectors[19] = {
    (void *)0x20001000, Reset_Handler, none, none, none, none, none, 0, 0, 0, 0, none, none, 0, none, none,
    first, second, third };
"""


def on_top(analysis: Analysis) -> set[str]:
    return {part.name.split(",")[0] for part in stacks(analysis)["main"].parts} - {"boot Reset"}


@pytest.mark.parametrize(
    ("group", "nested"),
    [
        (0, {"isr IRQ 0", "isr IRQ 1", "isr IRQ 2"}),
        (5, {"isr IRQ 1", "isr IRQ 2"}),  # 0x40 and 0x60 are of one group: the deeper of both
        (6, {"isr IRQ 1", "isr IRQ 2"}),
        (7, {"isr IRQ 2"}),  # no bit tells what preempts
    ],
)
def test_priorities_of_one_group_do_not_nest(group: int, nested: set[str], tmp_path: Path) -> None:
    source = tmp_path / "start.c"
    source.write_text(PRIORITIES)
    image = cross.build(tmp_path, "cortex-m3", [source], "-O2", f"-DGROUP={group}")
    assert on_top(stackfit.check(image)) == nested


def test_a_file_says_which_bits_of_a_priority_preempt(tmp_path: Path) -> None:
    source = tmp_path / "start.c"
    source.write_text(PRIORITIES)
    image = cross.build(tmp_path, "cortex-m3", [source], "-O2", "-DGROUP=0")
    handlers = "".join(
        f'[[isr]]\nname = "IRQ {number}"\npriority = {priority}\n'
        for number, priority in enumerate((0x40, 0x60, 0x70))
    )
    whole = layout(tmp_path, handlers)
    assert on_top(stackfit.check(image, layouts=[whole])) == {"isr IRQ 0", "isr IRQ 1", "isr IRQ 2"}
    three_bits = layout(tmp_path, "priority-bits = 3\n" + handlers)
    assert on_top(stackfit.check(image, layouts=[three_bits])) == {"isr IRQ 0", "isr IRQ 2"}
    grouped = layout(tmp_path, "priority-group = 5\npriority-bits = 3\n" + handlers)
    assert on_top(stackfit.check(image, layouts=[grouped])) == {"isr IRQ 2"}


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


@pytest.mark.parametrize(
    ("name", "machine"), [("nested-cortex-m4f", "mps2-an386"), ("nested-cortex-m0", "microbit")]
)
def test_the_bound_holds_where_three_handlers_nest(name: str, machine: str) -> None:
    """Each is interrupted at its deepest, with floating-point registers to save where there are any; a fourth
    of the middle one's priority waits. Priorities are read from the code that sets them."""
    qemu = shutil.which("qemu-system-arm")
    if qemu is None:
        pytest.skip("no qemu-system-arm")
    image = FIRMWARE / f"{name}.elf"
    command = [qemu, "-M", machine, "-nographic", "-semihosting", "-kernel", str(image)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (mark,) = re.findall(r"^mark main (\d+) (\d+)$", result.stdout + result.stderr, re.M)
    assert "handled 5" in result.stdout + result.stderr  # all four, and what they interrupt
    need = stacks(stackfit.check(image))["main"]
    assert need.stack.size == int(mark[0]) and not need.open and need.bound is not None
    assert int(mark[1]) <= need.bound <= 1.1 * int(mark[1])
    nested = {part.name.split(",")[0] for part in need.parts} - {"boot Reset"}
    assert nested == {"isr IRQ 0", "isr IRQ 1", "isr IRQ 2"}


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
        '[stack.main]\nsize = 640\n[[task]]\nname = "extra"\nentry = "tail_call"\nsize = 512\nsaved = 36\n',
    )
    needs = stacks(stackfit.check(TRAPS, layouts=[file]))
    assert needs["main"].stack.size == 640
    assert needs["task extra"].verdict is Verdict.MAY_EXCEED
    assert needs["task extra"].direct == 800 + 36 + 36


def test_what_the_context_switch_saves_is_open_where_nothing_tells(tmp_path: Path) -> None:
    """No code reads the process stack pointer: no finite number until a file says it."""
    need = stacks(
        stackfit.check(TRAPS, layouts=[layout(tmp_path, '[[task]]\nentry = "tail_call"\nsize = 4096\n')])
    )
    task = need["task tail_call"]
    assert task.verdict is Verdict.UNKNOWN and "what a context switch saves" in str(task.open.counts)


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
