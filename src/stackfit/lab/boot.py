"""One run of the experiment: a kernel of ours, its program as init, QEMU's console kept."""

from __future__ import annotations

import gzip
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from stackfit.image.model import InputError
from stackfit.lab.console import GuestLog
from stackfit.lab.initramfs import newc
from stackfit.lab.processes import running
from stackfit.lab.tools import compile_bare, find_tool

__all__ = ["GuestRun", "boot", "build_guest"]

_PAGE = 4096
_DIRECTORIES = ("dev", "proc", "sys", "mnt")
# One instruction takes 2^2 ns: 250 million a second, a machine of the time. The guest's clock counts
# instructions, so that a latency is the same on a busy host.
_ICOUNT = "shift=2"
_WORDS = "console=ttyS0,115200 panic=-1 loglevel=7"


@dataclass(frozen=True)
class GuestRun:
    """`memory`, `disk`, `swap`: MiB (0: none). `words`: of experiment.c. `ext4`: the disk has a file system.
    `network`: QEMU's own, from which nothing gets out. `files`: of the guest, by name. `timeout`: seconds."""

    kernel: Path
    memory: int
    words: Mapping[str, str | int] = field(default_factory=dict)
    plain_words: Sequence[str] = ()
    disk: int = 0
    swap: int = 0
    ext4: bool = False
    network: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)
    timeout: int = 900


def build_guest(directory: Path) -> Path:
    """Compile the guest's program there."""
    init = directory / "init"
    with resources.as_file(resources.files("stackfit.lab") / "guest" / "experiment.c") as source:
        compile_bare(source, init)
    return init


def boot(run: GuestRun, init: Path, directory: Path) -> GuestLog:
    """Boot, wait until the machine is off. `directory`: for what the machine needs. InputError: a tool is
    missing,
    or time is out."""
    entries = [(name, 0o040755, b"", 0, 0) for name in _DIRECTORIES]
    entries.append(("dev/console", 0o020600, b"", 5, 1))
    entries.append(("init", 0o100755, init.read_bytes(), 0, 0))
    entries += [(name, 0o100644, path.read_bytes(), 0, 0) for name, path in run.files.items()]
    initramfs, console = directory / "initramfs.gz", directory / "console"
    initramfs.write_bytes(gzip.compress(newc(entries), 1, mtime=0))
    console.write_bytes(b"")
    words = [_WORDS, *run.plain_words, *(f"{name}={value}" for name, value in run.words.items())]
    command = [
        find_tool("qemu-system-i386"), "-accel", "tcg", "-M", "pc", "-cpu", "pentium3", "-m", str(run.memory),
        "-icount", _ICOUNT + ("" if run.disk else ",sleep=off"), "-kernel", str(run.kernel),
        "-initrd", str(initramfs), "-append", " ".join(words),
        "-display", "none", "-monitor", "none", "-no-reboot", "-serial", f"file:{console}",
    ]  # fmt: skip
    for name, size in (("disk", run.disk), ("swap", run.swap)):
        if size:
            path = directory / f"{name}.img"
            _make_disk(path, size << 20, swap=name == "swap", ext4=run.ext4)
            command += ["-drive", f"file={path},format=raw,if=virtio,cache=unsafe"]
    if run.network:
        command += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]
    else:
        command += ["-nic", "none"]
    with running(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + run.timeout
        while process.poll() is None and time.monotonic() < end:
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(5.0, max(end - time.monotonic(), 0.1)))
        status = process.poll()
        if status and process.stderr is not None:
            said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            raise InputError(command[0], said[-1] if said else f"ended with status {status}")
    text = console.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    if status is None:
        text += "\n@@ timeout\n"
    return GuestLog(text)


def _make_disk(path: Path, size: int, swap: bool, ext4: bool) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        if swap:  # include/linux/swap.h: union swap_header
            file.seek(1024)
            file.write(struct.pack("<III", 1, size // _PAGE - 1, 0))
            file.seek(_PAGE - 10)
            file.write(b"SWAPSPACE2")
    if ext4 and not swap:
        subprocess.run(
            [find_tool("mke2fs"), "-q", "-t", "ext4", "-F", path], check=True, stdin=subprocess.DEVNULL
        )
