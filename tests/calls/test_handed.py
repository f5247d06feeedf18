"""What is called on another stack, and through a static call, where only data or the caller says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stackfit.calls.graph import build_calls
from stackfit.calls.model import CallKind, Calls, Reason
from stackfit.calls.resolve import Resolution, resolve_indirect
from stackfit.frames.analyse import analyse_frames
from stackfit.image.link import link
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import Code, decode_program
from toolchain import compiled

FLAGS = ("-O2", "-mcmodel=kernel", "-mno-red-zone")
COMMON = """
#define NOINLINE __attribute__((noinline, noclone, noipa))
extern void spend(void *);
"""


def calls_of(directory: Path, source: str, typed: bool = False) -> tuple[Code, Calls]:
    image = compiled(directory, COMMON + source, 64, *FLAGS, *(("-gbtf",) if typed else ()))
    if typed and image.section(".BTF") is None:
        pytest.skip("this gcc writes no BTF")
    program = link([image])
    code, tables, pointers = decode_program(program), read_tables(program), code_pointers(program)
    frames = analyse_frames(code, tables, pointers)
    resolution = resolve_indirect(program, code, tables, frames, pointers) if typed else Resolution()
    calls = build_calls(program, code, tables, frames, [], resolution=resolution, pointers=pointers)
    return code, calls


def sites(code: Code, calls: Calls, function: str, kind: CallKind) -> list[int]:
    (index,) = code.functions.named(function)
    return np.flatnonzero((calls.function == index) & (calls.kind == kind)).tolist()


def callees(code: Code, calls: Calls, site: int) -> list[str]:
    number = int(calls.candidates[site])
    return sorted(code.functions.names[one] for one in calls.candidate_sets[number]) if number >= 0 else []


SWITCHER = """
void switcher(void *stack, void (*function)(void *), void *argument);
__asm__(".text\\n.type switcher, @function\\nswitcher:\\n"
    " push %rbp\\n mov %rsp,%rbp\\n mov %rsp,(%rdi)\\n mov %rdi,%rsp\\n mov %rdx,%rdi\\n"
    " call *%rsi\\n leave\\n ret\\n.size switcher, .-switcher\\n");
static NOINLINE void handler(void *p) { spend(p); }
static NOINLINE void other(void *p) { spend(p); }
NOINLINE void first(void *stack, void *p) { switcher(stack, handler, p); spend(p); }
NOINLINE void second(void *stack, void *p) { switcher(stack, other, p); spend(p); }
"""


def test_a_caller_hands_over_what_runs_on_the_other_stack(tmp_path: Path) -> None:
    code, calls = calls_of(tmp_path, SWITCHER)
    for caller, callee in (("first", "handler"), ("second", "other")):
        (switch,) = sites(code, calls, caller, CallKind.STACK_SWITCH)
        (direct,) = (
            site
            for site in sites(code, calls, caller, CallKind.DIRECT)
            if callees(code, calls, site) == ["switcher"]
        )
        assert callees(code, calls, switch) == [callee]
        assert calls.reason[switch] == Reason.NONE
        assert calls.depth[switch] == 0  # nothing but what the caller left there is on that stack
        assert calls.under[switch] == calls.depth[direct] + 16  # a return address, a saved rbp
        assert calls.return_address[switch] == 0  # the handler returns into the switcher
    (own,) = sites(code, calls, "switcher", CallKind.STACK_SWITCH)
    assert callees(code, calls, own) == ["handler", "other"]
    assert calls.reason[own] == Reason.NONE


def test_a_caller_that_hands_over_an_unknown_function_is_open(tmp_path: Path) -> None:
    source = SWITCHER + "NOINLINE void any(void *s, void (*f)(void *)) { switcher(s, f, s); spend(s); }"
    code, calls = calls_of(tmp_path, source)
    (switch,) = sites(code, calls, "any", CallKind.STACK_SWITCH)
    (own,) = sites(code, calls, "switcher", CallKind.STACK_SWITCH)
    assert callees(code, calls, switch) == []
    assert callees(code, calls, own) == ["handler", "other"]
    assert calls.reason[[switch, own]].tolist() == [Reason.INDIRECT] * 2


TRAMPOLINES = """
int __SCT__open_0(long), __SCT__close_0(long), __SCT__read_0(long), __SCT__tp_func_x(long);
__asm__(".text\\n"
    ".irp name, open_0, close_0, read_0, tp_func_x\\n"
    ".type __SCT__\\\\name, @function\\n__SCT__\\\\name: ret\\n .size __SCT__\\\\name, .-__SCT__\\\\name\\n"
    ".endr\\n");
