"""What is read of the running kernel, from trees of files that stand in for /proc and /sys."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from stackfit.image.model import InputError, Machine
from stackfit.measure.live import read_live, record_stack_trace
from stackfit.measure.model import Mark
from stackfit.report.live import live_json

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "stackfit.live-1.json"
BUILD_ID = "00112233445566778899aabbccddeeff00112233"
TABLE = "        Depth    Size   Location    (1 entries)\n  0)     4000      48   schedule+0x5/0x90\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    note = b"\x06\0\0\0\x04\0\0\0\x01\x01\0\0Linux\0\0\0\0\0\0\0"
    build = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + bytes.fromhex(BUILD_ID)
    files = {
        "proc/sys/kernel/osrelease": b"6.1.0\n",
        "proc/meminfo": b"MemTotal: 1 kB\nKernelStack:        2608 kB\n",
        "proc/loadavg": b"1.0 1.0 1.0 2/162 999\n",
        "proc/vmstat": b"nr_free_pages 7\nnr_kernel_stack 2608\nkstack_4k 12\n",
        "proc/sys/kernel/stack_tracer_enabled": b"0\n",
        "sys/kernel/tracing/stack_max_size": b"1234\n",
        "sys/kernel/tracing/stack_trace": TABLE.encode(),
        "sys/kernel/notes": note + build,
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def valid(document: object) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(document)))


def test_what_everybody_may_read_and_why_the_rest_was_not(root: Path) -> None:
    document = live_json(read_live(root))
    valid(document)
    assert document["release"] == "6.1.0" and document["build_id"] == BUILD_ID
    assert document["stack_bytes"] == 2608 << 10 and document["threads"] == 162
    assert document["counters"] == {"kstack_4k": 12, "nr_kernel_stack": 2608}
    (unread,) = document["unread"]
    assert unread["what"] == "marks of stacks"
    assert "kcore: No such file or directory" in unread["why"]


def test_marks_of_the_running_kernel(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (root / "proc/kcore").write_bytes(b"")
    marks = (Mark("process", "init (1)", 3000, 16384, "user", "init", 1 << 40),)
    asked = []

    def of(debug: str | None, machine: Machine) -> tuple[Mark, ...]:
        asked.append((debug, machine))
        return marks

    document = live_json(read_live(root, "vmlinux", of))
    valid(document)
    assert asked == [("vmlinux", Machine.X86_64)] and document["unread"] == []
    assert document["marks"]["greatest"] == 3000 and document["stacks"] == 163

    def refused(debug: str | None, machine: Machine) -> tuple[Mark, ...]:
        raise InputError("/proc/kcore", "no debug information")

    (unread,) = live_json(read_live(root, None, refused))["unread"]
    assert "no debug information" in unread["why"]


def test_nothing_there_at_all_is_told_thing_by_thing(tmp_path: Path) -> None:
    document = live_json(read_live(tmp_path))
    valid(document)
    assert document["threads"] is None and document["stack_bytes"] is None
    assert len(document["unread"]) >= 5


def test_the_stack_tracer_is_switched_on_and_put_back(root: Path) -> None:
    enabled = root / "proc/sys/kernel/stack_tracer_enabled"
    greatest = root / "sys/kernel/tracing/stack_max_size"
    seen = []

    def wait(seconds: float) -> None:
        seen.append((seconds, enabled.read_text(), greatest.read_text()))

    assert record_stack_trace(7, root, wait) == TABLE
    assert seen == [(7, "1", "0")]
    assert enabled.read_text() == "0" and greatest.read_text() == "1234"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait_and_the_tracer_is_put_back(root: Path, number: int) -> None:
    enabled = root / "proc/sys/kernel/stack_tracer_enabled"
    before = signal.getsignal(signal.SIGTERM)

    def wait(seconds: float) -> None:
        os.kill(os.getpid(), number)
        time.sleep(seconds)

    assert record_stack_trace(60, root, wait) == TABLE
    assert enabled.read_text() == "0" and signal.getsignal(signal.SIGTERM) is before


def test_the_tracer_is_put_back_where_a_part_of_that_fails(root: Path) -> None:
    enabled = root / "proc/sys/kernel/stack_tracer_enabled"

    def wait(seconds: float) -> None:
        enabled.unlink()
        enabled.mkdir()

    with pytest.raises(InputError, match="stack_tracer_enabled"):
        record_stack_trace(1, root, wait)
    assert (root / "sys/kernel/tracing/stack_max_size").read_text() == "1234"


def test_what_only_root_may_do_is_given_up_before_anything_is_made_of_what_was_read(root: Path) -> None:
    (root / "proc/kcore").write_bytes(b"")
    calls = []

    def marks(debug: str | None, machine: Machine) -> tuple[Mark, ...]:
        calls.append("marks")
        return ()

    read_live(root, None, marks, lambda: calls.append("given up"))
    assert calls == ["marks", "given up"]  # with drgn it is given up between opening and reading


def test_capabilities_are_gone_for_good() -> None:
    """In a process of its own: they would be gone here, too."""
    code = (
        "import sys, subprocess; from stackfit.measure.privileges import drop_capabilities as drop;"
        "assert drop(); print(open('/proc/self/status').read());"
        "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = re.findall(r"^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs):\s+(\w+)$", done.stdout, re.M)
    assert len(found) == 12
    for name, value in found:
        if name == "NoNewPrivs":
            assert value == "1"
        elif name != "CapBnd" or os.geteuid() == 0:
            assert int(value, 16) & ~2 == 0  # CAP_DAC_OVERRIDE


def test_a_tracer_that_is_on_is_read_and_left_alone(root: Path) -> None:
    enabled = root / "proc/sys/kernel/stack_tracer_enabled"
    enabled.write_text("1\n")

    def wait(seconds: float) -> None:
        raise AssertionError("there is nothing to wait for")

    assert record_stack_trace(7, root, wait) == TABLE
    assert enabled.read_text() == "1\n"
    assert (root / "sys/kernel/tracing/stack_max_size").read_text() == "1234\n"


def test_a_kernel_without_the_tracer_is_one_line(root: Path) -> None:
    (root / "sys/kernel/tracing/stack_trace").unlink()
    with pytest.raises(InputError, match="CONFIG_STACK_TRACER"):
        record_stack_trace(1, root, lambda seconds: None)
    (root / "proc/sys/kernel/stack_tracer_enabled").unlink()
    with pytest.raises(InputError, match="No such file"):
        record_stack_trace(1, root, lambda seconds: None)
