"""Tasks of real-time operating systems, by sources of ours with their functions, structures and symbols."""

from __future__ import annotations

from pathlib import Path

import pytest

import cross
import stackfit
from stackfit.analysis import Analysis
from stackfit.verdict.model import StackNeed, Verdict

HEAD = """
#include <stdint.h>
#include <stddef.h>
volatile unsigned port;
#define ROOM(n) { volatile unsigned room[n]; room[port % n] = 1; port = room[0]; }
void none(void) { for (;;) ; }
"""
VECTORS = """
__attribute__((naked)) void PendSV_Handler(void) { __asm volatile(SWITCH "bx lr"); }
void SysTick_Handler(void) ROOM(12)
void device(void) ROOM(24)
void start(void);
void Reset_Handler(void) { start(); for (;;) ; }
__attribute__((section(".vectors"), used, aligned(128))) const void *const vectors[17] = {
    TOP, Reset_Handler, none, none, none, none, none, 0, 0, 0, 0, none, none, 0,
    PendSV_Handler, SysTick_Handler, device };
"""
STACKED = '-DSWITCH="mrs r0, psp\\nstmdb r0!, {r4-r11, lr}\\nmsr psp, r0\\n"'
IN_STRUCTURE = '-DSWITCH="mrs r0, psp\\nldr r1, =port\\nstmia r1!, {r4-r11}\\nstr r0, [r1]\\nmsr psp, r0\\n"'
TOP = "-DTOP=(void *)0x20001000"

FREERTOS = """
typedef void task(void *);
typedef struct { unsigned room[22]; } StaticTask_t;
unsigned heap[512];
__attribute__((noipa)) int xTaskCreate(task *code, const char *name, uint16_t depth, void *argument,
        unsigned priority, void **created) { port = (unsigned)code + depth; return 1; }
__attribute__((noipa)) void *xTaskCreateStatic(task *code, const char *name, uint32_t depth, void *argument,
        unsigned priority, unsigned *stack, StaticTask_t *control)
        { stack[depth - 1] = (unsigned)code; return control; }
static unsigned idle_stack[128], timer_stack[200], net_stack[300];
static StaticTask_t idle_control, timer_control, net_control;
__attribute__((noipa)) void vApplicationGetIdleTaskMemory(StaticTask_t **c, unsigned **s, uint32_t *n)
    { *c = &idle_control; *s = idle_stack; *n = 128; }
__attribute__((noipa)) void vApplicationGetTimerTaskMemory(StaticTask_t **c, unsigned **s, uint32_t *n)
    { *c = &timer_control; *s = timer_stack; *n = 200; }
__attribute__((noipa)) void prvIdleTask(void *p) { ROOM(4) for (;;) ; }
__attribute__((noipa)) void prvTimerTask(void *p) { ROOM(6) for (;;) ; }
__attribute__((noipa)) void net(void *p) { ROOM(40) for (;;) ; }
__attribute__((noipa)) void blink(void *p) { ROOM(20) for (;;) ; }
__attribute__((noipa)) void late(void *p) { ROOM(20) for (;;) ; }
__attribute__((noipa)) void vTaskStartScheduler(void) {
    StaticTask_t *c; unsigned *s; uint32_t n;
    vApplicationGetIdleTaskMemory(&c, &s, &n);
    xTaskCreateStatic(prvIdleTask, "IDLE", n, 0, 0, s, c);
    vApplicationGetTimerTaskMemory(&c, &s, &n);
    xTaskCreateStatic(prvTimerTask, "Tmr Svc", n, 0, 2, s, c);
}
__attribute__((noipa)) void start(void) {
    xTaskCreate(blink, "blink", 150, 0, 1, 0);
    xTaskCreateStatic(net, "net", 300, 0, 1, net_stack, &net_control);
    xTaskCreate(late, "late", port, 0, 1, 0);
    vTaskStartScheduler();
}
"""


def build(directory: Path, text: str, target: str = "cortex-m3", *options: str) -> Analysis:
    source = directory / "firmware.c"
    source.write_text(HEAD + text + VECTORS)
    return stackfit.check(cross.build(directory, target, [source], *options))


def stacks(analysis: Analysis) -> dict[str, StackNeed]:
    return {need.stack.name: need for need in analysis.verdicts[0].stacks}


