#!/usr/bin/env python3
"""Build the i386 kernels of the process experiment, and its init.

Usage: build.py [--lab DIR] [--jobs N] VARIANT...        (VARIANT: A, B, A-trace, B-trace)

A has 8 KiB stacks (order 1, stock), B 4 KiB (order 0); both come from the same
source, Debian's linux-source-6.1, with patches/i386-4kstacks.patch applied, and
the same configs/base.config.  `-trace` adds configs/trace.config.
"""

import argparse
import gzip
import os
import shutil
import subprocess
from pathlib import Path

from stackfit.lab.initramfs import newc

CROSS = "i686-linux-gnu-"
HERE = Path(__file__).resolve().parent


def run(*command: str | Path, cwd: Path | None = None, log: Path | None = None) -> None:
    """Run `command` at low priority; its output goes to `log` when given."""
    args = ["nice", *map(str, command)]
    if log is None:
        subprocess.run(args, cwd=cwd, check=True)
        return
    with log.open("w") as out:
        subprocess.run(args, cwd=cwd, check=True, stdout=out, stderr=subprocess.STDOUT)


def unpack_source(lab: Path) -> Path:
    """Fetch and unpack Debian's kernel source once, and patch it."""
    source = lab / "src" / "linux-source-6.1"
    if not source.exists():
        download = lab / "dl"
        download.mkdir(parents=True, exist_ok=True)
        run("apt-get", "download", "linux-source-6.1", cwd=download)
        package = next(download.glob("linux-source-6.1_*.deb"))
        run("dpkg-deb", "-x", package, download)
        source.parent.mkdir(parents=True, exist_ok=True)
        run("tar", "-C", source.parent, "-xJf", download / "usr/src/linux-source-6.1.tar.xz")
    if "4KSTACKS" not in (source / "arch/x86/Kconfig.debug").read_text():
        run("patch", "-p1", "-i", HERE / "patches" / "i386-4kstacks.patch", cwd=source)
    return source


def build_kernel(lab: Path, source: Path, variant: str, jobs: int) -> Path:
    """Configure and build one variant; return its bzImage."""
    out = lab / "build" / variant
    out.mkdir(parents=True, exist_ok=True)
    make: list[str | Path] = ["make", "-C", source, "ARCH=i386", f"CROSS_COMPILE={CROSS}", f"O={out}"]
    run(*make, "allnoconfig", log=out / "config.log")
    base, _, trace = variant.partition("-")
    fragments = ["base", base] + ([trace] if trace else [])
    with (out / ".config").open("a") as config:
        for name in fragments:
            config.write((HERE / "configs" / f"{name}.config").read_text())
    run(*make, "olddefconfig", log=out / "config.log")
    run(*make, f"-j{jobs}", "bzImage", log=out / "build.log")
    return out / "arch/x86/boot/bzImage"


def build_init(lab: Path) -> Path:
    """Compile init.c without a libc and put it into an initramfs."""
    binary = lab / "build" / "init"
    run(
        f"{CROSS}gcc", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie",
        "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
        "-fomit-frame-pointer", "-march=i686", "-Wall", "-Wextra", "-Wl,--build-id=none",
        "-Wl,-z,noseparate-code", "-o", binary, HERE.parents[1] / "src/stackfit/lab/guest/experiment.c",
    )  # fmt: skip
    run(f"{CROSS}strip", binary)
    directories = [(name, 0o040755, b"", 0, 0) for name in ("dev", "proc", "sys", "mnt")]
    console = ("dev/console", 0o020600, b"", 5, 1)
    archive = lab / "build" / "initramfs.gz"
    archive.write_bytes(
        gzip.compress(newc([*directories, console, ("init", 0o100755, binary.read_bytes(), 0, 0)]), mtime=0)
    )
    return archive


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lab", type=Path, default=Path("build/lab"))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("variants", nargs="*", metavar="VARIANT")
    arguments = parser.parse_args()
    arguments.lab.joinpath("build").mkdir(parents=True, exist_ok=True)
    build_init(arguments.lab)
    if not arguments.variants:
        return
    source = unpack_source(arguments.lab)
    for variant in arguments.variants:
        image = build_kernel(arguments.lab, source, variant, arguments.jobs)
        shutil.copy(image, arguments.lab / "build" / f"bzImage-{variant}")
        print(variant, image.stat().st_size)


if __name__ == "__main__":
    main()
