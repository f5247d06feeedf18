"""What a guest sends, as a recording; what the lab needs of the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackfit.image.load import load_image
from stackfit.image.model import InputError, Machine
from stackfit.lab.capture import read_sent, recording_of
from stackfit.lab.initramfs import newc
from stackfit.lab.modules import load_order, module_files
from stackfit.lab.qemu import MachineOptions, run_machine
from stackfit.lab.run import STEPS, record
from stackfit.lab.tools import find_tool

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "sample" / "bin" / "x86_64"
GUEST = Path(__file__).resolve().parents[2] / "src" / "stackfit" / "lab" / "guest" / "guest.c"
FORMAT = """@@ file /events/ftrace/function/format
	field:unsigned long ip;	offset:8;	size:8;	signed:0;
	field:unsigned long parent_ip;	offset:16;	size:8;	signed:0;
@@ end
@@ file /stext
ffffffff81000000 T _stext
ffffffff81100000 T _etext
@@ end
"""


def test_pairs_lie_in_the_kernel_or_in_the_module_that_was_loaded_then() -> None:
    module = load_image(SAMPLE / "vendor_blob.ko")
    kernel = load_image(SAMPLE / "vmlinux")
    text = next(section for section in module.sections if section.executable)
    name = str(module.module)
    sent = read_sent(
        "guest",
        f"L 1 {name}\nS {name} {text.name} 0xffffffffc0001000\nU 2 {name}\n"
        "P 0 ffffffff81000010 ffffffff81000020\n"
        "P 1 ffffffff81000010 ffffffffc0001000\n"
        f"P 1 {0xFFFFFFFFC0001000 + text.size:x} ffffffff81000020\n"  # behind a call at the section's end
        "P 3 ffffffff81000010 ffffffffc0001000\n"  # after it was removed
        "# events 9\n" + FORMAT + "@@ end of recording\n",
    )
    recording = recording_of("guest", sent, [kernel, module])
    assert sorted((str(back), str(callee)) for back, _, callee, _ in recording.pairs) == [
        (f"{0xFFFFFFFF81000010:#018x}", f"{0xFFFFFFFF81000020:#018x}"),
        (f"{0xFFFFFFFF81000010:#018x}", f"{name}:{text.name}+0x0"),
        (f"{name}:{text.name}+{text.size:#x}", f"{0xFFFFFFFF81000020:#018x}"),
    ]
    assert sum(recording.left_out.values()) == 1


def test_stacks_have_the_name_of_their_workload_and_empty_ones_are_none() -> None:
    sent = read_sent(
        "guest",
        "@@ stack fork\n        Depth    Size   Location    (1 entries)\n        -----    ----   --------\n"
        "  0)      176     176   entry+0x5/0x10\n@@ end\n@@ stack nothing\n        Depth\n@@ end\n"
        "@@ end of recording\n",
    )
    recording = recording_of("guest", sent, [load_image(SAMPLE / "vmlinux")])
    assert [chain.name for chain in recording.chains] == ["lab fork"]


@pytest.mark.parametrize("text", ["", "P 0 1 2\n", "P zero 1 2\n@@ end of recording\n"])
def test_what_is_cut_short_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"cut short|line 1"):
        read_sent("guest", text)


def test_the_guest_knows_the_same_workloads() -> None:
    source = GUEST.read_text()
    table = source[source.index("} steps[] = {") :]
    for group, steps in STEPS.items():
        for step in steps:
            assert f'{{ "{group}", "{step}", ' in table
    assert table.count('{ "') == sum(map(len, STEPS.values()))


def test_an_unknown_workload_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match="no such workload"):
        record(SAMPLE / "vmlinux", [], ["nonsense"], MachineOptions())


def test_modules_that_are_not_there_are_left_out_unless_asked_for() -> None:
    files = module_files([SAMPLE])
    assert load_order(files).boot == ()
    (name,) = files
    assert load_order(files, [name]).text() == f"boot {name}\n"
    with pytest.raises(InputError, match="no such module"):
        load_order(files, ["absent"])


@pytest.mark.skipif(not Path("/usr/bin/cpio").exists(), reason="no cpio: apt-get install cpio")
def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    archive = newc([("d", 0o040755, b"", 0, 0), ("d/f", 0o100644, b"hello", 0, 0)])
    done = subprocess.run(["cpio", "-i", "-d", "--quiet"], input=archive, cwd=tmp_path, check=False)
    assert done.returncode == 0 and (tmp_path / "d" / "f").read_bytes() == b"hello"


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install qemu-system-x86"):
        find_tool("qemu-system-x86_64")


def fake_qemu(directory: Path, script: str) -> None:
    for name, text in (("qemu-system-x86_64", script), ("mke2fs", "exit 0")):
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)


def run_fake(directory: Path, timeout: int) -> bytes:
    return run_machine(
        Machine.X86_64, Path("kernel"), Path("initramfs"), "words", directory,
        MachineOptions(timeout=timeout), lambda text: None,
    )  # fmt: skip


def test_time_is_out_and_nothing_is_left_running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_qemu(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InputError, match="did not end within 1 s"):
        run_fake(tmp_path, 1)
    assert ended(int((tmp_path / "child").read_text()))


def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    fake_qemu(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; wait")
    program = (
        "import sys; sys.path[:0] = [sys.argv[1]]; from pathlib import Path;"
        "from stackfit.image.model import Machine;"
        "from stackfit.lab.qemu import *;"
        "run_machine(Machine.X86_64, Path('k'), Path('i'), '', Path(sys.argv[2]), MachineOptions(), print)"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    source = str(GUEST.parents[3])
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-c", program, source, str(tmp_path)],
            env=environment,
            stderr=subprocess.DEVNULL,
            # What runs in a shell's background ignores SIGINT, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        child = tmp_path / "child"
        while not child.exists() or not child.read_text().strip():
            time.sleep(0.05)
        process.send_signal(number)
        process.wait(30)
        assert ended(int(child.read_text()))
        child.unlink()


def test_a_guest_that_ends_early_shows_its_console(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_qemu(tmp_path, f"echo 'Kernel panic: no init' > {tmp_path}/console")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InputError, match="Kernel panic: no init"):
        run_fake(tmp_path, 20)


def ended(process: int) -> bool:
    """Whether a process is gone, or a zombie that its new parent has not fetched yet."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
