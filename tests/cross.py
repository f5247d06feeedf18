"""Cross compilers for tests: each machine's flags, and programs made with them; skips where there is none."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from stackfit.frames.analyse import analyse_frames
from stackfit.frames.model import Frames
from stackfit.frames.switches import find_switches
from stackfit.image.load import load_program
from stackfit.image.model import Program
from stackfit.image.pointers import code_pointers
from stackfit.image.tables import read_tables
from stackfit.isa.code import Code, decode_program

TARGETS = {
    "cortex-m0": ("arm-none-eabi", ("-mcpu=cortex-m0", "-mthumb")),
    "cortex-m3": ("arm-none-eabi", ("-mcpu=cortex-m3", "-mthumb")),
    "cortex-m4f": ("arm-none-eabi", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")),
    "cortex-a7": ("arm-none-eabi", ("-mcpu=cortex-a7", "-marm", "-mfloat-abi=hard", "-mfpu=neon-vfpv4")),
    "rv32imac": ("riscv64-unknown-elf", ("-march=rv32imac", "-mabi=ilp32")),
    "rv32imac-save": ("riscv64-unknown-elf", ("-march=rv32imac", "-mabi=ilp32", "-msave-restore")),
    "rv64gc": ("riscv64-unknown-elf", ("-march=rv64gc", "-mabi=lp64d", "-mcmodel=medany")),
    "aarch64": ("aarch64-linux-gnu", ()),
}
NATIVE = {"x86_64": (), "i386": ("-m32",)}  # the machine's own gcc
COMMON = ("-ffreestanding", "-fno-stack-protector", "-w")
# What functions of scripts/generate_c.py call.
CALLEES = """
int sink(void *p, ...) { return *(char *)p; }
int leaf(int a) { return a; }
long long wide(long long a, int b) { return a + b; }
double real(double a, double b) { return a; }
struct pair { int a, b; };
struct block { long long w[5]; };
struct block fill(int a, struct pair b) { struct block r = {{a, b.a}}; return r; }
int (*hooks[8])(int, int) = {0};
volatile int port;
void *memset(void *to, int value, __SIZE_TYPE__ count) { return to; }
void *memcpy(void *to, const void *from, __SIZE_TYPE__ count) { return to; }
"""


@functools.cache
def has_compiler(target: str) -> bool:
    return shutil.which(f"{TARGETS[target][0]}-gcc") is not None


def build(directory: Path, target: str, sources: list[Path], *options: str) -> Path:
    """A linked image without an entry; what gcc writes beside it (`.su`) stands in the directory."""
    if target in NATIVE:
        return _build_native(directory, target, sources, *options)
    if not has_compiler(target):
        pytest.skip(f"no {TARGETS[target][0]}-gcc")
    prefix, flags = TARGETS[target]
    objects = []
    for source in sources:
        objects.append(directory / f"{source.stem}.o")
        command = [f"{prefix}-gcc", *flags, *COMMON, *options, "-c", str(source), "-o", str(objects[-1])]
        subprocess.run(command, check=True, cwd=directory)
    image = directory / "image.elf"
    place = ("-Wl,-Ttext=0x80000000",) if prefix.startswith("riscv") else ()
    command = [f"{prefix}-gcc", *flags, "-nostdlib", "-static", "-Wl,-e,0", *place, "-o", str(image)]
    subprocess.run([*command, *map(str, objects), "-lgcc"], check=True, capture_output=True)
    return image


def _build_native(directory: Path, target: str, sources: list[Path], *options: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    image = directory / "image.elf"
    flags = (*NATIVE[target], *COMMON, "-fno-pie", "-no-pie", "-nostdlib", "-static", "-fcf-protection=none")
    command = ["gcc", *flags, *options, "-Wl,-e,0", "-o", str(image), *map(str, sources)]
    subprocess.run(command, check=True, cwd=directory, capture_output=True)
    return image


@dataclass(frozen=True, eq=False)
class Tracked:
    program: Program
    code: Code
    frames: Frames

    def named(self, name: str) -> int:
        found = self.code.functions.named(name)
        assert len(found) == 1, name
        return found[0]


def track(image: Path) -> Tracked:
    program = load_program([image])
    code = decode_program(program)
    frames = analyse_frames(
        code, read_tables(program), code_pointers(program), switches=find_switches(program, code)
    )
    return Tracked(program, code, frames)