NOINLINE void __static_call_update(void *key, void *trampoline, void *function) { spend(function); }
NOINLINE int security_open(long n) { return __SCT__open_0(n) + 1; }
NOINLINE int security_close(long n) { return __SCT__close_0(n) + 1; }
NOINLINE int security_read(long n) { return __SCT__read_0(n) + 1; }
"""


def test_a_trampoline_that_is_updated_through_data_is_open(tmp_path: Path) -> None:
    source = """
    struct entry { void *key, *trampoline; };
    struct entry table[] = {{ 0, __SCT__open_0 }}, point = { 0, __SCT__tp_func_x };
    NOINLINE void update(struct entry *e, void *f) {
        __static_call_update(e->key, e->trampoline, f);
        spend(e);
    }
    """
    code, calls = calls_of(tmp_path, TRAMPOLINES + source)
    opened = {
        code.functions.names[int(calls.function[site])]
        for site in np.flatnonzero(calls.reason == Reason.UPDATED)
    }
    assert opened == {"__SCT__open_0"}  # of tracepoints the assumption is that tracing is off


def test_without_such_an_update_nothing_is_set(tmp_path: Path) -> None:
    source = "struct entry { void *key, *trampoline; } table[] = {{ 0, __SCT__open_0 }};"
    _, calls = calls_of(tmp_path, TRAMPOLINES + source)
    assert not (calls.reason == Reason.UPDATED).any()


def test_security_hooks_tell_which_row_of_trampolines_they_are_set_in(tmp_path: Path) -> None:
    source = """
    struct lsm_static_call { void *key, *trampoline; struct security_hook_list *hl; void *active; };
    union security_list_options { int (*open)(long); int (*close)(long); };
    struct security_hook_list {
        struct lsm_static_call *scalls; union security_list_options hook; const void *id;
    };
    struct lsm_static_calls_table { struct lsm_static_call close[1], open[1]; };
    struct lsm_static_calls_table static_calls_table = {{{ 0, __SCT__close_0 }}, {{ 0, __SCT__open_0 }}};
    struct lsm_static_call elsewhere = { 0, __SCT__read_0 };
    static NOINLINE int a_open(long n) { return n; }
    static NOINLINE int b_open(long n) { return n + 1; }
    struct security_hook_list a_hooks[] = {{ static_calls_table.open, { .open = a_open } }};
    struct security_hook_list b_hooks[] = {{ static_calls_table.open, { .open = b_open } }};
    NOINLINE void add(struct security_hook_list *h, int n) {
        for (int i = 0; i < n; i++)
            __static_call_update(h[i].scalls->key, h[i].scalls->trampoline, h[i].hook.open);
        spend(h);
    }
    NOINLINE void boot(void) { add(a_hooks, 1); add(b_hooks, 1); spend(0); }
    """
    code, calls = calls_of(tmp_path, TRAMPOLINES + source, typed=True)
    (opened,) = sites(code, calls, "__SCT__open_0", CallKind.TAIL)
    assert callees(code, calls, opened) == ["a_open", "b_open"]
    assert calls.reason[opened] == Reason.NONE
    # Outside of the rows that hooks name nothing is known.
    for name in ("__SCT__close_0", "__SCT__read_0"):
        (unknown,) = sites(code, calls, name, CallKind.TAIL)
        assert callees(code, calls, unknown) == []
        assert calls.reason[unknown] == Reason.UPDATED
