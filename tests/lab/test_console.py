"""What a guest of the experiment wrote, read back."""

from __future__ import annotations

from stackfit.lab.console import GuestLog
from stackfit.lab.experiment import outcome

CONSOLE = """\
[    0.100000] Linux version 6.1.192
@@ before 0 /proc/meminfo
MemTotal:          25516 kB
[    0.200000] a line of the kernel's between them
MemFree:           10788 kB
@@ end
@@ before 0 /proc/buddyinfo
Node 0, zone   Normal   2414      6      3      3      4      3      2      0      0      0      0
@@ end
@@ before 0 /proc/vmstat
allocstall_dma 0
allocstall_normal 2
pgscan_direct 100
@@ end
@@ latency 1000 3000 2000
@@ made 50 /proc/vmstat
allocstall_dma 1
allocstall_normal 6
pgscan_direct 190
@@ end
@@ latency 9000
"""
KILLED = """\
[    1.000000] init invoked oom-killer: gfp_mask=0x400dc0(GFP_KERNEL_ACCOUNT|__GFP_ZERO), order=1,
oom_score_adj=0
[    1.000001] Call Trace:
[    1.000002]  dump_stack+0xd/0x10
[    1.000003]  out_of_memory+0x123/0x345
[    1.000004]  copy_process+0x111/0x999
[    1.000005] Normal: 1493*4kB (UM) 0*8kB 0*16kB = 5972kB
[    1.000006] Tasks state (memory values in pages):
[    1.000007] [      1]     0     1       61        4     4096        0             0 init
[    1.000008] [     30]     0    30       61        1     4096        0             0 init
[    1.000009] [     31]     0    31       61        1     4096        0             0 init
[    1.000010] Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled
"""


def test_a_run_that_the_killer_ended() -> None:
    found = outcome(GuestLog(CONSOLE + KILLED))
    assert (found.children, found.stopped, found.order, found.caller) == (2, "oom", 1, "copy_process")
    assert found.free_before_kb == 10788
    assert found.buddyinfo_before[:3] == (2414, 6, 3)
    assert (found.free_after_kb, found.buddyinfo_after) == (5972, (1493, 0, 0))
    assert (found.p50, found.p99) == (3000, 9000)
    # Over all zones, from the first child to the last snapshot.
    assert (found.counters["allocstall"], found.counters["pgscan_direct"]) == (5, 90)


def test_a_run_that_fork_ended() -> None:
    end = "@@ failed 371 /proc/meminfo\nMemFree: 9000 kB\n@@ end\n@@ error 11\n@@ stop error\n"
    found = outcome(GuestLog(CONSOLE + end))
    assert (found.children, found.stopped, found.order) == (371, "errno 11", None)


def test_an_overflow_and_what_the_kernel_says_of_it() -> None:
    said = "stackfit: context process levels 504 top 116 stack process left 12 end intact"
    safe = GuestLog(f"[    0.5] {said}\n@@ stop overflow\n")
    assert safe.overflow is not None
    assert (safe.overflow.levels, safe.overflow.left, safe.overflow.intact) == (504, 12, True)
    assert safe.complaints == ()
    broken = GuestLog(
        "[    0.5] Kernel panic - not syncing: corrupted stack end detected inside scheduler\n"
        "[    0.6] Kernel panic - not syncing: corrupted stack end detected inside scheduler\n"
    )
    assert broken.overflow is None and broken.stopped == "panic"
    assert broken.complaints == ("Kernel panic - not syncing: corrupted stack end detected inside scheduler",)


def test_stack_marks() -> None:
    log = GuestLog(
        "@@ mark hardirq 1012\n@@ mark softirq 0\n"
        "[    0.5] init (30) used greatest stack depth: 6100 bytes left\n"
        "[    0.6] task:kswapd0  state:S stack: 5200 pid:   20 ppid:     2 flags:0x00000000\n"
    )
    assert log.marks == {"hardirq": 1012, "softirq": 0}
    assert log.least_left == 5200
    assert GuestLog("").least_left is None
