"""The tracker against small functions, one per compiler idiom, and against gcc's own -fstack-usage."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolchain
from stackfit.frames import analyse as analysis
from stackfit.frames.model import SiteKind, StackKind, Summary
from stackfit.image.link import link
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import decode_program
from toolchain import Analysed, analyse

MODES = pytest.mark.parametrize("bits", [64, 32])
CALL, TAIL, INDIRECT, INDIRECT_TAIL = SiteKind
FRAME, OTHER_STACK, BELOW = StackKind.FRAME, StackKind.OTHER_STACK, StackKind.BELOW_ALLOCATION
REGISTERS = {
    64: {"sp": "%rsp", "bp": "%rbp", "bx": "%rbx", "ax": "%rax", "cx": "%rcx", "dx": "%rdx"},
    32: {"sp": "%esp", "bp": "%ebp", "bx": "%ebx", "ax": "%eax", "cx": "%ecx", "dx": "%edx"},
}


def assembled(directory: Path, bits: int, *functions: tuple[str, str]) -> Analysed:
    """Functions (name, body) in AT&T syntax; {sp} and the like stand for the mode's registers."""
    text = [".text"]
    for name, body in functions:
        for word, register in REGISTERS[bits].items():
            body = body.replace("{" + word + "}", register)
        body = body.replace("{ptr}", ".quad" if bits == 64 else ".long")
        text += [f".globl {name}", f".type {name}, @function", f"{name}:", body, f".size {name}, .-{name}"]
    return analyse(directory, "\n".join(text) + "\n", bits, suffix=".s")


# ---------------------------------------------------------------- plain frames


@MODES
def test_pushes_and_constant_subtractions_add_up(bits: int, tmp_path: Path) -> None:
    found = assembled(
        tmp_path,
        bits,
        ("f", "push {bp}; push {bx}; sub $40,{sp}; call g; add $40,{sp}; pop {bx}; pop {bp}; ret"),
    )
    word = bits // 8
    depth = 3 * word + 40
    assert found.frame("f") == found.compiler_frame("f") == depth
    assert found.sites("f") == [("g", depth, CALL, FRAME)]
    assert found.summary("f") == Summary.RETURNS and found.returns("f")


@MODES
def test_leave_restores_what_the_frame_pointer_holds(bits: int, tmp_path: Path) -> None:
    word = bits // 8
    found = assembled(
        tmp_path, bits,
        ("f", "push {bp}; mov {sp},{bp}; sub $100,{sp}; call g; leave; call h; ret"),
        ("nested", "enter $64,$0; call g; leave; ret"),
        ("level", "enter $64,$2; call g; leave; ret"),
    )  # fmt: skip
    assert found.sites("f") == [("g", 2 * word + 100, CALL, FRAME), ("h", word, CALL, FRAME)]
    assert found.sites("nested") == [("g", 2 * word + 64, CALL, FRAME)]
    assert found.sites("level") == [("g", 4 * word + 64, CALL, FRAME)]
    assert found.summary("f") == found.summary("nested") == found.summary("level") == Summary.RETURNS


@MODES
def test_a_callee_that_pops_its_arguments(bits: int, tmp_path: Path) -> None:
    word = bits // 8
    found = assembled(
        tmp_path, bits,
        ("callee", f"ret ${2 * word}"),
        ("f", "push {ax}; push {ax}; call callee; call g; ret"),
    )  # fmt: skip
    assert found.sites("f") == [("callee", 3 * word, CALL, FRAME), ("g", word, CALL, FRAME)]
    assert found.summary("f") == Summary.RETURNS


@MODES
def test_a_return_at_another_depth_is_reported(bits: int, tmp_path: Path) -> None:
    found = assembled(tmp_path, bits, ("f", "push {ax}; ret"))
    assert found.summary("f") == Summary.RETURNS | Summary.UNBALANCED