@pytest.mark.parametrize("option", ["-O0", "-O2", "-Os"])
def test_freertos_tasks_have_what_their_calls_say(option: str, tmp_path: Path) -> None:
    analysis = build(tmp_path, FREERTOS, "cortex-m3", option, STACKED, TOP)
    sizes = {name: need.stack.size for name, need in stacks(analysis).items() if name != "main"}
    expected = {"task blink": 600, "task net": 1200, "task IDLE": 512, "task Tmr Svc": 800}
    if option == "-O0":  # arguments go by way of the stack: what is not found is said
        assert sizes.items() <= expected.items()
    else:
        assert sizes == expected
        assert stacks(analysis)["task net"].stack.reserve_base == 36 + 36
        assert stacks(analysis)["task IDLE"].stack.sources["size"].startswith("symbol idle_stack, by vApp")
    assert any(text.startswith("task late") and "declare [[task]]" in text for text in analysis.warnings)


def test_tasks_of_a_clone_of_the_creator_are_not_passed_over(tmp_path: Path) -> None:
    """With link-time optimisation the compiler changes the arguments: which task it is, is open."""
    text = FREERTOS.replace(
        "__attribute__((noipa)) int xTaskCreate(", "static __attribute__((noinline)) int xTaskCreate("
    )
    analysis = build(tmp_path, text, "cortex-m3", "-O2", STACKED, TOP)
    assert "xTaskCreate" not in analysis.code.functions.names  # but xTaskCreate.isra.0 or the like
    opened = [context for context in analysis.contexts if context.kind == "task" and context.open]
    assert len(opened) == 2


ZEPHYR = """
struct k_thread { unsigned room[30]; };
typedef void entry(void *, void *, void *);
struct _static_thread_data
        { struct k_thread *thread; char *stack; unsigned size; entry *code; void *p1, *p2, *p3;
    int priority; unsigned options; int delay; const char *name; };
__attribute__((aligned(8))) char z_interrupt_stacks[1][2048], z_main_stack[1024], sensor_stack[768],
        net_stack[1536];
char z_idle_stacks[1][320];
struct k_thread sensor_thread, net_thread, z_main_thread, z_idle_threads[1];
__attribute__((noipa)) void sensor(void *a, void *b, void *c) { ROOM(30) }
__attribute__((noipa)) void net(void *a, void *b, void *c) { ROOM(60) }
__attribute__((noipa)) void bg_thread_main(void *a, void *b, void *c) { ROOM(16) }
__attribute__((noipa)) void idle(void *a, void *b, void *c) { for (;;) ; }
__attribute__((noipa)) char *z_setup_new_thread(struct k_thread *t, char *stack, unsigned size, entry *code,
        void *p1, void *p2, void *p3, int priority, unsigned options, const char *name)
    { port = (unsigned)code + size + (unsigned)name; return stack; }
__attribute__((noipa)) struct k_thread *z_impl_k_thread_create(struct k_thread *t, char *stack, unsigned size,
        entry *code, void *p1, void *p2, void *p3, int priority, unsigned options, long long delay)
    { z_setup_new_thread(t, stack, size, code, p1, p2, p3, priority, options, 0); return t; }
__attribute__((section("__static_thread_data"), used)) struct _static_thread_data _k_thread_data_sensor =
    { &sensor_thread, sensor_stack, sizeof sensor_stack, sensor, 0, 0, 0, 5, 0, 0, "sensor" };
__asm(".globl __static_thread_data_list_start, __static_thread_data_list_end\\n"
      ".set __static_thread_data_list_start, _k_thread_data_sensor\\n"
      ".set __static_thread_data_list_end, _k_thread_data_sensor + 44\\n");
__attribute__((noipa)) void start(void) {
    z_setup_new_thread(&z_main_thread, z_main_stack, sizeof z_main_stack, bg_thread_main, 0, 0, 0, 0,
        0, "main");
    z_setup_new_thread(z_idle_threads, z_idle_stacks[0], sizeof z_idle_stacks[0], idle, 0, 0, 0, 15, 0, 0);
    z_impl_k_thread_create(&net_thread, net_stack, sizeof net_stack, net, 0, 0, 0, 3, 0, 0);
}
"""


