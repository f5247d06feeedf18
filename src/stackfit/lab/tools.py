"""Programs of the host that a lab machine needs, and what to install where one is missing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stackfit.image.model import InputError, Machine

__all__ = ["compile_bare", "compile_static", "find_busybox", "find_tool", "find_tools"]

_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-i386": "qemu-system-x86",
    "busybox": "busybox-static",
    "gcc": "gcc libc6-dev",
    "mke2fs": "e2fsprogs",
    "ld": "binutils",
    "patch": "patch",
    "xz": "xz-utils",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
# A program without a C library, i386: nothing in it that its source does not show.
_BARE = (
    "-m32", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fomit-frame-pointer", "-march=i686", "-s",
    "-Wl,--build-id=none", "-Wl,-z,noseparate-code",
)  # fmt: skip
_FLAGS = ("-O2", "-static", "-s", "-pthread", "-Wno-unused-result")
_ELF_MACHINE = {Machine.X86_64: 62, Machine.I386: 3}
# Where Debian keeps the kernel's headers of the host; gcc -m32 without gcc-multilib does not look there.
_HEADERS = "/usr/include/x86_64-linux-gnu"


def find_tool(name: str) -> str:
    """The program's path. InputError names the package that has it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise InputError(name, f"not found; apt-get install {_PACKAGES.get(name, name)}")
    return found


def find_tools(names: Sequence[str]) -> dict[str, str]:
    """Their paths by name. InputError names all that are missing, and the packages that have them."""
    found = {name: shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGES.get(name, name) for name in missing))
        raise InputError(", ".join(missing), f"not found; apt-get install {packages}")
    return {name: path for name, path in found.items() if path is not None}


def find_busybox(machine: Machine) -> Path | None:
    """A static busybox of the host that the guest can run; None: it is for another machine (what workloads do
    through a shell is left out then)."""
    path = Path(find_tool("busybox"))
    data = path.read_bytes()
    kind = int.from_bytes(data[18:20], "little") if data[:4] == b"\x7fELF" else 0
    if b"/lib/ld-" in data[:8192] or b"/lib64/ld-" in data[:8192]:
        raise InputError(str(path), "not static; apt-get install busybox-static")
    return path if kind == _ELF_MACHINE[machine] else None


def compile_static(source: Path, target: Path, machine: Machine) -> None:
    """Compile the guest's program. InputError: no compiler for that machine, or it fails."""
    if machine is Machine.X86_64:
        tried = [[find_tool("gcc"), "-m64"]]
        advice = "gcc libc6-dev"
    else:
        find_tool("gcc")
        tried = [["i686-linux-gnu-gcc"], ["gcc", "-m32"], ["gcc", "-m32", "-isystem", _HEADERS]]
        advice = "gcc-multilib (or gcc-i686-linux-gnu libc6-dev-i386-cross)"
    cause = ""
    for compiler in tried:
        if shutil.which(compiler[0]) is None:
            continue
        with tempfile.TemporaryFile() as errors:
            done = subprocess.run([*compiler, *_FLAGS, "-o", target, source], stderr=errors, check=False)
            if done.returncode == 0:
                return
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").splitlines()
            cause = next((one for one in lines if "error" in one), lines[-1] if lines else "")
    raise InputError(
        str(source), f"cannot be compiled for {machine.value}: {cause}; apt-get install {advice}"
    )


def compile_bare(source: Path, target: Path) -> None:
    """Compile a program for i386 that needs no C library. InputError: it fails."""
    done = subprocess.run(
        [find_tool("gcc"), *_BARE, "-o", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        cause = next((one for one in done.stderr.splitlines() if "error" in one), done.stderr.strip()[-200:])
        raise InputError(str(source), f"cannot be compiled: {cause}")