@MODES
def test_flags_pushed_by_inline_assembly_are_in_the_frame_but_not_in_the_compilers(
    bits: int, tmp_path: Path
) -> None:
    word = bits // 8
    found = assembled(
        tmp_path, bits,
        ("irq_save", "sub $16,{sp}; pushf; pop {ax}; add $16,{sp}; ret"),
        ("arguments", f"push {{ax}}; push {{ax}}; call g; add ${2 * word},{{sp}}; ret"),
    )  # fmt: skip
    assert (found.frame("irq_save"), found.compiler_frame("irq_save")) == (16 + 2 * word, 16 + word)
    assert (found.frame("arguments"), found.compiler_frame("arguments")) == (3 * word, 3 * word)


# ---------------------------------------------------------------- realignment


@MODES
@pytest.mark.parametrize("option", ["-O0", "-O2", "-Os"])
def test_a_realigned_frame_counts_at_its_worst_and_comes_back(bits: int, option: str, tmp_path: Path) -> None:
    # gcc keeps the old stack pointer in r10 (ecx on i386), saves it in the frame and returns by lea -W(%r10).
    word = bits // 8
    source = """
    void g(void *); void h(void);
    void f(void) { char a[64] __attribute__((aligned(64))); g(a); }
    int many(int a, int b, int c, int d, int e, int x, int y) {
        char v[256] __attribute__((aligned(128))); g(v); return x + y + v[a];
    }
    """
    found = analyse(tmp_path, source, bits, option)
    for name, alignment, size in (("f", 64, 64), ("many", 128, 256)):
        assert found.summary(name) == Summary.RETURNS | Summary.REALIGNED
        ((_, depth, _, stack),) = found.sites(name)
        assert stack is FRAME and depth == found.frame(name)
        # The array, the loss to alignment at its worst, the return address and saved registers.
        assert size + alignment <= depth + word <= size + 2 * alignment + 12 * word + 64


def test_the_worst_case_of_a_realignment_is_exact(tmp_path: Path) -> None:
    found = assembled(
        tmp_path, 64,
        ("f", "lea 8(%rsp),%r10; and $-64,%rsp; push -8(%r10); push %rbp; mov %rsp,%rbp; push %r10;"
              "sub $88,%rsp;"
              "call g; mov -8(%rbp),%r10; leave; lea -8(%r10),%rsp; ret"),
        ("kept_in_r13", "push %r13; lea 16(%rsp),%r13; and $-32,%rsp; push -8(%r13); push %rbp;"
                        "mov %rsp,%rbp; push %r13; sub $40,%rsp; call g; add $40,%rsp; pop %r13; pop %rbp;"
                        "lea -16(%r13),%rsp; pop %r13; ret"),
    )  # fmt: skip
    assert found.sites("f") == [("g", 8 + 56 + 8 + 8 + 8 + 88, CALL, FRAME)]
    assert found.sites("kept_in_r13") == [("g", 16 + 24 + 8 + 8 + 8 + 40, CALL, FRAME)]
    for name in ("f", "kept_in_r13"):
        assert found.summary(name) == Summary.RETURNS | Summary.REALIGNED


# ---------------------------------------------------------------- allocations

ALLOCATIONS = """
void g(void *);
void bounded(unsigned n) { g(__builtin_alloca(n & 0x3f0)); }
void unbounded(unsigned long n) { g(__builtin_alloca(n)); }
void vla(int n) { char v[n]; g(v); }
void byte(unsigned char n) { g(__builtin_alloca(n)); }
"""


@MODES
@pytest.mark.parametrize("option", ["-O1", "-O2", "-Os"])
def test_allocations_are_bounded_where_the_code_bounds_them(bits: int, option: str, tmp_path: Path) -> None:
    found = analyse(tmp_path, ALLOCATIONS, bits, option, "-fno-stack-clash-protection")
    for name, most in (("bounded", 0x3F0), ("byte", 0xFF)):
        ((callee, depth, kind, stack),) = found.sites(name)
        assert (callee, kind, stack) == ("g", CALL, FRAME), name
        assert most <= depth <= most + 96, name
        assert found.summary(name) == Summary.RETURNS | Summary.BOUNDED
    for name in ("unbounded", "vla"):
        ((callee, depth, kind, stack),) = found.sites(name)
        assert (callee, kind, stack) == ("g", CALL, BELOW), name
        assert found.summary(name) == Summary.RETURNS | Summary.UNBOUNDED
        assert bits // 8 <= int(found.frames.allocation[found.index(name)]) <= depth


