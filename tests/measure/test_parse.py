"""Recordings as text: what each format says, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackfit.image.model import InputError
from stackfit.measure.files import read_recording
from stackfit.measure.model import ChainKind
from stackfit.measure.parse import UNRELIABLE, USER, parse_recording

STACK = """        Depth    Size   Location    (3 entries)
        -----    ----   --------
  0)     2128      48   schedule+0x5/0xd0
  1)     2080    1904   wait_woken+0x50/0x70 [virtio_net]
  2)      176     176   entry_SYSCALL_64_after_hwframe+0x6e/0xd8
"""


def symbols(text: str) -> list[list[str]]:
    return [[str(row.place) for row in chain.rows] for chain in parse_recording("test", text).chains]


def test_stack_tracer_with_depths_sizes_and_modules() -> None:
    (chain,) = parse_recording("test", STACK).chains
    assert chain.kind is ChainKind.STACK_TRACER
    assert [(row.depth, row.size) for row in chain.rows] == [(2128, 48), (2080, 1904), (176, 176)]
    assert chain.rows[1].place.module == "virtio_net" and chain.rows[1].place.size == 0x70


def test_several_stacks_in_one_file() -> None:
    assert len(symbols(STACK + "workload b\n" + STACK)) == 2


def test_a_row_out_of_order_is_an_error_with_its_line() -> None:
    with pytest.raises(InputError, match="line 4: row 7 of a stack where 1 is due"):
        parse_recording("test", STACK.replace("  1) ", "  7) "))


def test_events_with_stacks_with_and_without_offsets() -> None:
    text = """# tracer: nop
          bash-12    [000] .....   100.0: mm_page_alloc: page=1
          bash-12    [000] .....   100.0: <stack trace>
 => __alloc_pages+0x1dc/0x330
 => folio_alloc <ffffffff81234567>
 => ext4_write_begin [ext4]
          bash-12    [000] .....   100.1: <user stack trace>
 =>  <00007f0000000000>
          bash-12    [000] .....   100.2: vfs_read+0x0/0x3f0 <-ksys_read+0x6b/0xf0
          bash-12    [000] .....   100.3: fput <-ksys_read
"""
    recording = parse_recording("test", text)
    (chain,) = recording.chains
    assert chain.kind is ChainKind.EVENT
    assert [str(row.place) for row in chain.rows] == [
        "__alloc_pages+0x1dc",
        "folio_alloc",
        "ext4_write_begin [ext4]",
    ]
    assert recording.left_out[USER] == 1
    pairs = [(str(back or caller), callee.symbol) for back, caller, callee, _ in recording.pairs]
    assert pairs == [("ksys_read+0x6b", "vfs_read"), ("ksys_read", "fput")]


def test_perf_script_keeps_the_kernel_part() -> None:
    text = """bash 12 [000] 100.0:     cycles:
\tffffffff81234567 vfs_read+0x17 ([kernel.kallsyms])
\tffffffffc0001234 ext4_file_read_iter+0x34 ([ext4])
\t    7f0000001234 read+0x14 (/lib/x86_64-linux-gnu/libc.so.6)

"""
    recording = parse_recording("test", text)
    assert [str(row.place) for row in recording.chains[0].rows] == [
        "vfs_read+0x17",
        "ext4_file_read_iter+0x34 [ext4]",
    ]
    assert recording.left_out[USER] == 1


def test_a_kernel_log_leaves_out_what_is_unreliable_and_splits_stacks() -> None:
    text = """[  12.0] RIP: 0010:panic_here+0x12/0x30
[  12.0] Call Trace:
[  12.0]  <IRQ>
[  12.0]  dump_stack_lvl+0x45/0x5e
[  12.0]  ? old_stuff+0x1/0x2
[  12.0]  handle_irq+0x5/0x10
[  12.0]  </IRQ>
[  12.0]  <TASK>
[  12.0]  asm_common_interrupt+0x22/0x40
[  12.0] RIP: 0010:busy+0x7/0x20
[  12.0] RSP: 0018:ffffc900 EFLAGS: 00000246
[  12.0]  do_syscall_64+0x5d/0x90 [module]
[  12.0]  </TASK>
[  12.0] Modules linked in: ext4
"""
    recording = parse_recording("test", text)
    assert [[str(row.place) for row in chain.rows] for chain in recording.chains] == [
        ["panic_here+0x12", "dump_stack_lvl+0x45", "handle_irq+0x5"],
        ["asm_common_interrupt+0x22", "busy+0x7", "do_syscall_64+0x5d [module]"],
    ]
    assert recording.chains[1].rows[1].interrupted
    assert recording.left_out[UNRELIABLE] == 1


TRACE_CMD = """cpus=1
              ls-103   [000]    12.408710: function:             vfs_open <-- path_openat
              ls-103   [000]    12.408751: function:             ext4_file_open <-- do_dentry_open
       trace-cmd-105   [000]    37.834608: kernel_stack:         \t=> ftrace_trampoline
\t=> vfs_statx
\t=> vfs_fstatat (ffffffff8e354921)
\t=> 0x0
     rcu_preempt-15    [000]    63.620700: kernel_stack:         \t=> trace_event_raw_event_sched_switch
\t=> __traceiter_sched_switch
\t=> __schedule
"""


def test_what_trace_cmd_reports() -> None:
    recording = parse_recording("test", TRACE_CMD)
    assert [(str(caller), str(callee)) for _, caller, callee, _ in recording.pairs] == [
        ("path_openat", "vfs_open"),
        ("do_dentry_open", "ext4_file_open"),
    ]
    assert [[str(row.place) for row in chain.rows] for chain in recording.chains] == [
        ["vfs_statx", "vfs_fstatat"],
        ["trace_event_raw_event_sched_switch", "__traceiter_sched_switch", "__schedule"],
    ]


def test_a_trace_cmd_file_is_read_by_trace_cmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trace.dat"
    file.write_bytes(b"\x17\x08\x44tracing7\0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install trace-cmd"):
        read_recording(file)
    program = tmp_path / "trace-cmd"
    program.write_text(f"#!/bin/sh\n[ $1 = report ] || exit 3\n/bin/cat <<'END'\n{TRACE_CMD}END\n")
    program.chmod(0o755)
    assert len(read_recording(file).pairs) == 2
    program.write_text("#!/bin/sh\necho no more >&2\nexit 1\n")
    with pytest.raises(InputError, match="trace-cmd report: no more"):
        read_recording(file)


def test_call_edges_with_a_count() -> None:
    recording = parse_recording(
        "test", "return_address,callee,count\n0x10,0x20,7\nvirtio-net:.text+0x5,0x20,1\n"
    )
    assert [(str(back), str(callee), count) for back, _, callee, count in recording.pairs] == [
        (f"{0x10:#018x}", f"{0x20:#018x}", 7),
        ("virtio_net:.text+0x5", f"{0x20:#018x}", 1),
    ]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no recording"),
        ("hello\nworld\n", "no recording"),
        ("return_address,callee\n", "without any"),
        ("return_address,callee\nhere,0x20\n", "line 2: 'here' is neither"),
        ("return_address,callee\n0x10\n", "line 2: 1 fields, not 2"),
        ("return_address,callee,count\n0x10,0x20,-1\n", "'-1' is not a number"),
        ("  0)  10  20  f+0x1/0x2\n", "depth 10 and size 20 cannot be"),
        ("  0)  10  10  f+0x1/0x2\n" + "x" * 70000, "line 2 is longer"),
    ],
)
def test_what_is_no_recording_is_one_line(text: str, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        parse_recording("test", text)
