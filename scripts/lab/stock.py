#!/usr/bin/env python3
"""Run the process experiment on a distribution's kernel in QEMU.

Usage: stock.py [--lab DIR] KERNEL MEMORY_MB STATE-KIND[-boost]...

STATE: fresh, or locked=KB (so much touched, every second page freed, the rest locked). KIND: process
(wait_init.c) or thread (init.c, i386 only). -boost leaves vm.watermark_boost_factor at its default; else it
is 0.
Each leaves runs/debian-MEMORY-STATE-KIND[-boost].log; costs.py and run.py's outcome() read it.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
from pathlib import Path

import build
import run

HERE = Path(__file__).resolve().parent


def archive(lab: Path) -> Path:
    """An initramfs with wait_init.c, linked with the C library."""
    binary = lab / "build" / "wait_init"
    build.run(f"{build.CROSS}gcc", "-O2", "-static", "-Wall", "-Wextra", "-o", binary, HERE / "wait_init.c")
    directories = [(name, 0o040755, b"", 0, 0) for name in ("dev", "proc", "sys", "mnt")]
    console = ("dev/console", 0o020600, b"", 5, 1)
    target = lab / "build" / "initramfs-wait.gz"
    target.write_bytes(
        gzip.compress(
            build.newc([*directories, console, ("init", 0o100755, binary.read_bytes(), 0, 0)]), mtime=0
        )
    )
    return target


def boot(lab: Path, kernel: Path, memory: str, case: str) -> Path:
    """Run one case; return its log."""
    state, kind, *boost = case.split("-")
    state, _, touch = state.partition("=")
    words = "" if boost else "boost=0 "
    if kind == "thread":
        words += f"norandmaps kind=thread state={state} every=500" + (f" touch={touch}" if touch else "")
        image = build.build_init(lab)
    else:
        words += f"touch={touch}" if touch else ""
        image = archive(lab)
    big = "amd64" in kernel.name
    log = lab / "runs" / f"debian-{'amd64-' if big else ''}{memory}-{state}-{'-'.join([kind, *boost])}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        "nice", "qemu-system-x86_64" if big else "qemu-system-i386", "-accel", "tcg", "-M", "pc",
        "-cpu", "max" if big else "pentium3", "-m", memory, "-kernel", str(kernel), "-initrd", str(image),
        "-append", f"console=ttyS0,115200 panic=-1 loglevel=7 {words}",
        "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none", "-serial", f"file:{log}",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=run.TIMEOUT)
    return log


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", type=Path, default=Path("build/lab"))
    parser.add_argument("kernel", type=Path)
    parser.add_argument("memory", metavar="MEMORY_MB")
    parser.add_argument("cases", nargs="+", metavar="CASE")
    arguments = parser.parse_args()
    arguments.lab.joinpath("build").mkdir(parents=True, exist_ok=True)
    for case in arguments.cases:
        log = boot(arguments.lab, arguments.kernel, arguments.memory, case)
        print(run.outcome(case, log), flush=True)


if __name__ == "__main__":
    main()