@pytest.mark.parametrize(
    "first", ["mov $16,%eax; jmp 2f; 1:", "jmp 2f; 1: mov $16,%eax; jmp 2f; .byte 0x90;"]
)
def test_a_bound_that_holds_on_one_path_only_is_none(first: str, tmp_path: Path) -> None:
    found = assembled(
        tmp_path, 64,
        ("one_path", f"test %edi,%edi; mov %rsi,%rax; je 1f; {first} 2: sub %rax,%rsp; call g; ud2"),
        ("greater", "mov $16,%eax; test %edi,%edi; je 2f; mov $512,%eax; 2: sub %rax,%rsp; call g; ud2"),
        ("less", "mov $512,%eax; test %edi,%edi; je 2f; mov $16,%eax; 2: sub %rax,%rsp; call g; ud2"),
        ("grows", "mov $16,%eax; 1: add $16,%rax; test %edi,%edi; jne 1b; sub %rax,%rsp; call g; ud2"),
        ("upper_bits", "movzbw (%rdi),%ax; sub %rax,%rsp; call g; ud2"),
        ("high_byte", "movzbl %dil,%eax; mov %esi,%ecx; mov $1,%cl; sub %rcx,%rsp; call g; ud2"),
        ("from_memory", "mov $8,%ebx; sub (%rbx),%rsp; call g; ud2"),
    )  # fmt: skip
    assert [stack for *_, stack in found.sites("one_path")] == [BELOW]
    assert found.sites("greater") == found.sites("less") == [("g", 520, CALL, FRAME)]
    for name in ("grows", "upper_bits", "high_byte", "from_memory"):
        assert [stack for *_, stack in found.sites(name)] == [BELOW], name
        assert found.summary(name) & Summary.UNBOUNDED, name


def test_registers_that_a_call_does_not_preserve_bound_nothing(tmp_path: Path) -> None:
    found = assembled(
        tmp_path, 64,
        ("lost", "mov $16,%eax; call h; sub %rax,%rsp; call g; ud2"),
        ("kept", "mov $16,%ebx; call h; sub %rbx,%rsp; call g; ud2"),
    )  # fmt: skip
    assert found.sites("lost")[1][3] is BELOW
    assert found.sites("kept")[1] == ("g", 24, CALL, FRAME)


