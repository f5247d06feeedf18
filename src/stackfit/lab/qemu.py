"""A virtual machine of its own process group, ended with what started it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stackfit.image.model import InputError, Machine
from stackfit.lab.monitor import MONITOR, dump_memory
from stackfit.lab.processes import running
from stackfit.lab.tools import find_tool

__all__ = ["MachineOptions", "run_machine"]

_POLL = 0.25  # seconds
_DISK = 256 << 20  # bytes; sparse


@dataclass(frozen=True)
class MachineOptions:
    """`memory` MiB, `timeout` seconds; `words` are added to the kernel's command line."""

    memory: int = 384
    cpus: int = 1
    timeout: int = 900
    words: str = ""


def run_machine(
    machine: Machine,
    kernel: Path,
    initramfs: Path,
    command_line: str,
    directory: Path,
    options: MachineOptions,
    told: Callable[[str], None],
    core: Path | None = None,
) -> bytes:
    """Boot, wait until the guest turns itself off, return what it sent. `told` gets its `lab: …` lines.

    `core`: the guest does not turn itself off but waits for its memory to be written there. The console is
    kept in `directory`/console. InputError: a tool is missing, time is out, or the guest ended
    without a recording.
    """
    qemu = find_tool("qemu-system-x86_64" if machine is Machine.X86_64 else "qemu-system-i386")
    disks = [directory / "ext4.disk", directory / "swap.disk"]
    for disk in disks:
        with disk.open("wb") as file:
            file.truncate(_DISK)
    subprocess.run(
        [find_tool("mke2fs"), "-q", "-t", "ext4", "-F", disks[0]], check=True, stdin=subprocess.DEVNULL
    )
    console, sent = directory / "console", directory / "sent"
    for path in (console, sent):
        path.write_bytes(b"")
    command = [
        qemu, "-accel", "tcg", "-M", "pc", "-cpu", "max,la57=off" if machine is Machine.X86_64 else "max",
        "-m", str(options.memory), "-smp", str(options.cpus),
        "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", command_line,
        "-drive", f"file={_escaped(disks[0])},format=raw,if=virtio",
        "-drive", f"file={_escaped(disks[1])},format=raw,if=none,id=swap",
        "-device", "nvme,drive=swap,serial=lab",
        "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=",
        "-display", "none", "-monitor", "none", "-no-reboot",
        "-serial", f"file:{_escaped(console)}", "-serial", f"file:{_escaped(sent)}",
        *(MONITOR if core is not None else ()),
    ]  # fmt: skip
    pipe = subprocess.PIPE if core is not None else None  # QEMU's monitor
    with running(command, stdin=pipe or subprocess.DEVNULL, stdout=pipe, stderr=subprocess.PIPE) as process:
        _wait(process, console, options.timeout, told, core)
    data = sent.read_bytes()
    if b"@@ end of recording" not in data:
        lines = console.read_text("utf-8", "replace").split("\n")
        last = " | ".join(line.strip() for line in lines if line.strip())[-400:]
        raise InputError(
            str(kernel), f"the guest ended without a recording; its console ends: {last or '(empty)'}"
        )
    return data


def _wait(
    process: subprocess.Popen[bytes],
    console: Path,
    timeout: int,
    told: Callable[[str], None],
    core: Path | None = None,
) -> None:
    """Until the machine is off, or its memory is written; hands on new lines of its console."""
    end = time.monotonic() + timeout
    read, rest = 0, b""
    while True:
        running = process.poll() is None
        with console.open("rb") as file:
            file.seek(read)
            new = file.read()
        read += len(new)
        *lines, rest = (rest + new).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").strip()
            if text.startswith("lab: "):
                told(text.removeprefix("lab: "))
            if text == "lab: dump" and core is not None:
                dump_memory(process, core, end - time.monotonic())
                return
        if not running:
            break
        if time.monotonic() > end:
            raise InputError(
                str(console),
                f"the guest did not end within {timeout} s (--timeout); it was at: {_last(console)}",
            )
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL)
    if process.returncode and process.stderr is not None:
        said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        raise InputError(str(process.args[0] if isinstance(process.args, list) else "qemu"), said[-1] if said
        else f"ended with status {process.returncode}")  # fmt: skip


def _last(console: Path) -> str:
    lines = [line.strip() for line in console.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "nothing"


def _escaped(path: Path) -> str:
    """QEMU's option parser takes a comma for the next option unless it is doubled."""
    return str(path).replace(",", ",,")