def test_zephyr_has_threads_by_calls_and_in_a_section_and_a_stack_of_interrupts(tmp_path: Path) -> None:
    analysis = build(tmp_path, ZEPHYR, "cortex-m3", "-O2", IN_STRUCTURE, "-DTOP=z_main_stack + 1024")
    needs = stacks(analysis)
    assert {name: need.stack.size for name, need in needs.items()} == {
        "main": 1024, "interrupts": 2048, "task bg_thread_main": 1024, "task idle": 320, "task net": 1536,
        "task sensor": 768,
    }  # fmt: skip
    handlers = {part.name.split(",")[0] for part in needs["interrupts"].parts}
    assert handlers == {"isr PendSV", "isr SysTick", "isr IRQ 0"}  # on top of one another
    assert [part.name for part in needs["main"].parts] == ["boot Reset"]
    assert needs["task net"].stack.reserve_base == 36  # callee-saved registers are in the thread's structure
    assert needs["interrupts"].stack.sources["size"] == "symbol z_interrupt_stacks"


THREADX = """
typedef void entry(unsigned long);
static unsigned char stack[1024];
static unsigned control[44];
__attribute__((noipa)) unsigned _tx_thread_create(void *t, char *name, entry *code, unsigned long input,
        void *stack, unsigned long size, unsigned priority, unsigned threshold, unsigned long slice,
        unsigned start)
    { port = (unsigned)code + size; return 0; }
__attribute__((noipa)) void producer(unsigned long n) { ROOM(50) for (;;) ; }
__attribute__((noipa)) void start(void)
    { _tx_thread_create(control, "producer", producer, 0, stack, sizeof stack, 1, 1, 0, 1); }
"""


def test_threadx_threads(tmp_path: Path) -> None:
    switch = '-DSWITCH="mrs r12, psp\\nstmdb r12!, {r4-r11}\\n"'
    need = stacks(build(tmp_path, THREADX, "cortex-m3", "-O2", switch, TOP))["task producer"]
    assert need.stack.size == 1024 and need.stack.reserve_base == 36 + 32
    assert need.direct is not None and need.verdict is Verdict.FITS_IF


CMSIS = """
typedef void task(void *);
typedef struct { const char *name; uint32_t bits; void *control; uint32_t control_size; void *stack;
    uint32_t stack_size; int priority; unsigned module, reserved; } osThreadAttr_t;
static uint64_t stack[160];
static const osThreadAttr_t with_stack = { "logger", 0, 0, 0, stack, sizeof stack, 24 };
static const osThreadAttr_t sized = { "shell", 0, 0, 0, 0, 900, 24 };
__attribute__((noipa)) void *osThreadNew(task *code, void *argument, const osThreadAttr_t *attributes)
    { port = (unsigned)code + attributes->stack_size; return 0; }
__attribute__((noipa)) void logger(void *p) { ROOM(20) for (;;) ; }
__attribute__((noipa)) void shell(void *p) { ROOM(30) for (;;) ; }
__attribute__((noipa)) void start(void)
        { osThreadNew(logger, 0, &with_stack); osThreadNew(shell, 0, &sized); }
"""


def test_cmsis_rtos2_threads_by_their_attributes(tmp_path: Path) -> None:
    needs = stacks(build(tmp_path, CMSIS, "cortex-m3", "-O2", STACKED, TOP))
    sizes = {name: need.stack.size for name, need in needs.items() if name != "main"}
    assert sizes == {"task logger": 1280, "task shell": 900}


@pytest.mark.parametrize(("target", "frame"), [("cortex-m3", 32 + 40 + 4), ("cortex-m4f", 104 + 40 + 64 + 4)])
def test_secure_state_has_larger_frames(target: str, frame: int, tmp_path: Path) -> None:
    """A Secure image, by its section of entry points for Non-secure code."""
    text = (
        FREERTOS.replace("void net(void *p) { ROOM(40)", "void net(void *p) { FLOAT ROOM(40)")
        + """
__attribute__((section(".gnu.sgstubs"), used)) const unsigned stubs[2] = {0xe97fe97f, 0};
"""
    )
    floating = "-DFLOAT=volatile float x = port; port = x * 2;" if target == "cortex-m4f" else "-DFLOAT="
    need = stacks(build(tmp_path, text, target, "-O2", STACKED, TOP, floating))["task net"]
    assert need.stack.reserve_base == frame + 36
    assert any("Secure state" in text for text in need.assumed)