@MODES
def test_a_stack_that_grows_in_a_loop_is_unbounded(bits: int, tmp_path: Path) -> None:
    found = assembled(
        tmp_path, bits,
        ("f", "push {bp}; mov {sp},{bp}; 1: push {ax}; call g; test {ax},{ax}; jne 1b; call h; leave;"
              "call i; ret"),
        ("forever", "1: push {ax}; jmp 1b"),
    )  # fmt: skip
    assert found.summary("f") & Summary.GROWS and found.summary("forever") & Summary.GROWS
    by_callee = {callee: (depth, stack) for callee, depth, _, stack in found.sites("f")}
    assert by_callee["g"][1] is BELOW and by_callee["h"][1] is BELOW
    assert by_callee["i"] == (bits // 8, FRAME)  # the frame pointer knows better


# ---------------------------------------------------------------- where paths meet


@MODES
def test_of_two_depths_that_meet_the_deeper_holds(bits: int, tmp_path: Path) -> None:
    word = bits // 8
    bodies = {
        "deep_first": "test {ax},{ax}; je 1f; sub $64,{sp}; jmp 2f; 1: sub $16,{sp}; 2: call g; ud2",
        "deep_last": "test {ax},{ax}; je 1f; sub $16,{sp}; jmp 2f; 1: sub $64,{sp}; 2: call g; ud2",
    }
    found = assembled(tmp_path, bits, *bodies.items())
    for name in bodies:
        assert found.sites(name) == [("g", word + 64, CALL, FRAME)]


@MODES
def test_a_depth_below_an_unbounded_allocation_stays_one_when_it_meets_a_known_one(
    bits: int, tmp_path: Path
) -> None:
    bodies = {
        "unknown_first": "test {ax},{ax}; je 1f; sub {ax},{sp}; jmp 2f; 1: sub $64,{sp}; 2: call g; ud2",
        "unknown_last": "test {ax},{ax}; je 1f; sub $64,{sp}; jmp 2f; 1: sub {ax},{sp}; 2: call g; ud2",
    }
    found = assembled(tmp_path, bits, *bodies.items())
    for name in bodies:
        assert found.sites(name) == [("g", bits // 8 + 64, CALL, BELOW)]


def test_two_stacks_that_meet_are_a_conflict(tmp_path: Path) -> None:
    found = assembled(tmp_path, 64, ("f", "test %eax,%eax; je 1f; mov %rdi,%rsp; 1: call g; ret"))
    assert found.summary("f") & Summary.CONFLICT and found.summary("f") & Summary.SWITCHES
    assert found.returns("f")


# ---------------------------------------------------------------- stack switches


def test_call_on_the_irq_stack_of_x86_64(tmp_path: Path) -> None:
    # arch/x86/include/asm/irq_stack.h, call_on_stack(): the old pointer is kept at the new stack's top.
    found = assembled(
        tmp_path, 64,
        ("f", "push %rbx; sub $32,%rsp; mov %gs:0,%r11; mov %rsp,(%r11); mov %r11,%rsp; call g; pop %rsp;"
              "call h; add $32,%rsp; pop %rbx; ret"),
    )  # fmt: skip
    assert found.sites("f") == [("g", 0, CALL, OTHER_STACK), ("h", 48, CALL, FRAME)]
    assert found.under("f") == [48, -1]
    assert found.frame("f") == 48
    assert found.summary("f") == Summary.RETURNS | Summary.SWITCHES


def test_call_on_the_irq_stack_of_i386(tmp_path: Path) -> None:
    # arch/x86/kernel/irq_32.c, call_on_stack()
    found = assembled(
        tmp_path, 32,
        ("f", "push %ebx; sub $8,%esp; mov %eax,%ebx; xchg %ebx,%esp; call *%edi; mov %ebx,%esp;"
              "call h; add $8,%esp; pop %ebx; ret"),
    )  # fmt: skip
    assert found.sites("f") == [(None, 0, INDIRECT, OTHER_STACK), ("h", 16, CALL, FRAME)]
    assert found.under("f") == [16, -1]
    assert found.summary("f") == Summary.RETURNS | Summary.SWITCHES


@MODES
def test_switching_to_another_task_and_a_stack_pointer_from_nowhere(bits: int, tmp_path: Path) -> None:
    found = assembled(
        tmp_path, bits,
        ("switch_to", "push {bp}; mov {sp},16({ax}); mov 16({dx}),{sp}; pop {bp}; jmp g"),
        ("cleared", "xor {sp},{sp}; sub $0x1000,{sp}; call g; ud2"),
    )  # fmt: skip
    assert found.frame("switch_to") == 2 * (bits // 8)
    assert found.sites("switch_to")[0][::3] == ("g", OTHER_STACK)
    assert found.sites("cleared") == [("g", 0x1000, CALL, OTHER_STACK)]
    assert found.frame("cleared") == bits // 8
    for name in ("switch_to", "cleared"):
        assert found.summary(name) & Summary.SWITCHES


# ---------------------------------------------------------------- calls and what follows


@MODES
def test_internal_calls_push_their_own_return_address(bits: int, tmp_path: Path) -> None:
    word = bits // 8
    found = assembled(tmp_path, bits, ("f", f"call 1f; 1: add ${word},{{sp}}; call g; ret"))
    assert found.frame("f") == 2 * word
    assert ("g", word, CALL, FRAME) in found.sites("f")
    assert all(callee == "g" for callee, *_ in found.sites("f"))  # no site for the internal call


@MODES
def test_what_follows_a_call_that_never_returns_is_not_executed(bits: int, tmp_path: Path) -> None:
    found = assembled(
        tmp_path, bits,
        ("halt", "1: jmp 1b"),
        ("fail", "push {ax}; call halt; sub $4096,{sp}; call g; ret"),
        ("tail", "jmp fail"),
        ("caller", "call tail; sub $4096,{sp}; call g; ret"),
        ("other", "test {ax},{ax}; je 1f; call fail; 1: ret"),
    )  # fmt: skip
    assert [found.returns(name) for name in ("halt", "fail", "tail", "caller", "other")] == [False] * 4 + [
        True
    ]
    word = bits // 8
    assert found.frame("fail") == 2 * word and found.frame("caller") == word
    assert found.sites("fail") == [("halt", 2 * word, CALL, FRAME)]


@MODES
def test_rows_that_another_function_walked_in_error_are_not_lost(bits: int, tmp_path: Path) -> None:
    found = assembled(
        tmp_path, bits,
        ("a", "push {bx}; .Linside: call g; pop {bx}; ret"),
        ("halt", "1: jmp 1b"),
        ("fail", "call halt; ret"),  # its ret is never reached
        ("z", "call fail; jmp .Linside"),  # nor is the jump, which seems to be until fail is known
    )  # fmt: skip
    index = found.code.functions.named("a")[0]
    rows = slice(int(found.code.first[index]), int(found.code.first[index + 1]))
    reached = (found.frames.visitor[rows] == index) | found.code.padding()[rows]
    assert reached.all()
    assert not found.returns("z")


@MODES
def test_recursion_and_mutual_recursion_return(bits: int, tmp_path: Path) -> None:
    found = assembled(
        tmp_path,
        bits,
        ("a", "test {ax},{ax}; je 1f; call b; 1: ret"),
        ("b", "push {bx}; call a; pop {bx}; ret"),
    )
    assert found.returns("a") and found.returns("b")
    assert found.sites("b") == [("a", 2 * (bits // 8), CALL, FRAME)]


@MODES
def test_tail_calls_start_at_the_callers_own_return_slot(bits: int, tmp_path: Path) -> None:
    word = bits // 8
    found = assembled(
        tmp_path, bits,
        ("callee", "ret"),
        ("direct", "push {bx}; pop {bx}; jmp callee"),
        ("conditional", "test {ax},{ax}; jne callee; call g; ret"),
        ("indirect", "jmp *{ax}"),
        ("outside", "jmp g"),
    )  # fmt: skip
    assert found.sites("direct") == [("callee", word, TAIL, FRAME)]
    assert found.sites("conditional") == [("callee", word, TAIL, FRAME), ("g", word, CALL, FRAME)]
    assert found.sites("indirect") == [(None, word, INDIRECT_TAIL, FRAME)]
    assert found.sites("outside") == [("g", word, TAIL, FRAME)]
    assert all(found.returns(name) for name in ("direct", "conditional", "indirect", "outside"))


@MODES
def test_falling_into_the_next_function_is_a_tail_call(bits: int, tmp_path: Path) -> None:
    word = bits // 8
    found = assembled(
        tmp_path, bits, ("upper", "push {bx}; pop {bx}"), ("lower", "sub $64,{sp}; add $64,{sp}; ret")
    )
    assert found.sites("upper") == [("lower", word, TAIL, FRAME)]
    assert found.frame("upper") == 2 * word and found.frame("lower") == word + 64


@MODES
def test_thunks_stand_for_an_instruction(bits: int, tmp_path: Path) -> None:
    word = bits // 8
    register = {64: "rax", 32: "eax"}[bits]
    found = assembled(
        tmp_path, bits,
        ("__x86_return_thunk", "ret; int3"),
        (f"__x86_indirect_thunk_{register}", f"jmp *%{register}; int3"),
        ("__fentry__", "ret"),
        ("f", f"call __fentry__; push {{bx}}; call __x86_indirect_thunk_{register}; pop {{bx}};"
              "jmp __x86_return_thunk"),
        ("g", f"jmp __x86_indirect_thunk_{register}"),
    )  # fmt: skip
    assert found.sites("f") == [(None, 2 * word, INDIRECT, FRAME)]
    assert found.sites("g") == [(None, word, INDIRECT_TAIL, FRAME)]
    assert found.returns("f") and found.summary("f") == Summary.RETURNS


@MODES
def test_a_cold_piece_is_analysed_with_its_parent_at_its_depth(bits: int, tmp_path: Path) -> None:
    source = """
    extern void slow(const char *, int, int, int, int, int, int, int, int, int) __attribute__((cold));
    extern int g(int);
    int f(int n) {
        int i, s = 0;
        for (i = 0; i < n; i++) s += g(i);
        if (__builtin_expect(s == 3, 0)) slow("x", s, 1, 2, 3, 4, 5, 6, 7, 8);
        return s;
    }
    """
    found = analyse(tmp_path, source, bits, "-O2")
    functions = found.code.functions
    (cold,) = functions.named("f.cold")
    assert functions.names[functions.parent[cold]] == "f"
    assert functions.part_of(cold) == "f"
    (depth,) = [depth for callee, depth, _, _ in found.sites("f") if callee == "slow"]
    assert (
        depth == found.frame("f") > next(depth for callee, depth, _, _ in found.sites("f") if callee == "g")
    )
    assert not bool((found.frames.site_function == cold).any())


@MODES
def test_the_targets_of_a_switch_table_belong_to_the_function(bits: int, tmp_path: Path) -> None:
    cases = "".join(f"case {i}: return g{i}(x, n) + {i};" for i in range(12))
    externs = "".join(f"int g{i}(int, int);" for i in range(12))
    found = analyse(
        tmp_path, f"{externs} int f(int n, int x) {{ switch (n) {{ {cases} }} return x; }}", bits, "-O2"
    )
    called = {callee for callee, *_ in found.sites("f")}
    assert {f"g{i}" for i in range(12)} <= called
    assert set(found.code.functions.names) <= {"f", "f.cold"}
    assert set(found.frames.visitor[~found.code.padding()].tolist()) == {found.index("f")}


@MODES
def test_computed_goto(bits: int, tmp_path: Path) -> None:
    source = """
    int g(int), h(int);
    int f(const unsigned char *p, int x) {
        static const void *const table[] = {&&one, &&two, &&end};
        char big[300];
        goto *table[*p++];
    one: x = g(x); goto *table[*p++];
    two: x = h(x); goto *table[*p++];
    end: return x;
    }
    """
    found = analyse(tmp_path, source, bits, "-O2")
    assert {"g", "h"} <= {callee for callee, *_ in found.sites("f")}
    assert not bool((found.frames.visitor[~found.code.padding()] < 0).any())


def test_a_huge_computed_goto_is_followed_in_linear_space(tmp_path: Path) -> None:
    count = 6000
    table = "".join(f".quad .Lt{i};" for i in range(count))
    blocks = "".join(f".Lt{i}: call g{i % 7}; jmp *%rax;" for i in range(count))
    entry = ".text; .globl f; .type f, @function; f: push %rbx; jmp *%rax;"
    source = f".data; {table} {entry} {blocks} .size f, .-f\n"
    found = analyse(tmp_path, source, 64, suffix=".s")
    assert not bool((found.frames.visitor[~found.code.padding()] < 0).any())
    assert {site[:2] for site in found.sites("f") if site[2] is CALL} == {(f"g{i}", 16) for i in range(7)}
    assert not found.summary("f") & Summary.TOO_COMPLEX


BUGS = """
.text
.globl f
.type f, @function
f:
    push {bx}
1:  ud2
    call warned
    test {ax}, {ax}
    je 3f
2:  ud2
    call bugged
3:  pop {bx}
    ret
.size f, .-f
.pushsection __bug_table, "aw"
{entry1}
{entry2}
.popsection
"""


@MODES
def test_execution_goes_on_after_a_warning_and_not_after_a_bug(bits: int, tmp_path: Path) -> None:
    def entry(label: str, flags: int) -> str:
        if bits == 64:  # self-relative address and file, u16 line, u16 flags
            return f".long {label} - .; .long f - .; .word 7, {flags}"
        return f".long {label}, f; .word 7, {flags}"

    source = BUGS.replace("{entry1}", entry("1b", 0x901)).replace("{entry2}", entry("2b", 0))
    for word, register in REGISTERS[bits].items():
        source = source.replace("{" + word + "}", register)
    found = analyse(tmp_path, source, bits, suffix=".s")
    assert [callee for callee, *_ in found.sites("f")] == ["warned"]
    assert found.reached("f") == 8  # all but the call of `bugged`


@MODES
def test_exception_fixups_static_keys_and_alternatives_are_followed(bits: int, tmp_path: Path) -> None:
    relative = {64: "PLACE - .", 32: "PLACE - ."}[bits]
    source = f"""
    .text
    .globl f
    .type f, @function
    f:  push {{bx}}
    1:  mov ({{ax}}),{{ax}}
    2:  .byte 0x0f,0x1f,0x44,0,0
    3:  .byte 0x0f,0x1f,0x44,0,0
    4:  pop {{bx}}
        ret
    5:  call fixup
        jmp 4b
    6:  call enabled
        jmp 3b
    .size f, .-f
    .pushsection __ex_table, "a"
        .long {relative.replace("PLACE", "1b")}; .long {relative.replace("PLACE", "5b")}; .long 1
    .popsection
    .pushsection __jump_table, "aw"
        .long 2b - .; .long 6b - .; {".quad" if bits == 64 else ".long"} f - .
    .popsection
    .pushsection .altinstr_replacement, "ax"
    7:  call replaced
    .popsection
    .pushsection .altinstructions, "a"
        .long 3b - .; .long 7b - .; .word 3; .word 0; .byte 5, 5
    .popsection
    """
    for word, register in REGISTERS[bits].items():
        source = source.replace("{" + word + "}", register)
    found = analyse(tmp_path, source, bits, suffix=".s")
    depth = 2 * (bits // 8)
    assert sorted(found.sites("f")) == [
        (name, depth, CALL, FRAME) for name in ("enabled", "fixup", "replaced")
    ]
    assert found.summary("f") == Summary.RETURNS


@MODES
def test_an_interrupt_return_leaves_but_one_to_the_next_instruction_goes_on(
    bits: int, tmp_path: Path
) -> None:
    found = assembled(tmp_path, bits, ("f", "push {ax}; iret; call g"))
    assert found.summary("f") == Summary.LEAVES
    assert found.sites("f") == [] and not found.returns("f")


@MODES
def test_bytes_that_are_no_instruction_are_reported_and_do_not_make_a_function_noreturn(
    bits: int, tmp_path: Path
) -> None:
    found = assembled(
        tmp_path, bits, ("f", "push {bx}; .byte 0x0f,0x0a; pop {bx}; ret"), ("caller", "call f; call g; ret")
    )
    assert found.summary("f") == Summary.UNDECODED
    assert [callee for callee, *_ in found.sites("caller")] == ["f", "g"]


# ---------------------------------------------------------------- limits


def test_a_function_with_too_many_pending_branches_says_so(tmp_path: Path) -> None:
    # Every branch target waits while the fall-through is followed first.
    body = (
        "".join(f"je .Lt{i};" for i in range(140_000))
        + "ret;"
        + "".join(f".Lt{i}: nop;" for i in range(140_000))
        + "ret"
    )
    found = assembled(tmp_path, 64, ("f", body))
    assert found.summary("f") & Summary.TOO_COMPLEX
    assert found.returns("f")


def test_huge_displacements_do_not_overflow(tmp_path: Path) -> None:
    found = assembled(
        tmp_path, 64,
        ("f", "1: sub $0x7fffffff,%rsp; sub $0x7fffffff,%rsp; test %eax,%eax; jne 1b; call g; ret"),
        ("big", "mov $0x3fffffff,%eax; sub %rax,%rsp; sub %rax,%rsp; call g; ud2"),
        ("up", "1: add $0x7fffffff,%rsp; test %eax,%eax; jne 1b; call g; ret"),
    )  # fmt: skip
    for name in ("f", "up"):
        assert found.summary(name) & Summary.SWITCHES
        assert found.frame(name) < 1 << 29
    assert found.summary("big") & Summary.UNBOUNDED


# ---------------------------------------------------------------- gcc's own figures

SEEDS = 300
KERNEL = {
    64: ("-mpreferred-stack-boundary=3", "-mno-sse"),
    32: ("-mpreferred-stack-boundary=2", "-mregparm=3"),
}


@MODES
@pytest.mark.parametrize(
    "options", [("-O0",), ("-O2",), ("-Os",), ("-O2", "-maccumulate-outgoing-args"), ("-O2", "kernel")]
)
def test_the_compiler_frame_is_what_gcc_prints(
    bits: int, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The figure in a .su file includes the return address on x86. Rows marked `dynamic,bounded` push
    # arguments; there gcc prints an upper limit, which may count pushes of paths that never meet.
    flags = [flag for option in options for flag in (KERNEL[bits] if option == "kernel" else (option,))]
    source = "\n".join(toolchain.generated_function(seed) for seed in range(SEEDS))
    found = analyse(tmp_path, source, bits, *flags, "-fstack-usage")
    rows = [line.split("\t") for line in (tmp_path / f"code{bits}.su").read_text().splitlines()]
    printed = {place.rsplit(":", 1)[1]: (int(size), how) for place, size, how in rows}
    assert len(printed) == SEEDS + 1
    static, pushing, wrong = 0, 0, []
    for name, (size, how) in printed.items():
        mine = found.compiler_frame(name)
        assert not found.summary(name) & (Summary.UNBALANCED | Summary.GROWS | Summary.TOO_COMPLEX), name
        if how == "static":
            static += 1
            wrong += [(name, size, mine)] if mine != size else []
        else:
            pushing += mine == size
            wrong += [(name, size, mine, how)] if mine > size else []
    dynamic = len(printed) - static
    with capsys.disabled():
        print(f"\n-m{bits} {' '.join(flags)}: {static - len(wrong)} of {static} static rows equal, "
              f"{pushing} of {dynamic} with pushed arguments")  # fmt: skip
    assert not wrong, wrong[:20]
    assert pushing >= 0.95 * dynamic


# ---------------------------------------------------------------- uncompiled


def test_the_uncompiled_tracker_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(analysis.__file__).with_name("track.py")
    spec = importlib.util.spec_from_file_location("uncompiled_track", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for bits in (64, 32):
        text = "\n".join(toolchain.generated_function(seed) for seed in range(60)) + ALLOCATIONS.replace(
            "void g", "void a_g", 1
        ).replace("g(", "a_g(").replace("a_a_", "a_")
        program = link([toolchain.compiled(tmp_path, text, bits, "-O2")])
        code = decode_program(program)
        tables, pointers = read_tables(program), code_pointers(program)
        results: list[Any] = []
        for tracker in (analysis.track_functions, module.track_functions):
            monkeypatch.setattr(analysis, "track_functions", tracker)
            results.append(analysis.analyse_frames(code, tables, pointers))
        compiled, uncompiled = results
        assert len(compiled.site_row) > 200
        for name in compiled.__dataclass_fields__:
            assert np.array_equal(getattr(compiled, name), getattr(uncompiled, name)), name
